"""Egomotion on still images: two views under a synthetic camera motion, which one? (after Agrawal et al. 2015).

The paper reads pairs of frames of a moving camera with its odometry. There is neither here: both views are cut from one
still image, moved against each other by a shift, a zoom and a turn in the plane, and a siamese network tells the bin of
each. It is synthetic, and its row says so; the paper's own first experiment, on turned and shifted digits, is alike.

Shortcuts. The views are squares inside the image, so no padding shows where they came from. Both are interpolated, at a
random place, size and turn, and the motion is divided between them: each alone looks the same whatever the motion, and
which of the two moved is no question at all. They are made equally sharp, as sharpness would tell the zoom (`evened`).

Slow to begin: on 1,300 photographs at 96 pixels a narrow compact_alexnet stays at chance, 0.125, for 300 steps of 64 at
learning rate 1e-3 and finds 0.20 of the held-out bins after 400; 500 steps of 32 at 2e-3 are not enough. After 1,000 of
64 on `shapes` it finds 0.42, and transfers better than random: 25.6 mAP against 23.9, by 0.2 to 3.2 (`bench pretexts`,
frozen classification, one seed).

Source: Agrawal, Carreira, Malik, "Learning to See by Moving", ICCV 2015: siamese encoders, their maps side by side into
a small top network, one softmax of 20 bins for each component (as recalled).
Deviation: shift along x and y, zoom and turn for the components; the paper's cars have two translations and one turn.
Deviation: BatchNorm in the top network. Without it, it answers the same to all pairs after hundreds of steps.
Deviation: 8 bins. Views are resized up where the encoder takes no images as small as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Batch, Encoder, ParameterGroup, Player, TrainingFacts
from ssl_inpaint.pretext.generator import deepest_side
from ssl_inpaint.pretext.views import (
    Views,
    cut,
    evened,
    evening_passes,
    place,
    shifted,
    shown_size,
    squares,
    turned,
    uniform,
    widest_turn,
)

COMPONENTS = ("shift_x", "shift_y", "zoom", "turn")


class Config(Settings):
    """The motion is uniform between minus and plus the largest of each component, so chance is 1 / bins."""

    bins: int = Field(8, ge=2)  # of each component; the paper's 20 (as recalled) are learnt too, and more slowly
    largest_shift: float = Field(0.2, gt=0, le=1)  # along x and y, in sides of the view
    largest_zoom: float = Field(0.3, gt=0, le=2)  # in doublings
    largest_turn: float = Field(20.0, gt=0, le=90)  # in degrees
    base_zoom: float = Field(0.15, ge=0, le=1)  # of both views alike, in doublings: so that neither is as the image is
    base_turn: float = Field(10.0, ge=0, le=45)  # of both views alike, in degrees
    fill: float = Field(0.9, gt=0, le=1)  # of the image's side, by the widest motion; the rest is room to place it
    channels: int = Field(256, ge=1)  # of the convolution over both maps
    units: int = Field(500, ge=1)  # of the layer behind it
    dropout: float = Field(0.0, ge=0, lt=1)  # before the last layer; what is drawn anew each step needs little

    def side_share(self) -> float:
        """Side of a view before any zoom, over that of the largest image it may come from."""
        zoom = 2 ** (self.base_zoom + self.largest_zoom / 2)
        widest = widest_turn(self.base_turn + self.largest_turn / 2) * zoom
        shift = self.largest_shift * widest_turn(self.base_turn) * 2**self.base_zoom
        return self.fill / (widest + shift)

    def largest(self) -> tuple[float, float, float, float]:
        """Of each component, in its own unit: sides, sides, doublings, radians."""
        return self.largest_shift, self.largest_shift, self.largest_zoom, math.radians(self.largest_turn)


SUPERVISION = "none"
HIGHER_IS_BETTER = ("accuracy", "shift_accuracy", "zoom_accuracy", "turn_accuracy")


def method_name(config: Config) -> str:
    """The row's name in tables."""
    return "Egomotion (synthetic)"


def build(config: Config, encoder: Encoder, facts: TrainingFacts) -> Egomotion:
    """The task around `encoder`, for square images of facts.image_size."""
    return Egomotion(config, encoder, facts)


class Siamese(nn.Module):
    """Pairs of views to logits, B x components x bins: one encoder for both, its maps side by side into a top."""

    def __init__(self, encoder: Encoder, size: int, config: Config) -> None:
        super().__init__()
        self.encoder, self.bins = encoder, config.bins
        self.stage, stage = list(encoder.stages.items())[-1]
        side = min(deepest_side(encoder, size), 6)
        self.top = nn.Sequential(
            nn.AdaptiveAvgPool2d(side),  # only where the map has more than 6 places a side
            nn.Conv2d(2 * stage.channels, config.channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(config.channels),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(config.channels * side**2, config.units, bias=False),
            nn.BatchNorm1d(config.units),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.units, len(COMPONENTS) * config.bins),
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Both B x 3 x size x size."""
        maps = self.encoder(torch.cat([first, second]))[self.stage]
        logits: Tensor = self.top(torch.cat(maps.chunk(2), dim=1))
        return logits.float().unflatten(1, (len(COMPONENTS), self.bins))


class Egomotion:
    """One player, the siamese network."""

    def __init__(self, config: Config, encoder: Encoder, facts: TrainingFacts) -> None:
        self.config, self.encoder = config, encoder
        widest = 2 ** (config.base_zoom + config.largest_zoom / 2)
        self.passes = evening_passes(widest**2)
        self.margin = 0.5 + self.passes
        self.side = config.side_share() * (facts.image_size - 2 * self.margin)
        self.smallest = self.side / widest
        self.view_size = shown_size(encoder, self.side)
        self.network = Siamese(encoder, self.view_size, config)

    def players(self) -> dict[str, Player]:
        """The siamese network alone."""
        return {"siamese": Player(self.network, [ParameterGroup(list(self.network.parameters()))])}

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """Cross-entropy with the bins of the motion; the mean over its components."""
        _, motion, pair = self._pair(batch.images, generator)
        yield "siamese", _cross_entropy(self.network(*pair), self.labels(motion))

    @torch.no_grad()
    def preview(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The first view; the second as the motion found would have it, and as it is."""
        views, _, pair = self._pair(batch.images, generator)
        motion = self.motions(self.network(*pair).argmax(dim=2))
        found = cut(batch.images, moved(views[0], motion), self.view_size)
        return {"input": pair[0], "output": found, "truth": pair[1]}

    @torch.no_grad()
    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Bins found, over all components and of each kind; chance is 1 / bins. And the cross-entropy."""
        _, motion, pair = self._pair(batch.images, generator)
        logits, labels = self.network(*pair), self.labels(motion)
        right = (logits.argmax(dim=2) == labels).float().mean(dim=0)
        return {
            "accuracy": right.mean(),
            "shift_accuracy": right[:2].mean(),
            "zoom_accuracy": right[2],
            "turn_accuracy": right[3],
            "cross_entropy": _cross_entropy(logits, labels),
        }

    def draw_motion(self, count: int, generator: torch.Generator) -> Tensor:
        """count x components, uniform: shift right and down in sides of the view, zoom out in doublings, clockwise."""
        largest = torch.tensor(self.config.largest(), device=generator.device)
        return uniform(count, -1.0, 1.0, generator, len(COMPONENTS)) * largest

    def labels(self, motion: Tensor) -> Tensor:
        """The bin of each component, int64: 0 for the largest negative motion."""
        share = (motion / torch.tensor(self.config.largest(), device=motion.device) + 1) / 2
        return (share * self.config.bins).long().clamp(0, self.config.bins - 1)

    def motions(self, labels: Tensor) -> Tensor:
        """The middle of each bin: the other way round."""
        share = (labels + 0.5) / self.config.bins
        return (2 * share - 1) * torch.tensor(self.config.largest(), device=labels.device)

    def _pair(self, images: Tensor, generator: torch.Generator) -> tuple[list[Views], Tensor, tuple[Tensor, Tensor]]:
        """Two views of each image, the motion from the first to the second, and what is seen in them."""
        count, config = len(images), self.config
        motion = self.draw_motion(count, generator)
        sides = self.side * 2 ** uniform(count, -config.base_zoom, config.base_zoom, generator)[:, 0]
        turn = math.radians(config.base_turn)
        halfway = turned(squares(sides), torch.zeros_like(sides), uniform(count, -turn, turn, generator)[:, 0])
        before = turned(halfway, -motion[:, 2] / 2, -motion[:, 3] / 2)
        first = Views(torch.zeros(count, 2, device=generator.device), before)
        views = place([first, moved(first, motion)], images.shape[-1], generator, self.margin)
        evenly = [evened(images, view, self.smallest, self.passes) for view in views]
        seen = [cut(pixels, view, self.view_size) for pixels, view in zip(evenly, views, strict=True)]
        return views, motion, (seen[0], seen[1])


def moved(views: Views, motion: Tensor) -> Views:
    """The views after B x components motion; shifts are along the axes of the frame halfway between the two."""
    zoom, turn = motion[:, 2], motion[:, 3]
    halfway = turned(views.frames, zoom / 2, turn / 2)
    return Views(shifted(views.centres, halfway, motion[:, :2]), turned(views.frames, zoom, turn))


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over images and components, of B x components x bins logits and B x components labels."""
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
