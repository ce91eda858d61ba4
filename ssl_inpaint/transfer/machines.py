"""Linear support vector machines, one class against the rest: fitted, cross-validated, and drawn few examples for.

Labels are 1, 0, and 255 for what is not counted: such images are left out of that class's machine in training, in
cross-validation and in tests alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ssl_inpaint.metrics import NOT_COUNTED

NORM_EPSILON = 1e-5  # added to the length of a vector before it is divided by it, as in the reference


@dataclass(frozen=True)
class Solver:
    """What is the same for every machine."""

    positive_weight: float  # of positives in the loss, over that of negatives
    most_iterations: int
    is_dual: bool  # which of the two problems is solved: one optimum, reached to within 1e-4 of its own measure
    seed: int  # of the order in which the dual one is solved; the primal one draws nothing


def normalised(vectors: torch.Tensor) -> np.ndarray:
    """N x D to float64 of length 1 (just below it: see NORM_EPSILON)."""
    exact = vectors.double().numpy()
    unit: np.ndarray = exact / (np.linalg.norm(exact, axis=1, keepdims=True) + NORM_EPSILON)
    return unit


def fit(vectors: np.ndarray, labels: np.ndarray, cost: float, solver: Solver) -> np.ndarray:
    """The machine of one class for N x D vectors: D weights and the intercept.

    L2 regularisation and squared hinge; a fit that has not converged after the most iterations
    is taken as it is, as in the reference. All zero where there are no positives, or no negatives, to fit to.
    """
    from sklearn.exceptions import ConvergenceWarning  # slow to import, and a plan needs no machine
    from sklearn.svm import LinearSVC

    counted = labels != NOT_COUNTED
    targets = np.where(labels[counted] == 1, 1, -1)
    if len(np.unique(targets)) < 2:
        return np.zeros(vectors.shape[1] + 1)
    machine = LinearSVC(
        C=cost,
        class_weight={1: solver.positive_weight, -1: 1.0},
        dual=solver.is_dual,
        max_iter=solver.most_iterations,
        random_state=solver.seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine.fit(vectors[counted], targets)
    return np.append(machine.coef_[0], machine.intercept_)


def fit_each(vectors: np.ndarray, labels: np.ndarray, costs: Sequence[float], solver: Solver) -> np.ndarray:
    """K x (D + 1): the machine of each class, for N x K labels and a cost for each class."""
    return np.stack([fit(vectors, own, cost, solver) for own, cost in zip(labels.T, costs, strict=True)])


def decide(vectors: np.ndarray, machines: np.ndarray) -> np.ndarray:
    """N x K: how far N x D vectors lie on the positive side of K x (D + 1) machines."""
    found: np.ndarray = vectors @ machines[:, :-1].T + machines[:, -1]
    return found


def folds(labels: np.ndarray, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions to fit to and to score, so many times that all that count are scored once: stratified, in order.

    `labels` are of one class, or single ones of several. No folds where fewer than two have a positive and a negative.
    """
    from sklearn.model_selection import StratifiedKFold

    counted = np.flatnonzero(labels != NOT_COUNTED)
    sizes = np.unique(labels[counted], return_counts=True)[1]
    count = min(most, sizes.min()) if len(sizes) > 1 else 1
    if count < 2:
        return
    for fitted, scored in StratifiedKFold(count).split(counted, labels[counted]):
        yield counted[fitted], counted[scored]


def few(labels: np.ndarray, k: int, negatives: int, generator: torch.Generator) -> np.ndarray:
    """Labels of one class of which k positives and so many negatives are left, drawn at random; others are 255.

    All of them where there are fewer.
    """
    left = np.full_like(labels, NOT_COUNTED)
    for value, count in ((1, k), (0, negatives)):
        places = np.flatnonzero(labels == value)
        chosen = torch.randperm(len(places), generator=generator)[:count].numpy()
        left[places[chosen]] = value
    return left
