"""Crops from a store that is not in memory, as of a data set larger than it, beside plain slices of a mapped file.

2,000 stored images of 256 x 341, 0.5 GB in the folder for temporary files (`TMPDIR` names another), read in random
order with the file's pages dropped from memory before every round: the disk is what is measured.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from measuring import Measured, in_turn, seconds_of
from torch import Tensor

from ssl_inpaint.batches import EpochOrder
from ssl_inpaint.data.store import ImageStore
from ssl_inpaint.progress import say

NAME = "streaming"
IS_OPTIONAL = True  # 0.5 GB of disk, which must be a disk and no file system in memory
COUNT, HEIGHT, WIDTH, SIZE = 2_000, 256, 341, 227
LEFT, TOP = 57, 14  # of the window that is cut: the middle of an image
BATCH, STEPS = 64, 10
REACH = 1.0


def measure(device: torch.device, rounds: int, is_small: bool) -> Iterator[Measured]:
    """One line."""
    if not hasattr(os, "posix_fadvise"):
        say("Left out: streaming, as this system cannot be asked to drop a file from memory.")
        return
    count, batch = (20, 4) if is_small else (COUNT, BATCH)
    with tempfile.TemporaryDirectory() as temporary:
        mapped = written(Path(temporary) / "pixels.bin", count)
        store = store_of(mapped)
        everything = torch.arange(batch)
        if not torch.equal(_ours(store, everything), _plain(mapped, everything)):
            raise ValueError("the store's crops are not the slices of its file")
        ours = _reading(mapped, lambda positions: _ours(store, positions), batch)
        other = _reading(mapped, lambda positions: _plain(mapped, positions), batch)
        yield in_turn(ours, other, rounds).measured(
            what="crops of stored images on disk",
            size=f"{count:,} images of {WIDTH} x {HEIGHT}, {SIZE} px, batch {batch}",
            compared_with="slices of the mapped file, one after the other",
            count=STEPS * batch,
            unit="images/s",
            reach=REACH,
            agreement="crops equal",
            device="cpu, 1 worker",
        )


def written(file: Path, count: int) -> np.memmap[Any, Any]:
    """Noise, which no file system makes smaller, mapped as N x H x W x 3 uint8."""
    generator = np.random.default_rng(0)
    with file.open("wb") as stream:
        for _ in range(count):
            stream.write(generator.bytes(HEIGHT * WIDTH * 3))
        stream.flush()
        os.fsync(stream.fileno())  # what is not on disk yet cannot be dropped
    return np.memmap(file, np.uint8, "r", shape=(count, HEIGHT, WIDTH, 3))


def store_of(mapped: np.ndarray) -> ImageStore:
    """The images as a store has them."""
    places, flat = np.arange(len(mapped)), mapped.reshape(-1).view(np.ndarray)
    heights, widths = np.full(len(mapped), HEIGHT), np.full(len(mapped), WIDTH)
    offsets = places * (HEIGHT * WIDTH * 3)
    return ImageStore(
        (flat,), 0 * places, offsets, heights, widths, heights, widths, places, count=len(mapped), digest=""
    )


def drop_pages(mapped: np.memmap[Any, Any]) -> None:
    """Leaves nothing of the file in memory."""
    cast(mmap.mmap, mapped.base).madvise(mmap.MADV_DONTNEED)  # what is mapped stays otherwise
    with Path(str(mapped.filename)).open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _reading(mapped: np.memmap[Any, Any], cut: Callable[[Tensor], Tensor], batch: int) -> Callable[[], float]:
    """Seconds of a round of steps, the same in both ways."""
    order = EpochOrder(len(mapped), batch, 0)

    def run() -> float:
        drop_pages(mapped)
        return seconds_of(lambda: [cut(order.at(step)) for step in range(STEPS)])

    return run


def _ours(store: ImageStore, positions: Tensor) -> Tensor:
    windows = np.tile((LEFT, TOP, SIZE, SIZE), (len(positions), 1))
    return store.crops(positions, windows, SIZE, np.zeros(len(positions), bool))


def _plain(mapped: np.ndarray, positions: Tensor) -> Tensor:
    cut = np.stack([mapped[place, TOP : TOP + SIZE, LEFT : LEFT + SIZE] for place in positions.tolist()])
    return torch.from_numpy(cut).permute(0, 3, 1, 2)
