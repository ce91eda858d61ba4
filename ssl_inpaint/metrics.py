"""Scores of classification and ranking: accuracy, and average precision of a named kind.

There are three average precisions in use and they differ by several points, so the kind is always given: "area" is the
area under the monotone envelope of the curve (PASCAL VOC devkit from 2010), "step" the area under the curve as it is
(scikit-learn's `average_precision_score`), "11-point" the mean of the envelope at recalls 0, 0.1, ... 1 (devkit of
VOC 2007). All results are fractions.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from ssl_inpaint.errors import unknown_name

ApKind = Literal["area", "step", "11-point"]

NOT_COUNTED = 255


def average_precision(scores: np.ndarray, labels: np.ndarray, kind: ApKind) -> float:
    """Average precision of N scores for one class; labels are 1, 0, or 255 for what is not counted.

    Ties are pessimistic: of equal scores the negatives come first (what voc-classification gets by subtracting
    1e-5 * label). nan where nothing is positive. ValueError for another label, a score that is no number, or unequal
    lengths.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    _check(scores, labels)
    counted = labels != NOT_COUNTED
    scores, labels = scores[counted], labels[counted]
    order = np.lexsort((labels, -scores.astype(np.float64)))
    return ranked_average_precision(labels[order] == 1, int((labels == 1).sum()), kind)


def ranked_average_precision(is_hit: np.ndarray, positives: int, kind: ApKind) -> float:
    """Average precision of a ranking, best first: N bool, True for a positive, out of `positives` that there are.

    Positives missing from the ranking (objects without a detection) are never found. nan where `positives` is 0;
    ValueError where the ranking has more.
    """
    if kind not in get_args(ApKind):
        raise unknown_name("kind of average precision", kind, get_args(ApKind))
    is_hit = np.asarray(is_hit, dtype=bool)
    if is_hit.sum() > positives:
        raise ValueError(f"{is_hit.sum()} hits of {positives} positives: there cannot be more hits.")
    if positives == 0:
        return float("nan")
    hits = np.cumsum(is_hit)
    precision = hits / np.arange(1, len(hits) + 1)
    if kind == "step":
        return float(precision[is_hit].sum() / positives)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # the best precision at this recall or a higher one
    if kind == "area":
        return float(envelope[is_hit].sum() / positives)
    first = np.searchsorted(10 * hits, np.arange(11) * positives)  # in whole numbers: recall >= 0, 0.1, ... 1
    return float(np.append(envelope, 0.0)[first].sum() / 11)


def mean_average_precision(scores: np.ndarray, labels: np.ndarray, kind: ApKind) -> tuple[float, np.ndarray]:
    """The mean over the classes that have positives, and each class's own (K, nan without positives).

    `scores` and `labels` are N x K, as `average_precision` takes them. The mean is nan where no class has positives.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or scores.shape != labels.shape:
        raise ValueError(f"Scores {scores.shape} and labels {labels.shape} must both be N x K.")
    each = np.array([average_precision(scores[:, k], labels[:, k], kind) for k in range(scores.shape[1])])
    present = each[~np.isnan(each)]
    return float(present.mean()) if len(present) else float("nan"), each


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """The share of N predicted classes that are right; ValueError where N is 0."""
    return float((np.asarray(predictions) == _some(labels, predictions)).mean())


def mean_class_accuracy(predictions: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """The mean over the classes that have examples of each one's accuracy; ValueError where N is 0."""
    labels = _some(labels, predictions)
    examples = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[np.asarray(predictions) == labels], minlength=classes)
    if len(examples) > classes:
        raise ValueError(f"Label {len(examples) - 1} is not among {classes} classes.")
    return float((right[examples > 0] / examples[examples > 0]).mean())


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """The share of N whose class has one of the k highest of its N x K scores; a tie at the k-th place is a miss.

    ValueError where N is 0 or k is outside 1 ... K.
    """
    scores = np.asarray(scores)
    labels = _some(labels, scores)
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k is {k}: it must be from 1 to the number of classes, {scores.shape[1]}.")
    own = scores[np.arange(len(labels)), labels]
    at_least = (scores >= own[:, None]).sum(axis=1)  # counts itself
    return float(((at_least <= k) & (at_least > 0)).mean())


def _check(scores: np.ndarray, labels: np.ndarray) -> None:
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(f"Scores {scores.shape} and labels {labels.shape} must have one dimension and one length.")
    if not np.isin(labels, (0, 1, NOT_COUNTED)).all():
        raise ValueError(f"Labels are {sorted(set(labels.tolist()))}: they must be 1, 0 or {NOT_COUNTED}.")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are not a number.")


def _some(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if len(labels) == 0 or len(labels) != len(predicted):
        raise ValueError(
            f"{len(labels)} labels for {len(predicted)} predictions: there must be one for each, and some."
        )
    return labels
