"""Scores of detection: average precision as PASCAL VOC and as COCO define it, and the recall of proposals.

Boxes are x1 y1 x2 y2 with the right and bottom edge excluded, so a width is x2 - x1. The devkit's boxes are whole
pixels counted from 1, both ends included, and its widths x2 - x1 + 1: taking 1 off its x1 and y1 gives the same
numbers. All results are fractions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from ssl_inpaint import overlaps
from ssl_inpaint.core import Detections, Objects
from ssl_inpaint.errors import UsageError
from ssl_inpaint.metrics import ApKind, ranked_average_precision

COCO_KEYS = {"AP (COCO)": "map", "AP50 (COCO)": "map_50", "AP75 (COCO)": "map_75"}  # our name: torchmetrics'


@dataclass(frozen=True)
class Ranking:
    """What became of the detections of one class in all images."""

    is_hit: np.ndarray  # N bool, best first; False for a false positive; detections of difficult objects left out
    images: np.ndarray  # N int64: the image of each
    objects: np.ndarray  # int64: how many objects of the class each image has that are not difficult

    @property
    def positives(self) -> int:
        """How many there are to be found."""
        return int(self.objects.sum())


def rank_detections(
    detections: Sequence[Detections], truths: Sequence[Objects], classes: int, iou: float = 0.5
) -> tuple[Ranking, ...]:
    """The ranking of each of K classes, detections and objects given image by image in the same order.

    A detection belongs to the object of its class in its image that it overlaps most, difficult or not, if by `iou` or
    more; of equal overlaps, to the object listed first. The highest-scoring detection of an object is a hit; a later
    one, or one that belongs to no object, is a false positive; one of a difficult object is neither. Of equal scores
    the false positives rank first, so the order of images and of detections changes nothing. ValueError for unequal
    lengths, other shapes than `Objects` and `Detections` have, labels outside 0 ... K - 1, scores that are no number,
    or an `iou` outside (0, 1]. Source: VOCevaldet.m of the VOC 2007 devkit.
    """
    _check(detections, truths, classes, iou)
    is_difficult = _join((truth.is_difficult for truth in truths), bool)
    object_labels = _join((truth.labels for truth in truths), np.int64)
    owners = overlaps.owners(detections, truths, iou)
    is_counted = ~np.append(is_difficult, False)[owners]  # the appended one answers for -1, no owner
    owners = owners[is_counted]
    labels = _join((found.labels for found in detections), np.int64)[is_counted]
    scores = _join((found.scores for found in detections), np.float64)[is_counted]
    is_hit = _are_first(owners, scores)
    images = overlaps.images_of(found.labels for found in detections)[is_counted]
    order = np.lexsort((is_hit, -scores, labels))  # class by class
    ends = np.searchsorted(labels[order], np.arange(1, classes))
    there = ~is_difficult
    objects = np.zeros((classes, len(truths)), np.int64)
    np.add.at(objects, (object_labels[there], overlaps.images_of(truth.labels for truth in truths)[there]), 1)
    of_classes = zip(np.split(is_hit[order], ends), np.split(images[order], ends), objects, strict=True)
    return tuple(Ranking(*of_class) for of_class in of_classes)


def mean_average_precision_of_rankings(rankings: Sequence[Ranking], kind: ApKind) -> tuple[float, np.ndarray]:
    """The mean over the classes that have objects that are not difficult, and each class's own (K, nan without).

    A class with objects and without detections has 0. The mean is nan where no class has objects.
    """
    each = np.array([ranked_average_precision(ranking.is_hit, ranking.positives, kind) for ranking in rankings])
    present = each[~np.isnan(each)]
    return float(present.mean()) if len(present) else float("nan"), each


def mean_average_precision_of_detections(
    detections: Sequence[Detections], truths: Sequence[Objects], classes: int, kind: ApKind, iou: float = 0.5
) -> tuple[float, np.ndarray]:
    """`rank_detections` and `mean_average_precision_of_rankings` in one; for several kinds, rank once."""
    return mean_average_precision_of_rankings(rank_detections(detections, truths, classes, iou), kind)


def proposal_recall(proposals: Sequence[np.ndarray], truths: Sequence[Objects], iou: float = 0.5) -> float:
    """The share of the objects that are not difficult that some proposal (P x 4 an image) overlaps by `iou` or more.

    One proposal may serve several objects. nan where there are no such objects; ValueError for unequal lengths or
    malformed boxes.
    """
    _check_lengths("proposals", len(proposals), len(truths), iou)
    best = [
        overlaps.intersection_over_union(proposed, truth.boxes[~truth.is_difficult]).max(axis=0, initial=0.0)
        for proposed, truth in zip(proposals, truths, strict=True)
    ]
    is_found = _join(best, np.float64) >= iou
    return float(is_found.mean()) if len(is_found) else float("nan")


def coco_average_precision(
    detections: Sequence[Detections], truths: Sequence[Objects], classes: int
) -> dict[str, float]:
    """COCO's AP (mean over IoU 0.5, 0.55, ... 0.95), AP50 and AP75; a score that is undefined has no key.

    Difficult objects are passed as COCO's crowds: not counted, and a detection is excused if enough of its own area
    lies in one, even where the IoU is small. At most the 100 highest-scoring detections of each class in each image
    count, as in COCO's own code. ValueError as in `rank_detections`; UsageError where the backend is missing.
    """
    _check(detections, truths, classes, iou=0.5)
    if find_spec("faster_coco_eval") is None:
        raise UsageError(
            "COCO's average precision needs faster_coco_eval, which is not installed: "
            "install it with pip install 'ssl-inpaint[coco]'."
        )
    if not truths:
        return {}
    from torchmetrics.detection import MeanAveragePrecision  # here: it is heavy, and only COCO's scores need it

    metric = MeanAveragePrecision(backend="faster_coco_eval", max_detection_thresholds=[1, 10, 100])
    metric.warn_on_many_detections = False  # more than 100 are cut on purpose
    metric.update(
        [{**_tensors(found), "scores": torch.tensor(found.scores, dtype=torch.float32)} for found in detections],
        [{**_tensors(truth), "iscrowd": torch.tensor(truth.is_difficult, dtype=torch.int64)} for truth in truths],
    )
    scores = metric.compute()
    return {name: float(scores[key]) for name, key in COCO_KEYS.items() if scores[key] >= 0}  # -1: undefined


def _are_first(owners: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """True for the highest-scoring detection of each object."""
    owned = np.flatnonzero(owners >= 0)
    owned = owned[np.argsort(-scores[owned], kind="stable")]
    first = np.unique(owners[owned], return_index=True)[1]
    result = np.zeros(len(owners), dtype=bool)
    result[owned[first]] = True
    return result


def _tensors(image: Detections | Objects) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(image.boxes, dtype=torch.float32),
        "labels": torch.tensor(image.labels, dtype=torch.int64),
    }


def _join(arrays: Iterable[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *arrays]).astype(dtype)


def _check_lengths(what: str, given: int, truths: int, iou: float) -> None:
    if given != truths:
        raise ValueError(f"There are {what} for {given} images and objects for {truths}: there must be one for each.")
    if not 0 < iou <= 1:
        raise ValueError(f"The least IoU is {iou}: it must be above 0 and at most 1.")


def _check(detections: Sequence[Detections], truths: Sequence[Objects], classes: int, iou: float) -> None:
    _check_lengths("detections", len(detections), len(truths), iou)
    for i, (found, truth) in enumerate(zip(detections, truths, strict=True)):
        _check_shapes(f"Detections of image {i}", found.boxes, found.labels, found.scores)
        _check_shapes(f"Objects of image {i}", truth.boxes, truth.labels, truth.is_difficult)
    for what, images in (("detections", detections), ("objects", truths)):
        labels = _join((image.labels for image in images), np.int64)
        if len(labels) and (labels.min() < 0 or labels.max() >= classes):
            raise ValueError(f"Labels of {what} are {labels.min()} to {labels.max()}: they must be 0 to {classes - 1}.")
    wrong = int(np.isnan(_join((found.scores for found in detections), np.float64)).sum())
    if wrong:
        raise ValueError(f"{wrong} scores of detections are not a number.")


def _check_shapes(what: str, boxes: np.ndarray, *others: np.ndarray) -> None:
    shapes = [np.shape(boxes), *(np.shape(other) for other in others)]
    if shapes != [(len(boxes), 4), *((len(boxes),) for _ in others)]:
        raise ValueError(f"{what} have the shapes {shapes}: they must be N x 4, N and N.")
