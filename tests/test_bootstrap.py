"""Resampled scores against the plain metrics on the repeated examples, and the intervals that are made of them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from scipy import stats

from ssl_inpaint import bootstrap, metrics, resampled_metrics
from ssl_inpaint import detection_metrics as detection
from ssl_inpaint import segmentation_metrics as segmentation
from ssl_inpaint.core import Detections, Objects

KINDS: tuple[metrics.ApKind, ...] = ("step", "area", "11-point")
FEW = 6  # resamplings that are compared one by one
ROUNDING = 1e-9  # sums in another order, and a difference of harmonic numbers


def _counts(examples: int, replicates: int = FEW) -> np.ndarray:
    found = bootstrap.draw_counts("a test set", examples, replicates)
    assert found is not None
    return found


def _repeated(counts: np.ndarray, replicate: int) -> np.ndarray:
    """The places of the examples of one resampling, one after the other."""
    return np.repeat(np.arange(len(counts)), counts[:, replicate])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [3, 1000])  # scores with many ties, and with few
def test_average_precision_is_that_of_the_repeated_examples(kind: metrics.ApKind, levels: int) -> None:
    generator = np.random.default_rng(levels)
    labels = generator.choice([0, 1, 255], size=(40, 5), p=[0.8, 0.15, 0.05])
    labels[:, 4] = 0  # a class that nothing has
    labels[:3, 4] = [1, 0, 255]  # but one, so that some resamplings have none
    scores = np.floor(levels * generator.random((40, 5))) + (labels == 1)
    counts = _counts(40, 30)
    found = resampled_metrics.mean_average_precision_of_scores(scores, labels, kind, counts)
    for replicate, value in enumerate(found):
        rows = _repeated(counts, replicate)
        assert value == pytest.approx(metrics.mean_average_precision(scores[rows], labels[rows], kind)[0], abs=ROUNDING)
    assert (counts[0] == 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_average_precision_does_not_depend_on_the_chunk(kind: metrics.ApKind, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    ranked = resampled_metrics.rank_examples(generator.random((50, 1)), generator.integers(0, 2, (50, 1)))[0]
    whole = resampled_metrics.average_precision(ranked, kind, _counts(50))
    monkeypatch.setattr(resampled_metrics, "CHUNK_VALUES", 101)
    np.testing.assert_array_equal(resampled_metrics.average_precision(ranked, kind, _counts(50)), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_ranking_without_a_hit_has_ap_zero_and_a_class_without_objects_none(kind: metrics.ApKind) -> None:
    counts, images = _counts(10), np.arange(10)
    missed = resampled_metrics.Ranked(np.zeros(10, bool), images, np.ones(10, np.int64))
    nothing = resampled_metrics.Ranked(np.zeros(0, bool), images[:0], np.ones(10, np.int64))
    absent = resampled_metrics.Ranked(np.zeros(10, bool), images, np.zeros(10, np.int64))
    assert not resampled_metrics.average_precision(missed, kind, counts).any()
    assert not resampled_metrics.average_precision(nothing, kind, counts).any()
    assert np.isnan(resampled_metrics.average_precision(absent, kind, counts)).all()


def _scene(generator: np.random.Generator) -> tuple[Detections, Objects]:
    def boxes(count: int) -> np.ndarray:
        corners = generator.integers(0, 6, (count, 2)) * 4.0
        return np.concatenate([corners, corners + 8], axis=1).astype(np.float32)

    found, true = generator.integers(0, 12), generator.integers(0, 4)
    scores = (generator.integers(0, 5, found) / 5).astype(np.float32)  # with ties
    return (
        Detections(boxes(found), generator.integers(0, 3, found), scores),
        Objects(boxes(true), generator.integers(0, 3, true), generator.random(true) < 0.2),
    )


@pytest.mark.parametrize("kind", ["area", "11-point"])
def test_detection_is_that_of_the_repeated_images(kind: metrics.ApKind) -> None:
    generator = np.random.default_rng(4)
    found, truths = zip(*(_scene(generator) for _ in range(25)), strict=True)
    counts = _counts(25)
    rankings = detection.rank_detections(found, truths, 3)
    ranked = [resampled_metrics.Ranked(one.is_hit, one.images, one.objects) for one in rankings]
    for replicate, value in enumerate(resampled_metrics.mean_average_precision(ranked, kind, counts)):
        rows = _repeated(counts, replicate)
        again = [found[row] for row in rows], [truths[row] for row in rows]
        plain, _ = detection.mean_average_precision_of_detections(*again, 3, kind)
        assert 0 < plain < 1 and value == pytest.approx(plain, abs=ROUNDING)


def test_segmentation_is_that_of_the_repeated_images() -> None:
    generator = np.random.default_rng(5)
    truths = generator.choice([0, 1, 2, 255], size=(12, 4, 5), p=[0.6, 0.3, 0.02, 0.08])
    predictions = generator.integers(0, 4, truths.shape)
    matrices = np.array([segmentation.confusion(p, t, 4) for p, t in zip(predictions, truths, strict=True)])
    counts = _counts(12)
    sums = np.stack([resampled_metrics.class_sums(matrix) for matrix in matrices])
    found = resampled_metrics.segmentation_scores(sums, counts)
    for replicate in range(FEW):
        total = matrices[_repeated(counts, replicate)].sum(axis=0)
        assert {name: values[replicate] for name, values in found.items()} == pytest.approx(
            {
                "mIoU": segmentation.mean_iou(total),
                "pixel accuracy": segmentation.pixel_accuracy(total),
                "mean class accuracy": segmentation.mean_class_accuracy_of_pixels(total),
            }
        )


def test_accuracies_and_means_are_those_of_the_repeated_examples() -> None:
    generator = np.random.default_rng(6)
    labels, predictions = generator.choice(4, 30, p=[0.5, 0.4, 0.05, 0.05]), generator.integers(0, 4, 30)
    values = np.where(generator.random(30) < 0.3, np.nan, generator.random(30))
    counts = _counts(30)
    shares = resampled_metrics.accuracy(predictions, labels, counts)
    by_class = resampled_metrics.mean_class_accuracy(predictions, labels, counts)
    means = resampled_metrics.mean(values, counts)
    for replicate in range(FEW):
        rows = _repeated(counts, replicate)
        assert shares[replicate] == pytest.approx(metrics.accuracy(predictions[rows], labels[rows]))
        assert by_class[replicate] == pytest.approx(metrics.mean_class_accuracy(predictions[rows], labels[rows], 4))
        assert means[replicate] == pytest.approx(np.nanmean(values[rows]))
    assert np.isnan(resampled_metrics.mean(np.full(30, np.nan), counts)).all()


def test_which_examples_are_drawn_follows_from_the_test_set_alone() -> None:
    counts = _counts(20, 1000)
    assert counts.shape == (20, 1000) and (counts.sum(axis=0) == 20).all()
    np.testing.assert_array_equal(counts, _counts(20, 1000))
    other = bootstrap.draw_counts("another", 20)
    assert other is not None and (other != counts).any()
    # Written down once: records of all versions must be of the same examples, or they cannot be compared.
    assert hashlib.sha256(np.ascontiguousarray(counts).tobytes()).hexdigest()[:16] == "309b9a081e651564"


def test_every_example_is_drawn_as_often_as_chance_has_it() -> None:
    counts = _counts(50, 1000)
    assert stats.chisquare(counts.sum(axis=1)).pvalue > 0.001
    share = (counts == 0).mean()
    assert share == pytest.approx((1 - 1 / 50) ** 50, abs=0.01)  # 50,000 of them: a deviation of about 0.002


def test_too_few_examples_have_no_replicates() -> None:
    assert bootstrap.draw_counts("a", bootstrap.LEAST_EXAMPLES - 1) is None
    assert bootstrap.draw_counts("a", bootstrap.LEAST_EXAMPLES) is not None


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(7).random(400)
    found = bootstrap.interval(values.mean(), resampled_metrics.mean(values, _counts(400, 1000)))
    half = 1.96 * values.std() / 20
    # Of 1,000 replicates an end is known to about a twelfth of a deviation; three times that are allowed.
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 8)


def test_the_interval_is_moved_onto_the_value_whatever_the_bias_of_the_replicates() -> None:
    replicates = np.random.default_rng(8).normal(0.5, 0.01, 1000)
    plain, biased = bootstrap.interval(0.4, replicates), bootstrap.interval(0.4, replicates + 0.05)
    assert plain.low < 0.4 < plain.high and (plain.low, plain.high) == pytest.approx((biased.low, biased.high))


def test_equal_methods_are_never_told_apart_and_zero_at_an_end_is_inside() -> None:
    assert bootstrap.interval(0.0, np.zeros(1000)).has_zero
    assert bootstrap.Interval(0.0, 0.1).has_zero and bootstrap.Interval(-0.1, 0.0).has_zero
    assert bootstrap.Interval(1e-5, 0.1).has_zero  # as replicates are rounded
    assert not bootstrap.Interval(0.001, 0.1).has_zero and not bootstrap.Interval(-0.1, -0.001).has_zero


@pytest.mark.parametrize(("value", "deviation"), [(0.239, 0.01), (18.5, 0.2), (0.002, 1e-4)])
def test_what_is_stored_says_the_same(value: float, deviation: float) -> None:
    replicates = np.random.default_rng(9).normal(value, deviation, bootstrap.REPLICATES)
    text = bootstrap.pack(value, replicates)
    back = bootstrap.unpack(value, text)
    assert len(text) == 2668 and back is not None
    assert np.abs(back - replicates).max() < 0.002 * deviation
    plain, stored = bootstrap.interval(value, replicates), bootstrap.interval(value, back)
    assert (stored.low, stored.high) == pytest.approx((plain.low, plain.high), abs=0.001 * deviation)


def test_replicates_that_are_undefined_are_not_stored() -> None:
    replicates = np.full(bootstrap.REPLICATES, 0.5)
    replicates[3] = np.nan
    assert bootstrap.pack(0.5, replicates) == "" and bootstrap.unpack(0.5, "") is None
    scores = bootstrap.Scores({"a": 0.5, "b": 0.5}, {"a": replicates})
    assert scores.packed("a") == scores.packed("b") == "" and scores.intervals() == {}


@pytest.mark.parametrize(
    "text", ["x", "AAAA", "not base64 !", bootstrap.pack(0.0, np.zeros(bootstrap.REPLICATES))[:-4]]
)
def test_damaged_replicates_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="replicates are"):
        bootstrap.unpack(0.5, text)


def test_each_query_has_the_average_precision_that_the_mean_is_made_of() -> None:
    from ssl_inpaint import retrieval

    generator = torch.Generator().manual_seed(0)
    queries, gallery = torch.randn(6, 4, generator=generator), torch.randn(9, 4, generator=generator)
    labels, others = torch.tensor([0, 1, 2, 0, 1, 7]), torch.tensor([0, 1, 2] * 3)
    each = retrieval.average_precisions(queries, gallery, labels, others)
    mean, count = retrieval.retrieval_map(queries, gallery, labels, others)
    assert (
        each.isnan().tolist() == [False] * 5 + [True] and count == 5 and mean == pytest.approx(float(each[:5].mean()))
    )
    alone = [retrieval.retrieval_map(queries[i : i + 1], gallery, labels[i : i + 1], others)[0] for i in range(5)]
    assert each[:5].tolist() == pytest.approx(alone)
