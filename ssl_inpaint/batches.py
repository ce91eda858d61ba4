"""Batches as a function of the step number alone, so that a resumed run reads exactly what it would have read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, Protocol

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ssl_inpaint import images
from ssl_inpaint.config import Settings
from ssl_inpaint.core import Batch
from ssl_inpaint.data.device_store import Cuttable
from ssl_inpaint.runtime import seed_for


class Crops(Settings):
    """How squares are cut from stored images."""

    size: int = Field(96, ge=16)  # pixels a side of what the network sees
    store_size: int = Field(112, ge=16)  # short side of the stored images, in pixels
    smallest_share: float = Field(96 / 112, gt=0, le=1)  # of the image's short side, for a training crop
    largest_share: float = Field(96 / 112, gt=0, le=1)
    flip: bool = True

    @model_validator(mode="after")
    def _in_order(self) -> Crops:
        if self.smallest_share > self.largest_share:
            raise ValueError(f"smallest_share {self.smallest_share} is above largest_share {self.largest_share}")
        return self


Views = Literal["centre", "corners", "ten", "whole"]
# Where the fixed test crops lie; "corners" are five places, "ten" those five and their mirror images. "whole" is no
# crop: all of the image, squeezed to a square.
_PLACES = [(0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]


class Batches(Protocol):
    """A stream of batches addressed by step."""

    batch_size: int

    def at(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """One of `parts` equal parts of the batch of that step: uint8 images or float features, and what is known of
        them."""
        ...


def rows_of(count: int, part: int, parts: int) -> slice:
    """Where one of `parts` equal parts lies among `count` rows; ValueError where they cannot be equal."""
    if count % parts:
        raise ValueError(f"{count} rows do not come in {parts} equal parts")
    return slice(part * count // parts, (part + 1) * count // parts)


class EpochOrder:
    """Which examples step `step` reads: permutations of N, one an epoch, laid end to end."""

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        if count < 1:
            raise ValueError("there is nothing to draw batches from")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._latest: tuple[int, Tensor] | None = None  # an epoch and its permutation: of a million, 30 ms to draw

    def at(self, step: int) -> Tensor:
        """B int64 positions."""
        start = step * self.batch_size
        places = torch.arange(start, start + self.batch_size)
        epochs = places // self.count
        found = torch.empty_like(places)
        for epoch in epochs.unique().tolist():
            chosen = epochs == epoch
            found[chosen] = self._permutation(epoch)[places[chosen] % self.count]
        return found

    def _permutation(self, epoch: int) -> Tensor:
        latest = self._latest  # read once: other threads may replace it
        if latest is None or latest[0] != epoch:
            generator = torch.Generator().manual_seed(seed_for(self.seed, "epoch", epoch))
            latest = self._latest = epoch, torch.randperm(self.count, generator=generator)
        return latest[1]


class ImageBatches:
    """Random crops of stored images, as uint8; of those at `members` only, where given."""

    has_one_size = True  # of every batch: what libraries choose for the first one serves for all

    def __init__(
        self,
        store: Cuttable,
        labels: Tensor | None,
        crops: Crops,
        batch_size: int,
        seed: int,
        members: Tensor | None = None,
    ) -> None:
        self.store, self.labels, self.crops, self.batch_size, self.seed = store, labels, crops, batch_size, seed
        self.members = torch.arange(len(store)) if members is None else members
        self.order = EpochOrder(len(self.members), batch_size, seed)
        self.heights, self.widths = torch.from_numpy(store.heights), torch.from_numpy(store.widths)

    def at(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """B x 3 x size x size uint8, where the store lies, and the labels of the same images."""
        positions = self.members[self.order.at(step)]
        generator = torch.Generator().manual_seed(seed_for(self.seed, "crop", step))
        shares = (self.crops.smallest_share, self.crops.largest_share)
        windows = images.random_windows(self.heights[positions], self.widths[positions], shares, generator)
        flips = images.random_flips(len(positions), generator) & self.crops.flip
        rows = rows_of(len(positions), part, parts)  # what is drawn for an image depends on no other part
        pixels = self.store.crops(positions[rows], windows[rows], self.crops.size, flips[rows])
        return Batch(pixels, None if self.labels is None else self.labels[positions[rows]])


class FeatureBatches:
    """Cached features of a frozen encoder, by stage N x V views x ...; each step draws one view of every example."""

    def __init__(self, features: Mapping[str, Tensor], labels: Tensor, batch_size: int, seed: int) -> None:
        self.features, self.labels, self.batch_size, self.seed = features, labels, batch_size, seed
        self.order = EpochOrder(len(labels), batch_size, seed)
        self.views = next(iter(features.values())).shape[1]

    def at(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """By stage B x ... features in the cache's precision, and labels."""
        positions = self.order.at(step)
        generator = torch.Generator().manual_seed(seed_for(self.seed, "view", step))
        views = torch.randint(self.views, (len(positions),), generator=generator)
        rows = rows_of(len(positions), part, parts)
        positions, views = positions[rows], views[rows]
        chosen = {name: maps[positions, views] for name, maps in self.features.items()}
        return Batch(torch.empty(len(positions), 0), self.labels[positions], chosen)


def fixed_views(
    store: Cuttable,
    crops: Crops,
    views: Views,
    batch_size: int,
    members: Tensor | None = None,
    turns: range | None = None,
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Every image (or every member) once, in order: positions B, and one B x 3 x size x size uint8 tensor a test view.

    The windows' share of the short side is the largest that training saw, but for the view of the whole image. Of the
    batches only those of `turns` are cut, counted from 0, where given.
    """
    places = _PLACES[: 5 if views in ("corners", "ten") else 1]
    mirrors = (False, True) if views == "ten" else (False,)
    for turn, (positions, heights, widths) in enumerate(_in_order(store, batch_size, members)):
        if turns is not None and turn not in turns:
            continue
        cut = []
        for place in places:
            windows = images.fixed_windows(heights, widths, crops.largest_share, place)
            if views == "whole":
                windows = torch.stack([torch.zeros_like(widths), torch.zeros_like(widths), widths, heights], dim=1)
            for mirror in mirrors:
                flips = torch.full((len(positions),), mirror)
                cut.append(store.crops(positions, windows, crops.size, flips))
        yield positions, cut


def random_views(
    store: Cuttable, crops: Crops, views: int, batch_size: int, seed: int, turns: range | None = None
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Every image once, in order, with that many random training crops of each: what a feature cache is made of.

    Of the batches only those of `turns` are cut, where given; each crop is the same as without.
    """
    generator = torch.Generator().manual_seed(seed_for(seed, "views"))
    shares = (crops.smallest_share, crops.largest_share)
    for turn, (positions, heights, widths) in enumerate(_in_order(store, batch_size, None)):
        cut = []
        for _ in range(views):
            windows = images.random_windows(heights, widths, shares, generator)
            flips = images.random_flips(len(positions), generator) & crops.flip
            if turns is None or turn in turns:
                cut.append(store.crops(positions, windows, crops.size, flips))
        if cut:
            yield positions, cut


def _in_order(store: Cuttable, batch_size: int, members: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    heights, widths = torch.from_numpy(store.heights), torch.from_numpy(store.widths)
    for positions in (torch.arange(len(store)) if members is None else members).split(batch_size):
        yield positions, heights[positions], widths[positions]
