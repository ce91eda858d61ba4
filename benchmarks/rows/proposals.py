"""Selective search over a folder of images, on all cores beside one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from measuring import Measured, side_by_side
from PIL import Image, ImageDraw

from ssl_inpaint.data.proposals import ProposalConfig, open_proposals
from ssl_inpaint.data.sources import FileImages
from ssl_inpaint.progress import say

NAME = "proposals"
IMAGES_A_CORE = 12  # few enough to be found again in each round, and enough that no core waits long for the last
SIDES = (375, 500)  # pixels: a photograph of VOC 2007


def measure(device: torch.device, rounds: int, is_small: bool) -> Iterator[Measured]:
    """One line, on the CPU: boxes found anew in each round, as a cache would answer the second one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores == 1:
        say("Left out: selective search on all cores, for there is one.")
        return
    images, sides = (6, (48, 64)) if is_small else (IMAGES_A_CORE * cores, SIDES)
    config = ProposalConfig(mode="fast")
    with TemporaryDirectory() as folder:
        found_in = _folder(Path(folder) / "images", images, sides)
        caches = (Path(folder) / str(number) for number in count())
        all_of_them = open_proposals(found_in, config, cores, next(caches))
        if all_of_them.digest != open_proposals(found_in, config, 1, next(caches)).digest:
            raise ValueError("the boxes depend on the number of cores")
        found = side_by_side(
            lambda: open_proposals(found_in, config, cores, next(caches)),
            lambda: open_proposals(found_in, config, 1, next(caches)),
            rounds,
            warm_up=0,
        )
    yield found.measured(
        what="selective search, fast mode",
        size=f"{images} images of {sides[1]} x {sides[0]} px, {cores} cores",
        compared_with="the same on one core",
        count=images,
        unit="images/s",
        reach=0.9 * cores,
        agreement="boxes equal to the last bit",
        device=f"cpu, {cores} threads",
    )


def _folder(root: Path, images: int, sides: tuple[int, int]) -> FileImages:
    """Ellipses of several colours under a little noise, as PNG files."""
    root.mkdir()
    random = np.random.default_rng(0)
    height, width = sides
    for number in range(images):
        image = Image.new("RGB", (width, height), tuple(random.integers(0, 256, 3).tolist()))
        draw = ImageDraw.Draw(image)
        for _ in range(12):
            left, top = random.integers(0, width), random.integers(0, height)
            right, bottom = left + random.integers(8, width // 2), top + random.integers(8, height // 2)
            draw.ellipse((left, top, right, bottom), fill=tuple(random.integers(0, 256, 3).tolist()))
        noisy = np.asarray(image) + random.normal(0, 8, (height, width, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / f"{number}.png")
    return FileImages(root, [f"{number}.png" for number in range(images)])
