"""What the C library does with memory that is freed: kept for the next step, or returned to the system.

A training step on a CPU frees and takes the same few gigabytes again and again. glibc returns large blocks at once, so
every step waits for the system to clear the same pages anew; on virtual machines that is dearer than the arithmetic
on them. Nothing here changes a result. Where the C library is another one, nothing happens.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Of glibc's malloc.h, and the values that it has by itself once blocks of every size have been freed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_LARGEST_THRESHOLD = 32 << 20  # bytes: what glibc's own threshold grows to
_DEFAULT_MMAP_MAX = 65536


@contextmanager
def kept() -> Iterator[None]:
    """Freed memory stays with the process inside, and is returned at the end: the peak is held throughout."""
    keep()
    try:
        yield
    finally:
        return_freed()


def keep() -> None:
    """From now on blocks of any size come from the heap, which never shrinks."""
    _set(_MMAP_MAX, 0)
    _set(_TRIM_THRESHOLD, -1)


def map_large() -> None:
    """From now on large blocks are mapped and returned, as glibc does by itself; the heap stays as it is."""
    _set(_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
    _set(_MMAP_MAX, _DEFAULT_MMAP_MAX)


def return_freed() -> None:
    """From now on as glibc by itself; what the heap holds free goes back to the system."""
    map_large()
    _set(_TRIM_THRESHOLD, 2 * _LARGEST_THRESHOLD)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(parameter, value)
