"""What joins the encoder to the decoder: how far, and through how much, each place of the map sees all others."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Kind = Literal["channelwise", "full"]


def build_bottleneck(kind: Kind, channels: int, side: int, units: int, dropout: float) -> nn.Module:
    """Maps B x channels x side x side to maps of the same shape; only "full" reads `units`."""
    if kind == "full":
        return FullyConnected(channels, side, units, dropout)
    return Channelwise(channels, side, dropout)


class Channelwise(nn.Module):
    """The paper's: channel-wise fully-connected, ReLU, dropout, then a 1 x 1 convolution that mixes channels, ReLU.

    Source: paper section 3.1, which states a stride-1 convolution; that it is 1 x 1 is the usual reading.
    """

    def __init__(self, channels: int, side: int, dropout: float) -> None:
        super().__init__()
        self.channelwise = ChannelwiseFullyConnected(channels, side)
        self.dropout = nn.Dropout(dropout)
        self.mix = nn.Conv2d(channels, channels, 1)
        nn.init.kaiming_normal_(self.mix.weight, nonlinearity="relu")

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of the size it was made for."""
        return torch.relu(self.mix(self.dropout(torch.relu(self.channelwise(maps)))))


class ChannelwiseFullyConnected(nn.Module):
    """Every position of a channel to every position of the same channel: C x (n*n -> n*n), paper section 3.1.

    B x C x n x n in and out; one batched matrix product. m n^4 weights where a full layer has m^2 n^4.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        positions = side * side
        bound = 1 / math.sqrt(positions)
        self.weight = nn.Parameter(torch.empty(channels, positions, positions).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(channels, 1, positions))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of the size the layer was made for."""
        rows = maps.flatten(2).transpose(0, 1)  # C x B x positions
        mixed = torch.baddbmm(self.bias, rows, self.weight)
        return mixed.transpose(0, 1).reshape(maps.shape)


class FullyConnected(nn.Module):
    """The released inpainting network's: everything to `units` values, BatchNorm, leaky ReLU, and back.

    Source: train.lua, where these are a 4 x 4 convolution onto a 1 x 1 map and its transpose: the matrix products that
    they are, written as such. Deviation: dropout, 0 by default, which the released network does not have.
    """

    def __init__(self, channels: int, side: int, units: int, dropout: float) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels * side * side, units, bias=False)
        self.squeeze_norm = nn.BatchNorm1d(units)
        self.dropout = nn.Dropout(dropout)
        self.expand = nn.Linear(units, channels * side * side, bias=False)
        self.expand_norm = nn.BatchNorm2d(channels)
        for layer in (self.squeeze, self.expand):
            nn.init.normal_(layer.weight, std=0.02)
        for norm in (self.squeeze_norm, self.expand_norm):
            nn.init.normal_(norm.weight, 1.0, 0.02)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of the size it was made for."""
        code = functional.leaky_relu(self.squeeze_norm(self.squeeze(maps.flatten(1))), 0.2)
        return torch.relu(self.expand_norm(self.expand(self.dropout(code)).view(maps.shape)))
