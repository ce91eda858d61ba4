"""Nearest-neighbour inpainting: the hole shows what the gallery image with the most similar context has there.

The baseline of the paper's table 1, after Hays and Efros (2007). The hole is hidden in the gallery images too, and
both sides are described by their context only. What is pasted is not blended, as nothing in the paper says it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor

from ssl_inpaint import holes as hole_shapes
from ssl_inpaint.config import Settings
from ssl_inpaint.core import Descriptor, Frame, Inpainter
from ssl_inpaint.images import fill_mean
from ssl_inpaint.inpainters.checks import check
from ssl_inpaint.progress import bar
from ssl_inpaint.retrieval import top_k


class Config(Settings):
    """The hole that is expected."""

    # Side of the hole over that of the square: half, for the paper's central quarter of the area.
    hole_share: float = Field(0.5, gt=0, le=0.94)


class Gallery(Protocol):
    """The images that may lend their pixels: squares of one size, decoded when they are asked for."""

    @property
    def size(self) -> int:
        """Pixels a side."""
        ...

    def __len__(self) -> int: ...

    def chunks(self) -> Iterator[Tensor]:
        """All in order, some at a time: N x 3 x size x size float in [0, 1]."""
        ...

    def cut(self, chosen: Tensor) -> Tensor:
        """Those at the positions `chosen`, B int64, as B x 3 x size x size."""
        ...


class NearestNeighbour:
    """An `Inpainter`; see the module.

    The descriptions of the gallery, N x D float32, are kept for the latest hole: with one hole for all images the
    gallery is described once. Whatever hole is given, it works; the frame names the one that is meant.
    """

    def __init__(self, config: Config, descriptor: Descriptor, gallery: Gallery, name: str) -> None:
        self.name = name
        self.frame: Frame | None = Frame(gallery.size, config.hole_share, is_central=True)
        self._descriptor, self._gallery = descriptor, gallery
        self._latest: tuple[Tensor, Tensor] | None = None  # a hole S x S, and the gallery described around it

    def fill(self, images: Tensor, holes: Tensor) -> Tensor:
        """See `Inpainter.fill`; a wholly hidden image has no context, and becomes the ImageNet mean colour.

        ValueError for images of another size than the gallery's.
        """
        check(images, holes, self._gallery.size)
        filled = fill_mean(images, holes)
        if not holes.any():  # also a batch of none, which `unique` does not take
            return filled
        shapes, kinds = holes[:, 0].cpu().unique(dim=0, return_inverse=True)
        for kind, hole in enumerate(shapes):
            if hole.any() and not hole.all():
                chosen = (kinds == kind).to(filled.device)
                donors = self._gallery.cut(self._nearest(filled[chosen], hole)).to(filled)
                filled[chosen] = torch.where(holes[chosen], donors, filled[chosen])
        return filled

    def _nearest(self, images: Tensor, hole: Tensor) -> Tensor:
        """For each image the position in the gallery of the most similar context; of equal ones the first."""
        queries = torch.from_numpy(self._descriptor.describe(images, hole))
        return top_k(queries, self._described(hole), k=1)[0][:, 0]

    def _described(self, hole: Tensor) -> Tensor:
        if self._latest is not None and torch.equal(self._latest[0], hole):
            return self._latest[1]
        self._latest = None  # frees the memory before as much is taken again
        described, done = torch.empty(0), 0
        with bar(f"Gallery of {self.name}", len(self._gallery)) as progress:
            for some in self._gallery.chunks():
                vectors = torch.from_numpy(self._descriptor.describe(some, hole))
                if not done:
                    described = torch.empty(len(self._gallery), vectors.shape[1])
                described[done : done + len(some)] = vectors
                done += len(some)
                progress.advance(len(some))
        self._latest = (hole.clone(), described)
        return described


def build(config: Config, descriptor: Descriptor, gallery: Gallery, name: str) -> Inpainter:
    """The inpainter; the caller sees to it that no image to be filled is in the gallery, where it would find itself.

    ValueError for an empty gallery; UsageError where the descriptor cannot describe the context of the central hole.
    """
    if not len(gallery):
        raise ValueError("The gallery is empty: nearest-neighbour inpainting needs images to take pixels from.")
    size = gallery.size
    hole = hole_shapes.draw("centre", 1, size, torch.Generator(), config.hole_share**2)[0, 0]
    descriptor.describe(torch.zeros(1, 3, size, size), hole)  # fails now rather than after hours
    return NearestNeighbour(config, descriptor, gallery, name)
