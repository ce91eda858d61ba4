"""Which way up is the image? Four quarter turns, told apart (Gidaris et al. 2018, RotNet).

Shortcuts: turns are exact, by flips and transposes of the square crop, so that neither borders nor interpolation give
one away; each turn has the very pixels of the others. BatchNorm sees all turns of an image in one batch, whose
statistics are the same whichever of them is asked for.
Measured on `shapes`, recipe quick, one seed: 61 % of held-out turns told right after 50 steps (chance 25 %).
Transfer is no better than random, as far as one seed tells: 24.2 mAP against 23.9 after 250 steps of 32 (`bench
pretexts`, frozen classification), where 74.5 % of turns are told right. A longer run was not tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Batch, Encoder, ParameterGroup, Player, TrainingFacts
from ssl_inpaint.pretext.generator import deepest_side

TURNS = 4  # by 0, 90, 180 and 270 degrees, counter-clockwise


class Config(Settings):
    """Of the turns and of the classifier on the encoder's deepest stage."""

    # "all": every image in all four turns at once, four times the work a step; the paper found it better than one.
    turns: Literal["all", "one"] = "all"
    pooling: Literal["none", "average"] = "none"  # before the classifier: RotNet's AlexNet has none, its NIN averages
    # Hidden layers of the classifier, with BatchNorm. Deviation: RotNet's AlexNet has two of 4,096, for ImageNet.
    units: tuple[int, ...] = Field((512,), max_length=3)


SUPERVISION = "none"
HIGHER_IS_BETTER = ("accuracy",)


def method_name(config: Config) -> str:
    """The row's name in tables."""
    return "Rotation"


def build(config: Config, encoder: Encoder, facts: TrainingFacts) -> Rotation:
    """The task around `encoder`, for square images of facts.image_size."""
    return Rotation(config, encoder, facts)


class Rotation:
    """One player: the encoder and a classifier of four turns."""

    def __init__(self, config: Config, encoder: Encoder, facts: TrainingFacts) -> None:
        self.config, self.encoder = config, encoder
        self.stage = list(encoder.stages)[-1]
        side = 1 if config.pooling == "average" else deepest_side(encoder, facts.image_size)
        width = encoder.stages[self.stage].channels * side**2
        layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(1)] if config.pooling == "average" else []
        layers.append(nn.Flatten())
        for units in config.units:
            layers += [nn.Linear(width, units, bias=False), nn.BatchNorm1d(units), nn.ReLU()]
            width = units
        head = nn.Sequential(*layers, nn.Linear(width, TURNS))
        self.network = nn.ModuleDict({"encoder": encoder, "head": head})

    def players(self) -> dict[str, Player]:
        """The classifier alone."""
        return {"classifier": Player(self.network, [ParameterGroup(list(self.network.parameters()))])}

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """Cross-entropy over the four turns."""
        images, labels = self.draw(batch.images, generator)
        yield "classifier", functional.cross_entropy(self._logits(images), labels)

    def draw(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Turned images and how: all four turns of each image one after another, or one turn drawn for each."""
        if self.config.turns == "all":
            return _every_turn(images)
        labels = torch.randint(TURNS, (len(images),), generator=generator, device=generator.device)
        return turned(images, labels), labels

    @torch.no_grad()
    def preview(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Images turned at random, turned back as the classifier would, and upright."""
        labels = torch.randint(TURNS, (len(batch.images),), generator=generator, device=generator.device)
        seen = turned(batch.images, labels)
        found = self._logits(seen).argmax(dim=1)
        return {"input": seen, "output": turned(seen, -found % TURNS), "truth": batch.images}

    @torch.no_grad()
    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The share of turns told right and the cross-entropy, over all four of every image; chance is 1/4."""
        images, labels = _every_turn(batch.images)
        logits = self._logits(images)
        is_right = logits.argmax(dim=1) == labels
        return {"accuracy": is_right.float().mean(), "cross_entropy": functional.cross_entropy(logits, labels)}

    def _logits(self, images: Tensor) -> Tensor:
        return self.network["head"](self.encoder(images)[self.stage]).float()


def turned(images: Tensor, quarters: Tensor) -> Tensor:
    """Square images, each turned by its own number of quarters, B int64 of 0..3: pixels move and never change."""
    quarters = quarters.view(-1, 1, 1, 1)
    quarter = torch.empty_like(images).copy_(images.rot90(1, (2, 3)))  # a transposed view would slow convolutions down
    images = torch.where(quarters % 2 == 1, quarter, images)
    return torch.where(quarters >= 2, images.flip((2, 3)), images)


def _every_turn(images: Tensor) -> tuple[Tensor, Tensor]:
    labels = torch.arange(TURNS, device=images.device).repeat(len(images))
    return turned(images.repeat_interleave(TURNS, dim=0), labels), labels
