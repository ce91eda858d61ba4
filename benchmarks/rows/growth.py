"""What grows with the data set: building, opening and reading the store at 1,000, 10,000 and 100,000 images.

Images a second of the processor's time are compared with those at the smallest size, which is measured before the
larger one and behind it: 1 where cost grows linearly, more where it grows slower. Pages are in memory throughout. The
memory is what the process holds for itself, without the mapped pixels, which the system may drop at any time. The files
are small, 80 x 64 pixels, so that 100,000 of them can be made on the spot; 500 pictures repeat.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from costs import Spent, own_mebibytes, peak_mebibytes, spent_by
from jpegs import write_jpegs
from measuring import Measured

from ssl_inpaint.batches import Crops, ImageBatches
from ssl_inpaint.data.folder import Config, build
from ssl_inpaint.data.store import open_store

NAME = "growth"
IS_OPTIONAL = True  # minutes, and 100,000 files
COUNTS = (1_000, 10_000, 100_000)
REACH = 0.9  # of the smallest size's speed an image
CROPS = Crops(size=48, store_size=64, smallest_share=0.75, largest_share=0.75)
BATCH = 100
LEAST_SECONDS = 1.0  # of the processor's time: what takes less is repeated


@dataclass(frozen=True)
class Costs:
    """Time by what was done, and memory, of one size."""

    count: int
    spent: dict[str, Spent]
    building_mebibytes: float  # at most, beyond what was held before
    mebibytes: float  # the most seen while batches were read


def measure(device: torch.device, rounds: int, is_small: bool) -> Iterator[Measured]:
    """Lines for each size above the smallest, which is measured before it and behind it."""
    smallest, *larger = (100, 200) if is_small else COUNTS
    least = 0.0 if is_small else LEAST_SECONDS
    for count in larger:
        before, costs, behind = (_measured(n, least) for n in (smallest, count, smallest))
        yield from _lines(costs, before, behind)


def _measured(count: int, least_seconds: float) -> Costs:
    with tempfile.TemporaryDirectory() as temporary:
        return costs_of(Path(temporary), count, least_seconds)


def costs_of(folder: Path, count: int, least_seconds: float) -> Costs:
    """Builds, opens and reads a store of that many images; what takes less than `least_seconds` is repeated."""
    write_jpegs(folder / "images", count, 80, 64)
    cache, spent, most = folder / "cache", dict[str, Spent](), 0.0

    def opened() -> ImageBatches:
        split = build(folder / "images", "pretrain", Config())  # lists the folder too, as a run does
        return ImageBatches(open_store(split.images, CROPS.store_size, cache), None, CROPS, BATCH, 0)

    def building() -> None:
        spent["building the store"] = spent_by(opened)

    held = peak_mebibytes(building)
    spent["opening the store again"] = spent_by(opened, least_seconds)
    batches, steps = opened(), itertools.count()

    def epoch() -> None:
        nonlocal most
        for step in itertools.islice(steps, count // BATCH):
            batches.at(step)
            if step % 100 == 0:
                most = max(most, own_mebibytes())

    epoch()  # the first one also maps every page
    spent["an epoch of crops"] = spent_by(epoch, least_seconds)
    return Costs(count, spent, held, most)


def _lines(costs: Costs, *smallest: Costs) -> Iterator[Measured]:
    for what, spent in costs.spent.items():
        each = [some.count / some.spent[what].cpu_seconds for some in smallest]
        ours, other = costs.count / spent.cpu_seconds, statistics.mean(each)
        yield Measured(
            what=f"{what}, growth",
            size=f"{costs.count:,} JPEG files of 80 x 64",
            compared_with=f"the same of {smallest[0].count:,}, an image",
            ours=ours,
            other=other,
            unit="images/s of a core",
            ratio=ours / other,
            lowest=ours / max(each),
            highest=ours / min(each),
            reach=REACH,
            agreement=f"{spent.seconds:.3g} s in all; {_memory(what, costs)} beside {_memory(what, smallest[-1])}",
            device=f"cpu, {os.cpu_count()} workers",
            rounds=len(smallest),
        )


def _memory(what: str, costs: Costs) -> str:
    return f"{costs.building_mebibytes if 'building' in what else costs.mebibytes:.0f} MiB of own memory"
