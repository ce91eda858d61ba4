import math
import sys

import numpy as np
import pytest

from ssl_inpaint import detection_metrics as metrics
from ssl_inpaint import overlaps
from ssl_inpaint.core import Detections, Objects
from ssl_inpaint.errors import UsageError
from ssl_inpaint.metrics import ApKind

KINDS = ("area", "step", "11-point")
CLASSES = 3
BOX, FAR_BOX = (0, 0, 10, 10), (50, 50, 60, 60)


def objects(*rows: tuple) -> Objects:
    """Rows are (box, label) or (box, label, is_difficult)."""
    return Objects(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.int64),
        np.array([len(row) > 2 and row[2] for row in rows], bool),
    )


def detections(*rows: tuple) -> Detections:
    """Rows are (box, label, score)."""
    return Detections(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float32),
    )


def as_detections(truth: Objects) -> Detections:
    return Detections(truth.boxes, truth.labels, np.ones(len(truth.labels), np.float32))


def boxes_near(draw: np.random.Generator, boxes: np.ndarray, count: int) -> np.ndarray:
    """Whole-pixel boxes, each a few pixels from one of those given."""
    moved = boxes[draw.integers(0, len(boxes), count)] + draw.integers(-2, 3, (count, 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    return moved.astype(np.float32)


def example(seed: int, images: int = 6, levels: int = 0) -> tuple[list[Detections], list[Objects]]:
    """Crowded images, objects near one another; scores without ties, or of so many `levels`."""
    draw = np.random.default_rng(seed)
    anchors = np.array([[10, 10, 30, 30], [14, 12, 34, 30], [40, 10, 52, 40]])
    found, truths = [], []
    for _ in range(images):
        m, n = draw.integers(0, 8), draw.integers(0, 16)
        truths.append(Objects(boxes_near(draw, anchors, m), draw.integers(0, CLASSES, m), draw.random(m) < 0.3))
        scores = draw.integers(0, levels, n) / levels if levels else draw.random(n)
        found.append(Detections(boxes_near(draw, anchors, n), draw.integers(0, CLASSES, n), scores))
    return found, truths


def owners_one_by_one(found: list[Detections], truths: list[Objects], iou: float) -> list[int]:
    """Each detection beside each object of its image, in turn."""
    owners, before = [], 0
    for of_image, truth in zip(found, truths, strict=True):
        overlap = overlaps.intersection_over_union(of_image.boxes, truth.boxes)
        for row, label in zip(overlap, of_image.labels, strict=True):
            best, owner = iou, -1
            for place, share in enumerate(row):
                if truth.labels[place] == label and (share > best or (owner < 0 and share >= best)):
                    best, owner = share, before + place
            owners.append(owner)
        before += len(truth.labels)
    return owners


def devkit_overlap(bb: np.ndarray, bbgt: np.ndarray) -> float:
    """Of whole pixels counted from 1, both ends included; -inf for boxes that do not meet."""
    bi = [max(bb[0], bbgt[0]), max(bb[1], bbgt[1]), min(bb[2], bbgt[2]), min(bb[3], bbgt[3])]
    iw, ih = bi[2] - bi[0] + 1, bi[3] - bi[1] + 1
    if iw <= 0 or ih <= 0:
        return -math.inf
    ua = (bb[2] - bb[0] + 1) * (bb[3] - bb[1] + 1) + (bbgt[2] - bbgt[0] + 1) * (bbgt[3] - bbgt[1] + 1) - iw * ih
    return iw * ih / ua


def devkit_boxes(boxes: np.ndarray) -> list[list[float]]:
    return (boxes.astype(np.float64) + np.array([1, 1, 0, 0])).tolist()


def devkit_curve(found: list[Detections], truths: list[Objects], label: int) -> tuple[np.ndarray, np.ndarray, int]:
    """VOCevaldet.m line by line: recall, precision and the number of positives."""
    gt, npos = [], 0
    for truth in truths:
        inside = [j for j in range(len(truth.labels)) if truth.labels[j] == label]
        boxes = devkit_boxes(truth.boxes)
        gt.append([{"BB": boxes[j], "diff": bool(truth.is_difficult[j]), "det": False} for j in inside])
        npos += sum(not entry["diff"] for entry in gt[-1])
    results = []
    for i, each in enumerate(found):
        boxes = devkit_boxes(each.boxes)
        results += [(each.scores[d], i, boxes[d]) for d in range(len(boxes)) if each.labels[d] == label]
    results.sort(key=lambda result: -result[0])
    tp, fp = np.zeros(len(results)), np.zeros(len(results))
    for d, (_, i, bb) in enumerate(results):
        ovmax, jmax = -math.inf, -1
        for j, entry in enumerate(gt[i]):
            ov = devkit_overlap(bb, entry["BB"])
            if ov > ovmax:
                ovmax, jmax = ov, j
        if ovmax >= 0.5:
            if not gt[i][jmax]["diff"]:
                if not gt[i][jmax]["det"]:
                    tp[d] = 1
                    gt[i][jmax]["det"] = True
                else:
                    fp[d] = 1
        else:
            fp[d] = 1
    fp, tp = np.cumsum(fp), np.cumsum(tp)
    return tp / max(npos, 1), tp / np.maximum(tp + fp, 1), npos


def devkit_2007(recall: np.ndarray, precision: np.ndarray) -> float:
    ap = 0.0
    for t in np.arange(11) / 10:
        p = precision[recall >= t]
        ap += (p.max() if len(p) else 0.0) / 11
    return ap


def devkit_2010(recall: np.ndarray, precision: np.ndarray) -> float:
    mrec, mpre = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    return sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)) if mrec[i] != mrec[i - 1])


@pytest.mark.parametrize(("kind", "devkit"), [("11-point", devkit_2007), ("area", devkit_2010)])
def test_average_precision_agrees_with_the_devkit(kind: ApKind, devkit) -> None:
    hits = 0
    for seed in range(60):
        found, truths = example(seed)
        mean, each = metrics.mean_average_precision_of_detections(found, truths, CLASSES, kind)
        expected = []
        for label in range(CLASSES):
            recall, precision, positives = devkit_curve(found, truths, label)
            expected.append(devkit(recall, precision) if positives else math.nan)
            hits += positives * (recall[-1] if len(recall) else 0)
        np.testing.assert_allclose(each, expected, rtol=1e-12, atol=1e-12)  # rounding of sums in another order
        assert mean == pytest.approx(np.nanmean(expected), abs=1e-12)
    assert hits > 400  # of 896 objects: the cases are not empty


def test_overlap_agrees_with_inclusive_pixels() -> None:
    draw = np.random.default_rng(0)
    first, second = (boxes_near(draw, np.array([[10, 10, 16, 18]]), n) for n in (12, 9))
    expected = [[max(devkit_overlap(a, b), 0.0) for b in devkit_boxes(second)] for a in devkit_boxes(first)]
    overlap = overlaps.intersection_over_union(first, second)
    assert overlap.dtype == np.float64
    assert overlap.tolist() == expected  # exactly: whole numbers and one division


def test_overlap_by_hand() -> None:
    first = np.array([[0, 0, 10, 10], [3, 3, 3, 9], [0, 0, 0.5, 0.5]], np.float32)
    second = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [10, 0, 20, 10], [3, 3, 3, 9]], np.float32)
    expected = [[1, 0.5, 0, 0], [0, 0, 0, 0], [0.0025, 0.005, 0, 0]]  # touching boxes and lines do not overlap
    assert overlaps.intersection_over_union(first, second).tolist() == expected
    assert overlaps.intersection_over_union(np.empty((0, 4)), second).shape == (0, 4)
    assert overlaps.intersection_over_union(first, np.empty((0, 4))).shape == (3, 0)


def ranking(found: Detections, truth: Objects) -> tuple[list[bool], int]:
    """Of class 0 in one image."""
    result = metrics.rank_detections([found], [truth], CLASSES)[0]
    return result.is_hit.tolist(), result.positives


def test_the_second_detection_of_an_object_is_a_false_positive() -> None:
    found = detections((BOX, 0, 0.5), ((0, 0, 10, 9), 0, 0.9))  # the surer, not the closer, is the hit
    assert ranking(found, objects((BOX, 0))) == ([True, False], 1)
    other = objects((BOX, 0), ((0, 0, 10, 6), 0))  # free, yet both detections are nearer to the first object
    assert ranking(found, other) == ([True, False], 2)


def test_the_same_object_in_another_image_is_another_object() -> None:
    found = [detections((BOX, 0, 0.9), (BOX, 0, 0.6)), detections((BOX, 0, 0.8))]
    result = metrics.rank_detections(found, [objects((BOX, 0)), objects((BOX, 0))], CLASSES)[0]
    assert result.is_hit.tolist() == [True, True, False]


def test_overlap_of_exactly_the_threshold_is_enough() -> None:
    assert ranking(detections(((0, 0, 10, 5), 0, 1)), objects((BOX, 0))) == ([True], 1)
    assert ranking(detections(((0, 0, 10, 4.99), 0, 1)), objects((BOX, 0))) == ([False], 1)
    strict = metrics.rank_detections([detections(((0, 0, 10, 5), 0, 1))], [objects((BOX, 0))], CLASSES, iou=0.51)
    assert strict[0].is_hit.tolist() == [False]


def test_the_right_place_with_the_wrong_class_is_a_false_positive() -> None:
    found = [detections((BOX, 1, 1), (BOX, 2, 1))]
    mean, each = metrics.mean_average_precision_of_detections(found, [objects((BOX, 0), (BOX, 2))], CLASSES, "area")
    assert each[0] == 0 and math.isnan(each[1]) and each[2] == 1
    assert mean == 0.5


def test_detections_of_difficult_objects_do_not_count() -> None:
    truth = objects((BOX, 0, True), (FAR_BOX, 0))
    assert ranking(detections((BOX, 0, 0.9), (BOX, 0, 0.8), (FAR_BOX, 0, 0.7)), truth) == ([True], 1)
    # Nearest to the difficult one: excused, although it overlaps the other one by 0.5 or more as well.
    assert ranking(detections((BOX, 0, 0.9)), objects(((0, 0, 10, 8), 0), (BOX, 0, True))) == ([], 1)


def test_difficult_objects_of_another_class_excuse_nothing() -> None:
    assert ranking(detections((BOX, 0, 0.9)), objects((BOX, 1, True), (FAR_BOX, 0))) == ([False], 1)


@pytest.mark.parametrize("kind", KINDS)
def test_without_objects_there_is_no_score(kind: ApKind) -> None:
    only_difficult = objects((BOX, 0, True))
    for found, truths in (([], []), ([detections()], [objects()]), ([detections((BOX, 0, 1))], [only_difficult])):
        mean, each = metrics.mean_average_precision_of_detections(found, truths, CLASSES, kind)
        assert math.isnan(mean)
        assert len(each) == CLASSES and np.isnan(each).all()


@pytest.mark.parametrize("kind", KINDS)
def test_without_detections_the_score_is_zero(kind: ApKind) -> None:
    mean, each = metrics.mean_average_precision_of_detections([detections()], [objects((BOX, 1))], CLASSES, kind)
    assert mean == 0.0 and each[1] == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_detector_has_exactly_one(kind: ApKind) -> None:
    for count in (1, 3, 7, 10, 11):
        truths = [objects((BOX, i % CLASSES), (FAR_BOX, i % CLASSES, i % 2 == 0)) for i in range(count)]
        found = [as_detections(truth) for truth in truths]
        assert metrics.mean_average_precision_of_detections(found, truths, CLASSES, kind)[0] == 1.0


def test_equal_scores_count_against_the_detector() -> None:
    truth = objects((BOX, 0), (FAR_BOX, 0))
    miss, hit, other = ((20, 20, 30, 30), 0, 0.5), (BOX, 0, 0.5), (FAR_BOX, 0, 0.5)
    for rows in ((hit, miss, other), (miss, hit, other), (other, hit, miss)):
        assert ranking(detections(*rows), truth) == ([False, True, True], 2)


def shuffled(
    draw: np.random.Generator, found: list[Detections], truths: list[Objects]
) -> tuple[list[Detections], list[Objects]]:
    """The images in another order, and the detections of each."""
    images = draw.permutation(len(found))
    orders = [draw.permutation(len(each.scores)) for each in found]
    moved = [Detections(e.boxes[o], e.labels[o], e.scores[o]) for e, o in zip(found, orders, strict=True)]
    return [moved[i] for i in images], [truths[i] for i in images]


@pytest.mark.parametrize("levels", [1, 4])
def test_order_of_images_and_detections_changes_nothing(levels: int) -> None:
    for seed in range(20):
        found, truths = example(seed, levels=levels)
        expected = metrics.rank_detections(found, truths, CLASSES)
        moved = metrics.rank_detections(*shuffled(np.random.default_rng(seed), found, truths), CLASSES)
        for one, other in zip(expected, moved, strict=True):
            assert one.is_hit.tolist() == other.is_hit.tolist() and one.positives == other.positives


def test_proposal_recall_by_hand() -> None:
    truths = [objects((BOX, 0), (FAR_BOX, 1), (FAR_BOX, 2, True)), objects((BOX, 2)), objects()]
    proposals = [np.array([[0, 0, 10, 5], [90, 90, 99, 99]]), np.empty((0, 4)), np.array([BOX])]
    assert metrics.proposal_recall(proposals, truths) == pytest.approx(1 / 3)
    assert metrics.proposal_recall(proposals, truths, iou=0.6) == 0.0
    assert metrics.proposal_recall([truth.boxes for truth in truths], truths, iou=1.0) == 1.0
    assert metrics.proposal_recall([np.array([[0, 0, 10, 9]])], [objects((BOX, 0), ((0, 0, 10, 8), 1))]) == 1.0


def test_proposal_recall_without_objects_is_no_number() -> None:
    assert math.isnan(metrics.proposal_recall([], []))
    assert math.isnan(metrics.proposal_recall([np.array([BOX])], [objects((BOX, 0, True))]))


def test_coco_scores_by_hand() -> None:
    pytest.importorskip("faster_coco_eval")
    truths = [objects((BOX, 0), (FAR_BOX, 2)), objects((BOX, 0), (FAR_BOX, 0, True)), objects()]
    perfect = [as_detections(truth) for truth in truths]
    names = ["AP (COCO)", "AP50 (COCO)", "AP75 (COCO)"]
    assert metrics.coco_average_precision(perfect, truths, CLASSES) == dict.fromkeys(names, 1.0)
    nothing = [detections() for _ in truths]
    assert metrics.coco_average_precision(nothing, truths, CLASSES) == dict.fromkeys(names, 0.0)
    assert metrics.coco_average_precision([detections((BOX, 0, 1))], [objects((BOX, 0, True))], CLASSES) == {}
    assert metrics.coco_average_precision([], [], CLASSES) == {}
    loose = [detections(((0, 0, 10, 6.2), 0, 1))]  # IoU 0.62 reaches 0.5, 0.55 and 0.6 of the ten thresholds
    scores = metrics.coco_average_precision(loose, [objects((BOX, 0))], CLASSES)
    assert [scores[name] for name in names] == pytest.approx([0.3, 1.0, 0.0])


def test_coco_without_its_backend_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)  # Python's own way to mark a module as missing
    with pytest.raises(UsageError, match=r"ssl-inpaint\[coco\]"):
        metrics.coco_average_precision([], [], CLASSES)


def test_wrong_input_is_refused() -> None:
    fine, truth = detections((BOX, 0, 1)), objects((BOX, 0))
    cut = Detections(fine.boxes, fine.labels, np.empty(0, np.float32))
    flat = Detections(fine.boxes.reshape(4), fine.labels, fine.scores)
    for found, truths, message in (
        ([fine], [], "for 1 images and objects for 0"),
        ([fine, detections((BOX, 3, 1))], [truth, truth], "detections are 0 to 3: they must be 0 to 2"),
        ([fine], [objects((BOX, -1))], "objects are -1 to -1"),
        ([detections((BOX, 0, np.nan))], [truth], "1 scores"),
        ([fine, cut], [truth, truth], "Detections of image 1 have the shapes"),
        ([flat], [truth], "Detections of image 0 have the shapes"),
        ([detections(((9, 0, 0, 9), 0, 1))], [truth], "x2 < x1"),
        ([detections(((0, 0, np.inf, 9), 0, 1))], [truth], "not finite"),
        ([fine], [Objects(truth.boxes, truth.labels, np.empty(0, bool))], "Objects of image 0"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics.rank_detections(found, truths, CLASSES)
    for iou in (0.0, 1.01, math.nan):
        with pytest.raises(ValueError, match="least IoU"):
            metrics.rank_detections([fine], [truth], CLASSES, iou)
    with pytest.raises(ValueError, match="N x 4"):
        overlaps.intersection_over_union(np.array(BOX), fine.boxes)
    with pytest.raises(ValueError, match="proposals for 0 images"):
        metrics.proposal_recall([], [truth])
    with pytest.raises(UsageError, match="11-point, area, step"):
        metrics.mean_average_precision_of_detections([fine], [truth], CLASSES, "voc")  # type: ignore[arg-type]


@pytest.mark.parametrize("pairs", [1, 7, 50, 2**20])
@pytest.mark.parametrize("iou", [0.3, 0.5, 1.0])
def test_owners_of_many_images_at_once_are_those_of_one_by_one(
    pairs: int, iou: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Boxes of whole pixels near three anchors: equal overlaps, and overlaps of exactly the threshold, are common.
    monkeypatch.setattr(overlaps, "PAIRS", pairs)
    for seed in range(8):
        found, truths = example(seed, images=12)
        assert overlaps.owners(found, truths, iou).tolist() == owners_one_by_one(found, truths, iou)
    assert overlaps.owners([], [], iou).tolist() == []
