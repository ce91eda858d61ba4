"""Object silhouettes from label images, such as PASCAL VOC's masks: the shapes of the paper's random-region holes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ssl_inpaint.data.listing import find_images, require_folder
from ssl_inpaint.errors import UsageError

SMALLEST_AREA = 20  # pixels of the label image; fewer are specks and the fringes of antialiased masks
MARGIN = 1 / 16  # of the longer side, on each side, so that a silhouette never touches the frame
VOID = 255  # of greyscale and palette label images, as VOC's; VOC's as colours is below
VOID_COLOURS = (0xFFFFFF, 0xE0E0C0)


def load_silhouettes(folder: Path, size: int = 64, limit: int = 1000) -> np.ndarray:
    """The first `limit` silhouettes below `folder`, K x size x size bool, True inside the object.

    Every value but 0 and void is one object, cut to its bounding box and padded to a square; the order is that of
    the file names, then of the values. A mask whose only value is the void one is a plain black-and-white mask.
    UsageError where no PNG holds an object of SMALLEST_AREA pixels, or one is broken.
    """
    found: list[np.ndarray] = []
    root = require_folder(folder, "silhouettes")
    for name in (name for name in find_images(root) if name.lower().endswith(".png")):
        for is_object in _objects(_read_values(root / name)):
            if len(found) == limit:
                break
            found.append(_squared(is_object, size))
    if not found:
        raise UsageError(
            f"{folder} holds no object masks: give a folder of PNG label images, such as SegmentationObject."
        )
    return np.stack(found)


def _read_values(file: Path) -> np.ndarray:
    """The label image as H x W integers, colours as 0xRRGGBB, with void set to 0."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            is_indexed = image.mode in ("1", "L", "P", "I") or image.mode.startswith("I;16")
            values = np.asarray(image if is_indexed else image.convert("RGBA")).astype(np.int64)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"Cannot read the mask {file}: {error}.") from None
    voids: tuple[int, ...] = (VOID,) if image.mode in ("L", "P") else ()
    if not is_indexed:
        values = np.where(values[..., 3] > 0, values[..., 0] << 16 | values[..., 1] << 8 | values[..., 2], 0)
        voids = VOID_COLOURS
    is_void = np.isin(values, voids)
    return values if not (values[~is_void] > 0).any() else np.where(is_void, 0, values)


def _objects(values: np.ndarray) -> Iterator[np.ndarray]:
    """One bounding-box crop, bool, for each value above 0."""
    present, counts = np.unique(values, return_counts=True)
    for value in present[(present > 0) & (counts >= SMALLEST_AREA)]:
        is_object = values == value
        rows, columns = np.flatnonzero(is_object.any(1)), np.flatnonzero(is_object.any(0))
        yield is_object[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _squared(is_object: np.ndarray, size: int) -> np.ndarray:
    """The crop in the middle of a square with a margin, to the nearest pixel at size x size."""
    height, width = is_object.shape
    side = max(height, width) + 2 * max(1, round(MARGIN * max(height, width)))
    square = np.zeros((side, side), bool)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = is_object
    nearest = ((np.arange(size) + 0.5) * side / size).astype(np.int64)
    return square[np.ix_(nearest, nearest)]
