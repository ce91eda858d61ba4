import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, top_k_accuracy_score

from ssl_inpaint import metrics
from ssl_inpaint.errors import UsageError

KINDS = ("area", "step", "11-point")


def example(seed: int, count: int = 200, prevalence: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = (draw.random(count) < prevalence).astype(np.int64)
    return draw.permutation(count) + 60.0 * labels + draw.random(count) / 2, labels  # no ties


def devkit_curve(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """VOCevalcls.m, line by line."""
    order = np.argsort(-scores, kind="stable")
    true_positive, false_positive = np.cumsum(labels[order] > 0), np.cumsum(labels[order] < 1)
    return true_positive / np.sum(labels > 0), true_positive / (false_positive + true_positive)


def devkit_2007(scores: np.ndarray, labels: np.ndarray) -> float:
    recall, precision = devkit_curve(scores, labels)
    result = 0.0
    for threshold in np.arange(11) / 10:
        reached = precision[recall >= threshold]
        result += (reached.max() if len(reached) else 0.0) / 11
    return result


def devkit_2010(scores: np.ndarray, labels: np.ndarray) -> float:
    recall, precision = devkit_curve(scores, labels)
    recall, precision = np.concatenate(([0.0], recall, [1.0])), np.concatenate(([0.0], precision, [0.0]))
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(np.sum((recall[steps] - recall[steps - 1]) * precision[steps]))


@pytest.mark.parametrize("seed", range(5))
def test_each_kind_agrees_with_its_source(seed: int) -> None:
    scores, labels = example(seed)
    assert metrics.average_precision(scores, labels, "step") == pytest.approx(average_precision_score(labels, scores))
    assert metrics.average_precision(scores, labels, "11-point") == pytest.approx(devkit_2007(scores, labels))
    assert metrics.average_precision(scores, labels, "area") == pytest.approx(devkit_2010(scores, labels))


@pytest.mark.parametrize("positives", [1, 2, 3, 7, 10, 20, 30])
def test_eleven_points_sit_exactly_on_the_recalls(positives: int) -> None:
    # With 10, 20, 30 positives the recall equals 0.1, 0.2, ... and rounding must not lose a point.
    scores, labels = -np.arange(90.0), np.zeros(90, np.int64)
    labels[:: 90 // positives][:positives] = 1
    assert metrics.average_precision(scores, labels, "11-point") == pytest.approx(devkit_2007(scores, labels))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positives", [1, 3, 7])
def test_perfect_ranking_has_ap_one(kind: metrics.ApKind, positives: int) -> None:
    labels = np.array([1] * positives + [0] * 5)
    assert metrics.average_precision(-np.arange(len(labels)), labels, kind) == 1.0


def test_average_precision_by_hand() -> None:
    # Ranking 1 0 1 1 0: precisions at the hits 1, 2/3, 3/4; the envelope lifts the second to 3/4.
    scores, labels = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1, 0, 1, 1, 0])
    assert metrics.average_precision(scores, labels, "step") == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert metrics.average_precision(scores, labels, "area") == pytest.approx((1 + 3 / 4 + 3 / 4) / 3)
    assert metrics.average_precision(scores, labels, "11-point") == pytest.approx((4 * 1 + 7 * 3 / 4) / 11)


@pytest.mark.parametrize("kind", KINDS)
def test_ties_count_against_the_ranking(kind: metrics.ApKind) -> None:
    labels = np.array([1, 1, 0, 0, 0])
    worst = metrics.average_precision(np.array([2, 1, 5, 4, 3]), labels, kind)
    assert metrics.average_precision(np.zeros(5), labels, kind) == worst
    shuffled = labels[[2, 0, 3, 1, 4]]
    assert metrics.average_precision(np.zeros(5), shuffled, kind) == worst


def test_ties_agree_with_the_penalty_of_voc_classification() -> None:
    draw = np.random.default_rng(0)
    scores, labels = draw.integers(0, 8, 100).astype(float), draw.integers(0, 2, 100)
    penalised = average_precision_score(labels, scores - 1e-5 * labels)
    # scikit-learn joins the positives that still tie into one step; the order in which they come changes nothing else.
    joined = metrics.average_precision(scores, labels, "step")
    assert joined <= penalised + 1e-12
    distinct = penalised_without_ties(scores, labels)
    assert joined == pytest.approx(distinct)


def penalised_without_ties(scores: np.ndarray, labels: np.ndarray) -> float:
    spread = np.random.default_rng(1).random(len(scores)) * 1e-7
    return average_precision_score(labels, scores - 1e-5 * labels + spread)


@pytest.mark.parametrize("kind", KINDS)
def test_one_positive_at_rank_four(kind: metrics.ApKind) -> None:
    assert metrics.average_precision(-np.arange(9), np.eye(9, dtype=np.int64)[3], kind) == pytest.approx(1 / 4)


@pytest.mark.parametrize("kind", KINDS)
def test_difficult_examples_change_nothing(kind: metrics.ApKind) -> None:
    scores, labels = example(0, count=60)
    more = np.concatenate((scores, [1e9, 30.5, -1e9])), np.concatenate((labels, [255, 255, 255]))
    assert metrics.average_precision(*more, kind) == metrics.average_precision(scores, labels, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_an_increasing_map_of_the_scores_changes_nothing(kind: metrics.ApKind) -> None:
    scores, labels = example(1, count=60)
    assert metrics.average_precision(np.tanh(scores / 300), labels, kind) == metrics.average_precision(
        scores, labels, kind
    )


def test_random_scores_score_the_prevalence() -> None:
    draw = np.random.default_rng(0)
    labels = (np.arange(20000) < 6000).astype(np.int64)
    assert metrics.average_precision(draw.random(20000), labels, "step") == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_without_positives_there_is_no_score(kind: metrics.ApKind) -> None:
    assert math.isnan(metrics.average_precision(np.arange(3.0), np.array([0, 0, 255]), kind))
    assert math.isnan(metrics.average_precision(np.empty(0), np.empty(0, np.int64), kind))


@pytest.mark.parametrize("kind", KINDS)
def test_positives_missing_from_the_ranking_are_never_found(kind: metrics.ApKind) -> None:
    assert metrics.ranked_average_precision(np.empty(0, bool), 3, kind) == 0
    half = metrics.ranked_average_precision(np.array([True, True]), 4, kind)
    assert half == pytest.approx(6 / 11 if kind == "11-point" else 0.5)  # recalls 0 to 0.5 are reached


def test_mean_leaves_out_classes_without_positives() -> None:
    scores = np.array([[3.0, 1.0, 1.0], [2.0, 2.0, 2.0], [1.0, 3.0, 3.0]])
    labels = np.array([[1, 0, 1], [0, 0, 255], [255, 0, 0]])
    mean, each = metrics.mean_average_precision(scores, labels, "area")
    assert each.tolist()[::2] == [1.0, 0.5]
    assert math.isnan(each[1])
    assert mean == 0.75
    assert math.isnan(metrics.mean_average_precision(scores, np.zeros_like(labels), "area")[0])


def test_accuracies_agree_with_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    scores, labels = draw.random((300, 7)), draw.choice(7, 300, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])
    predictions = np.where(draw.random(300) < 0.5, labels, scores.argmax(axis=1))
    assert metrics.accuracy(predictions, labels) == (predictions == labels).mean()
    assert metrics.mean_class_accuracy(predictions, labels, 9) == pytest.approx(  # two classes without examples
        balanced_accuracy_score(labels, predictions)
    )
    for k in (1, 3, 6):
        assert metrics.top_k_accuracy(scores, labels, k) == pytest.approx(top_k_accuracy_score(labels, scores, k=k))
    assert metrics.top_k_accuracy(scores, labels, 7) == 1.0


def test_a_constant_classifier_is_never_right_by_a_tie() -> None:
    assert metrics.top_k_accuracy(np.zeros((4, 5)), np.arange(4), 4) == 0.0
    assert metrics.top_k_accuracy(np.full((4, 5), np.nan), np.arange(4), 5) == 0.0


def test_wrong_input_is_refused() -> None:
    with pytest.raises(UsageError, match="11-point, area, step"):
        metrics.average_precision(np.zeros(2), np.array([0, 1]), "voc")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be 1, 0 or 255"):
        metrics.average_precision(np.zeros(2), np.array([-1, 1]), "area")
    with pytest.raises(ValueError, match="1 of 2 scores"):
        metrics.average_precision(np.array([0.0, np.nan]), np.array([0, 1]), "area")
    with pytest.raises(ValueError, match="one length"):
        metrics.average_precision(np.zeros(3), np.array([0, 1]), "area")
    with pytest.raises(ValueError, match="N x K"):
        metrics.mean_average_precision(np.zeros((3, 2)), np.zeros((2, 3)), "area")
    with pytest.raises(ValueError, match="more hits"):
        metrics.ranked_average_precision(np.array([True, True]), 1, "area")
    with pytest.raises(ValueError, match="one for each"):
        metrics.accuracy(np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="not among 2"):
        metrics.mean_class_accuracy(np.array([0, 0]), np.array([0, 2]), 2)
    with pytest.raises(ValueError, match="k is 4"):
        metrics.top_k_accuracy(np.zeros((2, 3)), np.zeros(2, np.int64), 4)
