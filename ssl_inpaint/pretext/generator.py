"""The context encoder: encoder, bottleneck, decoder of up-convolutions, pixels."""

from __future__ import annotations

import itertools
import math
from types import EllipsisType
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Encoder
from ssl_inpaint.pretext.bottlenecks import Kind, build_bottleneck
from ssl_inpaint.winograd import Doubling


class GeneratorConfig(Settings):
    """What follows the encoder."""

    bottleneck: Kind = "channelwise"  # the paper's; "full" is that of the released inpainting network
    bottleneck_units: int = Field(4000, ge=1)  # of "full": 4,000 in the released commands
    # Deviation: none on the channel-wise layer, where the paper (as recalled) drops half. BatchNorm behind it gathers
    # statistics that are wrong once nothing is dropped: fills come out grey. With no BatchNorm, 0.5 is the paper's.
    dropout: float = Field(0.0, ge=0, lt=1)
    decoder_channels: tuple[int, ...] = Field((128, 64, 64, 32), min_length=1)
    # Deviation: BatchNorm in the decoder, for short training; "none" is the paper's, as recalled.
    decoder_normalization: Literal["batch", "none"] = "batch"
    # Of the up-convolutions' Gaussian weights; 0.02 as released, None: Kaiming's, by fan-in.
    decoder_deviation: float | None = Field(None, gt=0)


class ContextEncoder(nn.Module):
    """Images with a filled hole to whole images, both B x 3 x H x W in [0, 1], at one square size.

    With a `target` below `image_size` only the central square of that side is predicted, as in the released network for
    central holes, and the rest is the input. Source: paper section 3.1 and figure 9.
    Deviation: up-convolutions are 4 x 4 stride 2 pad 1, each exactly doubling (the paper's map sizes could not be
    read), and the last map is resized bilinearly to the target's size where doubling does not reach it.
    Deviation: the last layer is a tanh mapped to [0, 1], as in the released inpainting network; it has a bias, which
    the released code zeroes at every step.
    """

    def __init__(self, encoder: Encoder, image_size: int, config: GeneratorConfig, target: int | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_size, self.target = image_size, image_size if target is None else target
        self.stage = list(encoder.stages)[-1]
        channels, side = encoder.stages[self.stage].channels, deepest_side(encoder, image_size)
        self.bottleneck = build_bottleneck(config.bottleneck, channels, side, config.bottleneck_units, config.dropout)
        doublings = max(1, math.floor(math.log2(self.target / side) + 1e-6))
        widths = [channels, *_fitted(config.decoder_channels, doublings - 1)]
        has_norm = config.decoder_normalization == "batch"
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers.append(Doubling(before, after, bias=not has_norm))
            layers.append(nn.BatchNorm2d(after) if has_norm else nn.Identity())
            layers.append(nn.ReLU())
        to_pixels = Doubling(widths[-1], 3)
        self.decoder = nn.Sequential(*layers, to_pixels)
        for part in self.decoder:
            if isinstance(part, nn.ConvTranspose2d):  # at stride 2 each output sums a quarter of the 16 kernel taps
                nn.init.normal_(part.weight, std=config.decoder_deviation or math.sqrt(2 / (4 * part.in_channels)))
            elif isinstance(part, nn.BatchNorm2d) and config.decoder_deviation:
                nn.init.normal_(part.weight, 1.0, config.decoder_deviation)
        nn.init.normal_(to_pixels.weight, std=0.02)  # begins near mid-grey, where tanh still has a slope

    def forward(self, images: Tensor) -> Tensor:
        """B x 3 x image_size x image_size, holes already filled."""
        pixels = self.decoder(self.bottleneck(self.encoder(images)[self.stage]))
        if pixels.shape[-1] != self.target:
            pixels = functional.interpolate(pixels, size=self.target, mode="bilinear", align_corners=False)
        predicted = (torch.tanh(pixels.float()) + 1) / 2
        if self.target == self.image_size:
            return predicted
        whole = images.float().clone()
        whole[self.window()] = predicted
        return whole

    def window(self) -> tuple[EllipsisType, slice, slice]:
        """Where in images the target lies."""
        start = (self.image_size - self.target) // 2
        return (..., slice(start, start + self.target), slice(start, start + self.target))


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
