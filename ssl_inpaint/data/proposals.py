"""Object proposals, the boxes that Fast R-CNN classifies: by selective search, kept on disk, or read from a file.

Selective search (Uijlings et al., IJCV 2013) cuts an image into regions by colour, merges the most alike step by step
and proposes the bounding box of every region on the way. It takes a tenth of a second to several seconds an image, so
what it finds is cached by the image's content: a stopped search goes on where it was, and splits share.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from ssl_inpaint import files
from ssl_inpaint.config import Settings, hash_of
from ssl_inpaint.core import Images
from ssl_inpaint.data import proposal_files
from ssl_inpaint.data.sources import open_image
from ssl_inpaint.data.store_files import kept_box
from ssl_inpaint.errors import UsageError
from ssl_inpaint.progress import bar

if TYPE_CHECKING:
    from PIL import Image

SCHEMA = 1  # of the cache; raised whenever the same settings would find other boxes or another order
LIGHT_FINENESS = 100.0  # k of Felzenszwalb and Huttenlocher (2004): higher, larger regions; OpenCV's are 150 to 450
LIGHT_LEAST_PIXELS = 30  # of a first region; OpenCV's 100 lose the small objects of images of 128 pixels
SMOOTHING_PIXELS = 0.8  # sigma of the blur before the first regions, as in OpenCV's modes
BROKEN = (OSError, ValueError, TypeError, EOFError)  # what a damaged cache file raises


class ProposalConfig(Settings):
    """How selective search looks for objects (Uijlings et al. 2013, OpenCV's)."""

    # Colour spaces x first segmentations x similarities: 1 x 1 x 1, 2 x 1 x 2, 2 x 3 x 2 or 5 x 5 x 4. light is the
    # suite's own, for small images; the others are OpenCV's.
    mode: Literal["single", "light", "fast", "quality"] = "fast"
    # Pixels: images are resized to it before the search; 0: as they are. Time grows faster than the area, so that
    # photographs straight from a camera need it.
    short_side: int = Field(0, ge=0)
    most: int = Field(2000, ge=1)  # kept of each image, as Fast R-CNN does; a random choice where there are more
    # Pixels of the searched image: boxes with a shorter side are dropped. R-CNN drops those under 20 of a width of 500,
    # which is 7 of a short side of 128; up to 8 hardly an object of VOC 2007 is lost at 128 to 192.
    smallest_side: float = Field(8.0, ge=0)
    file: str = ""  # boxes to read instead, .npz, .json or .mat, several with commas: see proposal_files


@dataclass(frozen=True, eq=False)
class Proposals:
    """Where objects may be, for every image of a split."""

    boxes: tuple[np.ndarray, ...]  # P x 4 float32: x1 y1 x2 y2 in pixels of the upright file, right and bottom excluded
    digest: str  # sha256 of the boxes in order


def open_proposals(
    images: Images, config: ProposalConfig, workers: int | None = None, cache: Path | None = None
) -> Proposals:
    """Proposals of all images, in order: read from `config.file`, or else from the cache or searched for.

    The boxes of an image depend on its content and the settings alone; 0 x 4 where it cannot be read. `workers` is
    the number of threads (OpenCV lets others run meanwhile); None: one a core. UsageError where the file is not as it
    should be, OpenCV lacks selective search, or the cache cannot be written.
    """
    if config.file:
        found: Sequence[np.ndarray] = proposal_files.read_proposals(config.file, images)
    else:
        found = _cached_or_searched(images, config, workers or os.cpu_count() or 1, cache or files.cache_folder())
    boxes = tuple(of_image[: config.most] for of_image in found)
    digest = hashlib.sha256()
    for of_image in boxes:
        digest.update(f"{len(of_image)}\n".encode() + of_image.tobytes())
    return Proposals(boxes, digest.hexdigest())


def write_proposals(path: Path, images: Images, proposals: Proposals) -> None:
    """Writes an .npz file that `ProposalConfig.file` takes, whole or not at all; UsageError where it cannot."""
    proposal_files.write(path, images, proposals.boxes)


def _cached_or_searched(images: Images, config: ProposalConfig, workers: int, cache: Path) -> list[np.ndarray]:
    folder = cache / "proposals" / hash_of(SCHEMA, _opencv().__version__, config.model_dump(exclude={"file", "most"}))
    with ThreadPoolExecutor(workers) as pool:
        known = list(pool.map(lambda position: _cached(images, position, folder), range(len(images))))
        boxes = {position: found for position, found in enumerate(known) if found is not None}
        missing = [position for position in range(len(images)) if position not in boxes]
        if missing:
            with bar("Selective search", len(images), done=len(boxes)) as shown:
                try:
                    started = {pool.submit(_search_and_keep, images, p, config, folder): p for p in missing}
                    for future in as_completed(started):
                        boxes[started[future]] = future.result()
                        shown.advance()
                finally:  # Ctrl-C waits only for the searches that run, and they are kept
                    pool.shutdown(cancel_futures=True)
    return [boxes[position] for position in range(len(images))]


def _cached(images: Images, position: int, folder: Path) -> np.ndarray | None:
    """What the cache knows of an image, 0 x 4 where its file cannot be read; None where it has to be searched."""
    try:
        path = _cache_file(folder, images.read(position))
    except OSError:
        return _none()
    try:
        with path.open("rb") as stream:
            boxes = np.lib.format.read_array(stream, allow_pickle=False)
    except BROKEN:
        return None
    is_whole = boxes.dtype == np.float32 and boxes.ndim == 2 and proposal_files.are_boxes(boxes)
    return boxes if is_whole else None


def _search_and_keep(images: Images, position: int, config: ProposalConfig, folder: Path) -> np.ndarray:
    try:
        data = images.read(position)
        image, (width, height) = open_image(data, config.short_side)
    except OSError:
        return _none()
    boxes = _search(image, width, height, config)
    with files.replacing(_cache_file(folder, data)) as temporary:
        np.save(temporary, boxes)
    return boxes


def _search(image: Image.Image, width: int, height: int, config: ProposalConfig) -> np.ndarray:
    """Boxes in pixels of the original of `width` x `height`; `image` may have been decoded smaller than that."""
    from PIL import Image

    # As the image store does: what it cuts off is never seen, and a resized strip would be endless.
    left, top, right, bottom = kept_box(width, height)
    ratio = config.short_side / min(width, height) if config.short_side else 1.0
    size = (max(1, round((right - left) * ratio)), max(1, round((bottom - top) * ratio)))
    across, down = image.width / width, image.height / height
    part = (left * across, top * down, right * across, bottom * down)
    resized = image.resize(size, Image.Resampling.BILINEAR, box=part)
    x, y, w, h = _rectangles(np.asarray(resized), config.mode).T
    corners = np.stack([x, y, x + w, y + h], 1)[np.minimum(w, h) >= config.smallest_side]
    scaled = corners * np.array([right - left, bottom - top] * 2) / np.array(size * 2)
    return (scaled + np.array([left, top] * 2)).astype(np.float32)


def _rectangles(pixels: np.ndarray, mode: str) -> np.ndarray:
    """N x 4 int: x, y, width and height of all that selective search finds in H x W x 3 RGB; none twice.

    Deviation: the paper ranks a region by its level in the hierarchy times a random number. OpenCV draws that from C's
    rand(), which all threads share, so that no search could be repeated, and keeps the levels to itself; here the order
    is one draw that depends on the number of boxes alone, and loses no more objects where `most` cuts.
    """
    cv2 = _opencv()
    bgr = np.ascontiguousarray(pixels[:, :, ::-1])
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(bgr)
    if mode == "single":
        search.switchToSingleStrategy()
    elif mode == "light":
        _switch_to_light(cv2, search, bgr)
    elif mode == "fast":
        search.switchToSelectiveSearchFast()
    else:
        search.switchToSelectiveSearchQuality()
    found = np.unique(np.asarray(search.process(), np.int64).reshape(-1, 4), axis=0)  # sorted
    return found[np.random.default_rng(0).permutation(len(found))]


def _switch_to_light(cv2: Any, search: Any, bgr: np.ndarray) -> None:
    """Both colour spaces and both similarities of fast on one finer segmentation: half its time, as many objects."""
    segmentation = cv2.ximgproc.segmentation
    for space in (cv2.COLOR_BGR2HSV, cv2.COLOR_BGR2Lab):
        search.addImage(cv2.cvtColor(bgr, space))
    search.addGraphSegmentation(
        segmentation.createGraphSegmentation(SMOOTHING_PIXELS, LIGHT_FINENESS, LIGHT_LEAST_PIXELS)
    )
    by_shape = ("Fill", "Texture", "Size")
    for names in (("Color", *by_shape), by_shape):
        alike = [getattr(segmentation, f"createSelectiveSearchSegmentationStrategy{name}")() for name in names]
        search.addStrategy(segmentation.createSelectiveSearchSegmentationStrategyMultiple(*alike))


def _cache_file(folder: Path, data: bytes) -> Path:
    name = hashlib.sha256(data).hexdigest()
    return folder / name[:2] / f"{name}.npy"


def _none() -> np.ndarray:
    return np.zeros((0, 4), np.float32)


def _opencv() -> Any:
    """The module cv2; UsageError where it comes without selective search."""
    try:
        import cv2

        cv2.ximgproc.segmentation.createSelectiveSearchSegmentation  # noqa: B018 (is it there?)
    except (ImportError, AttributeError):
        raise UsageError(
            "Selective search needs OpenCV with its contrib modules: pip install opencv-contrib-python-headless, "
            "or give the boxes by proposals.file=FILE, or choose head.detector=faster."
        ) from None
    return cv2
