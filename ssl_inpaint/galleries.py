"""Predictions beside the truth on the images themselves: boxes of a detector, masks of a segmenter.

Drawn like all figures, without pyplot; `figures.save` writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ssl_inpaint import tiles
from ssl_inpaint.core import Detections, Objects
from ssl_inpaint.images import voc_palette
from ssl_inpaint.predictions import box_faults

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

IGNORED = 255  # in a mask: pixels not to be counted
OPACITY = 0.65  # of a class's colour over the image
PALE = (102.0, 0.5)  # under a mask the image is grey: black becomes the first, and contrast shrinks to the second
MIDDLE_GREY = 128  # the image under the colours of the legend


def detection_gallery(
    images: Sequence[np.ndarray],
    detections: Sequence[Detections],
    truths: Sequence[Objects],
    classes: Sequence[str],
    least_score: float = 0.3,
    most: int = 6,
) -> Figure:
    """Each image (H x W x 3 uint8) twice: with the boxes found, and with the true ones, the difficult ones dashed.

    Of those found, the `most` surest that have `least_score` or more are drawn. All true boxes are, but only the `most`
    largest are named. ValueError where the arguments do not fit.
    """
    from matplotlib.lines import Line2D

    if most < 1 or np.isnan(least_score):
        raise ValueError(f"{most} boxes of score {least_score} or more: one box at least, and a number, are needed.")
    _check_images(images, len(detections), len(truths))
    if faults := [*box_faults(detections, len(classes)), *box_faults(truths, len(classes))]:
        raise ValueError(" ".join(faults))
    note = f"score ≥ {least_score:g}, {most} at most"
    handles: list[Artist] = [Line2D([], [], linestyle="", label=note)]
    if any(objects.is_difficult.any() for objects in truths):
        line = Line2D([], [], linewidth=tiles.LINE_POINTS, linestyle=tiles.DASHES, color="black", label="difficult")
        handles.append(line)
    figure, places = tiles.page(images, ("prediction", "truth"), handles)
    for (left, right), image, found, objects in zip(places, images, detections, truths, strict=True):
        tiles.show(left, image)
        surest = np.argsort(-found.scores, kind="stable")[:most]
        surest = surest[found.scores[surest] >= least_score]
        labels, scores = found.labels[surest], found.scores[surest]
        names = [f"{tiles.short(classes[label])} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
        tiles.draw_boxes(left, found.boxes[surest], labels, names, np.zeros(len(surest), dtype=bool))
        tiles.show(right, image)
        largest = np.argsort(-np.prod(objects.boxes[:, 2:] - objects.boxes[:, :2], axis=1), kind="stable")
        names = [tiles.short(classes[label]) for label in objects.labels[largest[:most]]]
        tiles.draw_boxes(right, objects.boxes[largest], objects.labels[largest], names, objects.is_difficult[largest])
    return figure


def segmentation_gallery(
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    classes: Sequence[str],
    colours: np.ndarray | None = None,
) -> Figure:
    """Each image (H x W x 3 uint8) alone, under its predicted mask and under the true one (H x W uint8 each).

    255 in a true mask is not counted and drawn white. `colours` is uint8, at least K x 3 (None: those of VOC); a black
    one leaves the image bare and its regions nameless, as suits a background. The legend holds the classes that occur.
    ValueError where the arguments do not fit.
    """
    from matplotlib.patches import Patch

    palette = voc_palette() if colours is None else colours
    if palette.ndim != 2 or palette.shape[1] != 3 or len(palette) < len(classes) or palette.dtype != np.uint8:
        raise ValueError(f"Colours: {palette.dtype} {palette.shape}, where {len(classes)} x 3 uint8 is needed.")
    _check_images(images, len(masks), len(truths))
    _check_masks("Predicted mask", masks, images, set(range(len(classes))))
    _check_masks("True mask", truths, images, {*range(len(classes)), IGNORED})
    handles: list[Artist] = []
    for value in np.unique(np.concatenate([np.unique(mask) for mask in (*masks, *truths)])):
        middle = np.full((1, 1, 3), MIDDLE_GREY, np.uint8)
        colour = _covered(middle, np.full((1, 1), value, np.uint8), palette)[0, 0] / 255
        name = "not counted" if value == IGNORED else classes[value]
        handles.append(Patch(facecolor=colour, edgecolor="black", linewidth=0.5, label=name))
    names = [tiles.short(name) if colour.any() else "" for name, colour in zip(classes, palette, strict=False)]
    figure, places = tiles.page(images, ("image", "prediction", "truth"), handles)
    for (left, *others), image, *both in zip(places, images, masks, truths, strict=True):
        tiles.show(left, image)
        for axes, mask in zip(others, both, strict=True):
            tiles.show(axes, _covered(image, mask, palette))
            tiles.name_regions(axes, mask, names)
    return figure


def _check_images(images: Sequence[np.ndarray], predictions: int, truths: int) -> None:
    if not len(images) == predictions == truths > 0:
        raise ValueError(
            f"{len(images)} images, {predictions} predictions, {truths} truths: as many of each, one at least."
        )
    for place, image in enumerate(images):
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype != np.uint8:
            raise ValueError(f"Image {place}: {image.dtype} of shape {image.shape}, where H x W x 3 uint8 is needed.")


def _check_masks(kind: str, masks: Sequence[np.ndarray], images: Sequence[np.ndarray], allowed: set[int]) -> None:
    for place, (mask, image) in enumerate(zip(masks, images, strict=True)):
        if mask.shape != image.shape[:2] or mask.dtype != np.uint8:
            raise ValueError(f"{kind} {place}: {mask.dtype} {mask.shape} does not fit an image of {image.shape[:2]}.")
        if strange := sorted(set(np.unique(mask).tolist()) - allowed):
            raise ValueError(f"{kind} {place} holds {strange}, which stand for no class.")


def _covered(image: np.ndarray, mask: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """The image in pale grey under the colours of its mask, edged in black; black adds nothing, 255 is white."""
    grey = PALE[0] + PALE[1] * (image @ np.array([0.299, 0.587, 0.114]))
    table = np.zeros((IGNORED + 1, 3))
    table[: min(len(palette), IGNORED)] = palette[:IGNORED]
    opacity = np.where(table.any(axis=1), OPACITY, 0.0)
    table[IGNORED], opacity[IGNORED] = 255, 1
    shown = (1 - opacity)[mask][..., None] * grey[..., None] + (opacity[:, None] * table)[mask]
    shown[_edges(mask)] = 0
    return shown.round().astype(np.uint8)


def _edges(mask: np.ndarray) -> np.ndarray:
    """H x W bool, True on the last pixel before another class to the right or below; not beside ignored pixels."""
    is_edge = np.zeros(mask.shape, dtype=bool)
    for one, other, found in ((mask[:-1], mask[1:], is_edge[:-1]), (mask[:, :-1], mask[:, 1:], is_edge[:, :-1])):
        found |= (one != other) & (one != IGNORED) & (other != IGNORED)
    return is_edge
