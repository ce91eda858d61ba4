"""Tracking on still images: a patch is nearer to itself, moved, than to any other image's (after Wang and Gupta 2015).

The paper tracks patches through 100,000 videos: a patch and what it has become some frames later are to have features
nearer to each other than to a patch of another video. Here one still image gives both: a patch, and the same one after
a synthetic motion, a deformation and a change of light. It is synthetic, and its row says so.

Shortcuts. Patches lie inside the image, at a random place, so neither padding nor place tells them apart; the motion is
divided between the two, so both are interpolated alike. Each has a brightness, a contrast and a balance of colours of
its own: by the mean colour alone 77 % of comparisons of photographs come out right, where without it were 94 %; of
plain colours four in ten are wrong. `--encoder grey:ANY` takes colours away altogether, as the authors' grey model did.

Source: Wang, Gupta, "Unsupervised Learning of Visual Representations using Videos", ICCV 2015, and the README of the
authors' caffe-video_triplet: negatives are other pairs' patches in the batch, four for each pair, random ones to begin
with and then hard ones. Ranking loss max(0, D(patch, tracked) - D(patch, other) + margin), D one less the cosine.
Margin 0.5 and two layers of 4,096 and 1,024 units behind pool5 are as recalled.
Deviation: 1,024 and 256 units, for small sets; patches are resized up where the encoder takes no images so small.
Transfer is not better than random: 23.0 mAP against 23.9 after 250 steps of 32 on `shapes` (`bench pretexts`, frozen
classification, one seed), where 96 % of held-out comparisons come out right. A longer run was not tried.
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
from ssl_inpaint.pretext.views import Views, cut, place, shifted, shown_size, squares, turned, uniform, widest_turn


class Config(Settings):
    """How far a patch goes, how its light changes, and what it is compared with."""

    largest_shift: float = Field(0.25, ge=0, le=1)  # along x and y, in sides of the patch
    largest_zoom: float = Field(0.4, ge=0, le=2)  # in doublings
    largest_turn: float = Field(20.0, ge=0, le=90)  # in degrees
    deformation: float = Field(0.1, ge=0, lt=0.5)  # of each entry of a matrix around one: stretches and shears
    fill: float = Field(0.9, gt=0, le=1)  # of the image's side, by the widest motion; the rest is room to place it
    brightness: float = Field(0.1, ge=0, le=1)  # added to all channels, up or down; images are in [0, 1]
    contrast: float = Field(0.3, ge=0, lt=1)  # by which differences from the mean grow or shrink, as a share
    colour: float = Field(0.15, ge=0, le=1)  # added to each channel, up or down
    margin: float = Field(0.5, gt=0, le=2)
    negatives: int = Field(4, ge=1)  # of each pair
    # Steps in which they are random; then they are the hardest, those nearest to the patch. 0: the hardest at once, by
    # which a network with random weights may well bring all features to one point. The paper: 150,000 (read in notes).
    random_steps: int = Field(500, ge=0)
    units: tuple[int, int] = (1024, 256)  # of the layer behind the encoder's map, and of the features compared

    def side_share(self) -> float:
        """Side of a patch before any zoom, over that of the largest image it may come from."""
        zoom = 2 ** (self.largest_zoom / 2) * (1 + 2 * self.deformation)
        return self.fill / (widest_turn(self.largest_turn / 2) * zoom + self.largest_shift)


SUPERVISION = "none"
HIGHER_IS_BETTER = ("accuracy", "nearest_accuracy")


def method_name(config: Config) -> str:
    """The row's name in tables."""
    return "Tracking (synthetic)"


def build(config: Config, encoder: Encoder, facts: TrainingFacts) -> Tracking:
    """The task around `encoder`, for square images of facts.image_size."""
    return Tracking(config, encoder, facts)


class Embedding(nn.Module):
    """Patches to N x D features of length one; and the number of steps it has been trained."""

    steps: Tensor

    def __init__(self, encoder: Encoder, size: int, config: Config) -> None:
        super().__init__()
        self.encoder = encoder
        self.stage, stage = list(encoder.stages.items())[-1]
        side = min(deepest_side(encoder, size), 6)
        hidden, features = config.units
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(side),  # only where the map has more than 6 places a side
            nn.Flatten(),
            nn.Linear(stage.channels * side**2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, features),
        )
        # In the checkpoint, so that a resumed run knows whether its negatives are hard already.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, patches: Tensor) -> Tensor:
        """N x 3 x size x size."""
        features: Tensor = self.head(self.encoder(patches)[self.stage])
        return functional.normalize(features.float(), dim=1)


class Tracking:
    """One player, the embedding. An image alone in its batch has nothing to be compared with and counts for nothing."""

    def __init__(self, config: Config, encoder: Encoder, facts: TrainingFacts) -> None:
        self.config, self.encoder = config, encoder
        self.side = config.side_share() * (facts.image_size - 1)
        self.patch_size = shown_size(encoder, self.side)
        self.network = Embedding(encoder, self.patch_size, config)

    def players(self) -> dict[str, Player]:
        """The embedding alone."""
        return {"embedding": Player(self.network, [ParameterGroup(list(self.network.parameters()))])}

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """The ranking loss; the mean over pairs and their negatives."""
        near, others = self._similarities(*self.pair(batch.images, generator))
        is_hard = self.network.steps >= self.config.random_steps
        draws = torch.rand(others.shape, generator=generator, device=others.device)
        draws = draws.masked_fill(others == -math.inf, -math.inf)
        order = torch.where(is_hard, others.detach(), draws)
        chosen = order.topk(min(self.config.negatives, others.shape[1] - 2), dim=1).indices
        if self.network.training:
            self.network.steps += 1
        yield "embedding", ranking_loss(near, others.gather(1, chosen), self.config.margin)

    @torch.no_grad()
    def preview(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """A patch; the nearest of all other patches; and the one that it became."""
        patch, tracked = self.pair(batch.images, generator)
        near, others = self._similarities(patch, tracked)
        candidates = torch.cat([near[:, None], others], dim=1).argmax(dim=1)
        everything = torch.cat([patch, tracked])
        found = torch.where((candidates == 0)[:, None, None, None], tracked, everything[(candidates - 1).clamp(min=0)])
        return {"input": patch, "output": found, "truth": tracked}

    @torch.no_grad()
    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """How often the tracked patch is nearer than another image's patch (chance 1/2), and than all of them.

        And the ranking loss with all of them. An image alone counts as right.
        """
        near, others = self._similarities(*self.pair(batch.images, generator))
        is_other = others > -math.inf
        is_nearer = (near[:, None] > others) | ~is_other
        losses = (others - near[:, None] + self.config.margin).clamp(min=0)
        count = is_other.sum().clamp(min=1)
        return {
            "accuracy": 1 - (~is_nearer).sum() / count,
            "nearest_accuracy": is_nearer.all(dim=1).float().mean(),
            "ranking_loss": losses.sum() / count,
        }

    @torch.no_grad()
    def pair(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A patch of each image and the same one after the motion, each in a light of its own."""
        config, count = self.config, len(images)
        zoom, turn = config.largest_zoom / 2, math.radians(config.largest_turn) / 2
        zooms, turns = (uniform(count, -largest, largest, generator)[:, 0] for largest in (zoom, turn))
        shifts = uniform(count, -config.largest_shift, config.largest_shift, generator, 2)
        upright = squares(torch.full((count,), self.side, device=generator.device))
        views = []
        for sign in (-1, 1):
            matrices = uniform(count, -config.deformation, config.deformation, generator, 4).view(-1, 2, 2)
            frames = turned(upright, sign * zooms, sign * turns)
            frames = frames + _product(frames, matrices)
            views.append(Views(shifted(torch.zeros_like(shifts), upright, sign * shifts / 2), frames))
        placed = place(views, images.shape[-1], generator)
        first, second = (self._lit(cut(images, view, self.patch_size), generator) for view in placed)
        return first, second

    def _lit(self, patches: Tensor, generator: torch.Generator) -> Tensor:
        """Patches in another light: brightness, contrast and the balance of channels, drawn for each."""
        config, count = self.config, len(patches)
        mean = patches.mean(dim=(1, 2, 3), keepdim=True)
        contrast = 1 + uniform(count, -config.contrast, config.contrast, generator)
        light = uniform(count, -config.brightness, config.brightness, generator)
        light = light + uniform(count, -config.colour, config.colour, generator, 3)
        return (mean + contrast[..., None, None] * (patches - mean) + light[..., None, None]).clamp(0, 1)

    def _similarities(self, patch: Tensor, tracked: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines of each patch with the tracked one, B, and with all 2 B; minus infinity with its own image's."""
        count = len(patch)
        first, second = self.network(torch.cat([patch, tracked])).split(count)
        with torch.autocast(first.device.type, enabled=False):
            everything = first @ torch.cat([first, second]).T
        own = torch.eye(count, dtype=torch.bool, device=first.device).repeat(1, 2)
        return (first * second).sum(dim=1), everything.masked_fill(own, -math.inf)


def ranking_loss(near: Tensor, others: Tensor, margin: float) -> Tensor:
    """max(0, D(patch, tracked) - D(patch, other) + margin), the mean over B x K others; D is one less the cosine.

    Zero where there are no others.
    """
    losses = (others - near[:, None] + margin).clamp(min=0)
    return losses.mean() if losses.numel() else (0 * near).sum()


def _product(first: Tensor, second: Tensor) -> Tensor:
    """Of B x 2 x 2 matrices, by hand: it would be rounded to bfloat16 where a forward pass is."""
    return (first[:, :, :, None] * second[:, None]).sum(dim=2)
