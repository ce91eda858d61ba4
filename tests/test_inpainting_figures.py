import sys
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_inpaint import figures, tiles
from ssl_inpaint.inpainting_figures import (
    MOST_LINES,
    MOST_TIMES,
    NAME_INCHES,
    PHOTO_PIXELS,
    before_after,
    methods_figure,
    samples_over_time,
)


def _images(count: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 3, 8, 8), dtype=np.float32)


def _shown(axes: Axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())


def _column(figure: Figure, place: int, rows: int) -> np.ndarray:
    """Of a grid of samples, whose images all lie in the same axes."""
    tiles = figure.axes[0].images[place * rows : (place + 1) * rows]
    return np.stack([np.asarray(tile.get_array()) for tile in tiles]).transpose(0, 3, 1, 2)


def _words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def _is_legible(figure: Figure) -> bool:
    """No text leaves the page, or lies over another or over an image."""
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.texts]
    inside = all(min(box.x0, box.y0) >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)
    shown = [image.get_window_extent() for axes in figure.axes for image in axes.images]
    return inside and not any(
        one.overlaps(other) for one, other in [*combinations(boxes, 2), *((b, t) for b in boxes for t in shown)]
    )


TRUTH = _images()
HOLES = np.zeros((2, 1, 8, 8), dtype=bool)
HOLES[0, 0, 2:6, 2:6] = True
HOLES[1, 0, 0:3, 1:8] = True
FILLED = {"Telea": _images(seed=1), "PatchMatch": _images(seed=2)}


def test_drawing_never_imports_pyplot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # whoever imports it now fails
    monkeypatch.delattr(matplotlib, "pyplot", raising=False)
    photo, hole = np.zeros((9, 9, 3), np.uint8), np.eye(9, dtype=bool)
    for figure in (
        samples_over_time(TRUTH, TRUTH, {1: TRUTH}),
        methods_figure(TRUTH, HOLES, FILLED, None),
        before_after([photo], [hole], [photo]),
    ):
        figure.draw_without_rendering()


def test_fills_stand_between_input_and_truth_from_the_first_step_to_the_last() -> None:
    by_step = {step: _images(seed=step) for step in (500, 2, 30)}
    figure = samples_over_time(TRUTH, 0 * TRUTH, by_step)
    assert _words(figure) == ["input", "step 2", "step 30", "step 500", "truth"] and _is_legible(figure)
    for place, images in enumerate([0 * TRUTH, by_step[2], by_step[30], by_step[500], TRUTH]):
        np.testing.assert_array_equal(_column(figure, place, 2), images)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (range(1, 9), range(1, 9)),
        (range(1, 10), (1, 2, 3, 4, 5, 6, 7, 9)),
        (range(0, 900, 100), (0, 100, 200, 300, 400, 500, 600, 800)),
        (range(1000, 101_000, 1000), (1000, 2000, 4000, 7000, 14000, 27000, 52000, 100000)),
        ([*range(1, 100), 100_000], (1, 5, 27, 96, 97, 98, 99, 100_000)),
    ],
)
def test_of_many_steps_eight_evenly_apart_in_their_logarithm_are_drawn(steps: list[int], expected: list[int]) -> None:
    words = _words(samples_over_time(TRUTH[:1], TRUTH[:1], dict.fromkeys(steps, TRUTH[:1])))
    drawn = [int(word.removeprefix("step ")) for word in words[1:-1]]
    assert len(drawn) == MOST_TIMES and drawn == sorted(set(drawn))
    assert drawn == list(expected)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"by_step": {}}, "No fills"),
        ({"by_step": {5: TRUTH[:1]}}, "'step 5' is"),
        ({"seen": TRUTH[..., :4]}, "'seen' is"),
        ({"seen": TRUTH + 1}, "column 'input'.*values"),
        ({"by_step": {5: TRUTH * np.nan}}, "column 'step 5'.*values"),
        ({"by_step": {5: TRUTH[0]}, "truth": TRUTH[0], "seen": TRUTH[0]}, "B x 3 x H x W"),
    ],
)
def test_samples_that_do_not_fit_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        samples_over_time(**({"truth": TRUTH, "seen": TRUTH, "by_step": {5: TRUTH}} | changes))


def test_methods_stand_in_their_order_between_the_input_in_grey_and_the_truth() -> None:
    figure = methods_figure(TRUTH, HOLES, FILLED, None)
    assert _words(figure) == ["input", "Telea", "PatchMatch", "truth"] and len(figure.axes[0].images) == 2 * 4
    seen, *fills, truth = (_column(figure, place, 2) for place in range(4))
    everywhere = np.broadcast_to(HOLES, TRUTH.shape)
    assert (seen[everywhere] == figures.HIDDEN).all()
    np.testing.assert_array_equal(seen[~everywhere], TRUTH[~everywhere])
    for shown, fill in zip(fills, FILLED.values(), strict=True):
        np.testing.assert_array_equal(shown, fill)
    np.testing.assert_array_equal(truth, TRUTH)


def test_each_hole_is_outlined_in_its_fills_only() -> None:
    (page,) = methods_figure(TRUTH, HOLES, FILLED, None).axes
    lines = [path.vertices for drawn in page.collections for path in drawn.get_paths()]
    fills = [tile for tile in page.images[2:-2] for _ in range(2)]  # a black line below a white one
    for place, (line, fill) in enumerate(zip(lines, fills, strict=True)):
        left, right, bottom, top = fill.get_extent()
        rows, columns = np.nonzero(HOLES[place // 2 % 2, 0])
        for found, row, column in (
            (line.min(0), rows.min(), columns.min()),
            (line.max(0), rows.max() + 1, columns.max() + 1),
        ):
            np.testing.assert_allclose(found, (left + column / 8 * (right - left), top + row / 8 * (bottom - top)))


def test_scores_stand_below_the_names_of_the_methods_that_have_one() -> None:
    figure = methods_figure(TRUTH, HOLES, FILLED, {"PatchMatch": 18.649})
    assert _words(figure) == ["input\n", "Telea\n", "PatchMatch\n18.6 dB", "truth\n"]
    assert _is_legible(figure)


@pytest.mark.parametrize(
    "name", ["a context encoder with a very long name, 40000 steps of 128 images", "w" * 80, "$x_1$ $"]
)
@pytest.mark.parametrize("count", [1, 9])
def test_long_names_are_wrapped_and_never_overlap(name: str, count: int) -> None:
    names = [f"{place} {name}" for place in range(count)]
    figure = methods_figure(TRUTH[:1], HOLES[:1], dict.fromkeys(names, TRUTH[:1]), dict.fromkeys(names, 12.5))
    assert _is_legible(figure)
    assert all(word.count("\n") <= MOST_LINES for word in _words(figure))
    assert not any(text.get_parse_math() for text in figure.texts)


def test_a_name_breaks_between_words_and_ends_in_an_ellipsis_where_it_is_cut() -> None:
    def lines(name: str) -> list[str]:
        return tiles.wrapped(name, NAME_INCHES, 9, MOST_LINES).split("\n")

    assert lines("Telea") == ["Telea"] and lines("") == [""]
    assert lines("nearest  neighbour\ninpainting") == ["nearest", "neighbour", "inpainting"]
    assert lines("my_very_long_method_name") == ["my_very_long_", "method_name"]
    assert "".join(lines("m" * 20)) == "m" * 20 and len(lines("m" * 20)) > 1
    *whole, cut = lines("one of all the methods with a name that is much too long for three lines")
    assert len(whole) == MOST_LINES - 1 and cut.endswith("…")
    assert all(tiles.text_inches(line, 9) <= NAME_INCHES for line in (*whole, cut))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"filled": {}}, "No methods"),
        ({"filled": {"Telea": TRUTH[:1]}}, "'Telea' is"),
        ({"filled": {"Telea": TRUTH * 2}}, "'Telea'.*values"),
        ({"holes": HOLES[:1]}, "Holes: bool"),
        ({"holes": HOLES[:, 0]}, "Holes: bool"),
        ({"holes": HOLES.astype(np.uint8)}, "Holes: uint8"),
        ({"scores": {"Criminisi": 1.0}}, "Criminisi"),
        ({"truth": TRUTH - 1}, "values"),
        ({"truth": TRUTH[:0], "holes": HOLES[:0], "filled": {"Telea": TRUTH[:0]}}, "B x 3 x H x W"),
    ],
)
def test_methods_that_do_not_fit_are_refused(changes: dict[str, object], said: str) -> None:
    fitting = {"truth": TRUTH, "holes": HOLES, "filled": FILLED, "scores": None}
    with pytest.raises(ValueError, match=said):
        methods_figure(**(fitting | changes))


def _photo(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photograph, its hole in the middle, and its fill."""
    photo, fill = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    hole = np.zeros((height, width), dtype=bool)
    hole[height // 4 : -(-3 * height // 4), width // 4 : -(-3 * width // 4)] = True
    return photo, hole, fill


SHAPES = [(60, 80), (80, 60), (10, 200), (200, 10), (1, 1)]


def test_a_photograph_is_shown_as_it_was_with_its_hole_and_filled_in_a_row_of_its_own() -> None:
    rows = [_photo(*shape) for shape in SHAPES]
    figure = before_after(*zip(*rows, strict=True))
    assert _words(figure) == ["before", "hole", "after"] and len(figure.axes) == 3 * len(rows)
    for place, (photo, hole, fill) in enumerate(rows):
        before, tinted, after = figure.axes[3 * place : 3 * place + 3]
        np.testing.assert_array_equal(_shown(before), photo)
        np.testing.assert_array_equal(_shown(after), fill)
        np.testing.assert_array_equal(_shown(tinted)[~hole], photo[~hole])
        assert (_shown(tinted)[hole] != photo[hole]).any(axis=-1).mean() > 0.9  # unless it was that red
        points = np.concatenate([path.vertices for path in tinted.collections[0].get_paths()])
        ys, xs = np.nonzero(hole)
        np.testing.assert_array_equal(points.min(0), (xs.min(), ys.min()))
        np.testing.assert_array_equal(points.max(0), (xs.max() + 1, ys.max() + 1))
        assert not before.collections and not after.collections


@pytest.mark.parametrize("shapes", [SHAPES, *([shape] for shape in SHAPES)])
def test_photographs_keep_their_shape_apart_from_each_other_and_from_the_titles(shapes: list[tuple[int, int]]) -> None:
    figure = before_after(*zip(*(_photo(*shape) for shape in shapes), strict=True))
    assert _is_legible(figure)
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    for place, box in enumerate(boxes):
        height, width = shapes[place // 3]
        assert box.width / box.height == pytest.approx(width / height)


def test_large_photographs_are_drawn_smaller_and_no_scratch_is_lost() -> None:
    photo, hole, fill = _photo(1, 4 * PHOTO_PIXELS)
    photo[:], hole[:], hole[:, 5] = 7, False, True
    before, tinted, after = before_after([photo], [hole], [fill]).axes
    assert _shown(before).shape == _shown(after).shape == (1, PHOTO_PIXELS, 3) and (_shown(before) == 7).all()
    assert np.flatnonzero((_shown(tinted) != 7).any(axis=-1)).tolist() == [1]


PHOTO, HOLE, FILL = _photo(6, 8)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"photos": [], "holes": [], "filled": []}, "one at least"),
        ({"filled": [FILL, FILL]}, "2 fills"),
        ({"photos": [PHOTO / 255]}, "Photograph 0: float64"),
        ({"photos": [PHOTO[..., 0]]}, r"Photograph 0.*\(6, 8\)"),
        ({"photos": [PHOTO[:0]]}, "Photograph 0"),
        ({"holes": [HOLE[1:]]}, "Hole 0"),
        ({"holes": [HOLE.astype(np.uint8)]}, "Hole 0: uint8"),
        ({"filled": [FILL[1:]]}, "Fill 0"),
        ({"filled": [FILL / 255]}, "Fill 0: float64"),
    ],
)
def test_photographs_that_do_not_fit_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        before_after(**({"photos": [PHOTO], "holes": [HOLE], "filled": [FILL]} | changes))
