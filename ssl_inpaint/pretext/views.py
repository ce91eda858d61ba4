"""Parallelograms of images, cut out as squares: views under random motion that never see beyond the border."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ssl_inpaint.core import Encoder

# Variance in square pixels of what blurs an image already, its own pixels and the interpolation between them: the one
# at which photographs show least of a zoom by their sharpness.
BLUR = 0.24


@dataclass(frozen=True)
class Views:
    """One parallelogram of each image, in pixels of the image; the corner of its first pixel is (0, 0)."""

    centres: Tensor  # B x 2: x, y
    frames: Tensor  # B x 2 x 2: in its columns, the way from the centre to the middles of the right and lower edges

    def reach(self) -> Tensor:
        """B x 2: how far it extends from its centre, to either side along x and y."""
        return self.frames.abs().sum(dim=2)


def uniform(count: int, low: float, high: float, generator: torch.Generator, columns: int = 1) -> Tensor:
    """count x columns draws between `low` and `high`, on the generator's device."""
    draws = torch.rand(count, columns, generator=generator, device=generator.device)
    return low + (high - low) * draws


def squares(sides: Tensor) -> Tensor:
    """B x 2 x 2 frames of upright squares with these sides in pixels."""
    return sides[:, None, None] / 2 * torch.eye(2, device=sides.device)


def turned(frames: Tensor, zooms: Tensor, angles: Tensor) -> Tensor:
    """Frames turned clockwise by B angles in radians, and as many times doubled as B `zooms` say (halved below 0)."""
    # By hand: a matrix product would be rounded to bfloat16 where a forward pass is.
    cosine, sine = angles.cos()[:, None], angles.sin()[:, None]
    right, down = frames[:, 0], frames[:, 1]
    rows = torch.stack([cosine * right - sine * down, sine * right + cosine * down], dim=1)
    return rows * 2 ** zooms[:, None, None]


def shifted(centres: Tensor, frames: Tensor, shifts: Tensor) -> Tensor:
    """Centres moved by B x 2 shifts along the axes of the frames, in their sides."""
    return centres + 2 * (frames * shifts[:, None]).sum(dim=2)


def place(views: Sequence[Views], size: int, generator: torch.Generator, margin: float = 0.5) -> list[Views]:
    """Views of the same image, moved together to a random place where all of them lie inside size x size pixels.

    `margin` pixels at each border stay out: with half a pixel interpolation never needs a pixel that is not there.
    ValueError where the views together are larger than what is left.
    """
    low = torch.stack([view.centres - view.reach() for view in views]).amin(dim=0)
    high = torch.stack([view.centres + view.reach() for view in views]).amax(dim=0)
    room = size - 2 * margin - (high - low)
    if (room < -1e-3).any():
        raise ValueError(f"views of {float((high - low).max()):.1f} pixels do not fit into {size - 2 * margin:.1f}")
    draws = torch.rand(room.shape, generator=generator, device=generator.device)
    start = margin - low + draws * room.clamp(min=0)
    return [Views(view.centres + start, view.frames) for view in views]


def cut(images: Tensor, views: Views, size: int) -> Tensor:
    """B x 3 x H x W and one view of each to B x 3 x size x size, bilinear.

    What would lie beyond the border repeats the border; views that `place` gave have nothing there.
    """
    steps = (torch.arange(size, device=images.device, dtype=torch.float32) + 0.5) * 2 / size - 1
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    frames, centres = views.frames[:, None, None], views.centres[:, None, None]
    pixels = centres + frames[..., 0] * x[None, :, :, None] + frames[..., 1] * y[None, :, :, None]
    scale = torch.tensor([images.shape[-1], images.shape[-2]], device=images.device)
    grid = pixels * 2 / scale - 1
    return functional.grid_sample(images.float(), grid, "bilinear", "border", align_corners=False)


def evened(images: Tensor, views: Views, smallest: float, passes: int) -> Tensor:
    """Images blurred so that what `cut` shows of them is as sharp as a view of `smallest` pixels a side would be.

    A small view is magnified and so less sharp than a large one: which of two is larger could be told without looking
    at what they show. By the sharpness of two views of a photograph (160 pixels brought to 112, cut to 96) a linear
    model tells 78 % of the variance of a zoom by up to 0.3 doublings, and 10 % once they are evened. Each of the
    `evening_passes` takes up one pixel at the border.
    """
    determinants = views.frames[:, 0, 0] * views.frames[:, 1, 1] - views.frames[:, 0, 1] * views.frames[:, 1, 0]
    growth = 4 * determinants.abs() / smallest**2
    weights = ((BLUR * (growth - 1)).clamp(min=0) / 2 / max(1, passes))[:, None, None, None]
    found = images.float()
    for _ in range(passes):
        for padding in ((1, 1, 0, 0), (0, 0, 1, 1)):
            wide = functional.pad(found, padding, mode="replicate")
            before = wide[..., : found.shape[-2], : found.shape[-1]]
            after = wide[..., -found.shape[-2] :, -found.shape[-1] :]
            found = found + weights * (before + after - 2 * found)
    return found


def evening_passes(ratio: float) -> int:
    """How often `evened` has to blur for sides of up to `ratio` times the smallest: three taps give half a pixel^2."""
    return math.ceil(2 * BLUR * (ratio**2 - 1))


def shown_size(encoder: Encoder, side: float) -> int:
    """Pixels a side at which to show views of `side` pixels to the encoder: as they are, or the least that it takes."""
    least = encoder.smallest_input
    return least if getattr(encoder, "is_fixed", False) else max(round(side), least)


def widest_turn(degrees: float) -> float:
    """How much wider than itself a square may get when it is turned by up to that many degrees."""
    angle = math.radians(min(degrees, 45.0))
    return math.cos(angle) + math.sin(angle)
