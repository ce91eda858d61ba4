"""What grows with the data set: building, opening and reading the store at 1,000, 10,000 and 100,000 images.

Speed an image is compared with that at the smallest size: 1 where cost grows linearly, more where it grows slower. The
memory is what the process holds for itself (RssAnon), without the mapped pixels, which the system may drop at any time.
The files are small, 80 x 64 pixels, so that 100,000 of them can be made on the spot; 500 pictures repeat.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jpegs import write_jpegs
from measuring import Measured, seconds_of

from ssl_inpaint.batches import Crops, ImageBatches
from ssl_inpaint.data.folder import Config, build
from ssl_inpaint.data.store import open_store

NAME = "growth"
IS_OPTIONAL = True  # minutes, and 100,000 files
COUNTS = (1_000, 10_000, 100_000)
REACH = 0.9  # of the smallest size's speed an image
CROPS = Crops(size=48, store_size=64, smallest_share=0.75, largest_share=0.75)
BATCH = 100
OPENINGS = 3  # the fastest counts: at 1,000 images it takes hundredths of a second


@dataclass(frozen=True)
class Costs:
    """Seconds and megabytes of one size."""

    count: int
    seconds: dict[str, float]
    megabytes: float  # the most seen while batches were read


def measure(device: torch.device, rounds: int, is_small: bool) -> Iterator[Measured]:
    """Lines for each size above the smallest; one round each, as sizes differ tenfold."""
    smallest: Costs | None = None
    for count in (100, 200) if is_small else COUNTS:
        with tempfile.TemporaryDirectory() as temporary:
            costs = costs_of(Path(temporary), count)
        if smallest is None:
            smallest = costs
            continue
        yield from _lines(costs, smallest)


def costs_of(folder: Path, count: int) -> Costs:
    """Builds, opens and reads a store of that many images once."""
    write_jpegs(folder / "images", count, 80, 64)
    cache = folder / "cache"

    def opened() -> ImageBatches:
        split = build(folder / "images", "pretrain", Config())  # lists the folder too, as a run does
        return ImageBatches(open_store(split.images, CROPS.store_size, cache), None, CROPS, BATCH, 0)

    seconds = {"building the store": seconds_of(opened)}
    seconds["opening the store again"] = min(seconds_of(opened) for _ in range(OPENINGS))
    batches, most = opened(), 0.0

    def epoch() -> None:
        nonlocal most
        for step in range(count // BATCH):
            batches.at(step)
            if step % 100 == 0:
                most = max(most, _anonymous_megabytes())

    seconds["an epoch of crops"] = seconds_of(epoch)
    return Costs(count, seconds, most)


def _lines(costs: Costs, smallest: Costs) -> Iterator[Measured]:
    memory = f"{costs.megabytes:.0f} MB of own memory beside {smallest.megabytes:.0f} MB"
    for what, seconds in costs.seconds.items():
        ours, other = costs.count / seconds, smallest.count / smallest.seconds[what]
        yield Measured(
            what=f"{what}, growth",
            size=f"{costs.count:,} JPEG files of 80 x 64",
            compared_with=f"the same of {smallest.count:,}, an image",
            ours=ours,
            other=other,
            unit="images/s",
            ratio=ours / other,
            lowest=ours / other,
            highest=ours / other,
            reach=REACH,
            agreement=memory,
            device=f"cpu, {os.cpu_count()} workers",
            rounds=1,
        )


def _anonymous_megabytes() -> float:
    """What the process holds that is no file's; 0 where the system does not say (it is Linux that does)."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return sum(float(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024
