"""What a call costs beside other work on the machine: the processor's time, and the memory a process has for itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

WATCHED_EVERY_SECONDS = 0.002


@dataclass(frozen=True)
class Spent:
    """What one call took."""

    cpu_seconds: float  # of all threads
    seconds: float  # by the clock


def spent_by(function: Callable[[], object], least_seconds: float = 0.0) -> Spent:
    """The mean of as many calls as take so much of the processor's time; one at least."""
    cpu, wall, calls, spent = time.process_time(), time.perf_counter(), 0, 0.0
    while not calls or spent < least_seconds:
        function()
        calls, spent = calls + 1, time.process_time() - cpu
    return Spent(spent / calls, (time.perf_counter() - wall) / calls)


def own_mebibytes() -> float:
    """RssAnon of this process, without mapped files, which the system may drop at any time; nan where it is not told.

    It is Linux that tells.
    """
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), float("nan"))


def peak_mebibytes(function: Callable[[], object], device: torch.device | None = None) -> float:
    """The most that one call held beyond what was held before it: of a GPU's memory, or as `own_mebibytes`."""
    if device is not None and device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        allocated = torch.cuda.memory_allocated(device)
        function()
        return (torch.cuda.max_memory_allocated(device) - allocated) / 2**20
    before, seen, is_done = own_mebibytes(), list[float](), threading.Event()

    def watch() -> None:
        while not is_done.wait(WATCHED_EVERY_SECONDS):
            seen.append(own_mebibytes())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        function()
    finally:
        is_done.set()
        watching.join()
    return max([before, *seen]) - before
