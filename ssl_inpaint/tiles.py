"""What a gallery is made of: a page of image tiles of any shape, with named boxes or named regions on them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil, sqrt
from typing import TYPE_CHECKING

import numpy as np

from ssl_inpaint.figures import BLOCK_GAP_INCHES, GAP_INCHES, HEADING_INCHES, TEXT_POINTS, text_inches

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of S. Trubetskoy's distinct colours those that make a line; in grey, the names beside the boxes tell classes apart.
BOX_COLOURS = (
    *("#E6194B", "#3CB44B", "#FFE119", "#4363D8", "#F58231", "#911EB4", "#42D4F4", "#F032E6", "#BFEF45", "#FABED4"),
    *("#469990", "#DCBEFF", "#9A6324", "#800000", "#AAFFC3", "#808000", "#FFD8B1", "#000075", "#A9A9A9", "#000000"),
)
TILE_INCHES = (1.6, 1.9)  # height and width in which every image just fits, whatever its pixels
MOST_TILES = 6  # side by side
LINE_POINTS = 1.3
DASHES = (0, (2.5, 1.5))
BRIGHT = 0.4  # colours that print lighter than this grey are haloed in black, the others in white
LIGHT = (1.0, 1.0, 1.0, 0.85)  # behind the text of a label
FRAME = "#999999"  # around an image, whose white parts would melt into the page
LABEL_POINTS = 6.5
LABEL_HEIGHT_POINTS = 8.0
LABEL_PADDING_POINTS = 1.5
MOST_LETTERS = 12  # of a name in a label, before what follows it
LEGEND_LINE_INCHES = 0.19
HANDLE_INCHES = 0.6  # what an entry of the legend needs beside its text


def page(
    images: Sequence[np.ndarray],
    titles: Sequence[str],
    handles: Sequence[Artist],
    tile_inches: tuple[float, float] = TILE_INCHES,
    most_tiles: int = MOST_TILES,
) -> tuple[Figure, list[list[Axes]]]:
    """Axes of each image's shape, one a title, in groups side by side, above a legend of the handles' labels.

    A title heads each column once. `tile_inches` are height and width in which every image just fits; no more than
    `most_tiles` stand side by side. Without handles there is no legend.
    """
    from matplotlib.figure import Figure

    shapes = np.array([image.shape[:2] for image in images])
    inches = shapes * (tile_inches / shapes).min(axis=1, keepdims=True)  # height and width
    tile = max(inches[:, 1].max(), *(text_inches(title, TEXT_POINTS) for title in titles))
    across = min(most_tiles // len(titles), ceil(sqrt(len(images))))
    rows = [inches[start : start + across, 0].max() for start in range(0, len(images), across)]
    group = len(titles) * (tile + GAP_INCHES) - GAP_INCHES + BLOCK_GAP_INCHES
    content = across * group - BLOCK_GAP_INCHES
    entry = max((text_inches(str(handle.get_label()), TEXT_POINTS) for handle in handles), default=0.0) + HANDLE_INCHES
    width = max(content, entry) + 2 * GAP_INCHES
    lines = ceil(len(handles) / int(width / entry))
    height = HEADING_INCHES + sum(rows) + GAP_INCHES * len(rows) + GAP_INCHES + LEGEND_LINE_INCHES * lines
    figure = Figure(figsize=(width, height))
    if handles:
        columns = ceil(len(handles) / lines)
        figure.legend(handles=handles, loc="lower center", ncols=columns, fontsize=TEXT_POINTS, frameon=False)
    places: list[list[Axes]] = []
    for place, (tall, wide) in enumerate(inches):
        row, column = divmod(place, across)
        top = height - HEADING_INCHES - sum(rows[:row]) - GAP_INCHES * row
        left = (width - content) / 2 + column * group
        middles = [left + tile / 2 + number * (tile + GAP_INCHES) for number in range(len(titles))]
        corners = [((middle - wide / 2) / width, (top - tall) / height) for middle in middles]
        places.append([figure.add_axes((*corner, wide / width, tall / height)) for corner in corners])
        for middle, title in zip(middles, titles if row == 0 else (), strict=False):
            baseline = 1 - (HEADING_INCHES - 0.07) / height
            figure.text(middle / width, baseline, title, ha="center", va="bottom", fontsize=TEXT_POINTS)
    return figure, places


def show(axes: Axes, image: np.ndarray) -> None:
    """The image, in coordinates that count from its left and top edge as those of boxes do."""
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0), aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(linewidth=0.5, color=FRAME)


def draw_boxes(axes: Axes, boxes: np.ndarray, labels: np.ndarray, names: Sequence[str], is_dashed: np.ndarray) -> None:
    """Boxes in the colours of their labels, the first on top, each of the first `len(names)` with its name."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    taken: list[np.ndarray] = []
    for rank, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        colour = BOX_COLOURS[label % len(BOX_COLOURS)]
        is_bright = np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) > BRIGHT
        halo = withStroke(linewidth=LINE_POINTS + 1, foreground="black" if is_bright else "white")
        frame = Rectangle((box[0], box[1]), *(box[2:] - box[:2]), fill=False, edgecolor=colour, linewidth=LINE_POINTS)
        frame.set(linestyle=DASHES if is_dashed[rank] else "-", path_effects=[halo], zorder=2 - rank / len(boxes))
        axes.add_patch(frame)
        if rank < len(names):
            size = _label_pixels(axes, names[rank])
            (x1, y1), (x2, y2) = box[:2], box[2:] - size
            corners = [(x, y) for y in (y1 - size[1], box[3], y1, y2) for x in (x1, x2)]  # above, below, inside
            place = _free_place(axes, size, [*corners, (box[2], y1), (x1 - size[0], y1)], taken)  # or beside
            _label(axes, names[rank], place, colour)
            taken.append(place)


def name_regions(axes: Axes, mask: np.ndarray, names: Sequence[str]) -> None:
    """The name of each value of the mask where its region is widest; none for ''.

    Left out where the region is less high than the letters, or where other names leave no room.
    """
    import cv2

    taken: list[np.ndarray] = []
    for value in (value for value in np.unique(mask) if value < len(names) and names[value]):
        is_inside = np.pad(mask == value, 1)  # so that the edge of the image is one of the region too
        depth = cv2.distanceTransform(is_inside.astype(np.uint8), cv2.DIST_L2, 3)
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        size = _label_pixels(axes, names[value])
        x, y = np.array([column, row]) - 0.5 - size / 2  # the padding taken off, to the middle of the pixel
        place = _free_place(axes, size, [(x, y + step * size[1]) for step in (0, -1, 1)], taken)
        if 2 * depth[row, column] >= size[1] and not _hidden_area(place, taken):
            _label(axes, names[value], place, "black")
            taken.append(place)


def short(name: str) -> str:
    """The name, cut to what a label has room for."""
    return name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…"


def wrapped(text: str, inches: float, points: float, most_lines: int) -> str:
    """The text in lines of that width, `most_lines` at most: the last ends in … where there is more.

    Broken at spaces, after hyphens, slashes and underscores, and within a word that is too wide for a line.
    """
    lines = [""]
    for piece in re.split(r"(?<=[ /_-])", " ".join(text.split())):
        if text_inches((lines[-1] + piece).rstrip(), points) > inches and lines[-1]:
            lines.append("")
        for letter in piece:
            if text_inches((lines[-1] + letter).rstrip(), points) > inches and lines[-1]:
                lines.append("")
            lines[-1] += letter
    lines = [line.rstrip() for line in lines]
    if len(lines) > most_lines:
        last = lines[most_lines - 1]
        while last and text_inches(f"{last}…", points) > inches:
            last = last[:-1]
        lines[most_lines - 1 :] = [f"{last.rstrip()}…"]
    return "\n".join(lines)


def _free_place(
    axes: Axes, size: np.ndarray, corners: Sequence[tuple[float, float]], taken: Sequence[np.ndarray]
) -> np.ndarray:
    """x1 y1 x2 y2 at the first of `corners`, moved into the image, where least of the places in `taken` is hidden."""
    frame = np.array([axes.get_xlim()[1], axes.get_ylim()[0]])
    inside = [np.clip(corner, 0, np.maximum(frame - size, 0)) for corner in corners]
    places = [np.concatenate([corner, corner + size]) for corner in inside]
    return min(places, key=lambda place: _hidden_area(place, taken))


def _hidden_area(place: np.ndarray, taken: Sequence[np.ndarray]) -> float:
    """Of the places in `taken`, in pixels of the image."""
    sides = [np.minimum(place[2:], other[2:]) - np.maximum(place[:2], other[:2]) for other in taken]
    return float(sum(np.prod(np.maximum(side, 0)) for side in sides))


def _label(axes: Axes, text: str, place: np.ndarray, colour: str) -> None:
    """Text on a light box with a thin frame of that colour."""
    from matplotlib.patches import Rectangle

    size = place[2:] - place[:2]
    light = Rectangle((place[0], place[1]), *size, facecolor=LIGHT, edgecolor=colour, linewidth=0.7, zorder=3)
    axes.add_patch(light)
    x, y = place[:2] + size / 2
    written = axes.text(x, y, text, ha="center", va="center_baseline", fontsize=LABEL_POINTS, zorder=4)
    written.set_parse_math(False)


def _label_pixels(axes: Axes, text: str) -> np.ndarray:
    """Width and height of a label in pixels of the image."""
    pixels_an_inch = axes.get_xlim()[1] / (axes.bbox.width / axes.figure.dpi)
    width = text_inches(text, LABEL_POINTS) + 2 * LABEL_PADDING_POINTS / 72
    return pixels_an_inch * np.array([width, LABEL_HEIGHT_POINTS / 72])
