"""Arithmetic on batches of images: the mean colour, crop windows, and bytes to floats; and the colours of masks."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

# Of RGB in [0, 1], R first: the usual ImageNet statistics, which torchvision's and most of timm's weights expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
RELEASED_FILL = (117 / 255, 104 / 255, 123 / 255)  # R, G, B of train.lua: a permutation of the mean, likely a slip


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 to float32 [0, 1]."""
    return images.float().div_(255)


def fill_mean(images: Tensor, hole: Tensor, colour: tuple[float, float, float] = IMAGENET_MEAN) -> Tensor:
    """Images whose hidden pixels are one colour: the ImageNet mean, R, G, B in that order (paper section 3.1).

    Deviation: the released Torch code, and the ports that copy it, fill with RELEASED_FILL instead.
    """
    return torch.where(hole, _on_device(colour, images.dtype, images.device), images)


@cache
def _on_device(colour: tuple[float, float, float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """1 x 3 x 1 x 1, sent once: a GPU is waited for whenever something is sent from ordinary memory."""
    return torch.tensor(colour, dtype=dtype, device=device).view(1, 3, 1, 1)


def random_windows(heights: Tensor, widths: Tensor, shares: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Square crop windows at random places: B x 4 as x, y, width, height in whole pixels.

    The side is a uniform share of the image's short side, between the two `shares` (at most 1).
    """
    low, high = shares
    draws = torch.rand(3, len(heights), generator=generator, dtype=torch.float64)
    side = (torch.minimum(heights, widths) * (low + (high - low) * draws[0])).round().clamp(min=1)
    x = (draws[1] * (widths - side + 1)).floor()
    y = (draws[2] * (heights - side + 1)).floor()
    return torch.stack([x, y, side, side], dim=1)


def fixed_windows(heights: Tensor, widths: Tensor, share: float, place: tuple[float, float]) -> Tensor:
    """Square windows of that share of the short side at one place: (0.5, 0.5) the centre, (0, 0) the top left."""
    side = (torch.minimum(heights, widths) * share).round().clamp(min=1)
    x = ((widths - side) * place[0]).round()
    y = ((heights - side) * place[1]).round()
    return torch.stack([x, y, side, side], dim=1)


def random_flips(count: int, generator: torch.Generator) -> Tensor:
    """B bool, True for the half to mirror."""
    return torch.rand(count, generator=generator) < 0.5


def voc_palette() -> np.ndarray:
    """256 x 3 uint8: the colours of VOC's masks, each bit of a class number set in turn in red, green and blue."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = (numbers >> (3 * place + channel)) & 1
            colours[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return colours
