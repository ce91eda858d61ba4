import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from ssl_inpaint import segmentation_metrics as metrics

CLASSES = 5
SCORES = (metrics.mean_iou, metrics.pixel_accuracy, metrics.mean_class_accuracy_of_pixels)


def example(seed: int, classes: int = CLASSES, shape: tuple[int, int] = (9, 7)) -> tuple[np.ndarray, np.ndarray]:
    """A prediction that is right on half the pixels, and a truth with ignored ones."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, classes, shape).astype(np.uint8)
    prediction = np.where(draw.random(shape) < 0.5, truth, draw.integers(0, classes, shape)).astype(np.uint8)
    truth[draw.random(shape) < 0.2] = 255
    return prediction, truth


def pixels(prediction: np.ndarray, truth: np.ndarray) -> list[tuple[int, int]]:
    """(predicted, true) of each counted pixel."""
    pairs = zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True)
    return [(p, t) for p, t in pairs if t != 255]


def slow_ious(pairs: list[tuple[int, int]], classes: int) -> list[float]:
    result = []
    for k in range(classes):
        union = sum(p == k or t == k for p, t in pairs)
        result.append(sum(p == k and t == k for p, t in pairs) / union if union else math.nan)
    return result


@pytest.mark.parametrize("seed", range(10))
def test_every_score_agrees_with_a_loop_over_pixels(seed: int) -> None:
    classes = CLASSES + 1  # the last occurs nowhere
    prediction, truth = example(seed)
    truth[truth == 3] = 255  # predicted, but not in the truth
    pairs, matrix = pixels(prediction, truth), metrics.confusion(prediction, truth, classes)
    for row in range(classes):
        for column in range(classes):
            assert matrix[row, column] == pairs.count((column, row))
    ious = slow_ious(pairs, classes)
    np.testing.assert_allclose(metrics.class_iou(matrix), ious)
    present = sorted({t for _, t in pairs})
    assert metrics.mean_iou(matrix) == pytest.approx(sum(ious[k] for k in present) / len(present))
    assert metrics.pixel_accuracy(matrix) == pytest.approx(sum(p == t for p, t in pairs) / len(pairs))
    recalls = [pairs.count((k, k)) / sum(t == k for _, t in pairs) for k in present]
    assert metrics.mean_class_accuracy_of_pixels(matrix) == pytest.approx(sum(recalls) / len(recalls))


@pytest.mark.parametrize("seed", range(3))
def test_iou_agrees_with_torchmetrics(seed: int) -> None:
    images = [example(10 * seed + i) for i in range(4)]  # all classes occur, where all conventions are one
    matrix = sum(metrics.confusion(prediction, truth, CLASSES) for prediction, truth in images)
    for average in ("macro", "none"):
        oracle = MulticlassJaccardIndex(CLASSES, average=average, ignore_index=255)
        for prediction, truth in images:
            oracle.update(torch.tensor(prediction).long()[None], torch.tensor(truth).long()[None])
        ours = metrics.mean_iou(matrix) if average == "macro" else metrics.class_iou(matrix)
        np.testing.assert_allclose(ours, oracle.compute().numpy(), rtol=1e-6)  # theirs is float32


def test_the_data_set_is_scored_and_not_the_mean_of_images() -> None:
    small = np.array([0, 1]), np.array([0, 1])  # all right: IoU 1 and 1
    large = np.array([1, 1, 1, 1, 0, 0, 0, 0]), np.array([0, 0, 0, 1, 1, 1, 1, 0])  # IoU 1/7 and 1/7
    matrices = [metrics.confusion(*image, 2) for image in (small, large)]
    assert np.mean([metrics.mean_iou(matrix) for matrix in matrices]) == pytest.approx(4 / 7)
    assert sum(matrices).tolist() == [[2, 3], [3, 2]]
    assert metrics.mean_iou(sum(matrices)) == pytest.approx(2 / 8)


def test_iou_by_hand() -> None:
    matrix = metrics.confusion(np.array([[0, 0, 1], [1, 2, 2]]), np.array([[0, 1, 1], [1, 0, 255]]), 4)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[1, 0, 1, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(metrics.class_iou(matrix), [1 / 3, 2 / 3, 0, math.nan])
    assert metrics.mean_iou(matrix) == pytest.approx(1 / 2)  # class 2 is not in the truth, class 3 nowhere
    assert metrics.pixel_accuracy(matrix) == pytest.approx(3 / 5)
    assert metrics.mean_class_accuracy_of_pixels(matrix) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_a_stray_pixel_of_an_absent_class_costs_only_its_own_class() -> None:
    truth = np.zeros(100, np.uint8)
    stray = np.array([1] + [0] * 99, np.uint8)
    assert metrics.mean_iou(metrics.confusion(truth, truth, 2)) == 1.0
    assert metrics.mean_iou(metrics.confusion(stray, truth, 2)) == 0.99


@pytest.mark.parametrize("score", SCORES)
def test_a_perfect_prediction_has_exactly_one(score: Callable[[np.ndarray], float]) -> None:
    for seed, classes in ((0, 1), (1, 2), (2, 3), (3, 21)):
        truth = example(seed, classes)[1]
        assert score(metrics.confusion(np.where(truth == 255, 0, truth), truth, classes)) == 1.0


@pytest.mark.parametrize("poison", [0, 2, 255, 254])
def test_ignored_pixels_never_matter(poison: int) -> None:
    prediction, truth = example(0)
    poisoned = np.where(truth == 255, poison, prediction)
    expected = metrics.confusion(prediction[truth != 255], truth[truth != 255], CLASSES)
    np.testing.assert_array_equal(metrics.confusion(poisoned, truth, CLASSES), expected)


def test_order_of_pixels_changes_nothing_and_names_of_classes_only_their_order() -> None:
    prediction, truth = example(0)
    matrix = metrics.confusion(prediction, truth, CLASSES)
    order = np.random.default_rng(1).permutation(truth.size)
    moved = metrics.confusion(prediction.ravel()[order], truth.ravel()[order], CLASSES)
    np.testing.assert_array_equal(moved, matrix)
    names = np.array([3, 0, 4, 1, 2, *range(5, 256)])
    renamed = metrics.class_iou(metrics.confusion(names[prediction], names[truth], CLASSES))
    np.testing.assert_array_equal(renamed[names[:CLASSES]], metrics.class_iou(matrix))


@pytest.mark.parametrize("score", SCORES)
def test_where_nothing_is_counted_there_is_no_score(score: Callable[[np.ndarray], float]) -> None:
    for truth in (np.full((2, 2), 255, np.uint8), np.empty((0, 3), np.uint8)):
        matrix = metrics.confusion(np.zeros(truth.shape, np.uint8), truth, 3)
        assert matrix.shape == (3, 3) and matrix.sum() == 0
        assert math.isnan(score(matrix))
        assert np.isnan(metrics.class_iou(matrix)).all()


def test_many_classes_in_bytes_do_not_overflow() -> None:
    every = np.arange(255, dtype=np.uint8)
    np.testing.assert_array_equal(metrics.confusion(every, every, 255), np.eye(255))


def test_wrong_input_is_refused() -> None:
    zeros = np.zeros((2, 2), np.int64)
    for prediction, truth, classes, message in (
        (zeros, zeros[0], 2, "one shape"),
        (zeros, zeros + 2, 2, "truth are 2 to 2: they must be 0 to 1"),
        (zeros, zeros - 1, 2, "truth are -1 to -1"),
        (zeros + 2, zeros, 2, "prediction are 2 to 2"),
        (zeros - 1, zeros, 2, "prediction are -1"),
        (zeros + 255, zeros, 2, "prediction are 255"),
        (zeros + 0.5, zeros, 2, "whole numbers"),
        (zeros, zeros, 0, "0 classes"),
        (zeros, zeros, 256, "256 classes"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics.confusion(prediction, truth, classes)
    for matrix in (np.zeros((2, 3)), np.zeros(4), np.array([[1, 0], [-1, 2]])):
        with pytest.raises(ValueError, match="K x K"):
            metrics.mean_iou(matrix)


@pytest.mark.parametrize("of_prediction", ["uint8", "int64", "uint16", "int8"])
@pytest.mark.parametrize("of_truth", ["uint8", "int32"])
def test_the_type_of_the_values_and_what_is_predicted_on_void_change_nothing(of_prediction: str, of_truth: str) -> None:
    prediction, truth = example(0, shape=(40, 30))
    expected = metrics.confusion(prediction, truth, CLASSES)
    for strange in (0, 99, -1, 70_000):  # the last two are no bytes, where the type has them
        if np.can_cast(np.min_scalar_type(strange), of_prediction):
            changed = np.where(truth == 255, np.array(strange, of_prediction), prediction.astype(of_prediction))
            found = metrics.confusion(np.asfortranarray(changed), truth.astype(of_truth), CLASSES)
            np.testing.assert_array_equal(found, expected)
    assert expected.base is None  # it holds no larger array in memory
