"""How an inpainter of small squares fills holes of any shape in an image of any size: windows.

The holes are cut into pieces, near pieces share a square window, and each window is shown to the inpainter at the size
it knows. Hidden pixels are never read and visible ones never change; both hold for every function here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ssl_inpaint.core import Frame, Inpainter
from ssl_inpaint.resampling import catmull_rom, triangle, weights_between

WINDOWS_AT_ONCE = 32  # in one call of the inpainter
THIN = 0.25  # a piece that covers less of its bounding square is cut in two, if its window would have to shrink
ROUNDING = 1e-6  # weights add up to 1 within this


@dataclass(frozen=True)
class Window:
    """A square of the image, which may reach beyond it, and the box inside the image where its fill is pasted."""

    top: int
    left: int
    side: int
    rows: slice
    columns: slice


def fill(inpainter: Inpainter, image: Tensor, hole: Tensor) -> Tensor:
    """Image 3 x H x W in [0, 1] with the hole, H x W bool, filled; both at least one pixel a side.

    Inpainters with a frame see windows: see `plan`. Where a window needs no resizing, its pixels reach the inpainter
    and come back bit for bit; otherwise visible pixels are averaged with visible ones only, and the fill is enlarged
    by a bicubic kernel. Beyond the image its mirror image is seen. ValueError where nothing is visible.
    """
    if bool(hole.all()):
        raise ValueError("Everything is hidden: there is nothing to fill the hole from.")
    if not bool(hole.any()):
        return image.clone()
    frame = inpainter.frame
    if frame is None:
        seen = torch.where(hole, 0.0, image)
        return torch.where(hole, inpainter.fill(seen[None], hole[None, None])[0], image)
    windows, numbers = plan(hole.cpu().numpy(), frame)
    owner = torch.from_numpy(numbers).to(image.device)
    result = image.clone()
    for start in range(0, len(windows), WINDOWS_AT_ONCE):
        chunk = windows[start : start + WINDOWS_AT_ONCE]
        views = torch.stack([_view(image, hole, window, frame.size) for window in chunk])
        squares_filled = _filled(inpainter, frame, views)
        for number, (window, square) in enumerate(zip(chunk, squares_filled, strict=True), start=start):
            place = (slice(None), window.rows, window.columns)
            is_mine = owner[window.rows, window.columns] == number
            result[place] = torch.where(is_mine, _returned(square, window), result[place])
    return result


def fill_squares(inpainter: Inpainter, images: Tensor, holes: Tensor) -> Tensor:
    """Square images B x 3 x S x S with their holes, B x 1 x S x S bool, filled, whatever size the inpainter knows.

    Direct where the inpainter has no frame or one of S pixels. ValueError where an image has no visible pixel, or where
    the inpainter knows the central hole only and another has to be resized for it.
    """
    frame, size = inpainter.frame, images.shape[-1]
    if bool(holes.flatten(1).all(dim=1).any()):
        raise ValueError("Some images are hidden as a whole: there is nothing to fill them from.")
    if frame is None or frame.size == size:
        return torch.where(holes, inpainter.fill(torch.where(holes, 0.0, images), holes), images)
    if frame.is_central and bool((holes & ~_reach(frame, size).to(holes.device)).any()):
        raise ValueError(f"Holes outside the centre: {inpainter.name} fills only a square of {frame.hole_share:g}.")
    back = weights_between(size, frame.size, catmull_rom).to(images)
    filled = _filled(inpainter, frame, _shrunk(_layers(images, holes), frame.size))
    return torch.where(holes, (back @ filled @ back.T).clamp(0, 1), images)


def squares(images: Tensor, holes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Square images and their holes at another size: B x 3 x size x size, and B x 1 x size x size bool.

    A pixel is hidden if any hidden pixel contributed to it, and then 0; the others are weighted means of visible ones.
    Where that would hide a whole image, half of the weight must be hidden, or whatever leaves something visible.
    """
    views = _shrunk(_layers(images, holes), size)
    small_holes = _hidden(views)
    return torch.where(small_holes, 0.0, _means(views)), small_holes


def plan(hole: np.ndarray, frame: Frame) -> tuple[list[Window], np.ndarray]:
    """The windows that fill a hole, H x W bool, and which of them fills each pixel: H x W int32, -1 where visible.

    A piece of the hole takes at most `hole_share` of its window's side, as in training, and no window is smaller than
    the frame. Windows of a frame that is not central lie inside the image where they fit, and are no larger than its
    long side. A hole which is long but thin, like a scratch, is cut into pieces that can be seen at full size. Pieces
    that need no shrinking share windows.
    """
    inner = _central(frame)[1]
    boxes, pieces = _pieces(hole, inner)
    numbers: dict[tuple[int, int, int], list[int]] = {}
    for group in _groups(boxes, inner):
        numbers.setdefault(_square(hole, _around(boxes[group]), frame), []).extend(group)
    window_of = np.full(len(boxes) + 1, -1, np.int32)
    windows = []
    for number, ((top, left, side), group) in enumerate(numbers.items()):
        window_of[np.array(group) + 1] = number
        y1, x1, y2, x2 = _around(boxes[group])
        windows.append(Window(top, left, side, slice(y1, y2), slice(x1, x2)))
    return windows, window_of[pieces]


def _pieces(hole: np.ndarray, inner: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of the connected pieces, N x 4 as y1 x1 y2 x2, and the piece of each pixel, from 1; thin ones are cut."""
    from scipy import ndimage

    labels, _ = ndimage.label(hole, structure=np.ones((3, 3)))
    found = ndimage.find_objects(labels)
    boxes = [(rows.start, columns.start, rows.stop, columns.stop) for rows, columns in found]
    waiting = [number for number, box in enumerate(boxes) if _side(box) > inner]
    while waiting:
        number = waiting.pop()
        y1, x1, y2, x2 = boxes[number]
        own = labels[y1:y2, x1:x2] == number + 1
        if np.count_nonzero(own) >= THIN * max(own.shape) ** 2:
            continue
        first, second = np.split(own, [max(own.shape) // 2], axis=int(own.shape[1] > own.shape[0]))
        shift = (own.shape[0] - second.shape[0], own.shape[1] - second.shape[1])
        boxes[number] = _tight(first, y1, x1)
        boxes.append(_tight(second, y1 + shift[0], x1 + shift[1]))
        labels[y1 + shift[0] : y2, x1 + shift[1] : x2][second] = len(boxes)
        waiting += [part for part in (number, len(boxes) - 1) if _side(boxes[part]) > inner]
    return np.array(boxes), labels


def _tight(own: np.ndarray, top: int, left: int) -> tuple[int, int, int, int]:
    rows, columns = (np.flatnonzero(own.any(axis=axis)) for axis in (1, 0))
    return top + int(rows[0]), left + int(columns[0]), top + int(rows[-1]) + 1, left + int(columns[-1]) + 1


def _side(box: Sequence[int]) -> int:
    return max(box[2] - box[0], box[3] - box[1])


def _around(boxes: np.ndarray) -> tuple[int, int, int, int]:
    y1, x1 = boxes[:, :2].min(axis=0).tolist()
    y2, x2 = boxes[:, 2:].max(axis=0).tolist()
    return y1, x1, y2, x2


def _groups(boxes: np.ndarray, inner: int) -> Iterator[list[int]]:
    """Pieces that share a window: large ones alone, the others by bands of `inner` rows from left to right."""
    is_large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) > inner
    yield from ([int(number)] for number in np.flatnonzero(is_large))
    waiting = np.flatnonzero(~is_large)
    waiting = waiting[np.argsort(boxes[waiting, 0], kind="stable")]
    while len(waiting):
        is_near = boxes[waiting, 2] <= boxes[waiting[0], 0] + inner
        band, waiting = waiting[is_near], waiting[~is_near]
        band = band[np.argsort(boxes[band, 1], kind="stable")]
        while len(band):
            is_near = boxes[band, 3] <= boxes[band[0], 1] + inner
            yield band[is_near].tolist()
            band = band[~is_near]


def _square(hole: np.ndarray, box: tuple[int, int, int, int], frame: Frame) -> tuple[int, int, int]:
    """Top, left and side of the window around a box; grown until something in it is visible."""
    start, inner = _central(frame)
    side = max(frame.size, ceil(_side(box) * frame.size / inner))
    if not frame.is_central:
        side = max(frame.size, min(side, max(hole.shape)))
    while True:
        corner = []
        for first, last, length in zip(box[:2], box[2:], hole.shape, strict=True):
            begin = floor((first + last) / 2 - (start + inner / 2) * side / frame.size + 0.5)
            space = length - side  # negative where the window is the larger one: then it holds the whole side
            corner.append(begin if frame.is_central else min(max(begin, min(0, space)), max(0, space)))
        top, left = corner
        rows, columns = (_mirrored(begin, side, length) for begin, length in zip(corner, hole.shape, strict=True))
        if not hole[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all():
            return top, left, side
        side *= 2


def _central(frame: Frame) -> tuple[int, int]:
    """Where the central square of a frame begins, and its side, as `holes.draw` places it."""
    side = min(max(1, round(frame.size * frame.hole_share)), frame.size)
    return (frame.size - side) // 2, side


def _central_hole(frame: Frame) -> Tensor:
    start, side = _central(frame)
    hole = torch.zeros(1, 1, frame.size, frame.size, dtype=torch.bool)
    hole[..., start : start + side, start : start + side] = True
    return hole


def _reach(frame: Frame, size: int) -> Tensor:
    """The pixels of squares of `size` that the central square fills, and a pixel of either size around it."""
    start, side = _central(frame)
    scale = size / frame.size
    middles, slack = torch.arange(size) + 0.5, max(1.0, scale)
    is_near = (middles > start * scale - slack) & (middles < (start + side) * scale + slack)
    return is_near[:, None] & is_near


def _mirrored(begin: int, count: int, length: int) -> np.ndarray:
    """Which of `length` pixels are seen from `begin` on, where the image is followed by its mirror image, and so on."""
    places = np.arange(begin, begin + count) % (2 * length)
    return np.minimum(places, 2 * length - 1 - places)


def _layers(images: Tensor, holes: Tensor) -> Tensor:
    """... x 5 x H x W: the visible pixels, 0 where hidden, then 1 where visible, then 1 where hidden."""
    return torch.cat([torch.where(holes, 0.0, images), (~holes).to(images), holes.to(images)], dim=-3)


def _view(image: Tensor, hole: Tensor, window: Window, size: int) -> Tensor:
    """The layers of a window at `size`."""
    axes = ((window.top, image.shape[1]), (window.left, image.shape[2]))
    rows, columns = (_mirrored(begin, window.side, length) for begin, length in axes)
    y, x = (slice(int(places.min()), int(places.max()) + 1) for places in (rows, columns))
    layers = _layers(image[:, y, x], hole[None, y, x])
    if window.side == size:
        return layers[:, torch.from_numpy(rows - y.start)][:, :, torch.from_numpy(columns - x.start)]
    folded = []  # the weights of a pixel and of its mirror images add up: no enlarged copy of the image is made
    for places, part in ((rows, y), (columns, x)):
        weights = torch.zeros(size, part.stop - part.start, dtype=torch.float64)
        weights.index_add_(1, torch.from_numpy(places - part.start), weights_between(size, window.side, triangle))
        folded.append(weights.to(image))
    return folded[0] @ layers @ folded[1].T


def _shrunk(layers: Tensor, size: int) -> Tensor:
    weights = weights_between(size, layers.shape[-1], triangle).to(layers)
    return weights @ layers @ weights.T


def _returned(square: Tensor, window: Window) -> Tensor:
    """A filled window at its own size, in the box where it is pasted."""
    rows = slice(window.rows.start - window.top, window.rows.stop - window.top)
    columns = slice(window.columns.start - window.left, window.columns.stop - window.left)
    if window.side == square.shape[-1]:
        return square[:, rows, columns]
    weights = weights_between(window.side, square.shape[-1], catmull_rom).to(square)
    return (weights[rows] @ square @ weights[columns].T).clamp(0, 1)


def _filled(inpainter: Inpainter, frame: Frame, views: Tensor) -> Tensor:
    """What the inpainter makes of layers B x 5 x size x size.

    One that knows the central hole only gets just that; what is hidden elsewhere is completed smoothly for it.
    """
    if frame.is_central:
        holes = _central_hole(frame).to(views.device).expand(len(views), -1, -1, -1)
        images = _completed(views[:, :3], views[:, 3:4])
    else:
        holes, images = _hidden(views), _means(views)
    return inpainter.fill(torch.where(holes, 0.0, images), holes)


def _means(views: Tensor) -> Tensor:
    """The mean of the visible pixels, wherever there are any; exactly the pixel where there is one."""
    return views[:, :3] / views[:, 3:4].clamp(min=torch.finfo(views.dtype).tiny)


def _hidden(views: Tensor) -> Tensor:
    visible, hidden = views[:, 3:4], views[:, 4:5]
    most = visible.amax(dim=(2, 3), keepdim=True).clamp(max=0.5)
    is_any_whole = hidden.amin(dim=(2, 3), keepdim=True) == 0
    return torch.where(is_any_whole, hidden > 0, visible < most)


def _completed(sums: Tensor, weights: Tensor) -> Tensor:
    """Weighted means B x C x H x W, and where the weight is 0, means of what lies around, ever coarser."""
    if bool((weights > 0).all()):
        return sums / weights
    halves = (functional.avg_pool2d(layer, 2, ceil_mode=True) for layer in (sums, weights))
    around = functional.interpolate(_completed(*halves), size=sums.shape[-2:], mode="bilinear")
    return torch.where(weights > 0, sums / weights, around)
