import sys
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ssl_inpaint import tiles
from ssl_inpaint.core import Detections, Objects
from ssl_inpaint.galleries import detection_gallery, segmentation_gallery

CLASSES = ("cat", "dog", "a-very-long-name")
IMAGES = [np.full(shape, 128, np.uint8) for shape in ((60, 80, 3), (80, 60, 3), (40, 40, 3))]


def _found(scores: list[float]) -> Detections:
    boxes = np.array([[5, 20, 30 + place, 40] for place in range(len(scores))], np.float32).reshape(-1, 4)
    return Detections(boxes, np.arange(len(scores)) % 3, np.array(scores, np.float32))


def _true(is_difficult: list[bool]) -> Objects:
    found = _found([0.0] * len(is_difficult))
    return Objects(found.boxes, found.labels, np.array(is_difficult, dtype=bool))


def _words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def _legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def _labels(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def _boxes(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if not patch.get_fill()]


def _shown(axes: Axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())


def test_drawing_never_imports_pyplot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # whoever imports it now fails
    monkeypatch.delattr(matplotlib, "pyplot", raising=False)
    mask = np.zeros((60, 80), np.uint8)
    for figure in (
        detection_gallery(IMAGES[:1], [_found([0.9])], [_true([True])], CLASSES),
        segmentation_gallery(IMAGES[:1], [mask], [mask], CLASSES),
    ):
        figure.draw_without_rendering()


@pytest.mark.parametrize(("count", "across"), [(1, 1), (2, 2), (4, 2), (5, 3)])
def test_pairs_stand_side_by_side_below_one_title_a_column(count: int, across: int) -> None:
    images = (IMAGES * 2)[:count]
    figure = detection_gallery(images, [_found([])] * count, [_true([])] * count, CLASSES)
    assert _words(figure) == ["prediction", "truth"] * across
    assert len(figure.axes) == 2 * count
    for place, image in enumerate(images):
        for axes in figure.axes[2 * place : 2 * place + 2]:
            np.testing.assert_array_equal(_shown(axes), image)
            assert axes.bbox.width / axes.bbox.height == pytest.approx(image.shape[1] / image.shape[0])


def test_tiles_do_not_overlap_nor_leave_the_page() -> None:
    figure = detection_gallery(IMAGES * 2, [_found([])] * 6, [_true([])] * 6, CLASSES)
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(min(box.x0, box.y0) > 0 and max(box.x1, box.y1) < 1 for box in boxes)
    for one, other in combinations(boxes, 2):
        assert one.x1 < other.x0 or other.x1 < one.x0 or one.y1 < other.y0 or other.y1 < one.y0


def test_only_the_surest_predictions_above_the_least_score_are_drawn() -> None:
    found = _found([0.3, 0.2, 0.9, 0.5])
    for most, expected in ((9, ["a-very-long… 0.90", "cat 0.50", "cat 0.30"]), (1, ["a-very-long… 0.90"])):
        left, _ = detection_gallery(
            IMAGES[:1], [found], [_true([])], CLASSES, least_score=np.float32(0.3), most=most
        ).axes
        assert _labels(left) == expected and len(_boxes(left)) == len(expected)
    assert _boxes(left)[0].get_bbox().extents == pytest.approx(found.boxes[2])


def test_every_true_box_is_drawn_and_the_largest_are_named() -> None:
    _, right = detection_gallery(IMAGES[:1], [_found([])], [_true([False] * 5)], CLASSES, most=2).axes
    assert len(_boxes(right)) == 5 and _labels(right) == ["dog", "cat"]


def test_difficult_objects_are_dashed_and_in_the_legend() -> None:
    figure = detection_gallery(IMAGES[:1], [_found([0.9])], [_true([True, False])], CLASSES)
    left, right = figure.axes
    assert [box.get_linestyle() == "-" for box in (*_boxes(left), *_boxes(right))] == [True, True, False]
    assert _legend(figure) == ["score ≥ 0.3, 6 at most", "difficult"]
    assert len(_legend(detection_gallery(IMAGES[:1], [_found([])], [_true([False])], CLASSES))) == 1


def test_a_class_has_one_colour_in_prediction_and_truth() -> None:
    left, right = detection_gallery(IMAGES[:1], [_found([0.5, 0.9])], [_true([False] * 2)], CLASSES).axes
    (dog, cat), (true_dog, true_cat) = _boxes(left), _boxes(right)
    assert dog.get_edgecolor() == true_dog.get_edgecolor() != cat.get_edgecolor() == true_cat.get_edgecolor()


def test_labels_stay_in_the_image_and_apart_where_there_is_room() -> None:
    boxes = np.array(
        [[20, 30, 60, 55], [20, 30, 60, 55], [21, 31, 60, 55], [-5, -5, 30, 20], [70, 50, 90, 70]], np.float32
    )
    found = Detections(boxes, np.zeros(5, np.int64), np.linspace(0.9, 0.5, 5).astype(np.float32))
    left, _ = detection_gallery(IMAGES[:1], [found], [_true([])], CLASSES).axes
    places = [patch.get_bbox() for patch in left.patches if patch.get_fill()]
    assert len(places) == 5
    assert all(min(box.x0, box.y0) >= 0 and box.x1 <= 80 and box.y1 <= 60 for box in places)
    for one, other in combinations(places, 2):
        assert min(one.x1, other.x1) <= max(one.x0, other.x0) or min(one.y1, other.y1) <= max(one.y0, other.y0)


def test_a_label_is_as_wide_as_its_text() -> None:
    figure = detection_gallery(IMAGES[:1], [_found([0.9])], [_true([])], CLASSES)
    figure.draw_without_rendering()
    text = figure.axes[0].texts[0]
    (light,) = [patch for patch in figure.axes[0].patches if patch.get_fill()]
    written, box = text.get_window_extent(), light.get_window_extent()
    assert box.x0 < written.x0 and written.x1 < box.x1 and written.width > 0.8 * box.width


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": []}, "0 images"),
        ({"truths": []}, "0 truths"),
        ({"images": [IMAGES[0] / 255]}, "Image 0: float64"),
        ({"images": [IMAGES[0][..., 0]]}, r"\(60, 80\)"),
        ({"detections": [_found([np.nan])]}, "finite"),
        ({"classes": ["cat"], "truths": [_true([True, False])]}, "Objects of image 0"),
        ({"most": 0}, "one box at least"),
        ({"least_score": np.nan}, "a number"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(changes: dict[str, object], said: str) -> None:
    fitting = {"images": IMAGES[:1], "detections": [_found([0.9])], "truths": [_true([False])], "classes": CLASSES}
    with pytest.raises(ValueError, match=said):
        detection_gallery(**(fitting | changes))


COLOURS = np.array([[0, 0, 0], [200, 0, 0], [0, 100, 0]], np.uint8)
MASK = np.zeros((60, 80), np.uint8)
MASK[10:50, 20:60] = 1
TRUTH = np.where(np.pad(MASK[1:-1, 1:-1], 1) == np.roll(MASK, 3, 0), MASK, np.uint8(255))


def test_colours_cover_a_pale_grey_image_and_black_leaves_it_bare() -> None:
    figure = segmentation_gallery(IMAGES[:1], [MASK], [TRUTH], CLASSES, COLOURS)
    image, predicted, true = (_shown(axes) for axes in figure.axes)
    np.testing.assert_array_equal(image, IMAGES[0])
    grey = 102 + 0.5 * 128  # black becomes 102, contrast is halved
    red = [0.35 * grey + 0.65 * 200, 0.35 * grey, 0.35 * grey]
    for shown in (predicted, true):
        np.testing.assert_allclose(shown[0, 0], grey, atol=0.5)
        np.testing.assert_allclose(shown[30, 40], red, atol=0.5)
    assert (true[TRUTH == 255] == 255).all() and not (predicted == 255).all(-1).any()


def test_regions_are_edged_except_beside_ignored_pixels() -> None:
    predicted, true = (
        _shown(axes) for axes in segmentation_gallery(IMAGES[:1], [MASK], [TRUTH], CLASSES, COLOURS).axes[1:]
    )
    is_edge = (predicted == 0).all(-1)
    assert (
        is_edge[9, 20:60].all() and is_edge[49, 20:60].all() and is_edge[10:50, 19].all() and is_edge[10:50, 59].all()
    )
    assert is_edge.sum() == 2 * 40 + 2 * 40 - 1  # the corner at the bottom right is on two sides
    assert not (true == 0).all(-1)[:, 25:55].any()


def test_the_legend_holds_the_classes_that_occur_as_they_are_drawn() -> None:
    figure = segmentation_gallery(IMAGES[:1], [MASK], [TRUTH], CLASSES, COLOURS)
    assert _legend(figure) == ["cat", "dog", "not counted"]
    shown = _shown(figure.axes[1])
    swatches = [255 * np.array(handle.get_facecolor()[:3]) for handle in figure.legends[0].legend_handles]
    np.testing.assert_allclose(swatches, [shown[0, 0], shown[30, 40], [255] * 3], atol=0.5)
    assert _legend(segmentation_gallery(IMAGES[:1], [MASK], [MASK], CLASSES)) == ["cat", "dog"]


def test_regions_are_named_where_they_are_widest_but_bare_ones_and_thin_ones_are_not() -> None:
    thin = MASK.copy()
    thin[:2] = 2
    for mask, expected in ((MASK, ["dog"]), (thin, ["dog"]), (np.full_like(MASK, 2), ["a-very-long…"]), (MASK * 0, [])):
        axes = segmentation_gallery(IMAGES[:1], [mask], [MASK], CLASSES, COLOURS).axes[1]
        assert _labels(axes) == expected
        for text in axes.texts:
            x, y = text.get_position()
            assert abs(y - 30) < 1 and 29 < x < 51  # a wide rectangle has many middles


def test_names_of_regions_never_hide_each_other() -> None:
    mask = np.random.default_rng(0).integers(0, 21, (6, 8)).astype(np.uint8).repeat(10, 0).repeat(10, 1)
    names = [f"class number {number}" for number in range(21)]
    axes = segmentation_gallery(IMAGES[:1], [mask], [mask], names).axes[1]
    places = [patch.get_bbox() for patch in axes.patches]
    assert len(places) > 5
    for one, other in combinations(places, 2):
        assert min(one.x1, other.x1) <= max(one.x0, other.x0) or min(one.y1, other.y1) <= max(one.y0, other.y0)


def test_two_triplets_stand_side_by_side() -> None:
    masks = [np.zeros(image.shape[:2], np.uint8) for image in IMAGES]
    figure = segmentation_gallery(IMAGES, masks, masks, CLASSES)
    assert _words(figure) == ["image", "prediction", "truth"] * 2 and len(figure.axes) == 9
    assert max(figure.get_size_inches()) < 6.5 * max(tiles.TILE_INCHES)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"masks": []}, "0 predictions"),
        ({"masks": [MASK.astype(np.int64)]}, "Predicted mask 0: int64"),
        ({"truths": [MASK[1:]]}, "True mask 0.*does not fit"),
        ({"masks": [TRUTH]}, r"Predicted mask 0 holds \[255\]"),
        ({"classes": ["cat"]}, r"holds \[1\]"),
        ({"colours": COLOURS[:2]}, "3 x 3 uint8"),
        ({"colours": COLOURS / 255}, "float64"),
    ],
)
def test_masks_that_do_not_fit_are_refused(changes: dict[str, object], said: str) -> None:
    fitting = {"images": IMAGES[:1], "masks": [MASK], "truths": [TRUTH], "classes": CLASSES, "colours": COLOURS}
    with pytest.raises(ValueError, match=said):
        segmentation_gallery(**(fitting | changes))
