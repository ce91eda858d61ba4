"""The five-convolution encoder of the released inpainting network (train.lua), leaky ReLU and BatchNorm.

The bottleneck that follows it there (4,000 units) is not part of it: `generator` puts the channel-wise layer instead.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Encoder, Stage
from ssl_inpaint.winograd import Halving


class Config(Settings):
    """Channels as released (nef = 64)."""

    channels: tuple[int, int, int, int, int] = (64, 64, 128, 256, 512)
    leak: float = 0.2  # slope of the leaky ReLU below zero


def build(config: Config) -> Encoder:
    """The encoder with random weights, drawn from torch's current random state."""
    return DCGANEncoder(config)


class DCGANEncoder(Encoder):
    """conv1..conv5, 4 x 4 stride 2 pad 1 each: 64, 32, 16, 8 and 4 pixels a side at 128 x 128.

    No BatchNorm after conv1; weights N(0, 0.02), scales N(1, 0.02). Source: train.lua of the released code.
    """

    smallest_input = 32

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = (3, *config.channels)
        # The released code zeroes every convolution's bias at each step, so there is none here.
        self.convolutions = nn.ModuleList(
            Halving(before, after, bias=False) for before, after in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList([nn.Identity(), *(nn.BatchNorm2d(c) for c in config.channels[1:])])
        self.leak = config.leak
        self.stages = {f"conv{i}": Stage(c, 2**i) for i, c in enumerate(config.channels, start=1)}
        initialise_dcgan(self)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """B x 3 x H x W in [0, 1] to the five stages."""
        maps, found = images * 2 - 1, {}
        for name, convolution, norm in zip(self.stages, self.convolutions, self.norms, strict=True):
            maps = functional.leaky_relu(norm(convolution(maps)), self.leak)
            found[name] = maps
        return found


def initialise_dcgan(network: nn.Module) -> None:
    """Convolution weights N(0, 0.02), BatchNorm scales N(1, 0.02), biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.normal_(1.0, 0.02)
                module.bias.zero_()
