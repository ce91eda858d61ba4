"""The context encoder: encoder, channel-wise fully-connected layer, decoder of up-convolutions, pixels."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint.core import Encoder


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


class ContextEncoder(nn.Module):
    """Images with a filled hole to whole images, both B x 3 x H x W in [0, 1], at one square size.

    Source: paper section 3.1 and figure 9b. The 1 x 1 convolution mixes channels after the channel-wise layer.
    Deviation: up-convolutions are 4 x 4 stride 2 pad 1, each exactly doubling (the paper's map sizes could not be
    read), and the last map is resized bilinearly to the input's size where doubling does not reach it.
    Deviation: the last layer is a tanh mapped to [0, 1], as in the released inpainting network.
    """

    def __init__(
        self,
        encoder: Encoder,
        image_size: int,
        decoder_channels: tuple[int, ...],
        dropout: float,
        normalization: Literal["batch", "none"],
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_size = image_size
        self.stage = list(encoder.stages)[-1]
        channels, side = encoder.stages[self.stage].channels, deepest_side(encoder, image_size)
        self.channelwise = ChannelwiseFullyConnected(channels, side)
        self.dropout = nn.Dropout(dropout)
        self.mix = nn.Conv2d(channels, channels, 1)
        doublings = max(1, math.floor(math.log2(image_size / side) + 1e-6))
        widths = [channels, *_fitted(decoder_channels, doublings - 1)]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers.append(nn.ConvTranspose2d(before, after, 4, 2, 1, bias=normalization == "none"))
            layers.append(nn.BatchNorm2d(after) if normalization == "batch" else nn.Identity())
            layers.append(nn.ReLU())
        to_pixels = nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1)
        self.decoder = nn.Sequential(*layers, to_pixels)
        nn.init.kaiming_normal_(self.mix.weight, nonlinearity="relu")
        for part in self.decoder:
            if isinstance(part, nn.ConvTranspose2d):  # at stride 2 each output sums a quarter of the 16 kernel taps
                nn.init.normal_(part.weight, std=math.sqrt(2 / (4 * part.in_channels)))
        nn.init.normal_(to_pixels.weight, std=0.02)  # begins near mid-grey, where tanh still has a slope

    def forward(self, images: Tensor) -> Tensor:
        """B x 3 x image_size x image_size, holes already filled."""
        maps = self.encoder(images)[self.stage]
        maps = torch.relu(self.mix(self.dropout(torch.relu(self.channelwise(maps)))))
        pixels = self.decoder(maps)
        if pixels.shape[-1] != self.image_size:
            pixels = functional.interpolate(pixels, size=self.image_size, mode="bilinear", align_corners=False)
        return (torch.tanh(pixels.float()) + 1) / 2


def deepest_side(encoder: Encoder, image_size: int) -> int:
    """Pixels a side of the encoder's deepest map for square images of that size."""
    device = next(encoder.parameters()).device
    was_training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            maps = encoder(torch.zeros(1, 3, image_size, image_size, device=device))
    finally:
        encoder.train(was_training)
    return next(reversed(maps.values())).shape[-1]


def _fitted(channels: tuple[int, ...], count: int) -> tuple[int, ...]:
    """`channels` cut or continued with its last value to that many."""
    return (channels + (channels[-1],) * count)[:count]
