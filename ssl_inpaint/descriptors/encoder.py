"""One stage of an encoder as a patch descriptor: its map, averaged to a small grid and flattened."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Encoder
from ssl_inpaint.errors import unknown_name
from ssl_inpaint.images import fill_mean


class Config(Settings):
    """Which map, and how it becomes a vector."""

    stage: str = ""  # empty: the deepest
    grid: int = Field(3, ge=1)  # the map is averaged to at most this many cells a side
    size: int = Field(96, ge=16)  # patches are resized to this side first, that of pretraining being the best
    batch_size: int = Field(256, ge=1)


def build(config: Config, encoder: Encoder, name: str) -> EncoderDescriptor:
    """The descriptor; UsageError for a stage that the encoder does not have."""
    if config.stage and config.stage not in encoder.stages:
        raise unknown_name("stage", config.stage, encoder.stages)
    return EncoderDescriptor(config, encoder, name)


class EncoderDescriptor:
    """Describes in eval mode, on the device where the encoder is; hidden pixels are the mean colour (section 5.1).

    The grid keeps the layout of a patch. In the context-only description the cells of the centre carry what the
    encoder infers from around it, which is the paper's point.
    """

    def __init__(self, config: Config, encoder: Encoder, name: str) -> None:
        self.config, self.encoder, self.name = config, encoder, name
        self.stage = config.stage or list(encoder.stages)[-1]

    @torch.no_grad()
    def describe(self, patches: Tensor, hole: Tensor | None) -> np.ndarray:
        """N x 3 x S x S in [0, 1] to N x (C g g) float32; pixels where `hole` (S x S bool) is True are never read."""
        was_training = self.encoder.training
        self.encoder.eval()
        try:
            return self._described(patches, hole)
        finally:
            self.encoder.train(was_training)

    def _described(self, patches: Tensor, hole: Tensor | None) -> np.ndarray:
        device = next(self.encoder.parameters()).device
        found = []
        for some in patches.split(self.config.batch_size):
            if hole is not None:
                some = fill_mean(some, hole)  # before resizing, so that nothing hidden bleeds out
            some = functional.interpolate(some.to(device), self.config.size, mode="bilinear", antialias=True)
            maps = self.encoder(some)[self.stage]
            side = min(self.config.grid, *maps.shape[-2:])
            found.append(functional.adaptive_avg_pool2d(maps, side).flatten(1).float().cpu().numpy())
        return np.concatenate(found)
