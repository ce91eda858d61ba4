"""What every inpainter refuses before it fills anything."""

from __future__ import annotations

import torch
from torch import Tensor


def check(images: Tensor, holes: Tensor, size: int | None = None) -> None:
    """ValueError unless images are B x 3 x H x W float, holes B x 1 x H x W bool, and H = W = `size` if it is given."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"Images {tuple(images.shape)} {images.dtype}: they must be B x 3 x H x W floats in [0, 1].")
    if holes.dtype != torch.bool or holes.shape != (len(images), 1, *images.shape[2:]):
        raise ValueError(
            f"Holes {tuple(holes.shape)} {holes.dtype}: of images {tuple(images.shape)} they must be "
            f"{(len(images), 1, *images.shape[2:])} bool, True where pixels are missing."
        )
    if size is not None and images.shape[2:] != (size, size):
        raise ValueError(
            f"Images of {images.shape[2]} x {images.shape[3]} pixels: this inpainter fills {size} x {size}."
        )
