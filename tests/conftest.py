"""One thread for each of the processes that share the tests: two would wait for each other."""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job in the background; tests send it to themselves
    signal.signal(signal.SIGINT, signal.default_int_handler)
