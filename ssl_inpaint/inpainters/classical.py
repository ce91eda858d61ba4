"""What the methods without training share: one image after another as an array, and only hidden pixels pasted back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ssl_inpaint.images import fill_mean
from ssl_inpaint.inpainters.checks import check

# H x W x 3 float32 in [0, 1], 0 where hidden, and H x W bool, to H x W x 3; some pixels are hidden and some are not.
Filling = Callable[[np.ndarray, np.ndarray], np.ndarray]


def fill_each(images: Tensor, holes: Tensor, filling: Filling) -> Tensor:
    """B x 3 x H x W with the hidden pixels that `filling` gives, cut to [0, 1]; the visible ones are not touched.

    An image of which nothing is visible becomes the ImageNet mean colour. ValueError for shapes that do not fit.
    """
    check(images, holes)
    filled = fill_mean(images, holes)
    visible = torch.where(holes, 0.0, images).permute(0, 2, 3, 1).float().cpu().numpy()
    for position, hole in enumerate(holes[:, 0].cpu().numpy()):
        if hole.any() and not hole.all():
            pixels = np.clip(filling(np.ascontiguousarray(visible[position]), hole), 0, 1)
            found = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).to(images)
            filled[position] = torch.where(holes[position], found, filled[position])
    return filled


def diffused(image: np.ndarray, hole: np.ndarray, radius_pixels: int, method: int) -> np.ndarray:
    """The `Filling` of `cv2.inpaint`, which works in 8 bits; `method` is one of its INPAINT_ constants."""
    import cv2

    pixels = (image * 255).round().astype(np.uint8)
    return cv2.inpaint(pixels, hole.astype(np.uint8), radius_pixels, method).astype(np.float32) / 255


def nearest_visible(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The `Filling` that gives each hidden pixel the colour of the nearest visible one."""
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(hole, return_distances=False, return_indices=True)
    return image[rows, columns]
