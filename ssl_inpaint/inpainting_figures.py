"""Holes and what was put into them: a network as it learns, methods side by side, photographs before and after.

Drawn like all figures, without pyplot; `figures.save` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ssl_inpaint import figures, tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TIMES = 8  # columns of a network's fills
TILE_INCHES = 1.2
MOST_LINES = 3  # of a method's name
NAME_INCHES = 1.12  # so that names do not touch
OUTLINE_POINTS = 0.45  # thin enough to leave the seam to be judged
PHOTO_INCHES = (2.4, 2.4)  # height and width in which every photograph just fits
PHOTO_PIXELS = 800  # of the longer side: more would not be seen in so many inches
RED = np.array([214.0, 39.0, 40.0])
OPACITY = (0.35, 0.65)  # of red over a hole, in stripes
STRIPES = 60  # over the longer side


def samples_over_time(truth: np.ndarray, seen: np.ndarray, by_step: Mapping[int, np.ndarray]) -> Figure:
    """What a network put into the same holes as it learned, a row an image: its input, a fill a step count, the truth.

    All are B x 3 x S x S in [0, 1]. Of more than 8 step counts 8 are drawn, about evenly apart in their logarithm, the
    first and the last among them. ValueError where shapes or values do not fit, or without any step.
    """
    if not by_step:
        raise ValueError("No fills: give those after one step count at least.")
    _check_shapes({"seen": seen, **{f"step {step}": fill for step, fill in by_step.items()}}, truth)
    steps = _spread(sorted(by_step), MOST_TIMES)
    titles = ["input", *(f"step {step}" for step in steps), "truth"]
    return figures.sample_grid([seen, *(by_step[step] for step in steps), truth], titles, TILE_INCHES)


def methods_figure(
    truth: np.ndarray, holes: np.ndarray, filled: Mapping[str, np.ndarray], scores: Mapping[str, float] | None
) -> Figure:
    """Methods side by side, a row an image: the input with its hole grey, the fill by each method, the truth.

    `truth` and each of `filled` are B x 3 x S x S in [0, 1]; `holes` B x 1 x S x S bool are outlined in the fills.
    `scores` method -> PSNR in dB, below the name of each method that it has; None writes none. ValueError where shapes
    or values do not fit, or without any method.
    """
    if not filled:
        raise ValueError("No methods: give the fills of one at least.")
    if strange := sorted(set(scores or ()) - set(filled)):
        raise ValueError(f"Scores of {strange}, whose fills are not among those of {list(filled)}.")
    _check_shapes(filled, truth)
    if holes.dtype != bool or holes.shape != (len(truth), 1, *truth.shape[2:]):
        raise ValueError(f"Holes: {holes.dtype} {holes.shape}, where {(len(truth), 1, *truth.shape[2:])} bool fits.")
    titles = [tiles.wrapped(name, NAME_INCHES, figures.TEXT_POINTS, MOST_LINES) for name in filled]
    titles = ["input", *titles, "truth"]
    if scores is not None:
        below = ["", *(f"{scores[name]:.1f} dB" if name in scores else "" for name in filled), ""]
        titles = [f"{title}\n{score}" for title, score in zip(titles, below, strict=True)]
    columns = [np.where(holes, figures.HIDDEN, truth), *filled.values(), truth]
    outlined = dict.fromkeys(range(1, len(filled) + 1), holes[:, 0])
    return figures.sample_grid(columns, titles, TILE_INCHES, outlined, OUTLINE_POINTS)


def before_after(photos: Sequence[np.ndarray], holes: Sequence[np.ndarray], filled: Sequence[np.ndarray]) -> Figure:
    """A row a photograph (H x W x 3 uint8, any size): as it was, with its hole striped in red, and filled in.

    `holes` H x W bool and `filled` H x W x 3 uint8, as large as their photographs. ValueError where these do not fit.
    """
    _check_photos(photos, holes, filled)
    rows = [reduced(*row) for row in zip(photos, holes, filled, strict=True)]
    titles = ("before", "hole", "after")
    figure, places = tiles.page([photo for photo, _, _ in rows], titles, (), PHOTO_INCHES, len(titles))
    for row, (photo, hole, fill) in zip(places, rows, strict=True):
        for axes, image in zip(row, (photo, _striped(photo, hole), fill), strict=True):
            tiles.show(axes, image)
        figures.outline(row[1].images[0], hole)
    return figure


def _check_shapes(images: Mapping[str, np.ndarray], truth: np.ndarray) -> None:
    if faults := [f"'{name}' is {image.shape}" for name, image in images.items() if image.shape != truth.shape]:
        raise ValueError(f"All images must be {truth.shape} as the truth is, but {', '.join(faults)}.")


def _check_photos(photos: Sequence[np.ndarray], holes: Sequence[np.ndarray], filled: Sequence[np.ndarray]) -> None:
    if not len(photos) == len(holes) == len(filled) > 0:
        raise ValueError(
            f"{len(photos)} photographs, {len(holes)} holes, {len(filled)} fills: as many of each, one at least."
        )
    for place, (photo, hole, fill) in enumerate(zip(photos, holes, filled, strict=True)):
        if photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape or photo.dtype != np.uint8:
            raise ValueError(
                f"Photograph {place}: {photo.dtype} of shape {photo.shape}, where H x W x 3 uint8 is needed."
            )
        if hole.shape != photo.shape[:2] or hole.dtype != bool:
            raise ValueError(f"Hole {place}: {hole.dtype} {hole.shape} does not fit a photograph of {photo.shape[:2]}.")
        if fill.shape != photo.shape or fill.dtype != np.uint8:
            raise ValueError(f"Fill {place}: {fill.dtype} {fill.shape} does not fit a photograph of {photo.shape}.")


def _spread(steps: Sequence[int], most: int) -> Sequence[int]:
    """`most` of the rising steps, or all where there are fewer, the first and the last among them."""
    if len(steps) <= most:
        return steps
    logarithms = np.log(np.maximum(steps, 1))
    places = [0]
    for rank, wanted in enumerate(np.linspace(logarithms[0], logarithms[-1], most)[1:], start=2):
        nearest = int(np.abs(logarithms - wanted).argmin())
        places.append(min(max(nearest, places[-1] + 1), len(steps) - 1 - (most - rank)))  # leaves one for each to come
    return [steps[place] for place in places]


def reduced(photo: np.ndarray, hole: np.ndarray, fill: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All three at `PHOTO_PIXELS` on the longer side where they have more; no scratch of the hole is lost."""
    import cv2

    height, width = hole.shape
    if max(height, width) <= PHOTO_PIXELS:
        return photo, hole, fill
    scale = PHOTO_PIXELS / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    photo, fill = (cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (photo, fill))
    return photo, cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0, fill


def _striped(photo: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The photograph with slanting stripes of red over the hole, through which it is still seen."""
    rows, columns = np.indices(hole.shape)
    is_dense = (rows + columns) * STRIPES // max(hole.shape) % 2 == 0
    opacity = np.where(is_dense, *OPACITY[::-1])[..., None] * hole[..., None]
    return ((1 - opacity) * photo + opacity * RED).round().astype(np.uint8)
