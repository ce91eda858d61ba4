"""Each task's resampled scores are its own scores of the repeated examples; records of one test set are paired."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ssl_inpaint import bootstrap, catalog
from ssl_inpaint.core import Described, Detections, Objects, TransferFacts
from ssl_inpaint.encoders import compact_alexnet

EXAMPLES, REPLICATES = 20, 5
CLASSES = ("cat", "dog", "eel")
GENERATOR = np.random.default_rng


def _task(name: str, is_multilabel: bool, **settings: object) -> Any:
    module = catalog.load("transfer", name)
    encoder = compact_alexnet.build(compact_alexnet.Config())
    return module.build(module.Config(**settings), encoder, TransferFacts(96, CLASSES, is_multilabel, is_frozen=True))


def _counts() -> np.ndarray:
    found = bootstrap.draw_counts("a test set", EXAMPLES, REPLICATES)
    assert found is not None
    return found


def _check(score: Callable[[np.ndarray], dict[str, float]], found: bootstrap.Scores, names: set[str]) -> None:
    """`score` takes the places of examples; what differs are sums in another order."""
    assert found.values == score(np.arange(EXAMPLES)) and found.replicates.keys() == names
    for replicate in range(REPLICATES):
        plain = score(np.repeat(np.arange(EXAMPLES), _counts()[:, replicate]))
        for name in names:
            assert found.replicates[name][replicate] == pytest.approx(plain[name], abs=1e-9)


@pytest.mark.parametrize("kind", ["step", "area", "11-point"])
def test_classification_of_several_classes_an_image(kind: str) -> None:
    task = _task("cls", True, average_precision=kind)
    outputs, labels = GENERATOR(0).random((EXAMPLES, 3)), GENERATOR(1).integers(0, 2, (EXAMPLES, 3))
    found = task.score_resampled(outputs, labels, _counts())
    _check(lambda rows: task.score(outputs[rows], labels[rows]), found, {f"mAP ({kind})"})


def test_classification_of_one_class_an_image() -> None:
    task = _task("cls", False)
    outputs, labels = GENERATOR(2).random((EXAMPLES, 3)), GENERATOR(3).integers(0, 3, EXAMPLES)
    found = task.score_resampled(outputs, labels, _counts())
    _check(lambda rows: task.score(outputs[rows], labels[rows]), found, {"accuracy", "mean class accuracy"})


@pytest.mark.parametrize("is_multilabel", [True, False])
def test_linear_probes(is_multilabel: bool) -> None:
    task = _task("linear", is_multilabel, stages=("conv1", "conv5"))
    outputs = GENERATOR(4).random((EXAMPLES, 2, 3))
    labels = GENERATOR(5).integers(0, 2 if is_multilabel else 3, (EXAMPLES, 3) if is_multilabel else EXAMPLES)
    found = task.score_resampled(outputs, labels, _counts())
    metric = "mAP (step)" if is_multilabel else "accuracy"
    _check(lambda rows: task.score(outputs[rows], labels[rows]), found, {f"{metric} conv1", f"{metric} conv5"})


def _described(task: Any, count: int, seed: int) -> Described:
    is_multilabel, generator = task.facts.is_multilabel, torch.Generator().manual_seed(seed)
    labels = GENERATOR(seed).integers(0, 2 if is_multilabel else 3, (count, 3) if is_multilabel else count)
    return Described({task.stages[0]: torch.rand(count, 4, generator=generator)}, torch.from_numpy(labels))


def _rows(asked: Described, rows: np.ndarray) -> Described:
    return Described({stage: one[rows] for stage, one in asked.features.items()}, asked.labels[rows])


@pytest.mark.parametrize("is_multilabel", [True, False])
def test_nearest_neighbours(is_multilabel: bool) -> None:
    """The training images that vote stay as they are; ties of whole votes are what few neighbours make."""
    task, generator = _task("knn", is_multilabel, k=(3, 7)), torch.Generator().manual_seed(6)
    known, asked = _described(task, 30, 7), _described(task, EXAMPLES, 8)
    choices = {"k": 7.0}

    def score(rows: np.ndarray) -> dict[str, float]:
        return task.measure(known, _rows(asked, rows), choices, generator)

    found = task.measure_resampled(known, asked, choices, generator, _counts())
    name = "mAP (step)" if is_multilabel else "accuracy"
    _check(score, found, {name, f"{name} k=3", f"{name} k=7"})


@pytest.mark.parametrize("samples", [3, 1])
@pytest.mark.parametrize("is_multilabel", [True, False])
def test_support_vectors_of_all_examples_and_of_few(is_multilabel: bool, samples: int) -> None:
    """Of few the mean over the draws within each replicate; machines and draws are the same in all of them."""
    task = _task("svm", is_multilabel, shots=(2, 4), samples=samples, average_precision="step")
    known, asked = _described(task, 40, 9), _described(task, EXAMPLES, 10)
    names = [f": {name}" for name in CLASSES] if is_multilabel else [""]
    choices = dict.fromkeys([*(f"cost{name}" for name in names), "cost k=2", "cost k=4"], 1.0)

    def score(rows: np.ndarray) -> dict[str, float]:
        return task.measure(known, _rows(asked, rows), choices, torch.Generator().manual_seed(11))

    found = task.measure_resampled(known, asked, choices, torch.Generator().manual_seed(11), _counts())
    name = "mAP (step)" if is_multilabel else "accuracy"
    _check(score, found, {name, f"{name} k=2", f"{name} k=4"})
    assert (f"{name} k=2, deviation" in found.values) == (samples > 1)


def test_detection() -> None:
    generator, task = GENERATOR(6), _task("det", True)

    def pair() -> tuple[Detections, Objects]:
        boxes = np.array([[0, 0, 8, 8], [4, 0, 12, 8], [20, 20, 30, 30]], np.float32)
        found, true = generator.integers(0, 3, 8), generator.integers(0, 3, 2)
        scores = generator.random(8).astype(np.float32)
        objects = Objects(boxes[true], generator.integers(0, 3, 2), np.zeros(2, bool))
        return Detections(boxes[found], generator.integers(0, 3, 8), scores), objects

    pairs = [pair() for _ in range(EXAMPLES)]
    found = task.score_resampled(iter(pairs), _counts())
    _check(lambda rows: task.score(pairs[row] for row in rows), found, {"mAP (11-point)", "mAP (area)"})


def test_segmentation() -> None:
    generator, task = GENERATOR(7), _task("seg", True)
    pairs = [tuple(generator.integers(0, 3, (2, 6, 5), np.uint8)) for _ in range(EXAMPLES)]
    found = task.score_resampled(iter(pairs), _counts())
    _check(
        lambda rows: task.score(pairs[row] for row in rows), found, {"mIoU", "pixel accuracy", "mean class accuracy"}
    )
