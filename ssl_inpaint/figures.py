"""Figures from arrays: sample grids, and neighbours of patches.

Drawn without pyplot, so that nothing is kept between figures and no display is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_inpaint import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

# Okabe and Ito's colours, told apart by colour-blind readers; in grey, line styles and markers tell them apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
FRAME: dict[str, Any] = {"fill": False, "linewidth": 1.8, "capstyle": "projecting"}
SAME = FRAME | {"edgecolor": PALETTE[2], "linestyle": "-", "label": "label of the query"}
OTHER = FRAME | {"edgecolor": PALETTE[1], "linestyle": (0, (2, 1.5)), "label": "another label"}
HIDDEN = 0.5  # the grey that stands for pixels a descriptor never saw
DOTS_PER_INCH = 150
COMPRESSION = 4  # of zlib: half the time of its usual 6 for files 1 to 10 % larger
TILE_INCHES = 0.9
GAP_INCHES = 0.08
BLOCK_GAP_INCHES = 0.22
HEADING_INCHES = 0.28
LINE_INCHES = 0.16  # of a heading, from the second on
LEGEND_INCHES = 0.28
TEXT_POINTS = 9
OUTLINE_POINTS = 0.9


def sample_grid(
    columns: Sequence[np.ndarray],
    titles: Sequence[str],
    tile_inches: float = TILE_INCHES,
    holes: Mapping[int, np.ndarray] | None = None,
    outline_points: float = OUTLINE_POINTS,
) -> Figure:
    """A row a sample, a titled column an array of B x 3 x H x W in [0, 1]: say, input, output and truth.

    A title may have several lines. `holes` place of a column -> B x H x W bool, outlined in its images. The images of
    the page's axes come column by column. ValueError where shapes, counts or values do not fit.
    """
    if not columns or len(columns) != len(titles):
        raise ValueError(f"{len(columns)} columns with {len(titles)} titles: give one title a column, one at least.")
    checked = [_images(column, f"column '{title}'") for column, title in zip(columns, titles, strict=True)]
    if len({len(column) for column in checked}) > 1:
        raise ValueError(f"Columns of {[len(column) for column in checked]} samples: all must have as many.")
    pitch = tile_inches + GAP_INCHES
    top = HEADING_INCHES + LINE_INCHES * max(title.count("\n") for title in titles)
    figure, page = _page(len(checked) * pitch - GAP_INCHES, top + len(checked[0]) * pitch)
    for place, (title, column) in enumerate(zip(titles, checked, strict=True)):
        _heading(page, title, place * pitch, tile_inches, top)
        for row, image in enumerate(column):
            tile = _tile(page, image, place * pitch, top + row * pitch, tile_inches)
            if holes and place in holes:
                outline(tile, holes[place][row], outline_points)
    return figure


def retrieval_figure(
    queries: np.ndarray,
    neighbours: Mapping[str, np.ndarray],
    hole: np.ndarray | None,
    is_relevant: Mapping[str, np.ndarray] | None,
) -> Figure:
    """Nearest patches by each descriptor, a row a query (the paper's figure of neighbours by context).

    `queries` N x 3 x S x S, `neighbours` descriptor name -> N x k x 3 x S x S, nearest first, all in [0, 1].
    `hole` S x S, True where descriptors saw nothing: grey in the query, with the truth beside it, outlined in the
    neighbours; None where they saw all. `is_relevant` name -> N x k, True where the neighbour has the query's label
    (framed solid, the others dashed); None draws no frames. ValueError where shapes or values do not fit.
    """
    shown = _images(queries, "queries")
    blocks = {name: _neighbours(patches, name, shown.shape) for name, patches in neighbours.items()}
    if not blocks:
        raise ValueError("No neighbours: give those of one descriptor at least.")
    if hole is not None and hole.shape != shown.shape[1:3]:
        raise ValueError(f"A hole of {hole.shape} pixels does not fit patches of {shown.shape[1:3]}.")
    if is_relevant is not None:
        _check_frames(is_relevant, blocks)
    left = {"query": shown} if hole is None else {"query": np.where(hole[..., None], HIDDEN, shown), "truth": shown}
    columns = [(heading, images[:, None], False) for heading, images in left.items()]
    columns += [(heading, images, True) for heading, images in blocks.items()]
    pitch = TILE_INCHES + GAP_INCHES
    widths = [images.shape[1] * pitch - GAP_INCHES for _, images, _ in columns]
    gaps = [BLOCK_GAP_INCHES if is_block else GAP_INCHES for _, _, is_block in columns]
    starts = [sum(widths[:n]) + sum(gaps[1 : n + 1]) for n in range(len(columns))]
    height = HEADING_INCHES + len(shown) * pitch
    figure, page = _page(starts[-1] + widths[-1], height, [] if is_relevant is None else [SAME, OTHER])
    for (heading, images, is_block), start, width in zip(columns, starts, widths, strict=True):
        _heading(page, heading, start, width, HEADING_INCHES, is_ruled=is_block)
        for row, place in np.ndindex(*images.shape[:2]):
            tile = _tile(page, images[row, place], start + place * pitch, HEADING_INCHES + row * pitch, TILE_INCHES)
            if is_block and hole is not None:
                outline(tile, hole)
            if is_block and is_relevant is not None:
                _frame(tile, bool(is_relevant[heading][row, place]))
    return figure


def outline(image: AxesImage, hole: np.ndarray, points: float = OUTLINE_POINTS) -> None:
    """A thin white line, edged in black, along the border of the hole (H x W bool) in the image."""
    from contourpy import contour_generator
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path as Line

    left, right, bottom, top = image.get_extent()
    pixel = np.array([right - left, bottom - top]) / hole.shape[::-1]
    border = contour_generator(z=np.pad(hole, 1).astype(np.float32)).lines(0.5)  # half-way between centres of pixels
    lines = [Line((np.asarray(one, float) - 0.5) * pixel + (left, top), closed=True) for one in border]
    for colour, width, opacity in (("black", 2 * points, 0.6), ("white", points, 1)):  # seen on dark and on bright
        drawn = PathCollection(lines, facecolors="none", edgecolors=colour, linewidths=width, alpha=opacity)
        image.axes.add_collection(drawn, autolim=False)


def text_inches(text: str, points: float) -> float:
    """The width of a line of text."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=points), False)[0]) / 72


def save(figure: Figure, path: Path) -> None:
    """Writes the figure as PNG, whole or not at all; the same figure gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set(dpi=DOTS_PER_INCH, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])  # on white, nothing is transparent
    with files.replacing(path) as temporary:
        drawn.save(temporary, format="PNG", dpi=(DOTS_PER_INCH, DOTS_PER_INCH), compress_level=COMPRESSION)


def _images(images: np.ndarray, name: str) -> np.ndarray:
    """B x 3 x H x W to B x H x W x 3, checked."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ValueError(f"{name}: shape {images.shape}, where B x 3 x H x W is needed.")
    if not (images.min() >= -0.001 and images.max() <= 1.001):  # rounding is forgiven; NaN is not
        raise ValueError(f"{name}: values from {images.min():.3g} to {images.max():.3g}, where [0, 1] is needed.")
    return images.transpose(0, 2, 3, 1).clip(0, 1)


def _neighbours(patches: np.ndarray, name: str, queries: tuple[int, ...]) -> np.ndarray:
    """N x k x 3 x S x S to N x k x S x S x 3, checked against the shape of the queries."""
    patches = np.asarray(patches)
    if patches.ndim != 5 or len(patches) != queries[0] or patches.shape[3:] != queries[1:3]:
        raise ValueError(
            f"neighbours of '{name}': shape {patches.shape} does not fit {queries[0]} queries of {queries[1:3]}."
        )
    return _images(patches.reshape(-1, *patches.shape[2:]), name).reshape(*patches.shape[:2], *queries[1:])


def _check_frames(is_relevant: Mapping[str, np.ndarray], blocks: Mapping[str, np.ndarray]) -> None:
    for name, block in blocks.items():
        if name not in is_relevant or is_relevant[name].shape != block.shape[:2]:
            raise ValueError(f"is_relevant['{name}'] must be {block.shape[:2]} bool, as the neighbours are.")


def _page(width: float, height: float, frames: Sequence[Mapping[str, Any]] = ()) -> tuple[Figure, Axes]:
    """Axes over a whole figure, in inches right and down, gaps left of 0 and right of `width`; a legend of `frames`."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    whole = height + (LEGEND_INCHES if frames else 0)
    figure = Figure(figsize=(width + 2 * GAP_INCHES, whole))
    page = figure.add_axes((0, 0, 1, 1), xlim=(-GAP_INCHES, width + GAP_INCHES), ylim=(whole, 0), autoscale_on=False)
    page.set_axis_off()
    if frames:
        handles = [Patch(**frame) for frame in frames]
        figure.legend(handles=handles, loc="lower center", ncols=2, frameon=False, fontsize=TEXT_POINTS, borderpad=0)
    return figure, page


def _heading(page: Axes, text: str, left: float, width: float, top: float, is_ruled: bool = False) -> None:
    """Text above the tiles, which begin `left` and `top` inches on, over a thin line where it heads a block."""
    y = top - 0.07
    written = page.figure.text(left + width / 2, y, text, ha="center", va="bottom", fontsize=TEXT_POINTS)
    written.set(transform=page.transData, parse_math=False)  # names are not formulas
    if is_ruled:
        page.plot((left, left + width), (y + 0.02, y + 0.02), color="black", linewidth=0.6)


def _tile(page: Axes, image: np.ndarray, left: float, top: float, side: float) -> AxesImage:
    return page.imshow(image, extent=(left, left + side, top + side, top), aspect="auto")


def _frame(tile: AxesImage, is_same: bool) -> None:
    """Around a neighbour: whether it has the label of its query."""
    from matplotlib.patches import Rectangle

    left, right, bottom, top = tile.get_extent()
    tile.axes.add_patch(Rectangle((left, top), right - left, bottom - top, **(SAME if is_same else OTHER)))
