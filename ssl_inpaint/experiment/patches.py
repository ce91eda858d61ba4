"""Patches to retrieve: squares around annotated objects, or the middles of whole images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssl_inpaint.core import Split
from ssl_inpaint.data.specs import open_data
from ssl_inpaint.data.store import ImageStore, open_store
from ssl_inpaint.errors import UsageError
from ssl_inpaint.images import to_float
from ssl_inpaint.plans import RetrievalConfig
from ssl_inpaint.runtime import seed_for

CHUNK_PATCHES = 512  # cut and described at a time, so that memory does not grow with the gallery


@dataclass(frozen=True)
class Patches:
    """Windows of stored images; cut when they are asked for."""

    split: Split
    store: ImageStore
    positions: Tensor  # N int64, into the store
    windows: Tensor  # N x 4, pixels of the store
    labels: Tensor | None  # N int64
    size: int

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def digest(self) -> str:
        """Identifies the images and annotations that they are drawn from, by content."""
        digest = hashlib.sha256(self.store.digest.encode())
        arrays = [] if self.split.labels is None else [self.split.labels[self.store.kept]]
        for objects in self.split.objects or ():
            arrays += [objects.boxes, objects.labels, objects.is_difficult]
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def cut(self, chosen: Tensor) -> Tensor:
        """The chosen patches, B x 3 x size x size float in [0, 1]."""
        flips = torch.zeros(len(chosen), dtype=torch.bool)
        return to_float(self.store.crops(self.positions[chosen], self.windows[chosen], self.size, flips))

    def chunks(self) -> Iterator[Tensor]:
        """All patches in order, CHUNK_PATCHES at a time."""
        for chosen in torch.arange(len(self)).split(CHUNK_PATCHES):
            yield self.cut(chosen)

    def drawn(self, count: int, seed: int) -> Patches:
        """At most `count` of them, drawn at random, in drawn order."""
        generator = torch.Generator().manual_seed(seed)
        return self.at(torch.randperm(len(self), generator=generator)[:count])

    def at(self, chosen: Tensor) -> Patches:
        """Those patches, in that order."""
        labels = None if self.labels is None else self.labels[chosen]
        return Patches(self.split, self.store, self.positions[chosen], self.windows[chosen], labels, self.size)


def open_patches(spec: str, settings: Mapping[str, str], config: RetrievalConfig, seed: int) -> tuple[Patches, Patches]:
    """Queries from test and gallery from train and val.

    Without labels there is no test to keep apart: both come from all the images, no image in both, at most a fifth
    of them queries. UsageError where either would be empty.
    """
    try:
        found = open_data(spec, "trainval", settings)
    except UsageError:
        found = open_data(spec, "pretrain", settings)
    if found.labels is None:
        everything = _patches(open_data(spec, "pretrain", settings), config)
        everything = everything.drawn(len(everything), seed_for(seed, "patches"))
        count = min(config.queries, len(everything) // 5)
        last = min(count + config.gallery, len(everything))
        queries, gallery = everything.at(torch.arange(count)), everything.at(torch.arange(count, last))
    else:
        test = _patches(open_data(spec, "test", settings), config)
        queries = test.drawn(config.queries, seed_for(seed, "queries"))
        gallery = _patches(found, config).drawn(config.gallery, seed_for(seed, "gallery"))
    for patches, what in ((queries, "queries"), (gallery, "gallery patches")):
        if not len(patches):
            raise UsageError(
                f"Data set '{found.dataset}' gives no {what}: lower retrieval.smallest_object or add images."
            )
    return queries, gallery


def _patches(split: Split, config: RetrievalConfig) -> Patches:
    store = open_store(split.images, config.store_size)
    if split.objects is not None:
        return _around_objects(split, store, config)
    return middles(split, store, config.patch_size)


def middles(split: Split, store: ImageStore, size: int) -> Patches:
    """The middle of every image, as large as its short side, at size x size pixels."""
    sides = np.minimum(store.heights, store.widths)
    windows = np.stack([(store.widths - sides) // 2, (store.heights - sides) // 2, sides, sides], axis=1)
    labels = None
    if split.labels is not None and not split.is_multilabel:
        labels = torch.from_numpy(split.labels[store.kept])
    return Patches(split, store, torch.arange(len(store)), torch.from_numpy(windows).double(), labels, size)


def _around_objects(split: Split, store: ImageStore, config: RetrievalConfig) -> Patches:
    """One square an object that is not difficult: `context` times its longer side, moved and cut to fit the image."""
    positions, windows, labels = [], [], []
    for position, kept in enumerate(store.kept.tolist()):
        objects = (split.objects or ())[kept]
        width, height = int(store.widths[position]), int(store.heights[position])
        for x1, y1, x2, y2, label in _boxes(store, position, objects.boxes, objects.labels, objects.is_difficult):
            longer = max(x2 - x1, y2 - y1)
            if longer < config.smallest_object:
                continue
            side = min(round(config.context * longer), width, height)
            x = min(max(round((x1 + x2 - side) / 2), 0), width - side)
            y = min(max(round((y1 + y2 - side) / 2), 0), height - side)
            positions.append(position)
            windows.append((x, y, side, side))
            labels.append(int(label))
    return Patches(
        split,
        store,
        torch.tensor(positions, dtype=torch.int64),
        torch.tensor(windows, dtype=torch.float64).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        config.patch_size,
    )


def _boxes(
    store: ImageStore, position: int, boxes: np.ndarray, labels: np.ndarray, is_difficult: np.ndarray
) -> list[list[float]]:
    easy = ~is_difficult
    found = np.concatenate([store.boxes(position, boxes[easy]), labels[easy, None]], axis=1)
    return [list(row) for row in found.tolist()]
