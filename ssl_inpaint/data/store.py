"""The image store: every image decoded and resized once, then read as crops of one memory-mapped file.

Decoding is most of the cost of reading photographs, so it is paid once for a data set and working size; the file stays
in the page cache, and processes share it. A store is known by its images' stamp, so a changed folder makes a new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_inpaint import files
from ssl_inpaint.core import Images
from ssl_inpaint.data import store_files
from ssl_inpaint.data.store_files import MAX_ASPECT, Index
from ssl_inpaint.errors import UsageError
from ssl_inpaint.progress import say

SLACK = 1e-2  # pixels by which a window may leave the image: float32 rounding of a window drawn inside it
LEAST_ALLOWED_UNREADABLE = 3
ATTEMPTS = 3  # to build and read back, where other processes replace or remove the store meanwhile


@dataclass(frozen=True, eq=False)
class ImageStore:
    """Decoded images of one working size; positions count the readable ones. Build with `open_store` or `join`."""

    pixels: tuple[np.ndarray, ...]  # flat uint8, one for each joined store
    pieces: np.ndarray  # N int64: in which of `pixels` the image lies
    offsets: np.ndarray  # N int64: where it begins there
    heights: np.ndarray  # N int64, in pixels of the store
    widths: np.ndarray
    original_heights: np.ndarray  # N int64, in pixels of the file, upright
    original_widths: np.ndarray
    kept: np.ndarray  # N int64: position in the split; unreadable images are missing here
    count: int  # images of the split, unreadable ones too
    digest: str  # sha256 of the encoded content of the readable images, in order

    def __len__(self) -> int:
        return len(self.kept)

    def image(self, position: int) -> np.ndarray:
        """H x W x 3 uint8 RGB, a view of the file."""
        height, width = int(self.heights[position]), int(self.widths[position])
        offset = int(self.offsets[position])
        flat = self.pixels[self.pieces[position]]
        return flat[offset : offset + height * width * 3].reshape(height, width, 3)

    def kept_box(self, position: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what the store keeps of the image, in pixels of the file."""
        return store_files.kept_box(int(self.original_widths[position]), int(self.original_heights[position]))

    def boxes(self, position: int, boxes: np.ndarray) -> np.ndarray:
        """Boxes M x 4 of the original file (x1 y1 x2 y2) in pixels of the store, clipped to the image."""
        left, top, right, bottom = self.kept_box(position)
        size = np.array([self.widths[position], self.heights[position]] * 2, np.float32)
        scaled = (boxes - np.array([left, top, left, top], np.float32)) * size
        scaled /= np.array([right - left, bottom - top] * 2, np.float32)
        return np.clip(scaled, 0, size).astype(np.float32)

    def crops(
        self,
        positions: Tensor | np.ndarray,
        windows: Tensor | np.ndarray,
        size: int,
        is_flipped: Tensor | np.ndarray,
    ) -> Tensor:
        """Windows of images as B x 3 x size x size uint8, channels last in memory.

        `windows` is B x 4: x, y, width, height in pixels of the store. One of size x size whole pixels is copied,
        any other resized (bilinear, antialiased). ValueError where a window leaves its image.
        """
        chosen, corners = np.asarray(positions), np.asarray(windows, np.float64).reshape(-1, 4)
        self._refuse_outside(chosen, corners)
        self._announce(chosen)
        is_slice = (corners == np.rint(corners)).all(1) & (corners[:, 2:] == size).all(1)
        out = np.empty((len(chosen), size, size, 3), np.uint8)
        for row, (position, window) in enumerate(zip(chosen.tolist(), corners.tolist(), strict=True)):
            image = self.image(position)
            out[row] = _sliced(image, window) if is_slice[row] else _resized(image, window, size)
        crops = torch.from_numpy(out)
        for row in np.flatnonzero(
            np.asarray(is_flipped)
        ).tolist():  # one by one: by index all at once takes five times longer
            crops[row] = crops[row].flip(1)
        return crops.permute(0, 3, 1, 2)

    def _announce(self, positions: np.ndarray) -> None:
        lengths = 3 * self.heights[positions] * self.widths[positions]
        for piece, flat in enumerate(self.pixels):
            is_here = self.pieces[positions] == piece
            store_files.announce(flat, self.offsets[positions][is_here], lengths[is_here])

    def _refuse_outside(self, positions: np.ndarray, windows: np.ndarray) -> None:
        if len(positions) and (positions.min() < 0 or positions.max() >= len(self)):
            raise ValueError(
                f"Positions {positions.min()} to {positions.max()} are not all within 0 to {len(self) - 1}."
            )
        x, y, width, height = windows.T
        is_inside = (x >= -SLACK) & (y >= -SLACK) & (width > 0) & (height > 0)
        is_inside &= (x + width <= self.widths[positions] + SLACK) & (y + height <= self.heights[positions] + SLACK)
        for row in np.flatnonzero(~is_inside)[:1]:
            shape = f"{self.widths[positions[row]]} x {self.heights[positions[row]]}"
            raise ValueError(
                f"Window (x, y, width, height) {windows[row].tolist()} leaves its image of {shape} pixels."
            )


def open_store(
    images: Images, short_side: int, cache: Path | None = None, max_unreadable_fraction: float = 0.05
) -> ImageStore:
    """The store of `images` at `short_side` pixels, built where it is missing, incomplete or out of date.

    The aspect ratio is kept up to MAX_ASPECT : 1; longer images are cut in the middle of their long side. Small images
    are enlarged. Unreadable ones are named on stderr and left out; UsageError where there are none to read, where more
    than three and more than `max_unreadable_fraction` are unreadable, or where the cache cannot be written.
    """
    if short_side < 1:
        raise ValueError(f"short_side = {short_side} is not a number of pixels of 1 or more.")
    if not len(images):
        raise UsageError("There are no images to read: the data set or split is empty.")
    parent = (cache or files.cache_folder()) / "store"
    key = hashlib.sha256(f"{store_files.SCHEMA}:{short_side}:{MAX_ASPECT}:{images.stamp()}".encode()).hexdigest()[:24]
    while (opened := store_files.read(parent / key, len(images))) is None:
        index = store_files.write(
            images, short_side, parent / key, lambda found: _check(found, max_unreadable_fraction)
        )
        _tell(index, parent / key)
    _check(opened[1], max_unreadable_fraction)
    return _from_index(*opened)


def join(stores: Sequence[ImageStore]) -> ImageStore:
    """One store after the other, as train and val; `kept` counts through the joined splits."""
    pieces = np.cumsum([0, *(len(store.pixels) for store in stores)])
    before = np.cumsum([0, *(store.count for store in stores)])
    return ImageStore(
        pixels=tuple(flat for store in stores for flat in store.pixels),
        pieces=np.concatenate([store.pieces + first for store, first in zip(stores, pieces, strict=False)]),
        offsets=np.concatenate([store.offsets for store in stores]),
        heights=np.concatenate([store.heights for store in stores]),
        widths=np.concatenate([store.widths for store in stores]),
        original_heights=np.concatenate([store.original_heights for store in stores]),
        original_widths=np.concatenate([store.original_widths for store in stores]),
        kept=np.concatenate([store.kept + first for store, first in zip(stores, before, strict=False)]),
        count=int(before[-1]),
        digest=hashlib.sha256("".join(store.digest for store in stores).encode()).hexdigest(),
    )


def _from_index(pixels: np.ndarray, index: Index) -> ImageStore:
    heights, widths = index.table["height"], index.table["width"]
    ends = np.cumsum(heights * widths * 3)
    return ImageStore(
        pixels=(pixels,),
        pieces=np.zeros(len(ends), np.int64),
        offsets=np.concatenate([np.zeros(1, np.int64), ends[:-1]]),
        heights=heights,
        widths=widths,
        original_heights=index.table["original_height"],
        original_widths=index.table["original_width"],
        kept=index.table["position"],
        count=index.count,
        digest=index.digest,
    )


def _check(index: Index, max_unreadable_fraction: float) -> None:
    unreadable = len(index.unreadable)
    if unreadable == index.count or unreadable > max(LEAST_ALLOWED_UNREADABLE, max_unreadable_fraction * index.count):
        raise UsageError(f"{_sentence(index)}; mend or remove them, or choose another data set.")


def _tell(index: Index, folder: Path) -> None:
    if index.unreadable:
        say(f"{_sentence(index)}; they are left out (to try again, delete {folder}).")


def _sentence(index: Index) -> str:
    first = ", ".join(f"{name} ({reason})" for name, reason in index.unreadable[:3])
    more = ", ..." if len(index.unreadable) > 3 else ""
    return f"{len(index.unreadable)} of {index.count} images cannot be read: {first}{more}"


def _sliced(image: np.ndarray, window: list[float]) -> np.ndarray:
    x, y, width, height = map(int, window)
    return image[y : y + height, x : x + width]


def _resized(image: np.ndarray, window: list[float], size: int) -> np.ndarray:
    from PIL import Image

    x, y, width, height = window
    box = (max(x, 0.0), max(y, 0.0), min(x + width, image.shape[1]), min(y + height, image.shape[0]))
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box))
