"""How much boxes overlap, and to which object each of the detections of many images belongs.

Boxes are x1 y1 x2 y2 with the right and bottom edge excluded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ssl_inpaint.core import Detections, Objects

PAIRS = 2**20  # of a detection and an object, compared at once


def intersection_over_union(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The overlap of each of M x 4 boxes with each of N x 4: M x N float64, 0 wherever a box has no area.

    ValueError for another shape, a coordinate that is not finite, or a box whose right or bottom edge comes first.
    """
    first, second = _checked_boxes(first), _checked_boxes(second)
    return _overlaps(first.T[:, :, None], second.T[:, None, :])


def owners(detections: Sequence[Detections], truths: Sequence[Objects], iou: float) -> np.ndarray:
    """The object that each detection belongs to, as its place among the objects of all images; -1 for none.

    It is the object of its label in its image that it overlaps most, of equal overlaps the one listed first, if by
    `iou` or more. Detections and objects are given image by image in the same order. ValueError for malformed boxes.
    All detections of many images at once: the cost is that of the pairs of a detection and an object of its image.
    """
    boxes, objects = (_joined_boxes(images) for images in (detections, truths))
    labels, object_labels = (_joined_labels(images) for images in (detections, truths))
    counts = np.array([len(truth.labels) for truth in truths], np.int64)  # of the objects in each image
    image = images_of(found.labels for found in detections)
    beside, first = counts[image], (np.cumsum(counts) - counts)[image]  # objects beside each detection; the first one
    found = np.full(len(labels), -1)
    for some in _slices(beside, PAIRS):
        which, nth = _numbered(beside[some])
        detection, candidate = which + some.start, first[some][which] + nth
        is_alike = labels[detection] == object_labels[candidate]
        detection, candidate = detection[is_alike], candidate[is_alike]
        shares = _overlaps(boxes[:, detection], objects[:, candidate])
        detection, candidate, shares = (array[shares >= iou] for array in (detection, candidate, shares))
        order = np.lexsort((candidate, -shares, detection))
        nearest = order[np.diff(detection[order], prepend=-1) > 0]
        found[detection[nearest]] = candidate[nearest]
    return found


def images_of(each: Iterable[np.ndarray]) -> np.ndarray:
    """The place of the image of every box, for the labels of the boxes of each image."""
    counts = [len(labels) for labels in each]
    return np.repeat(np.arange(len(counts)), counts)


def _slices(sizes: np.ndarray, most: int) -> Iterator[slice]:
    """Slices of N things that together have at most about so many parts, `sizes` of each; never fewer than one."""
    ends, start = np.cumsum(sizes), 0
    while start < len(sizes):
        before = ends[start] - sizes[start]
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield slice(start, stop)
        start = stop


def _numbered(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For the parts of things that have `sizes` of them: whose each is, and the how manieth, from 0."""
    which = np.repeat(np.arange(len(sizes)), sizes)
    return which, np.arange(len(which)) - (np.cumsum(sizes) - sizes)[which]


def _overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The IoU of boxes 4 x ..., pair by pair where the shapes are as NumPy broadcasts them; 0 without an area."""
    width = np.minimum(first[2], second[2]) - np.maximum(first[0], second[0])
    height = np.minimum(first[3], second[3]) - np.maximum(first[1], second[1])
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    union = _areas(first) + _areas(second) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=intersection > 0)


def _areas(boxes: np.ndarray) -> np.ndarray:
    area: np.ndarray = (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])
    return area


def _checked_boxes(boxes: np.ndarray) -> np.ndarray:
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"Boxes have the shape {boxes.shape}: they must be N x 4, also where N is 0.")
    if not ((boxes[:, 2:] >= boxes[:, :2]).all() and np.isfinite(boxes).all()):
        raise ValueError("Some boxes are not finite, or have x2 < x1 or y2 < y1: they must be x1 y1 x2 y2 in pixels.")
    return boxes


def _joined_boxes(images: Sequence[Detections] | Sequence[Objects]) -> np.ndarray:
    """Of all images, 4 x N float64."""
    return _checked_boxes(np.concatenate([np.empty((0, 4)), *(image.boxes for image in images)])).T


def _joined_labels(images: Sequence[Detections] | Sequence[Objects]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int64), *(image.labels for image in images)]).astype(np.int64)
