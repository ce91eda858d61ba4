"""What all tests share: one thread for each process of theirs (two would wait for each other), and the benchmarks."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job in the background; tests send it to themselves
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a module of the benchmarks folder as its scripts do, and forgets it afterwards."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or BENCHMARKS).startswith(str(BENCHMARKS)):
            del sys.modules[name]
