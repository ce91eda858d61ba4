"""In which order do the tiles of the image lie? A fixed set of orders, told apart (Noroozi and Favaro 2016).

Shortcuts and their guards: lines and textures that continue over the border (tiles lie at random inside their cells);
mean and deviation that change slowly across the image (normalised in each tile); chromatic aberration (the channels of
each tile are shifted against each other, some images are grey). Orders are far apart, so that no single pair of tiles
decides. Source: the released code, MehdiNoroozi/JigsawPuzzleSolver; channel shifts, grey images and the deviation are
recalled from the paper.
Measured on `shapes`, recipe quick with a third of its channels and channel shifts of 2 pixels, one seed: 13 % of 100
held-out puzzles solved after 300 steps (chance 1 %).
Transfer is not better than random: 23.5 mAP against 23.9 after 250 steps of 32 with all channels (`bench pretexts`,
frozen classification), when 8 % of puzzles are solved and more with every step. A longer run was not tried.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Batch, Encoder, ParameterGroup, Player, TrainingFacts
from ssl_inpaint.errors import UsageError
from ssl_inpaint.pretext import patches

TILES = 9
LUMINANCE = (0.299, 0.587, 0.114)  # of R, G, B


class Config(Settings):
    """Of the orders, the tiles and their guards, and the network."""

    orders: int = Field(100, ge=2, le=1000)  # told apart: 100 in the released set, up to 1,000 in the paper
    tile_fraction: float = Field(64 / 85, gt=0, le=1)  # of a cell's side, which is a third of the crop's; as released
    # Of the crop's side, rounded up to whole pixels; each channel of a tile by its own, either way. Recalled: 2 pixels
    # in crops of 255; a lens's aberration shrinks with the image.
    channel_shift_fraction: float = Field(2 / 255, ge=0, le=0.1)
    grey_probability: float = Field(0.3, ge=0, le=1)  # of an image; recalled
    is_normalised: bool = True  # each tile's mean and deviation
    # Deviation: 1,024 and 4,096 in the released network, for ImageNet, with dropout of 0.5 in BatchNorm's place.
    units: int = Field(256, ge=1)  # of the layer on each tile
    fused_units: int = Field(1024, ge=1)  # of the layer on all tiles together


SUPERVISION = "none"
HIGHER_IS_BETTER = ("accuracy",)


def method_name(config: Config) -> str:
    """The row's name in tables."""
    return "Jigsaw"


def build(config: Config, encoder: Encoder, facts: TrainingFacts) -> Jigsaw:
    """The task around `encoder`; UsageError where the crops are too small for tiles."""
    return Jigsaw(config, encoder, facts)


class Jigsaw:
    """One player: the context-free network, which sees each tile alone up to its first fully-connected layer.

    Deviation: tiles that are smaller than the encoder takes are enlarged to its smallest input.
    Deviation: conv1 keeps the encoder's stride, which the paper halves for tiles.
    """

    def __init__(self, config: Config, encoder: Encoder, facts: TrainingFacts) -> None:
        self.config, self.encoder, self.size = config, encoder, facts.image_size
        self.cell = facts.image_size // 3
        self.shift = math.ceil(config.channel_shift_fraction * facts.image_size - 1e-6)  # 2 / 255 of 255 is 2
        # Shifted channels stay inside the cell, so that no tile at the image's border is shifted less than others.
        self.side = min(int(config.tile_fraction * self.cell), self.cell - 2 * self.shift)
        if self.side < 4:
            raise UsageError(
                f"crops.size = {self.size}: tiles of {self.side} pixels are too few, so take larger crops."
            )
        self.orders = far_orders(config.orders)
        self.network = patches.PatchNetwork(
            encoder, self.side, [range(TILES)], config.units, [config.fused_units], config.orders
        )

    def players(self) -> dict[str, Player]:
        """The classifier alone."""
        return {"classifier": Player(self.network, [ParameterGroup(list(self.network.parameters()))])}

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """Cross-entropy over the orders."""
        tiles, labels = self.draw(batch.images, generator)
        yield "classifier", functional.cross_entropy(self.network(tiles), labels)

    def draw(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What the network sees, B x 9 x 3 x s x s tiles in an order of the set; and which order, B int64."""
        count, device = len(images), generator.device
        labels = torch.randint(len(self.orders), (count,), generator=generator, device=device)
        is_grey = torch.rand(count, 1, 1, 1, generator=generator, device=device) < self.config.grey_probability
        corners = self.corners(count, generator)
        corners = torch.where(is_grey, corners[:, :, :1], corners)  # grey tiles have no colours to shift
        tiles = patches.cut(torch.where(is_grey, grey(images), images), corners, self.side)
        tiles = patches.enlarged(_arranged(tiles, self.orders.to(device)[labels]), self.network.side)
        return (patches.normalised(tiles) if self.config.is_normalised else tiles), labels

    def corners(self, count: int, generator: torch.Generator) -> Tensor:
        """B x 9 x 3 x 2 int64: row and column of the first pixel of each channel of each tile, in reading order."""

        def uniform(most: int, channels: int) -> Tensor:
            shape = (count, TILES, channels, 2)
            return torch.randint(most + 1, shape, generator=generator, device=generator.device)

        cells = patches.places(torch.arange(TILES, device=generator.device)).view(1, TILES, 1, 2) * self.cell
        return (
            (self.size - 3 * self.cell) // 2
            + cells
            + uniform(self.cell - self.side - 2 * self.shift, 1)
            + uniform(2 * self.shift, 3)
        )

    @torch.no_grad()
    def preview(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The tiles as shown, put back as the network would, and put back right."""
        tiles, labels = self.draw(batch.images, generator)
        found, orders = self.network(tiles).argmax(dim=1), self.orders.to(tiles.device)
        columns = {"input": tiles, "output": _put_back(tiles, orders[found]), "truth": _put_back(tiles, orders[labels])}
        return {title: patches.board(shown) for title, shown in columns.items()}

    @torch.no_grad()
    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The share of puzzles solved and the cross-entropy; chance is one over the number of orders."""
        tiles, labels = self.draw(batch.images, generator)
        return patches.scores(self.network(tiles), labels)


@functools.cache
def far_orders(count: int, tiles: int = TILES) -> Tensor:
    """`count` permutations of 0..tiles-1 that differ in as many places as can be: count x tiles int64, always the same.

    Greedy, as the paper's algorithm 1 (recalled; it is that of common ports): each is the one with the largest sum of
    Hamming distances to those before it.
    Deviation: the first is the identity instead of a random one, and of equals, which are many, that one is taken whose
    nearest neighbour among those before it is farthest.
    """
    candidates = _every_order(tiles)
    chosen, total = [0], np.zeros(candidates.shape[1], np.int32)
    nearest = np.full(candidates.shape[1], tiles, np.uint8)
    while len(chosen) < count:
        distance = np.zeros_like(nearest)
        for place in candidates:
            distance += place != place[chosen[-1]]
        total += distance
        nearest = np.minimum(nearest, distance)
        chosen.append(int(np.where(nearest > 0, total * (tiles + 1) + nearest, -1).argmax()))
    return torch.from_numpy(candidates[:, chosen].T.astype(np.int64))


def grey(images: Tensor) -> Tensor:
    """B x 3 x H x W with the luminance in every channel."""
    weights = images.new_tensor(LUMINANCE).view(3, 1, 1)
    return (weights * images).sum(dim=1, keepdim=True).expand_as(images)


def _every_order(tiles: int) -> np.ndarray:
    """All permutations, one a column: tiles x tiles! uint8, the identity first."""
    found = np.zeros((1, 1), np.uint8)
    for number in range(1, tiles):  # goes into every place, the last one first
        found = np.concatenate([np.insert(found, place, number, axis=0) for place in range(number, -1, -1)], axis=1)
    return found


def _arranged(tiles: Tensor, orders: Tensor) -> Tensor:
    """Tile orders[b, i] comes i-th: B x 9 x 3 x s x s."""
    return tiles[torch.arange(len(tiles), device=tiles.device)[:, None], orders]


def _put_back(tiles: Tensor, orders: Tensor) -> Tensor:
    return _arranged(tiles, orders.argsort(dim=1))
