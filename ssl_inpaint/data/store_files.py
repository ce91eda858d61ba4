"""The files of an image store: built by decoding threads, published whole by a rename, refused where incomplete.

A store's folder holds `pixels.bin` (all images, flat uint8, one after the other), `table.npy` (their shapes) and
`index.json`.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ssl_inpaint import files
from ssl_inpaint.core import Images
from ssl_inpaint.data.sources import open_image
from ssl_inpaint.errors import UsageError
from ssl_inpaint.progress import bar

SCHEMA = 1
MAX_ASPECT = 3  # longer images are cut in the middle: a strip of hundreds of thousands of pixels is no picture
STALE_SECONDS = 3600.0  # a temporary folder untouched for so long belongs to a process that was killed
AHEAD_PER_THREAD = 4  # images decoded before their turn to be written; bounds memory
TABLE = np.dtype([(n, np.int64) for n in ("position", "height", "width", "original_height", "original_width")])


@dataclass(frozen=True, eq=False)
class Index:
    """What a store knows of its images besides the pixels."""

    table: np.ndarray  # N of TABLE, the readable images in order
    unreadable: tuple[tuple[str, str], ...]  # name and reason
    count: int  # readable and unreadable
    digest: str


class _Decoded(NamedTuple):
    pixels: np.ndarray
    width: int
    height: int
    content: bytes  # sha256 of the encoded image


def kept_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what a store keeps of an image: all of it up to MAX_ASPECT, else the middle."""
    longest = MAX_ASPECT * min(width, height)
    left, top = max(0, width - longest) // 2, max(0, height - longest) // 2
    return left, top, left + min(width, longest), top + min(height, longest)


def read(folder: Path, count: int) -> tuple[np.ndarray, Index] | None:
    """The pixels, memory-mapped, and the index; None where the store is missing, incomplete or of another count."""
    try:
        header = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        table = np.load(folder / "table.npy", allow_pickle=False)
        expected = int((table["height"] * table["width"] * 3).sum())
        if header["count"] != count or len(table) + len(header["unreadable"]) != count or table.dtype != TABLE:
            return None
        if (folder / "pixels.bin").stat().st_size != expected:
            return None
        pixels = np.memmap(folder / "pixels.bin", np.uint8, "r").view(np.ndarray)  # slices of a memmap are slow
    except (OSError, ValueError, LookupError, TypeError, EOFError):
        return None
    return pixels, Index(table, tuple((name, reason) for name, reason in header["unreadable"]), count, header["digest"])


def announce(pixels: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> None:
    """Says which bytes are read next, so that the system fetches them side by side where they are not in memory.

    Without it each waits for the one before. Nothing happens where `pixels` are of no file, or the system has no notion
    of it.
    """
    mapped = _mapped(pixels)
    if mapped is None or not hasattr(mmap, "MADV_WILLNEED"):
        return
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        page = start - start % mmap.PAGESIZE
        with suppress(OSError):  # advice only: where it is refused, reading is slower
            mapped.madvise(mmap.MADV_WILLNEED, page, start + length - page)


def _mapped(pixels: np.ndarray) -> mmap.mmap | None:
    """The file that an array is a view of."""
    base: object = pixels
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def write(images: Images, short_side: int, folder: Path, check: Callable[[Index], None]) -> Index:
    """Decodes all images and publishes them as `folder`, unless another process did so first.

    `check` sees the index before anything is published, and may raise. UsageError where the disk is full or read-only.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder)
        with _temporary_folder(folder) as temporary:
            with (temporary / "pixels.bin").open("wb") as stream:
                index = _write_pixels(images, short_side, stream)
            check(index)
            np.save(temporary / "table.npy", index.table)
            header = {"schema": SCHEMA, "count": index.count, "digest": index.digest, "unreadable": index.unreadable}
            files.write_json(temporary / "index.json", header)
            _publish(temporary, folder, index.count)
    except OSError as error:
        raise UsageError(
            f"Cannot write the image store in {folder.parent}: {error.strerror or error}. "
            "Free space, or set SSL_INPAINT_CACHE to a folder that can be written."
        ) from None
    return index


def _write_pixels(images: Images, short_side: int, stream: BinaryIO) -> Index:
    table, done = np.empty(len(images), TABLE), 0  # a million rows of Python's numbers would take several times that
    unreadable, digest = [], hashlib.sha256()
    with bar("Decoding images", len(images)) as shown:
        for position, found in enumerate(_decoded_in_order(images, short_side)):
            if isinstance(found, _Decoded):
                stream.write(found.pixels.data)
                table[done] = (position, *found.pixels.shape[:2], found.height, found.width)
                done += 1
                digest.update(found.content)
            else:
                unreadable.append((_printable(images.name(position)), _printable(found.strerror or str(found))))
            shown.advance()
    return Index(table[:done], tuple(unreadable), len(images), digest.hexdigest())


def _decoded_in_order(images: Images, short_side: int) -> Iterator[_Decoded | OSError]:
    threads = min(32, os.cpu_count() or 1)
    waiting: deque[Future[_Decoded | OSError]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for position in range(len(images)):
                waiting.append(pool.submit(_decoded, images, position, short_side))
                if len(waiting) > threads * AHEAD_PER_THREAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _decoded(images: Images, position: int, short_side: int) -> _Decoded | OSError:
    from PIL import Image

    try:
        data = images.read(position)
        image, (width, height) = open_image(data, short_side)
    except OSError as error:
        return error
    left, top, right, bottom = kept_box(width, height)
    ratio = short_side / min(width, height)
    size = (max(1, round((right - left) * ratio)), max(1, round((bottom - top) * ratio)))
    across, down = image.width / width, image.height / height  # below 1 where a JPEG was decoded smaller
    box = (left * across, top * down, right * across, bottom * down)
    resized = image.resize(size, Image.Resampling.BILINEAR, box=box)
    return _Decoded(np.ascontiguousarray(resized), width, height, hashlib.sha256(data).digest())


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        temporary.chmod(0o755)  # mkdtemp makes folders that only their owner may read
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_stale(folder: Path) -> None:
    for old in folder.parent.glob(f".{folder.name}.*"):
        try:
            changed = max(entry.stat().st_mtime for entry in [old, *old.iterdir()])
        except OSError:  # another process removed it meanwhile
            continue
        if time.time() - changed > STALE_SECONDS:
            shutil.rmtree(old, ignore_errors=True)


def _publish(temporary: Path, folder: Path, count: int) -> None:
    """Renames the finished folder into place; a store that is there already stays, an incomplete one makes way."""
    if read(folder, count) is not None:
        return
    if folder.exists():
        with _temporary_folder(folder) as discarded, suppress(FileNotFoundError):  # another process was faster
            folder.replace(discarded / "incomplete")
    try:
        temporary.rename(folder)
    except OSError:
        if read(folder, count) is None:  # not a process that was faster, but a disk that refuses
            raise
