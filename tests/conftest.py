"""One thread for each of the processes that share the tests: two would wait for each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported
