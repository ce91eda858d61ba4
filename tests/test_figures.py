import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.transforms import Bbox, TransformedBbox

from ssl_inpaint import figures


def _patches(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def _tiles(figure: Figure) -> list[AxesImage]:
    (page,) = figure.axes
    return list(page.images)


def _shown(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(tile.get_array()) for tile in _tiles(figure)]


def _inches(tile: AxesImage) -> Bbox:
    """Where it lies on the page, from its lower left corner."""
    return TransformedBbox(tile.get_window_extent(), tile.get_figure().dpi_scale_trans.inverted())


def _lines(figure: Figure) -> list[np.ndarray]:
    """The points of each outline, black and white alike, in inches from the upper left corner of the tiles."""
    return [path.vertices for drawn in figure.axes[0].collections for path in drawn.get_paths()]


def _words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_drawing_never_imports_pyplot() -> None:
    code = (
        "import sys, io, numpy as np; from ssl_inpaint import figures as f\n"
        "assert 'matplotlib' not in sys.modules\n"
        "f.sample_grid([np.zeros((1, 3, 4, 4))], ['a']).savefig(io.BytesIO())\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_sample_grid_shows_every_image_once_column_by_column() -> None:
    columns = [_patches(3, 3, 8, 8, seed=seed) for seed in range(2)]
    figure = figures.sample_grid(columns, ["input", "truth"])
    expected = [image.transpose(1, 2, 0) for column in columns for image in column]
    assert _words(figure) == ["input", "truth"]
    for shown, image in zip(_shown(figure), expected, strict=True):
        np.testing.assert_array_equal(shown, image)


def test_tiles_are_square_in_rows_and_do_not_overlap() -> None:
    figure = figures.sample_grid([_patches(2, 3, 8, 8)] * 3, ["a", "b", "c"])
    width, height = figure.get_size_inches()
    boxes = [_inches(tile) for tile in _tiles(figure)]
    assert all(np.isclose(box.width, box.height) for box in boxes)
    assert all(min(box.x0, box.y0) >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)
    assert boxes[0].y0 > boxes[1].y1 and boxes[0].x1 < boxes[2].x0 and np.isclose(boxes[0].y0, boxes[2].y0)


@pytest.mark.parametrize(
    ("columns", "titles", "said"),
    [
        ([], [], "one title a column"),
        ([_patches(1, 3, 4, 4)], ["a", "b"], "one title a column"),
        ([_patches(1, 3, 4, 4), _patches(2, 3, 4, 4)], ["a", "b"], "as many"),
        ([_patches(1, 4, 4, 3)], ["a"], "column 'a'.*B x 3 x H x W"),
        ([_patches(0, 3, 4, 4)], ["a"], "B x 3 x H x W"),
        ([_patches(1, 3, 4, 4) * 2 - 1], ["a"], r"\[0, 1\] is needed"),
        ([np.full((1, 3, 4, 4), np.nan)], ["a"], r"\[0, 1\] is needed"),
    ],
)
def test_samples_that_do_not_fit_are_refused(columns: list[np.ndarray], titles: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        figures.sample_grid(columns, titles)


QUERIES = _patches(2, 3, 8, 8)
NEIGHBOURS = {"HOG": _patches(2, 3, 3, 8, 8, seed=1), "conv5": _patches(2, 4, 3, 8, 8, seed=2)}
HOLE = np.zeros((8, 8), dtype=bool)
HOLE[2:6, 2:6] = True


def test_the_query_is_shown_as_it_was_described_with_the_truth_beside_it() -> None:
    figure = figures.retrieval_figure(QUERIES, NEIGHBOURS, HOLE, None)
    assert _words(figure) == ["query", "truth", "HOG", "conv5"]
    shown, truth = _shown(figure), QUERIES.transpose(0, 2, 3, 1)
    assert len(shown) == 2 * (2 + 3 + 4)
    np.testing.assert_array_equal(shown[1][~HOLE], truth[1][~HOLE])
    assert (shown[1][HOLE] == figures.HIDDEN).all()
    np.testing.assert_array_equal(shown[2:4], truth)


def test_neighbours_stand_in_the_row_of_their_query_nearest_first() -> None:
    figure = figures.retrieval_figure(QUERIES, NEIGHBOURS, HOLE, None)
    tiles, first = _tiles(figure), 2 * 2  # after the queries and the truth
    for place, tile in enumerate(tiles[first : first + 6]):
        row, rank = divmod(place, 3)
        np.testing.assert_array_equal(tile.get_array(), NEIGHBOURS["HOG"][row, rank].transpose(1, 2, 0))
        assert np.isclose(_inches(tile).y0, _inches(tiles[row]).y0)
    lefts = [_inches(tile).x0 for tile in tiles[first : first + 3]]
    assert lefts == sorted(lefts) and lefts[0] > _inches(tiles[2]).x1


def test_the_hole_is_outlined_along_its_border_on_neighbours_only() -> None:
    figure = figures.retrieval_figure(QUERIES, NEIGHBOURS, HOLE, None)
    tiles, lines = _tiles(figure)[4:], _lines(figure)
    assert len(lines) == 2 * len(tiles)  # black below white
    for line, tile in zip(lines, np.repeat(tiles, 2), strict=True):
        left, right, bottom, top = tile.get_extent()
        np.testing.assert_allclose(line.min(0), (left + 2 / 8 * (right - left), top + 2 / 8 * (bottom - top)))
        np.testing.assert_allclose(line.max(0), (left + 6 / 8 * (right - left), top + 6 / 8 * (bottom - top)))


@pytest.mark.parametrize(("hole", "count"), [(np.zeros((8, 8), dtype=bool), 0), (np.ones((8, 8), dtype=bool), 2)])
def test_a_hole_of_nothing_has_no_outline_and_one_of_everything_has_the_frame(hole: np.ndarray, count: int) -> None:
    figure = figures.sample_grid([QUERIES[:1]], ["query"], holes={0: hole[None]})
    left, right, bottom, top = _tiles(figure)[0].get_extent()
    assert len(_lines(figure)) == count
    for line in _lines(figure):
        np.testing.assert_allclose(line.min(0), (left, top), atol=1e-12)
        np.testing.assert_allclose(line.max(0), (right, bottom))


def test_a_hole_in_two_parts_with_an_island_has_a_closed_line_for_each_border() -> None:
    hole = np.zeros((8, 8), dtype=bool)
    hole[0:5, 0:5], hole[2, 2], hole[6:8, 7] = True, False, True
    figure = figures.sample_grid([QUERIES[:1]], ["query"], holes={0: hole[None]})
    image = _tiles(figure)[0]
    image.set_extent((0, 8, 8, 0))
    figures.outline(image, hole)
    lines = _lines(figure)[-3:]
    corners = sorted((*line.min(0), *line.max(0)) for line in lines)
    assert corners == [(0, 0, 5, 5), (2, 2, 3, 3), (7, 6, 8, 8)]
    assert all((line[0] == line[-1]).all() for line in lines)


def test_an_outline_follows_the_coordinates_of_its_image() -> None:
    figure = figures.sample_grid([QUERIES[:1]], ["query"])
    _tiles(figure)[0].set_extent((10, 26, 8, 0))
    figures.outline(_tiles(figure)[0], HOLE)
    assert all((line.min(0) == (14, 2)).all() and (line.max(0) == (22, 6)).all() for line in _lines(figure))


def test_titles_of_several_lines_stand_above_the_tiles_and_are_no_formulas() -> None:
    one, three = (figures.sample_grid([_patches(1, 3, 8, 8)] * 2, ["truth", title]) for title in ("a", "$a\nb\nc$"))
    assert three.get_size_inches()[1] - one.get_size_inches()[1] == pytest.approx(2 * figures.LINE_INCHES)
    three.draw_without_rendering()
    places = [text.get_window_extent() for text in three.texts]
    top = max(tile.get_window_extent().y1 for tile in _tiles(three))
    assert all(place.y0 > top and place.y1 < three.bbox.height for place in places)
    assert np.isclose(places[0].y0, places[1].y0) and places[1].height > 2 * places[0].height
    assert not any(text.get_parse_math() for text in three.texts)


def test_tiles_are_as_large_as_asked_for() -> None:
    figure = figures.sample_grid([_patches(2, 3, 8, 8)] * 3, ["a", "b", "c"], tile_inches=1.5)
    assert all(np.allclose(_inches(tile).size, 1.5) for tile in _tiles(figure))


def test_without_a_hole_the_whole_query_is_shown_once() -> None:
    figure = figures.retrieval_figure(QUERIES, NEIGHBOURS, None, None)
    assert _words(figure) == ["query", "HOG", "conv5"] and len(_tiles(figure)) == 2 * (1 + 3 + 4)
    np.testing.assert_array_equal(_shown(figure)[:2], QUERIES.transpose(0, 2, 3, 1))
    assert not _lines(figure) and not figure.axes[0].patches and not figure.legends


def test_frames_tell_same_labels_from_others_by_colour_and_by_style() -> None:
    relevant = {name: np.arange(2 * block.shape[1]).reshape(2, -1) % 2 == 0 for name, block in NEIGHBOURS.items()}
    figure = figures.retrieval_figure(QUERIES, NEIGHBOURS, None, relevant)
    frames, tiles = figure.axes[0].patches, _tiles(figure)[2:]  # after the queries
    for frame, tile in zip(frames, tiles, strict=True):
        np.testing.assert_allclose(frame.get_window_extent().extents, tile.get_window_extent().extents)
    expected = [same for block in relevant.values() for same in block.flat]
    colour = {same: str(kind["edgecolor"]).lower() for same, kind in ((True, figures.SAME), (False, figures.OTHER))}
    assert [to_hex(frame.get_edgecolor()) for frame in frames] == [colour[same] for same in expected]
    assert [frame.get_linestyle() == "-" for frame in frames] == expected
    assert len(figure.legends[0].get_texts()) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"neighbours": {}}, "No neighbours"),
        ({"queries": _patches(3, 3, 8, 8)}, "neighbours of 'HOG'"),
        ({"neighbours": {"HOG": _patches(2, 3, 3, 8, 9)}}, "neighbours of 'HOG'"),
        ({"neighbours": {"HOG": _patches(2, 3, 8, 8)}}, "neighbours of 'HOG'"),
        ({"neighbours": {"HOG": 2 * NEIGHBOURS["HOG"]}}, "HOG.*values"),
        ({"hole": np.ones((4, 4), dtype=bool)}, "hole"),
        ({"is_relevant": {"HOG": np.ones((2, 3), dtype=bool)}}, "conv5"),
        ({"is_relevant": {name: np.ones((2, 3), dtype=bool) for name in NEIGHBOURS}}, "conv5"),
    ],
)
def test_neighbours_that_do_not_fit_are_refused(changes: dict[str, object], said: str) -> None:
    fitting = {"queries": QUERIES, "neighbours": NEIGHBOURS, "hole": HOLE, "is_relevant": None}
    with pytest.raises(ValueError, match=said):
        figures.retrieval_figure(**(fitting | changes))


def test_the_same_figure_is_saved_as_the_same_png_at_150_dots_an_inch(tmp_path: Path) -> None:
    figure = figures.sample_grid([_patches(1, 3, 8, 8)], ["input"])
    for name in ("a.png", "deep/b.png"):
        figures.save(figure, tmp_path / name)
    data = (tmp_path / "a.png").read_bytes()
    assert data == (tmp_path / "deep" / "b.png").read_bytes() and data.startswith(b"\x89PNG")
    pixels = np.frombuffer(data[16:24], dtype=">u4")
    assert np.abs(pixels - 150 * figure.get_size_inches()).max() <= 1
