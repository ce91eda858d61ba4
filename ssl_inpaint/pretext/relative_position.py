"""Where does this patch lie beside that one? Eight neighbours, told apart (Doersch et al. 2015).

Shortcuts and their guards: lines and textures that continue over the border (a gap of half a patch, and jitter);
chromatic aberration, which tells where in the image a patch lies (two of three channels dropped, or green-magenta
projected away); brightness that rises across the image (mean and deviation of each patch normalised). The first
patch's place is drawn before the answer and leaves room for all eight, so that it gives nothing away by itself.
Source: the released code, cdoersch/deepcontext train.py; projection and the noise's size recalled from the paper.
Deviation: patches are never shrunk and enlarged again, as the released code does to a third of them; those of small
crops have no detail to lose.
Measured on `shapes`, recipe quick with a third of its channels, one seed: 21 % of held-out pairs told right after 150
steps (chance 12.5 %, 800 pairs).
Transfer is not better than random: 23.1 mAP against 23.9 after 250 steps of 32 (`bench pretexts`, frozen
classification, one seed), where 24 % of held-out pairs are told right. A longer run was not tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Batch, Encoder, ParameterGroup, Player, TrainingFacts
from ssl_inpaint.errors import UsageError
from ssl_inpaint.pretext import patches

NEIGHBOURS = 8  # in reading order, the centre left out: 0 1 2 / 3 . 4 / 5 6 7
CENTRE = 4  # of the cells 0..8
NOISE = 0.01  # deviation of what replaces a channel, over that of the channel kept; recalled
GREEN_MAGENTA = (-1.0, 2.0, -1.0)  # that direction of colour; recalled


class Config(Settings):
    """Of the grid of patches, its guards, and the network."""

    # "all": the patch with each of its neighbours, eight pairs of nine patches, which pass the encoder once each; "one"
    # neighbour drawn for each image. The released code takes all pairs of neighbours in a larger grid likewise.
    pairs: Literal["all", "one"] = "all"
    # Of the crop's side, for the 3 x 3 grid with its gaps and jitter: it decides the patches' size.
    # Deviation: released patches are 96 pixels a side, in a grid over an image of 150,000 to 450,000 pixels: a quarter
    # to a seventh of its side.
    grid_fraction: float = Field(1.0, gt=0, le=1)
    gap_fraction: float = Field(0.5, ge=0, le=2)  # of a patch's side
    jitter_fraction: float = Field(0.1, ge=0, le=1)  # of a patch's side, either way, in rows and columns; 7/96 released
    # "drop" leaves one channel, drawn for each patch, and noise in the others; "project" leaves the plane of colours
    # without green-magenta, nearer to what transfer shows; "keep" leaves the shortcut open.
    colour: Literal["drop", "project", "keep"] = "drop"
    is_normalised: bool = True  # each patch's mean and deviation
    units: int = Field(512, ge=1)  # of the layer on each patch. Deviation: 4,096 in the released network, for ImageNet
    fused_units: int = Field(512, ge=1)  # of the two layers on both together; 4,096 in the released network


SUPERVISION = "none"
HIGHER_IS_BETTER = ("accuracy",)


def method_name(config: Config) -> str:
    """The row's name in tables."""
    return "Relative position"


def build(config: Config, encoder: Encoder, facts: TrainingFacts) -> RelativePosition:
    """The task around `encoder`; UsageError where the crops are too small for patches."""
    return RelativePosition(config, encoder, facts)


class RelativePosition:
    """One player: a siamese network on the encoder's deepest stage, fused by fully-connected layers.

    Deviation: patches that are smaller than the encoder takes are enlarged to its smallest input.
    Deviation: BatchNorm with scale and shift on all three hidden layers, where the released network has it on two.
    """

    def __init__(self, config: Config, encoder: Encoder, facts: TrainingFacts) -> None:
        self.config, self.encoder, size = config, encoder, facts.image_size
        self.side = int(config.grid_fraction * size / (3 + 2 * config.gap_fraction + 2 * config.jitter_fraction))
        if self.side < 4:
            raise UsageError(f"crops.size = {size}: patches of {self.side} pixels are too few, so take larger crops.")
        self.gap, self.jitter = int(config.gap_fraction * self.side), int(config.jitter_fraction * self.side)
        self.room = size - 3 * self.side - 2 * self.gap - 2 * self.jitter  # in which the grid is placed at random
        pairs = [[0, neighbour] for neighbour in range(1, 1 + (NEIGHBOURS if config.pairs == "all" else 1))]
        fused = [config.fused_units, config.fused_units]
        self.network = patches.PatchNetwork(encoder, self.side, pairs, config.units, fused, NEIGHBOURS)

    def players(self) -> dict[str, Player]:
        """The classifier alone."""
        return {"classifier": Player(self.network, [ParameterGroup(list(self.network.parameters()))])}

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """Cross-entropy over the eight neighbours."""
        seen, labels = self.draw(batch.images, generator)
        yield "classifier", functional.cross_entropy(self.network(seen), labels)

    def draw(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What the network sees, B x (1 + N) x 3 x s x s, a patch and N neighbours of it; which these are, B * N int64.

        N is 8, in order, or 1. Labels are 0..7.
        """
        if self.config.pairs == "all":
            labels = torch.arange(NEIGHBOURS, device=generator.device).repeat(len(images), 1)
        else:
            labels = torch.randint(NEIGHBOURS, (len(images), 1), generator=generator, device=generator.device)
        seen = patches.cut(images, self.corners(labels, generator)[:, :, None], self.side)
        seen = patches.enlarged(self._guarded(seen, generator), self.network.side)
        return (patches.normalised(seen) if self.config.is_normalised else seen), labels.flatten()

    def corners(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Labels B x N to B x (1 + N) x 2 int64: row and column of the first pixel of a patch and of its neighbours."""

        def uniform(most: int, patches_each: int) -> Tensor:
            shape = (len(labels), patches_each, 2)
            return torch.randint(most + 1, shape, generator=generator, device=generator.device)

        cells = torch.cat([torch.full_like(labels[:, :1], CENTRE), cell_of(labels)], dim=1)
        pitch = self.side + self.gap
        return uniform(self.room, 1) + patches.places(cells) * pitch + uniform(2 * self.jitter, cells.shape[1])

    @torch.no_grad()
    def preview(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The patch alone, then with a neighbour of it where the network would put it, and where it belongs."""
        seen, labels = self.draw(batch.images, generator)
        found, count = self.network(seen).argmax(dim=1), seen.shape[1] - 1
        chosen = torch.randint(count, (len(seen),), generator=generator, device=generator.device)
        samples = torch.arange(len(seen), device=seen.device)
        alone = seen.new_full((len(seen), 9, *seen.shape[2:]), 0.5)
        alone[:, CENTRE] = seen[:, 0]
        columns = {"input": alone}
        for title, answers in (("output", found), ("truth", labels)):
            columns[title] = alone.clone()
            cells = cell_of(answers[samples * count + chosen])
            columns[title][samples, cells] = seen[samples, 1 + chosen]
        return {title: patches.board(tiles) for title, tiles in columns.items()}

    @torch.no_grad()
    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The share of neighbours told right and the cross-entropy; chance is 1/8."""
        seen, labels = self.draw(batch.images, generator)
        return patches.scores(self.network(seen), labels)

    def _guarded(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        if self.config.colour == "drop":
            return drop_colours(pixels, generator)
        return without_green_magenta(pixels) if self.config.colour == "project" else pixels


def cell_of(labels: Tensor) -> Tensor:
    """Neighbours 0..7 to cells 0..8 of the board, which count the centre too."""
    return labels + (labels >= CENTRE)


def drop_colours(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """One channel of each patch is kept, the others become its mean and Gaussian noise of a hundredth of its deviation.

    B x N x 3 x s x s. Source: the paper, as recalled; the released code's noise is uniform, one grey level wide.
    """
    count, device = pixels.shape[:2], generator.device
    kept = torch.randint(3, count, generator=generator, device=device)[..., None, None, None]
    chosen = pixels.gather(2, kept.expand(-1, -1, 1, *pixels.shape[3:]))
    deviation, mean = torch.std_mean(chosen, dim=(-2, -1), keepdim=True, correction=0)
    noise = mean + NOISE * deviation * torch.randn(pixels.shape, generator=generator, device=device)
    return torch.where(torch.arange(3, device=device).view(3, 1, 1) == kept, pixels, noise)


def without_green_magenta(pixels: Tensor) -> Tensor:
    """Colours projected onto the plane across GREEN_MAGENTA: x - a (a.x) / (a.a), B x N x 3 x s x s."""
    direction = pixels.new_tensor(GREEN_MAGENTA).view(3, 1, 1)
    along = (direction * pixels).sum(dim=-3, keepdim=True) / direction.square().sum()
    return pixels - along * direction
