"""Histograms of oriented gradients (Dalal and Triggs 2005), by OpenCV: the paper's hand-made baseline.

With a hole, only the context is described. Hidden pixels are overwritten before anything else, and shrinking the patch
averages over visible pixels only. The blocks that touch the hole are dropped, so the descriptor has fewer entries; and
what is left of the hole is filled with the nearest visible pixel, because the gradient next to it would otherwise see
the edge of the fill, an edge that is not in the image.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Descriptor
from ssl_inpaint.errors import UsageError

PREPARED = 1024  # patches that are resized at once
DESCRIBED = 64  # of those, patches that a thread takes at once: what it makes of them stays in a cache


class Config(Settings):
    """The geometry of the histograms, in pixels of the resized patch; the cells are those of Dalal and Triggs."""

    patch_size: int = Field(64, ge=8)  # patches are resized to this side first: 7 x 7 blocks, 1,764 entries
    cell_pixels: int = Field(8, ge=1)  # side of the square that shares one histogram
    block_pixels: int = Field(16, ge=1)  # side of the square that is normalised together
    stride_pixels: int = Field(8, ge=1)  # from block to block
    bins: int = Field(9, ge=2)  # orientations over 180 degrees

    @model_validator(mode="after")
    def _is_tiled(self) -> Self:
        if self.block_pixels % self.cell_pixels or self.block_pixels > self.patch_size:
            raise ValueError("block_pixels must be a multiple of cell_pixels and at most patch_size")
        if (self.patch_size - self.block_pixels) % self.stride_pixels:
            raise ValueError("stride_pixels must divide patch_size - block_pixels")
        return self


@dataclass
class Hog:
    """A `Descriptor`; see the module."""

    config: Config
    name: str = "HOG"

    def describe(self, patches: Tensor, hole: Tensor | None) -> np.ndarray:
        """N x 3 x S x S in [0, 1] to N x D float32; D is 1,764 by default without a hole, and less with one.

        Pixels where `hole` (S x S bool) is True are never read. UsageError where no block is clear of the hole.
        """
        size = self.config.patch_size
        if hole is None:
            return self._histograms(_resized(part.cpu().float(), size) for part in patches.split(PREPARED))
        is_hidden = hole.cpu()
        covered = functional.adaptive_max_pool2d(is_hidden[None].float(), size)[0] > 0  # any part of it hidden
        is_clear = self._is_clear(covered)
        seen = _resized((~is_hidden)[None, None].float(), size).clamp(min=1e-6)
        nearest = _nearest_uncovered(covered)

        def prepared(part: Tensor) -> Tensor:
            averaged = _resized(torch.where(is_hidden, 0.0, part.cpu().float()), size) / seen
            return averaged.flatten(2)[:, :, nearest].unflatten(2, (size, size))

        histograms = self._histograms(prepared(part) for part in patches.split(PREPARED))
        return histograms.reshape(len(patches), len(is_clear), -1)[:, is_clear].reshape(len(patches), -1)

    def _histograms(self, parts: Iterable[Tensor]) -> np.ndarray:
        """On as many threads as torch has: OpenCV takes one patch at a time, and lets others run meanwhile."""
        found: list[np.ndarray] = []
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for part in parts:
                found += pool.map(self._histograms_of_few, part.split(DESCRIBED))
        return np.concatenate(found)

    def _histograms_of_few(self, images: Tensor) -> np.ndarray:
        import cv2

        config = self.config
        window, block, stride, cell = (
            (side, side) for side in (config.patch_size, config.block_pixels, config.stride_pixels, config.cell_pixels)
        )
        hog = cv2.HOGDescriptor(window, block, stride, cell, config.bins, _gammaCorrection=False)
        values = np.clip(images.numpy(), 0, 1)  # NumPy: torch's own threads would be one for each of each of ours
        values *= 255
        planes = np.rint(values, out=values).astype(np.uint8)
        described = np.empty((len(planes), hog.getDescriptorSize()), np.float32)
        for place, image in enumerate(planes):
            described[place] = np.ravel(hog.compute(cv2.merge([*image])))
        return described

    def _is_clear(self, covered: Tensor) -> np.ndarray:
        """Which blocks do not touch the hole, in OpenCV's order: column by column."""
        touched = functional.max_pool2d(covered[None].float(), self.config.block_pixels, self.config.stride_pixels)[0]
        is_clear = (touched == 0).T.flatten().numpy()
        if not is_clear.any():
            raise UsageError(
                f"The hole leaves none of the {len(is_clear)} HOG blocks free "
                f"at patch_size = {self.config.patch_size}: make the hole or block_pixels smaller."
            )
        return is_clear


def build(config: Config) -> Descriptor:
    """The descriptor with these settings."""
    return Hog(config)


def _resized(images: Tensor, size: int) -> Tensor:
    if images.shape[-2:] == (size, size):
        return images
    return functional.interpolate(images, (size, size), mode="bilinear", antialias=True)


def _nearest_uncovered(covered: Tensor) -> Tensor:
    """For every pixel of S x S bool the position, among S^2, of the nearest that is not covered."""
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(covered.numpy(), return_distances=False, return_indices=True)
    return torch.from_numpy(rows * covered.shape[1] + columns).long().flatten()
