"""Where images come from: files below a folder or arrays, and how their bytes become RGB pixels."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ssl_inpaint.data.listing import name_bytes

if TYPE_CHECKING:
    from PIL import Image

GREY_BEHIND_ALPHA = (128, 128, 128)
WHITES = (1.0, 255.0, 65535.0)  # what float and 32-bit greyscale files use for white
BROKEN = (
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)


class FileImages:
    """Image files below `root`, by their paths relative to it (an absolute path stands for itself)."""

    def __init__(self, root: Path, relative_paths: Sequence[str]) -> None:
        self._root, self._names = root, tuple(relative_paths)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, position: int) -> str:
        """The path below the root, with forward slashes."""
        return self._names[position]

    def read(self, position: int) -> bytes:
        """The file as it is; OSError where it cannot be read."""
        return (self._root / self._names[position]).read_bytes()

    def stamp(self) -> str:
        """Hash of the root and of every file's name, size and time of change; no file is opened.

        Every file is asked, every time: one that is written over in place leaves the time of its folder as it was.
        """
        digest = hashlib.sha256(name_bytes(os.path.abspath(self._root)))  # noqa: PTH100 (keeps symbolic links)
        root = str(self._root)
        for name in self._names:
            try:
                state = os.stat(os.path.join(root, name))  # noqa: PTH116, PTH118 (a million of them)
                digest.update(name_bytes(f"\n{name}\0{state.st_size}\0{state.st_mtime_ns}"))
            except OSError:
                digest.update(name_bytes(f"\n{name}\0missing"))
        return digest.hexdigest()


class ArrayImages:
    """Images that come decoded: `pixels` N x H x W or N x H x W x 3 uint8, and what to call each."""

    def __init__(self, pixels: np.ndarray, names: Sequence[str]) -> None:
        self._pixels, self._names = pixels, tuple(names)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, position: int) -> str:
        """The name given, such as its number in the whole set."""
        return self._names[position]

    def read(self, position: int) -> bytes:
        """The image as PNG."""
        from PIL import Image

        stream = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(self._pixels[position])).save(stream, "PNG")
        return stream.getvalue()

    def stamp(self) -> str:
        """Hash of the pixels: they are in memory already."""
        digest = hashlib.sha256(str(self._pixels.shape).encode())
        for image in self._pixels:
            digest.update(image.tobytes())
        return digest.hexdigest()


def decode(data: bytes) -> np.ndarray:
    """An encoded image as H x W x 3 uint8 RGB, upright as its EXIF orientation says.

    The first frame of animations; greyscale, palette and CMYK become RGB; transparent pixels are laid on mid grey;
    greyscale of 16 and 32 bits is scaled, not clipped. OSError where the data are truncated, broken or no image.
    """
    return np.asarray(open_image(data)[0])


def open_image(data: bytes, short_side: int = 0) -> tuple[Image.Image, tuple[int, int]]:
    """The image of `decode` as PIL RGB, with the width and height of the original.

    Where `short_side` is given, a JPEG may come 2, 4 or 8 times smaller if its short side stays twice that or more:
    the decoder then skips most of the work.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if short_side:
                ratio = 2 * short_side / min(width, height)
                image.draft(None, (int(width * ratio) + 1, int(height * ratio) + 1))
            image.load()
            orientation = _orientation(image)
            upright = _turned(_to_rgb(image), orientation)
    except UnidentifiedImageError:
        raise OSError("not an image, or of an unknown format") from None
    except (Image.DecompressionBombError, *BROKEN) as error:
        raise OSError(f"broken image: {error}") from error
    return upright, (height, width) if orientation >= 5 else (width, height)


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(0x0112, 1)
    except (OSError, *BROKEN):  # broken metadata do not make the pixels unreadable
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    from PIL.Image import Transpose

    turn = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_eight_bits(image)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or (image.mode == "P" and "transparency" in image.info):
        behind = Image.new("RGBA", image.size, (*GREY_BEHIND_ALPHA, 255))
        return Image.alpha_composite(behind, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> np.ndarray:
    values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)
    black, white = min(0.0, values.min()), values.max()
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        white = 65535.0
    elif black == 0.0:
        white = next((w for w in WHITES[image.mode == "I" :] if white <= w), white)
    return np.rint((values - black) / max(white - black, 1e-12) * 255).astype(np.uint8)
