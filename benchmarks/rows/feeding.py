"""Images from disk: building the store beside a DataLoader, and training from the store beside ready batches."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from fitting import InMemory, objective_of
from jpegs import write_jpegs
from measuring import Measured, finish, in_turn, side_by_side
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from ssl_inpaint import catalog
from ssl_inpaint.batches import Batches, ImageBatches
from ssl_inpaint.data.device_store import near
from ssl_inpaint.data.sources import FileImages
from ssl_inpaint.data.store import ImageStore, open_store
from ssl_inpaint.plans import Recipe
from ssl_inpaint.pretext.inpainting import Inpainting
from ssl_inpaint.runtime import Runtime, has_fast_bf16
from ssl_inpaint.train import FitConfig, fit

NAME = "feeding"
WIDTH, HEIGHT = 504, 336  # 3 : 2, so that stored widths are whole; torchvision rounds others down
WARM_UP_STEPS, LAST_STEPS = 4, 4  # those at the end, where no batch is prepared any more, are not timed
STEPS = {"cuda": 200, "cpu": 20}  # timed in a round
FEEDING_REACH, BUILDING_REACH = 0.95, 1.0
PIXEL_TOLERANCE = 2.0  # of 255, the mean difference from torchvision's pixels: JPEG files are decoded at a lower scale
LOSS_TOLERANCE = 1e-3  # relative; on a CPU the losses are equal


def measure(device: torch.device, rounds: int, is_small: bool) -> Iterator[Measured]:
    """Lines for building and reopening the store, then for training from it."""
    name = "quick" if is_small else "paper" if device.type == "cuda" else "compact"
    recipe: Recipe = catalog.load("recipes", name).build()
    batch = 4 if is_small else recipe.train.batch_size
    count = 8 if is_small else max(500, 4 * batch)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        images = FileImages(root / "images", write_jpegs(root / "images", count, WIDTH, HEIGHT))
        yield from _building(images, root, recipe.crops.store_size, min(rounds, 3))
        store = open_store(images, recipe.crops.store_size, root / "cache")
        for line in _feeding(store, recipe, batch, device, rounds, 2 if is_small else STEPS[device.type]):
            yield replace(line, size=f"recipe {name}, {line.size}")


def _building(images: FileImages, root: Path, short_side: int, rounds: int) -> Iterator[Measured]:
    workers, numbers, count = os.cpu_count() or 1, itertools.count(), len(images)
    loader = _loader(root / "images", short_side, workers)

    def build() -> ImageStore:
        return open_store(images, short_side, root / f"cache-{next(numbers)}")

    def build_again() -> ImageStore:
        return open_store(images, short_side, root / "cache-0")

    store = build()
    size = f"{count:,} JPEG files of {WIDTH} x {HEIGHT}, short side {short_side}"
    agreement, words = _same_pixels(store, loader), f"a DataLoader over ImageFolder with Resize, {workers} workers"
    device = f"cpu, {workers} workers"
    found = side_by_side(build, lambda: _read_all(loader), rounds)
    yield found.measured("building the store", size, words, count, "images/s", BUILDING_REACH, agreement, device)
    again = side_by_side(build_again, lambda: _read_all(loader), rounds)
    words = f"the next epoch of {words}"
    yield again.measured("opening the store again", size, words, count, "images/s", BUILDING_REACH, agreement, device)


def _feeding(
    store: ImageStore, recipe: Recipe, batch: int, device: torch.device, rounds: int, steps: int
) -> Iterator[Measured]:
    runtime, size = Runtime(device, has_fast_bf16(device)), recipe.crops.size
    fed = ImageBatches(near(store, device), None, recipe.crops, batch, 0)
    ready = InMemory(fed.at(0).images.to(device))
    options = ["", *(name for name in ("cuda_graph",) if device.type == "cuda" and name in FitConfig.model_fields)]
    for option in options:
        train = recipe.train.model_copy(update={"batch_size": batch, **({option: True} if option else {})})
        agreement = _same_loss(recipe, train, fed, ready, runtime)
        objectives = [objective_of(recipe, size) for _ in range(2)]
        ours = _stepping(objectives[0], fed, train, runtime, steps)
        found = in_turn(ours, _stepping(objectives[1], ready, train, runtime, steps), rounds)
        yield found.measured(
            what="training from the store" + (f", train.{option}" if option else ""),
            size=f"{size} px, batch {batch}",
            compared_with="the same step on one batch that is on the device already",
            count=steps * batch,
            unit="images/s",
            reach=FEEDING_REACH,
            agreement=agreement,
            device=runtime.describe(),
        )


def _stepping(
    objective: Inpainting, batches: Batches, train: FitConfig, runtime: Runtime, steps: int
) -> Callable[[], float]:
    """Runs `fit` and returns the seconds of `steps` steps in its middle, while batches are prepared throughout."""
    total = WARM_UP_STEPS + steps + LAST_STEPS
    timed = train.model_copy(update={"steps": total, "sample_every_steps": 1, "checkpoint_every_steps": total})

    def run() -> float:
        times = list[float]()

        def on_sample(step: int) -> None:
            if step in (WARM_UP_STEPS, WARM_UP_STEPS + steps):
                finish(runtime.device)
                times.append(time.perf_counter())

        fit(objective, batches, timed, seed=0, runtime=runtime, on_sample=on_sample)
        return times[1] - times[0]

    return run


def _same_loss(recipe: Recipe, train: FitConfig, fed: Batches, ready: Batches, runtime: Runtime) -> str:
    """The first step's loss from the store beside that on its ready batch, equal weights and draws."""
    once = train.model_copy(update={"steps": 1, "log_every_steps": 1})
    found = []
    for batches in (fed, ready):
        objective = objective_of(recipe, recipe.crops.size)
        found.append(fit(objective, batches, once, seed=0, runtime=runtime).losses["generator"])
    apart = abs(found[0] - found[1]) / found[1]
    if apart > LOSS_TOLERANCE:
        raise ValueError(f"the loss from the store is {found[0]}, on its ready batch {found[1]}")
    return f"first step's losses equal to {apart:.1g}, tolerance {LOSS_TOLERANCE:g}"


def _loader(root: Path, short_side: int, workers: int) -> DataLoader[tuple[Tensor, int]]:
    resize = transforms.Compose([transforms.Resize(short_side), transforms.PILToTensor()])
    return DataLoader(ImageFolder(str(root), resize), batch_size=64, num_workers=workers, collate_fn=list)


def _read_all(loader: DataLoader[tuple[Tensor, int]]) -> int:
    return sum(len(examples) for examples in loader)


def _same_pixels(store: ImageStore, loader: DataLoader[tuple[Tensor, int]]) -> str:
    """Stored images beside the loader's, the first eight; ValueError where they are not the same pictures."""
    differences = []
    for position in range(8):
        theirs = loader.dataset[position][0].permute(1, 2, 0).float()
        ours = torch.tensor(store.image(position)).float()
        differences.append(float((ours - theirs).abs().mean()))
    worst = max(differences)
    if worst > PIXEL_TOLERANCE:
        raise ValueError(f"stored pixels differ from torchvision's by {worst:.2f} of 255 in the mean")
    return f"pixels equal to {worst:.2g} of 255 in the mean, tolerance {PIXEL_TOLERANCE:g}"
