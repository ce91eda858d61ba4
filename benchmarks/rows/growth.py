"""What grows with the data set: building, opening and reading the store at 1,000, 10,000 and 100,000 images.

Images a second of the processor's time are compared with those at the smallest size, a round of each in turn: 1 where
cost grows linearly, more where it grows slower. Pages are in memory throughout. The memory is what the process holds
for itself, without the mapped pixels, which the system may drop at any time. The files are small, 80 x 64 pixels, so
that 100,000 of them can be made on the spot; 500 pictures repeat.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from costs import own_mebibytes, peak_mebibytes, spent_by
from jpegs import write_jpegs
from measuring import Measured, in_turn

from ssl_inpaint.batches import Crops, ImageBatches
from ssl_inpaint.data.folder import Config, build
from ssl_inpaint.data.store import open_store

NAME = "growth"
IS_OPTIONAL = True  # minutes, and 100,000 files
COUNTS = (1_000, 10_000, 100_000)
REACH = 0.9  # of the smallest size's speed an image
CROPS = Crops(size=48, store_size=64, smallest_share=0.75, largest_share=0.75)
BATCH = 100
LEAST_SECONDS = 4.0  # of the processor's time: what takes less is repeated, for its speed changes from second to second
MOST_BUILT = 2  # times that a store is built


class Folder:
    """So many image files and their store."""

    def __init__(self, root: Path, count: int) -> None:
        self.root, self.count = root, count
        write_jpegs(root / "images", count, 80, 64)
        self.mebibytes = {"building the store": 0.0, "an epoch of crops": 0.0}  # the most seen of its own
        self._batches: ImageBatches | None = None
        self._steps = itertools.count()

    def build(self) -> None:
        """Decodes everything anew."""
        shutil.rmtree(self.root / "cache", ignore_errors=True)
        self._note("building the store", peak_mebibytes(self.open))

    def open(self) -> None:
        """Lists the folder too, as a run does."""
        split = build(self.root / "images", "pretrain", Config())
        self._batches = ImageBatches(
            open_store(split.images, CROPS.store_size, self.root / "cache"), None, CROPS, BATCH, 0
        )

    def epoch(self) -> None:
        """Every image once."""
        if self._batches is None:
            raise ValueError("a store is opened before it is read")
        for step in itertools.islice(self._steps, self.count // BATCH):
            self._batches.at(step)
            if step % 100 == 0:
                self._note("an epoch of crops", own_mebibytes())

    def _note(self, what: str, mebibytes: float) -> None:
        self.mebibytes[what] = max(self.mebibytes[what], mebibytes)


def measure(device: torch.device, rounds: int, is_small: bool) -> Iterator[Measured]:
    """Lines for each size above the smallest, beside it."""
    smallest, *larger = (100, 200) if is_small else COUNTS
    for count in larger:
        with tempfile.TemporaryDirectory() as temporary:
            large, small = Folder(Path(temporary) / "large", count), Folder(Path(temporary) / "small", smallest)
            least = 0.0 if is_small else LEAST_SECONDS
            yield _line("building the store", Folder.build, large, small, min(rounds, MOST_BUILT), least)
            yield _line("opening the store again", Folder.open, large, small, rounds, least)
            large.epoch()  # the first one also maps every page
            yield _line("an epoch of crops", Folder.epoch, large, small, rounds, least)


def _line(
    what: str, work: Callable[[Folder], None], large: Folder, small: Folder, rounds: int, least_seconds: float
) -> Measured:
    """The processor's time an image of both."""
    walls = list[float]()

    def taken(folder: Folder) -> float:
        spent = spent_by(lambda: work(folder), least_seconds)
        if folder is large:
            walls.append(spent.seconds)
        return spent.cpu_seconds / folder.count

    found = in_turn(lambda: taken(large), lambda: taken(small), rounds)
    held = [f"{one.mebibytes[what]:.0f} MiB of own memory" for one in (large, small) if what in one.mebibytes]
    return found.measured(
        what=f"{what}, growth",
        size=f"{large.count:,} JPEG files of 80 x 64",
        compared_with=f"the same of {small.count:,}, an image",
        count=1,
        unit="images/s of a core",
        reach=REACH,
        agreement="; ".join([f"{min(walls):.3g} s in all", *([" beside ".join(held)] if held else [])]),
        device=f"cpu, {os.cpu_count()} workers",
    )
