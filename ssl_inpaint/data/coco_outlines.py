"""Class masks painted from the outlines of COCO's objects: polygons, and run lengths plain and compressed.

Run lengths (RLE) count pixels column by column, alternately outside and inside the object, beginning outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Outlined(NamedTuple):
    """One object as it is painted."""

    value: int  # of the mask: an index into Split.mask_classes, or 255
    area: float  # pixels
    outline: object  # as in the JSON file: polygons, or size and counts


class OutlinedMasks:
    """The masks of images whose objects are outlined; pixels of none are background, 0."""

    def __init__(
        self, names: Sequence[str], sizes: Sequence[tuple[int, int]], objects: Sequence[Sequence[Outlined]]
    ) -> None:
        self._names, self._sizes, self._objects = tuple(names), tuple(sizes), tuple(objects)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, position: int) -> str:
        """The annotation file and the image."""
        return self._names[position]

    def read(self, position: int) -> np.ndarray:
        """H x W uint8, smaller objects over larger ones; OSError where an outline is broken."""
        height, width = self._sizes[position]
        mask = np.zeros((height, width), np.uint8)
        for thing in sorted(self._objects[position], key=lambda thing: -thing.area):
            try:
                mask[inside(thing.outline, height, width)] = thing.value
            except (ValueError, TypeError, LookupError, OverflowError) as error:
                raise OSError(f"{self._names[position]}: broken outline of an object: {error}") from None
        return mask


def inside(outline: object, height: int, width: int) -> np.ndarray:
    """H x W bool, True in the object; ValueError, TypeError or LookupError where its outline is broken."""
    if isinstance(outline, Mapping):
        return _in_runs(outline, height, width)
    if not isinstance(outline, Sequence) or isinstance(outline, str):
        raise ValueError(f"neither polygons nor run lengths but {type(outline).__name__}")
    found = np.zeros((height, width), bool)
    for polygon in outline:
        corners = np.asarray(polygon, np.float64)
        if corners.ndim != 1 or len(corners) < 6 or len(corners) % 2 or not np.isfinite(corners).all():
            raise ValueError("a polygon is not a list of x and y of three or more corners")
        corners = corners.reshape(-1, 2)
        left, top = np.clip(np.floor(corners.min(0)), 0, (width, height)).astype(int)
        right, bottom = np.clip(np.ceil(corners.max(0)), 0, (width, height)).astype(int)
        found[top:bottom, left:right] |= in_polygon(corners - (left, top), bottom - top, right - left)
    return found


def in_polygon(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """H x W bool, True where a pixel's centre lies in the polygon V x 2 (x, y), by the even-odd rule.

    The first pixel's centre is at 0.5, 0.5. A centre on a left or upper edge is in, one on a right or lower edge not.
    """
    (x, y), (next_x, next_y) = corners.T, np.roll(corners, -1, axis=0).T
    centres = np.arange(height)[:, None] + 0.5
    row, edge = np.nonzero((y <= centres) != (next_y <= centres))
    share = (row + 0.5 - y[edge]) / (next_y - y)[edge]
    crossing = x[edge] + share * (next_x - x)[edge]
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)  # the first centre right of the edge
    changes = np.zeros((height, width + 1), np.uint8)
    np.add.at(changes, (row, column), 1)
    return (np.cumsum(changes[:, :width], axis=1, dtype=np.uint8) & 1).astype(bool)


def decompressed(text: str) -> list[int]:
    """Run lengths from COCO's string of them.

    A number is written five bits a character, lowest first, from "0" on; 32 marks that more follow and 16 in the last
    one a negative number. From the fourth on, numbers are differences to the last but one. Source: pycocotools,
    `rleFrString`.
    """
    codes = [ord(character) - ord("0") for character in text]
    if any(not 0 <= code < 64 for code in codes) or (codes and codes[-1] & 32):
        raise ValueError("the string of run lengths ends within a number or holds a strange character")
    counts: list[int] = []
    number = shift = 0
    for code in codes:
        number |= (code & 31) << shift
        shift += 5
        if not code & 32:
            number -= (code >> 4 & 1) << shift  # the sign
            counts.append(number + counts[-2] if len(counts) > 2 else number)
            number = shift = 0
    return counts


def _in_runs(outline: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    counts = outline["counts"]
    counts = np.array(decompressed(counts) if isinstance(counts, str) else counts, np.int64)
    if list(outline["size"]) != [height, width] or counts.ndim != 1 or (counts < 0).any():
        raise ValueError(f"run lengths of size {outline['size']} in an image of size {[height, width]}")
    if counts.sum() != height * width:
        raise ValueError(f"run lengths of {counts.sum()} pixels in an image of {height * width}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T
