"""Batches of whole images with what is annotated in them: for detection and segmentation.

An image is shown at a short side that is drawn for it, mirrored or not, and padded at the right and bottom with the
mean colour; boxes and masks move with it. As all batches, they are functions of the step number alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional

from ssl_inpaint.batches import EpochOrder, rows_of
from ssl_inpaint.config import Settings
from ssl_inpaint.core import Batch, Masks, Objects, Truth
from ssl_inpaint.data.store import ImageStore, join
from ssl_inpaint.data.store_files import MAX_ASPECT
from ssl_inpaint.images import IMAGENET_MEAN
from ssl_inpaint.metrics import NOT_COUNTED
from ssl_inpaint.runtime import seed_for

T = TypeVar("T")


class Scenes(Settings):
    """How whole images are shown."""

    store_size: int = Field(192, ge=16)  # short side of the stored images, in pixels
    sides: tuple[PositiveInt, ...] = Field((192,), min_length=1)  # short sides in training; one is drawn for each image
    test_side: int = Field(192, ge=16)
    longest: int = Field(512, ge=16)  # pixels; an image whose long side would be above it is shown smaller
    flip: bool = True  # half of the images mirrored, in training

    @model_validator(mode="after")
    def _sides_are_in_order(self) -> Scenes:
        smallest, largest = min(*self.sides, self.test_side), max(*self.sides, self.test_side)
        if smallest < 16:
            raise ValueError(f"a side of {smallest} pixels is below 16")
        if self.longest < largest:
            raise ValueError(f"longest {self.longest} is below the short side {largest}")
        return self

    @property
    def smallest_side(self) -> int:
        """The short side, in pixels, of the longest image that a store keeps, where that is shown smallest."""
        return min(*self.sides, self.test_side, self.longest // MAX_ASPECT)

    @property
    def views(self) -> list[tuple[int, bool]]:
        """Every (short side, is mirrored) that training may draw."""
        return [(side, mirrored) for side in self.sides for mirrored in ((False, True) if self.flip else (False,))]


@dataclass(frozen=True)
class Annotated:
    """Decoded images, and in the same order what is annotated in them in pixels of the original files."""

    store: ImageStore
    objects: tuple[Objects, ...] | None = None
    proposals: tuple[np.ndarray, ...] | None = None  # P x 4 each; None for detectors that propose by themselves
    masks: tuple[tuple[Masks, int], ...] | None = None  # where each image's mask is to be read

    def mask(self, position: int) -> np.ndarray:
        """H x W uint8, the part of the original mask that the store keeps of its image."""
        if self.masks is None:
            raise ValueError("these images have no masks")
        masks, place = self.masks[position]
        left, top, right, bottom = self.store.kept_box(position)
        return masks.read(place)[top:bottom, left:right]


def joined(parts: Sequence[Annotated]) -> Annotated:
    """Several annotated splits as one."""
    return Annotated(
        join([part.store for part in parts]),
        _chained([part.objects for part in parts]),
        _chained([part.proposals for part in parts]),
        _chained([part.masks for part in parts]),
    )


def _chained(parts: Sequence[tuple[T, ...] | None]) -> tuple[T, ...] | None:
    given = [part for part in parts if part is not None]
    return tuple(item for part in given for item in part) if given else None


@dataclass(frozen=True)
class View:
    """One image as it is shown, without padding."""

    pixels: Tensor | None  # 3 x H x W uint8; None where only the annotation was asked for
    size: tuple[int, int]  # height, width
    truth: Truth | None
    mask: Tensor | None  # H x W int64


def shown_size(height: int, width: int, side: int, longest: int) -> tuple[int, int]:
    """Height and width of an image shown with its short side at `side` pixels and its long one at `longest` at most."""
    ratio = min(side / min(height, width), longest / max(height, width))
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def view(images: Annotated, position: int, side: int, longest: int, is_mirrored: bool, has_pixels: bool = True) -> View:
    """The image at `position` as it is shown, with its boxes and mask."""
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as joint

    store = images.store
    stored = int(store.heights[position]), int(store.widths[position])
    size = shown_size(*stored, side, longest)

    def shown(thing: Tensor, how: InterpolationMode = InterpolationMode.BILINEAR) -> Tensor:
        resized = joint.resize(thing, list(size), how, antialias=True)
        return (joint.horizontal_flip(resized) if is_mirrored else resized).as_subclass(Tensor)

    def boxes(values: np.ndarray) -> Tensor:
        scaled = torch.from_numpy(store.boxes(position, values))
        return shown(tv_tensors.BoundingBoxes(scaled, format="XYXY", canvas_size=stored)).float()

    pixels = None
    if has_pixels:
        pixels = shown(tv_tensors.Image(torch.from_numpy(store.image(position).copy()).permute(2, 0, 1)))
    truth = None
    if images.objects is not None:
        objects = images.objects[position]
        proposals = np.zeros((0, 4), np.float32) if images.proposals is None else images.proposals[position]
        labels, is_difficult = torch.from_numpy(objects.labels), torch.from_numpy(objects.is_difficult)
        truth = Truth(boxes(objects.boxes), labels, is_difficult, boxes(proposals))
    mask = None
    if images.masks is not None:
        original = torch.from_numpy(np.ascontiguousarray(images.mask(position)))
        # As an image, by the value in the middle of each pixel: a Mask would be sampled at its corner.
        mask = shown(tv_tensors.Image(original[None]), InterpolationMode.NEAREST_EXACT)[0].long()
    return View(pixels, size, truth, mask)


class SceneBatches:
    """Batches for fine-tuning: views drawn at random, padded to the largest of the batch."""

    def __init__(self, images: Annotated, scenes: Scenes, batch_size: int, seed: int) -> None:
        self.images, self.scenes, self.batch_size, self.seed = images, scenes, batch_size, seed
        self.order = EpochOrder(len(images.store), batch_size, seed)

    def at(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """B x 3 x H x W uint8 with sizes, and objects or masks."""
        drawn = drawn_views(self.order, self.scenes, self.seed, step)[rows_of(self.batch_size, part, parts)]
        found = [view(self.images, position, *self._how(one)) for position, one in drawn]
        height, width = (max(v.size[axis] for v in found) for axis in (0, 1))
        colour = torch.tensor([round(255 * c) for c in IMAGENET_MEAN], dtype=torch.uint8).view(3, 1, 1)
        pixels = colour.repeat(len(found), 1, height, width).view(len(found), 3, height, width)
        for row, shown in zip(pixels, found, strict=True):
            if shown.pixels is not None:
                row[:, : shown.size[0], : shown.size[1]] = shown.pixels
        return annotated_batch(pixels, None, found)

    def _how(self, one: int) -> tuple[int, int, bool]:
        side, is_mirrored = self.scenes.views[one]
        return side, self.scenes.longest, is_mirrored


class SceneFeatureBatches:
    """Batches for a head on a frozen encoder: its maps of a view drawn for every image, continued at their edges.

    `features(position, view)` gives the maps by stage, C x h x w each; views are counted as in `Scenes.views`.
    """

    def __init__(
        self,
        features: Callable[[int, int], Mapping[str, Tensor]],
        images: Annotated,
        scenes: Scenes,
        batch_size: int,
        seed: int,
    ) -> None:
        self.features, self.images, self.scenes = features, images, scenes
        self.batch_size, self.seed = batch_size, seed
        self.order = EpochOrder(len(images.store), batch_size, seed)

    def at(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """Maps with sizes, and objects or masks."""
        drawn = drawn_views(self.order, self.scenes, self.seed, step)[rows_of(self.batch_size, part, parts)]
        found = []
        for position, one in drawn:
            side, is_mirrored = self.scenes.views[one]
            found.append(view(self.images, position, side, self.scenes.longest, is_mirrored, has_pixels=False))
        maps = [self.features(position, one) for position, one in drawn]
        stacked = {name: continued([one[name] for one in maps]) for name in maps[0]}
        return annotated_batch(torch.empty(len(found), 0), stacked, found)


def drawn_views(order: EpochOrder, scenes: Scenes, seed: int, step: int) -> list[tuple[int, int]]:
    """Which images step `step` reads, and which of `Scenes.views` each is shown in."""
    positions = order.at(step)
    generator = torch.Generator().manual_seed(seed_for(seed, "view", step))
    views = torch.randint(len(scenes.views), (len(positions),), generator=generator)
    return list(zip(positions.tolist(), views.tolist(), strict=True))


def annotated_batch(images: Tensor, features: Mapping[str, Tensor] | None, views: Sequence[View]) -> Batch:
    """A batch with the sizes of its views, and their objects and masks where they have any."""
    sizes = torch.tensor([v.size for v in views], dtype=torch.int64)
    truths = tuple(v.truth for v in views if v.truth is not None)
    labels = None
    if views[0].mask is not None:
        labels = padded([v.mask for v in views if v.mask is not None], NOT_COUNTED)
    return Batch(images, labels, features, sizes, truths or None)


def continued(maps: Sequence[Tensor]) -> Tensor:
    """Maps C x h x w of any size as one tensor, each going on at the right and bottom with what its edge has.

    Zeros there would be nothing that an encoder gives, and would shift what a head learns of its mean and deviation.
    """
    height, width = (max(m.shape[axis] for m in maps) for axis in (-2, -1))
    rows, columns = torch.arange(height), torch.arange(width)
    return torch.stack([m[:, rows.clamp(max=m.shape[-2] - 1)][..., columns.clamp(max=m.shape[-1] - 1)] for m in maps])


def padded(maps: Sequence[Tensor], value: int) -> Tensor:
    """Maps ... x h x w of any size as one tensor, filled at the right and bottom to the largest."""
    height, width = (max(m.shape[axis] for m in maps) for axis in (-2, -1))
    filled = [functional.pad(m, (0, width - m.shape[-1], 0, height - m.shape[-2]), value=value) for m in maps]
    return torch.stack(filled)


def groups_of_one_size(
    images: Annotated, side: int, longest: int, batch_size: int
) -> Iterator[tuple[list[int], tuple[int, int]]]:
    """All positions in groups that are shown at one size, with that size: nothing is padded, so no image's result
    depends on the others'."""
    store = images.store
    by_size: dict[tuple[int, int], list[int]] = {}
    for position in range(len(store)):
        size = shown_size(int(store.heights[position]), int(store.widths[position]), side, longest)
        by_size.setdefault(size, []).append(position)
    for size, positions in by_size.items():
        for start in range(0, len(positions), batch_size):
            yield positions[start : start + batch_size], size
