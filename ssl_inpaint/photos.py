"""A user's image in, the same image with other pixels in its hole out: modes, transparency and metadata.

Visible pixels are never converted: what is written holds them as they were in the file, in its own mode.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ssl_inpaint import files
from ssl_inpaint.data.sources import BROKEN, GREY_BEHIND_ALPHA
from ssl_inpaint.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

SMALLEST_SIDE = 16  # pixels; below it there is no context to speak of
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
TIFF_MODES = ("CMYK", "LAB", "PA")  # what PNG does not have
ORIENTATION = 0x0112
WRITTEN = ("icc_profile", "exif", "dpi", "transparency")  # what is kept of an image's info
# EXIF tags that describe how pixels were stored or coloured: of TIFF files only, and wrong for the file written.
STORAGE_TAGS = (
    *(254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 277, 278, 279, 280, 281, 284, 290, 291, 292, 293, 297, 301),
    *(317, 318, 319, 320, 322, 323, 324, 325, 330, 332, 338, 339, 340, 341, 347, 512, 513, 514, 519, 520, 521),
    *(529, 530, 531, 532, 700, 34675),
)


@dataclass(frozen=True)
class Photo:
    """An image of a user, upright as its EXIF orientation says."""

    path: Path
    pixels: np.ndarray  # H x W x 3 uint8 RGB, what networks see; transparent pixels are laid on mid grey
    image: Image.Image  # the same in its own mode; its info holds palette transparency, ICC profile, dpi and EXIF

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.image.size


def read_photo(path: Path) -> Photo:
    """The image of 8 bits a channel in the file `path`; a colour marked as transparent becomes an alpha channel.

    UsageError where the file is missing, broken, no image, an animation, of more than 8 bits a channel or of less than
    16 pixels a side.
    """
    image, bits = opened(path)
    if bits > 8:
        hint = "convert it to 8 bits (magick IN -depth 8 OUT), or the fill would lose what the rest keeps"
        raise UsageError(f"{path} has {bits} bits a channel, where 8 are needed: {hint}.")
    upright = turned(image)
    if min(upright.size) < SMALLEST_SIDE:
        raise UsageError(f"{path} has {by(upright.size)} pixels: the least is {SMALLEST_SIDE} a side.")
    if upright.mode in ("1", "L", "RGB") and "transparency" in upright.info:
        upright = _converted(upright, "RGBA" if upright.mode == "RGB" else "LA")
    elif upright.mode not in (*PNG_MODES, *TIFF_MODES):
        upright = _converted(upright, "RGBA" if upright.has_transparency_data else "RGB")
    return Photo(path, np.array(_seen(upright)), upright)


def filled_image(photo: Photo, filled: np.ndarray, hole: np.ndarray, is_erased: bool = False) -> Image.Image:
    """The photo with the pixels of `filled`, H x W x 3 uint8, where `hole`, H x W bool, is True.

    Visible pixels keep their values in the photo's mode, palette indices too. Hidden ones become the nearest that the
    mode has: luma for greyscale, at half of it black or white, the nearest colour of a palette. Their transparency
    stays, but with `is_erased`, which says that they were hidden for being transparent, they become opaque.
    """
    from PIL import Image

    result = photo.image.copy()
    result.paste(_in_mode_of(photo, filled, hole, is_erased), mask=Image.fromarray(hole))
    return result


def write_image(image: Image.Image, path: Path) -> None:
    """Writes what `filled_image` gives without loss, whole or not at all, with its ICC profile, EXIF and dpi.

    The suffix of `path` must be the one of `output_names`: .tif for modes that PNG lacks, .png for the others;
    ValueError otherwise. UsageError where the file cannot be written.
    """
    suffix = suffix_of(image.mode)
    if path.suffix.lower() != suffix:
        raise ValueError(f"{path}: an image of mode {image.mode} is written as {suffix}.")
    options = {str(key): value for key, value in image.info.items() if key in WRITTEN}
    # TIFF is not compressed: Pillow's compressing encoder fails on EXIF folders (13.0).
    with files.replacing(path) as temporary:
        image.save(temporary, format="PNG" if suffix == ".png" else "TIFF", **options)


def opened(path: Path, is_header_only: bool = False) -> tuple[Image.Image, int]:
    """The only frame of an image file, still turned as in the file, and its bits a channel; UsageError if it fails."""
    from PIL import Image, UnidentifiedImageError

    try:
        data = path.read_bytes()
        image = Image.open(io.BytesIO(data))
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # phones keep previews as frames of MPO
        bits = _bits(image, data)  # found in the header: it is lost once pixels are loaded
        if not is_header_only:
            image.load()
    except UnidentifiedImageError:
        raise UsageError(f"{path} is no image, or of an unknown format: give a JPEG, PNG, TIFF or the like.") from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UsageError(f"{path} has more than {most:,} pixels, which are the most: make it smaller.") from None
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist: give the path of an image file.") from None
    except (OSError, *BROKEN) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be read ({reason}): give a whole image file.") from None
    if frames > 1:
        raise UsageError(f"{path} has {frames} frames or pages, where one is needed: save one of them as a file.")
    return image, bits


def turned(image: Image.Image) -> Image.Image:
    """The image upright, in its own mode, with the metadata that are written again."""
    from PIL import ImageOps

    kept = {key: value for key, value in image.info.items() if key in ("transparency", "icc_profile") and value != b""}
    orientation = 1
    try:
        exif = image.getexif()
        orientation = exif.get(ORIENTATION, 1)
        for tag in (ORIENTATION, *STORAGE_TAGS):
            exif.pop(tag, None)
        if len(exif):
            kept["exif"] = exif.tobytes()
    except (OSError, *BROKEN):  # broken metadata do not make the pixels unreadable
        kept.pop("exif", None)
    bare = image.copy()
    bare.info = {}
    bare.getexif()[ORIENTATION] = orientation
    upright = ImageOps.exif_transpose(bare)
    dpi = tuple(float(value) for value in image.info.get("dpi", ()))
    if len(dpi) == 2 and all(0 < value < math.inf for value in dpi):
        kept["dpi"] = dpi[::-1] if orientation in (5, 6, 7, 8) else dpi
    upright.info.update(kept)
    return upright


def laid_on(colour: tuple[int, int, int], image: Image.Image) -> Image.Image:
    """RGB with that colour behind what is transparent."""
    from PIL import Image

    behind = Image.new("RGBA", image.size, (*colour, 255))
    return Image.alpha_composite(behind, image.convert("RGBA")).convert("RGB")


def suffix_of(mode: str) -> str:
    """Of the file that holds an image of this mode without loss."""
    return ".tif" if mode in TIFF_MODES else ".png"


def by(width_height: tuple[int, int]) -> str:
    """A size in words."""
    return f"{width_height[0]} x {width_height[1]}"


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits a channel in the file; Pillow reduces colours of 16 to 8 without a word."""
    if image.format == "PNG":
        return data[24]  # of the header, IHDR
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,)))  # type: ignore[attr-defined]
    if image.format == "JPEG2000" and (at := data.find(b"\xff\x4f\xff\x51")) >= 0:
        return (data[at + 42] & 127) + 1  # Ssiz of the first component, in the marker SIZ
    if image.format == "PPM" and image.tile[0].codec_name == "ppm":  # type: ignore[attr-defined]
        return int(image.tile[0].args[-1]).bit_length()  # type: ignore[attr-defined]
    if image.format == "PPM" and image.mode == "I":
        return 16
    return {"I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;16") else 8)


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """In another mode that keeps every value, where transparency is a channel."""
    result = image.convert(mode)
    result.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return result


def _seen(image: Image.Image) -> Image.Image:
    """RGB, as `data.sources` decodes it: transparent pixels are laid on mid grey."""
    return laid_on(GREY_BEHIND_ALPHA, image) if image.has_transparency_data else image.convert("RGB")


def _in_mode_of(photo: Photo, filled: np.ndarray, hole: np.ndarray, is_erased: bool) -> Image.Image:
    from PIL import Image

    mode, inside = photo.image.mode, Image.fromarray(filled)
    if mode in ("P", "PA"):
        return _in_palette(photo.image, filled, hole, is_erased)
    if mode == "1":
        return inside.convert("L").point([255 * (value >= 128) for value in range(256)], "1")
    inside = inside.convert(mode)
    if mode in ("LA", "RGBA") and not is_erased:
        inside.putalpha(photo.image.getchannel("A"))
    return inside


def _in_palette(image: Image.Image, filled: np.ndarray, hole: np.ndarray, is_erased: bool) -> Image.Image:
    """Indices of the nearest colours that are as transparent as the pixel must be."""
    from PIL import Image
    from scipy.spatial import KDTree

    colours = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    alphas = np.full(256, 255)  # by index; of PA, transparency is not in the palette
    if image.mode == "P":
        probe = image.resize((256, 1))
        probe.putdata(range(256))
        alphas = np.array(probe.convert("RGBA").getchannel("A"))[0]
    indices = np.array(image if image.mode == "P" else image.getchannel("P"))
    wanted = np.full_like(indices, alphas[: len(colours)].max()) if is_erased else alphas[indices]
    for alpha in np.unique(wanted[hole]):
        places = hole & (wanted == alpha)
        known = np.flatnonzero(alphas[: len(colours)] == alpha)
        indices[places] = known[KDTree(colours[known]).query(filled[places])[1]]
    band = Image.fromarray(indices)
    if image.mode == "P":
        return Image.frombytes("P", image.size, band.tobytes())
    return Image.merge("PA", (band, Image.new("L", image.size, 255) if is_erased else image.getchannel("A")))
