"""Shift-map inpainting (He and Sun 2012), by OpenCV: the hole is stitched from shifted copies of what is visible.

The best of the methods without training where a texture goes on. It works on a window around the hole, in Lab colours
as OpenCV asks for.

OpenCV takes the 60 commonest shifts between similar patches without looking whether there are as many. Where there are
not, as in small or smooth images, it reads beyond its list: the result depends on what lies in memory, or the process
dies. The window is therefore given a margin of noise, which adds some 200 rare shifts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field
from torch import Tensor

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Frame, Inpainter
from ssl_inpaint.errors import UsageError
from ssl_inpaint.inpainters.classical import fill_each, nearest_visible

SMALLEST_SIDE = 32  # pixels: OpenCV's shifts are at least 16, and there must be something to choose from
GAP_PIXELS = 8  # between image and noise, the side of the patches that are compared
NOISE_PIXELS = 9216
NOISE = (600.0, 855.0)  # as wide as the colours, 0 ... 255, and so far from them that a seam to it never pays
LAB_SCALE = np.array((2.55, 1, 1), np.float32)  # with LAB_ZERO: Lab to 0 ... 255, as 8-bit images have it
LAB_ZERO = np.array((0, 128, 128), np.float32)


class Config(Settings):
    """Where the method looks; what it compares there is fixed in OpenCV."""

    context_share: float = Field(1.0, gt=0)  # width around the hole, over the longer side of the hole
    least_context_pixels: int = Field(64, ge=SMALLEST_SIDE)  # for small holes
    # Larger windows are shrunk first. Above 600 OpenCV would, and writes outside of its image when it enlarges.
    window_pixels: int = Field(448, ge=64, le=600)


@dataclass(frozen=True)
class ShiftMap:
    """An `Inpainter`; see the module."""

    config: Config
    name: str = "Shift map"
    frame: Frame | None = None

    def fill(self, images: Tensor, holes: Tensor) -> Tensor:
        """See `Inpainter.fill`; wholly hidden images with the mean colour.

        UsageError for images below 32 pixels a side, unless nothing is hidden in any.
        """
        if holes.any() and min(images.shape[-2:]) < SMALLEST_SIDE:
            raise UsageError(
                f"Images of {images.shape[-2]} x {images.shape[-1]} pixels leave shift-map inpainting nothing to "
                f"shift: give it {SMALLEST_SIDE} a side or more, or take another inpainter."
            )
        return fill_each(images, holes, self._filling)

    def _filling(self, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        filled = image.copy()
        window = self._window(hole)
        filled[window] = self._shrunk(image[window], hole[window])
        return filled

    def _window(self, hole: np.ndarray) -> tuple[slice, slice]:
        """The rows and columns of the hole and its context."""
        spans = [(int(places[0]), int(places[-1]) + 1) for places in map(np.flatnonzero, (hole.any(1), hole.any(0)))]
        longer = max(stop - start for start, stop in spans)
        width = max(self.config.least_context_pixels, round(self.config.context_share * longer))
        rows, columns = (slice(max(0, start - width), stop + width) for start, stop in spans)
        return rows, columns

    def _shrunk(self, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        """Filled at a size that fits `window_pixels`; averages of visible pixels only go into the smaller image."""
        import cv2

        height, width = hole.shape
        ratio = self.config.window_pixels / max(height, width)
        if ratio >= 1:
            return _shifted(image, hole)
        size = (max(SMALLEST_SIDE, round(width * ratio)), max(SMALLEST_SIDE, round(height * ratio)))
        visible = cv2.resize((~hole).astype(np.float32), size, interpolation=cv2.INTER_AREA)
        averages = cv2.resize(image, size, interpolation=cv2.INTER_AREA) / np.maximum(visible, 1e-6)[..., None]
        covered = visible < 1 - 1e-6  # any part of it
        if covered.all():
            return nearest_visible(image, hole)
        return cv2.resize(_shifted(averages, covered), (width, height), interpolation=cv2.INTER_CUBIC)


def build(config: Config) -> Inpainter:
    """The inpainter with these settings."""
    return ShiftMap(config)


def _shifted(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The `Filling` of `cv2.xphoto.inpaint` at one size."""
    # The noise goes to the right; the image is turned so that its side with the fewest hidden pixels is there, because
    # a hole at the border of the noise would have to fit to it.
    turns = min(range(4), key=lambda n: np.rot90(hole, n)[:, -GAP_PIXELS:].sum())
    turned = _stitched(np.ascontiguousarray(np.rot90(image, turns)), np.ascontiguousarray(np.rot90(hole, turns)))
    return np.rot90(turned, -turns)


def _stitched(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    import cv2

    height, width = hole.shape
    lab = cv2.cvtColor(nearest_visible(image, hole), cv2.COLOR_RGB2LAB) * LAB_SCALE + LAB_ZERO
    noise = np.random.default_rng(0).uniform(*NOISE, (height, -(-NOISE_PIXELS // height), 3)).astype(np.float32)
    canvas = np.concatenate([lab, np.repeat(lab[:, -1:], GAP_PIXELS, axis=1), noise], axis=1)
    is_valid = np.ones(canvas.shape[:2], bool)
    is_valid[:, :width] = ~hole
    canvas[~is_valid] = 0
    stitched = np.zeros_like(canvas)
    cv2.xphoto.inpaint(canvas, is_valid.astype(np.uint8) * 255, stitched, cv2.xphoto.INPAINT_SHIFTMAP)
    found = stitched[:, :width]
    # Where none of the shifts reaches a visible pixel there is black or noise: the nearest visible pixel instead.
    is_lost = hole & ((found == 0).all(axis=2) | (found >= NOISE[0]).any(axis=2))
    found = np.where(is_lost[..., None], lab, found)
    return cv2.cvtColor((found - LAB_ZERO) / LAB_SCALE, cv2.COLOR_LAB2RGB)
