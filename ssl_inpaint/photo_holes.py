"""Where a user's photograph is to be filled: a box, its centre, what is transparent, or what a mask has white."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ssl_inpaint.data.sources import decode
from ssl_inpaint.errors import UsageError
from ssl_inpaint.photos import Photo, by, laid_on, opened, turned

LARGEST_SHARE = 0.9  # of the short side's square that a central hole may cover


def hole_of_alpha(photo: Photo) -> np.ndarray:
    """H x W bool, True where the photo is fully transparent; UsageError where nothing is, or everything."""
    if not photo.image.has_transparency_data:
        raise UsageError(f"{photo.path} has no transparency: erase what is to be filled, or give a box or a mask.")
    hole = np.array(photo.image.convert("RGBA").getchannel("A")) == 0
    if not hole.any():
        raise UsageError(f"{photo.path} has no fully transparent pixel: erase what is to be filled, or give a mask.")
    if hole.all():
        raise UsageError(f"{photo.path} is fully transparent: there is nothing to fill it from.")
    return hole


def read_hole(path: Path, width_height: tuple[int, int], resize: bool = False) -> np.ndarray:
    """The hole that a mask image draws, H x W bool: True where it is white, that is 128 of 255 or more.

    Colours count by their luma, 16 bits are scaled to 8, and transparent pixels count as black, unless all pixels are
    equally transparent. With `resize`, a mask of another size is stretched to it: a pixel is hidden if any hidden
    pixel of the mask lies in it. UsageError where the file cannot be read, has another size, or hides nothing or all.
    """
    from PIL import Image

    values = _mask_values(path)
    hole = values >= 128
    size = (hole.shape[1], hole.shape[0])
    if size != width_height and not resize:
        hint = (
            " Photos are turned upright by their EXIF orientation, and masks too." if size == width_height[::-1] else ""
        )
        wrong = f"The mask {path} has {by(size)} pixels, the image {by(width_height)}"
        raise UsageError(f"{wrong}: make them the same size, or stretch the mask with --resize-mask.{hint}")
    if not hole.any():
        raise UsageError(
            f"The mask {path} hides nothing, its brightest value is {values.max()}: fill in white (128-255)."
        )
    if hole.all():
        raise UsageError(f"The mask {path} hides everything: leave black what is to be kept.")
    if size != width_height:
        hole = np.array(Image.fromarray(hole.astype(np.float32)).resize(width_height, Image.Resampling.BOX)) > 0
    if hole.all():
        raise UsageError(f"The mask {path} hides everything at {by(width_height)} pixels: make it of that size.")
    return hole


def box_hole(width: int, height: int, box: str) -> np.ndarray:
    """The hole H x W of a box 'X,Y,WIDTH,HEIGHT' in pixels of the upright image; UsageError if it does not fit."""
    try:
        x, y, across, down = (int(part) for part in box.split(","))
    except ValueError:
        raise UsageError(
            f"The box '{box}' is not X,Y,WIDTH,HEIGHT in whole pixels: write for example 10,20,64,48."
        ) from None
    if across < 1 or down < 1:
        raise UsageError(f"The box {box} is empty: its width and height must be at least 1.")
    if x < 0 or y < 0 or x + across > width or y + down > height:
        raise UsageError(f"The box {box} reaches outside the image of {by((width, height))} pixels: move or shrink it.")
    if (across, down) == (width, height):
        raise UsageError(f"The box {box} covers the whole image of {by((width, height))} pixels: make it smaller.")
    return _box(width, height, x, y, across, down)


def centre_hole(width: int, height: int, fraction: float = 0.25) -> np.ndarray:
    """The central square hole, H x W, that covers `fraction` of the square of the short side.

    On square images, the hole "centre" of training. UsageError for a fraction outside (0, 0.9].
    """
    if not 0 < fraction <= LARGEST_SHARE:
        raise UsageError(
            f"A central hole of {fraction:g} of the image: it must be above 0 and at most {LARGEST_SHARE}."
        )
    side = max(1, round(min(width, height) * math.sqrt(fraction)))
    return _box(width, height, (width - side) // 2, (height - side) // 2, side, side)


def _box(width: int, height: int, x: int, y: int, across: int, down: int) -> np.ndarray:
    hole = np.zeros((height, width), dtype=bool)
    hole[y : y + down, x : x + across] = True
    return hole


def _mask_values(path: Path) -> np.ndarray:
    """H x W uint8: how white each pixel of an upright mask is."""
    image, _ = opened(path)
    if image.mode.startswith("I") or image.mode == "F":
        return decode(path.read_bytes())[..., 0]  # scaled to 8 bits
    upright = turned(image)
    if not upright.has_transparency_data:
        return np.array(upright.convert("RGB").convert("L"))
    rgba = upright.convert("RGBA")
    lowest, highest = rgba.getchannel("A").getextrema()
    return np.array((rgba if lowest == highest else laid_on((0, 0, 0), rgba)).convert("RGB").convert("L"))
