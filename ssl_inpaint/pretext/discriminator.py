"""The adversary of the inpainting generator: is this patch real or filled in?"""

from __future__ import annotations

import itertools
import math

from torch import Tensor, nn

from ssl_inpaint.winograd import Halving


class Discriminator(nn.Module):
    """Square images B x 3 x size x size in [0, 1] to B logits: stride-2 convolutions to 4 x 4, then one product.

    Source: train.lua (64 pixels: 64, 128, 256, 512 channels) and train_random.lua (128 pixels: 64 channels more at the
    shallow end), without biases as they zero them at every step. The released 4 x 4 convolution onto a 1 x 1 map is
    written as the matrix product that it is; the sigmoid is in the loss. Not conditioned on the context, as in the
    paper. Any size from 8.
    Deviation: a size other than 64 and 128 has more or fewer convolutions likewise, and its last map is pooled to 4 x 4
    where halving does not reach it.
    """

    def __init__(self, size: int, channels: int = 64) -> None:
        super().__init__()
        halvings = max(1, round(math.log2(size / 4)))
        widths = [3, *(channels * 2 ** max(0, i - max(0, halvings - 4)) for i in range(halvings))]
        layers: list[nn.Module] = []
        for position, (before, after) in enumerate(itertools.pairwise(widths)):
            layers.append(Halving(before, after, bias=False))
            layers.append(nn.BatchNorm2d(after) if position else nn.Identity())
            layers.append(nn.LeakyReLU(0.2))
        self.maps = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4))
        self.decide = nn.Linear(widths[-1] * 16, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, images: Tensor) -> Tensor:
        """B x 3 x size x size to B."""
        return self.decide(self.maps(images * 2 - 1).flatten(1)).squeeze(1)
