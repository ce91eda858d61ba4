"""Telea's fast marching (2004), by OpenCV: colours carried inwards from the edge of the hole.

It has no notion of texture, so that large holes become smears. OpenCV adds the direction of the gradient as up to one
grey level a step and rounds: far from the edge colours drift by a grey level about every four pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field
from torch import Tensor

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Frame, Inpainter
from ssl_inpaint.inpainters.classical import diffused, fill_each


class Config(Settings):
    """How far the method looks."""

    radius_pixels: int = Field(3, ge=1, le=100)  # known pixels this near are averaged; OpenCV's own example has 3


@dataclass(frozen=True)
class Telea:
    """An `Inpainter`; see the module."""

    config: Config
    name: str = "Telea"
    frame: Frame | None = None

    def fill(self, images: Tensor, holes: Tensor) -> Tensor:
        """See `Inpainter.fill`; filled in 8 bits, wholly hidden images with the mean colour."""
        return fill_each(images, holes, self._filling)

    def _filling(self, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        import cv2

        return diffused(image, hole, self.config.radius_pixels, cv2.INPAINT_TELEA)


def build(config: Config) -> Inpainter:
    """The inpainter with these settings."""
    return Telea(config)
