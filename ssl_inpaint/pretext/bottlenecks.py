"""What joins the encoder to the decoder: how far, and through how much, each place of the map sees all others.

Five kinds, an ablation of the paper's claim that pixels are filled from the whole context only where all places of the
map are joined. With m channels of n x n places, weights and biases together:

    kind         a place sees                             parameters
    none         itself                                   m^2 + m
    channelwise  all places, by place                     m n^4 + m n^2              + m^2 + m
    convolution  5 x 5 places, by distance                18 m w + 2 m               + m^2 + m
    attention    all places, by what is there             2 m^2 + 9 m / 2 (even m)   + m^2 + m
    full         all places of all channels               2 u m n^2 + 2 u + 2 m

w is the channels in a group of the convolutions, n^4 / 18 as nearly as m divides, so that they have about the weights
of the channel-wise layer (0.89 of them for 256 x 6 x 6); u is the units of the full layer. The last m^2 + m are a 1 x 1
convolution that follows every kind but the full one, so that these differ in how places are joined and in nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Kind = Literal["none", "channelwise", "full", "convolution", "attention"]
CONVOLUTIONS = 2  # 3 x 3 each, so that a place sees 5 x 5


def build_bottleneck(kind: Kind, channels: int, side: int, units: int, dropout: float) -> nn.Module:
    """Maps B x channels x side x side to maps of the same shape; only "full" reads `units`."""
    if kind == "full":
        return FullyConnected(channels, side, units, dropout)
    makers: dict[Kind, Callable[[], nn.Module]] = {
        "none": nn.Identity,
        "channelwise": lambda: ChannelwiseFullyConnected(channels, side),
        "convolution": lambda: Convolutions(channels, side),
        "attention": lambda: NonLocal(channels),
    }
    return Mixed(kind, makers[kind](), channels, dropout)


class Mixed(nn.Module):
    """The paper's frame: what joins places, ReLU, dropout, then a 1 x 1 convolution that mixes channels, ReLU.

    Source: paper section 3.1, which states a stride-1 convolution; that it is 1 x 1 is the usual reading. The first
    ReLU stands behind layers that are linear; what passes maps on ("none", "attention") has none.
    Deviation: "none" keeps the 1 x 1 convolution, so that it is the paper's network less the channel-wise layer alone.
    """

    def __init__(self, kind: Kind, joining: nn.Module, channels: int, dropout: float) -> None:
        super().__init__()
        self.kind, self.is_linear = kind, kind in ("channelwise", "convolution")
        self.add_module(kind, joining)  # by its kind, as weights are named in files
        self.dropout = nn.Dropout(dropout)
        self.mix = nn.Conv2d(channels, channels, 1)
        nn.init.kaiming_normal_(self.mix.weight, nonlinearity="relu")

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of the size it was made for; "none", "convolution" and "attention" take any."""
        joined = self.get_submodule(self.kind)(maps)
        return torch.relu(self.mix(self.dropout(torch.relu(joined) if self.is_linear else joined)))


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


class Convolutions(nn.Sequential):
    """3 x 3 convolutions with a ReLU between: a place sees 5 x 5 places, its group of channels in each.

    Grouped, so that they keep every channel and yet have about the weights of the channel-wise layer for `side`.
    """

    def __init__(self, channels: int, side: int) -> None:
        groups = _groups(channels, side**4 / (9 * CONVOLUTIONS))
        layers: list[nn.Module] = []
        for _ in range(CONVOLUTIONS):
            convolution = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            layers += [convolution, nn.ReLU()]
        super().__init__(*layers[:-1])


class NonLocal(nn.Module):
    """One non-local block, embedded Gaussian: each place adds a mean over all places, weighted by how alike they are.

    It begins as the identity. Places are told apart by what is there alone: moved about, they give the same, moved.
    Source: Wang, Girshick, Gupta, He, "Non-local Neural Networks", CVPR 2018, as released (video-nonlocal-net,
    lib/models/nonlocal_helper.py): half the channels inside, dot products over the root of their number, softmax,
    BatchNorm at the end with scales that begin at 0.
    Deviation: no max pooling inside, as these maps are small; PyTorch's initial weights, where the released ones
    deviate by 0.01, which is made for 1,024 channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.theta, self.phi, self.g = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.out = nn.Conv2d(inner, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """B x C x H x W to the same."""
        query, key, value = (part(maps).flatten(2).transpose(1, 2) for part in (self.theta, self.phi, self.g))
        gathered = functional.scaled_dot_product_attention(query, key, value)  # B x positions x inner
        gathered = gathered.transpose(1, 2).unflatten(2, maps.shape[2:])
        return maps + self.norm(self.out(gathered))


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


def _groups(channels: int, width: float) -> int:
    """Into how many groups, of about `width` channels each, the channels are divided."""
    divisors = [groups for groups in range(1, channels + 1) if channels % groups == 0]
    return min(divisors, key=lambda groups: abs(math.log(channels / groups / width)))
