"""Scores on many resamplings of the test examples at once; each equals the plain metric on the repeated examples.

Throughout `counts` are N x R whole numbers: how often each of N examples is in each of R resamplings. What is returned
has one value a resampling. Where a metric is undefined on one, it is nan there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssl_inpaint.metrics import NOT_COUNTED, ApKind

CHUNK_VALUES = 2**19  # of an array that holds something of every hit in every resampling


@dataclass(frozen=True)
class Ranked:
    """A ranking for one class, best first, with the example that each place belongs to."""

    is_hit: np.ndarray  # M bool; of equal scores the misses first
    examples: np.ndarray  # M int64, 0 ... N - 1
    positives: np.ndarray  # N int64: how many each example has, found or not


def rank_examples(scores: np.ndarray, labels: np.ndarray) -> list[Ranked]:
    """The ranking of each of K classes for N x K scores and labels (1, 0, 255 not counted), as `metrics` ranks them."""
    found = []
    for own, truth in zip(np.asarray(scores).T, np.asarray(labels).T, strict=True):
        order = np.lexsort((truth, -own.astype(np.float64)))
        order = order[truth[order] != NOT_COUNTED]
        found.append(Ranked(truth[order] == 1, order, (truth == 1).astype(np.int64)))
    return found


def mean_average_precision(rankings: Sequence[Ranked], kind: ApKind, counts: np.ndarray) -> np.ndarray:
    """R means, each over the classes that have positives in that resampling."""
    return _mean_defined(np.stack([average_precision(ranked, kind, counts) for ranked in rankings]))


def mean_average_precision_of_scores(
    scores: np.ndarray, labels: np.ndarray, kind: ApKind, counts: np.ndarray
) -> np.ndarray:
    """`rank_examples` and `mean_average_precision` in one."""
    return mean_average_precision(rank_examples(scores, labels), kind, counts)


def average_precision(ranked: Ranked, kind: ApKind, counts: np.ndarray) -> np.ndarray:
    """R average precisions of one class; nan where a resampling has no positive."""
    from scipy import sparse  # slow to import, and every task imports this module

    found = np.full(counts.shape[1], np.nan)
    hits = ranked.examples[ranked.is_hit]
    segment = np.cumsum(ranked.is_hit)[~ranked.is_hit]  # between which hits a miss lies
    shape = len(hits) + 1, len(counts)
    between = sparse.csr_array((np.ones(len(segment)), (segment, ranked.examples[~ranked.is_hit])), shape=shape)
    step = max(1, CHUNK_VALUES // max(shape))
    for start in range(0, counts.shape[1], step):
        part = np.ascontiguousarray(counts[:, start : start + step], np.float64)  # exact: all are whole numbers
        positives = ranked.positives @ part
        misses = np.cumsum((between @ part)[:-1], axis=0)
        summed = _summed(part[hits], misses, positives, kind)
        found[start : start + step] = _share(summed, positives)
    return found


def mean(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """R means of N values, without those that are nan; nan where a resampling has no other."""
    known = ~np.isnan(values)
    drawn = counts[known].sum(axis=0, dtype=np.float64)
    total = values[known] @ counts[known].astype(np.float64)
    return _share(total, drawn)


def accuracy(predictions: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """R shares of N predicted classes that are right."""
    return mean((predictions == labels).astype(np.float64), counts)


def mean_class_accuracy(predictions: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """R means, over the classes that have examples in that resampling, of each one's accuracy."""
    own = (labels == k for k in np.unique(labels))
    return _mean_defined(np.stack([accuracy(predictions[those], labels[those], counts[those]) for those in own]))


def class_sums(matrix: np.ndarray) -> np.ndarray:
    """Of a K x K confusion matrix the pixels of each class that are right, in the truth, and predicted: 3 x K."""
    return np.stack([np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)])


def segmentation_scores(sums: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """`mIoU`, `pixel accuracy` and `mean class accuracy`, R of each, from the N x 3 x K `class_sums` of N images."""
    resampled = counts.T.astype(np.float64) @ sums.reshape(len(sums), -1).astype(np.float64)
    right, true, predicted = resampled.reshape(len(resampled), *sums.shape[1:]).transpose(1, 2, 0)
    pixels = true.sum(axis=0)
    return {
        "mIoU": _mean_defined(_share(right, np.where(true > 0, true + predicted - right, 0))),
        "pixel accuracy": _share(right.sum(axis=0), pixels),
        "mean class accuracy": _mean_defined(_share(right, true)),
    }


def _summed(hits: np.ndarray, misses: np.ndarray, positives: np.ndarray, kind: ApKind) -> np.ndarray:
    """Precision summed over all positives found, for M x R copies of each hit and misses that rank before it."""
    if not len(hits):
        return np.zeros(hits.shape[1])
    so_far = np.cumsum(hits, axis=0)
    if kind == "step":
        return _stepped(hits, so_far, misses)
    # Copies of a hit follow one another, so the last of them has the best precision, and all share its envelope.
    precision = so_far / np.maximum(so_far + misses, 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if kind == "area":
        return (hits * envelope).sum(axis=0)
    padded = np.concatenate([envelope, np.zeros((1, hits.shape[1]))])
    total = padded[0].copy()
    for tenth in range(1, 11):  # the first place of recall >= 0.1, 0.2, ...
        first = (10 * so_far < tenth * positives).sum(axis=0)
        total += np.take_along_axis(padded, first[None], axis=0)[0]
    return total * positives / 11


def _stepped(hits: np.ndarray, so_far: np.ndarray, misses: np.ndarray) -> np.ndarray:
    """As `_summed`, by the precision at each copy of each hit, the curve as it is.

    At copy j of a hit that has h hits and m misses before it, it is (h + j) / (h + j + m) = 1 - m / (h + j + m); summed
    over copies that is a difference of harmonic numbers.
    """
    last = (so_far + misses).astype(np.int64)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, last.max(initial=0) + 1))])
    return (hits - misses * (harmonic[last] - harmonic[last - hits.astype(np.int64)])).sum(axis=0)


def _mean_defined(values: np.ndarray) -> np.ndarray:
    """The means of K x R over what is not nan; nan where nothing is."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return _share(total, known.sum(axis=0))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
