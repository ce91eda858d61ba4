"""Class masks in image files: the value of each pixel, never scaled or converted, and what the values stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ssl_inpaint.data.sources import BROKEN

IGNORED = 255  # the value of pixels that are not counted
NO_VALUE = -1  # in a table: no pixel may have this value
LOSSY = ("JPEG", "JPEG2000", "MPO")


class MaskFiles:
    """Mask files below `root` (an absolute path stands for itself), with their values looked up in a table.

    `table` is 256 int16: what each value in the files becomes, or NO_VALUE. `values_of` reads a file, as `read_values`
    does, and `remedy` says what to do about a value that the table does not allow.
    """

    def __init__(
        self,
        root: Path,
        relative_paths: Sequence[str],
        table: np.ndarray,
        remedy: str,
        values_of: Callable[[Path], np.ndarray],
    ) -> None:
        self._root, self._names = root, tuple(relative_paths)
        self._table, self._remedy, self._values_of = table, remedy, values_of

    def __len__(self) -> int:
        return len(self._names)

    def name(self, position: int) -> str:
        """The path below the root, with forward slashes."""
        return self._names[position]

    def read(self, position: int) -> np.ndarray:
        """H x W uint8; OSError where the file is broken, no mask, or holds a value without a class."""
        name = self._names[position]
        try:
            values = self._values_of(self._root / name)
        except OSError as error:
            raise OSError(f"{name}: {error}") from None
        is_low = (values >= 0) & (values < len(self._table))
        classes = self._table[np.where(is_low, values, 0)]
        is_strange = ~is_low | (classes == NO_VALUE)
        if is_strange.any():
            raise OSError(
                f"{name} holds the value {values[is_strange].min()}, which stands for no class: {self._remedy}"
            )
        return classes.astype(np.uint8)


def plain_table(count: int, ignored: Sequence[int] = ()) -> np.ndarray:
    """The table of values 0 to `count` - 1 that stand for themselves; 255 and `ignored` are not counted."""
    table = np.full(256, NO_VALUE, np.int16)
    table[:count] = np.arange(count)
    table[[*ignored, IGNORED]] = IGNORED
    return table


def read_values(file: Path, palette: np.ndarray | None = None) -> np.ndarray:
    """H x W integers: the values of a greyscale or palette image, of 16 bits too.

    `palette` is 256 x 3 uint8 of different colours: an image saved in these is read as their indices. OSError where
    the file cannot be read, has other colours, or is a JPEG, which blurs values.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            kind, mode, pixels = image.format, image.mode, np.asarray(image)
    except UnidentifiedImageError:
        raise OSError("not an image, or of an unknown format") from None
    except (Image.DecompressionBombError, *BROKEN) as error:
        raise OSError(f"broken image: {error}") from error
    if kind in LOSSY:
        raise OSError(f"a mask saved as {kind} has lost its values: save it as PNG")
    if mode in ("RGB", "RGBA") and palette is not None:
        return _indices(pixels[..., :3], palette)
    if pixels.ndim != 2 or not (np.issubdtype(pixels.dtype, np.integer) or pixels.dtype == bool):
        raise OSError(f"a mask of colours ({mode}): save class numbers 0, 1, ... as a greyscale or palette PNG")
    return pixels if pixels.dtype != bool else pixels.astype(np.uint8)


def _indices(colours: np.ndarray, palette: np.ndarray) -> np.ndarray:
    weights = np.array([1 << 16, 1 << 8, 1])
    codes, known = colours.astype(np.int64) @ weights, palette.astype(np.int64) @ weights
    order = np.argsort(known)
    found = order[np.searchsorted(known[order], codes).clip(max=len(known) - 1)]
    is_strange = known[found] != codes
    if is_strange.any():
        colour = ", ".join(map(str, colours[is_strange][0]))
        raise OSError(f"a mask with the colour ({colour}), which is not in VOC's palette: save class numbers as PNG")
    return found
