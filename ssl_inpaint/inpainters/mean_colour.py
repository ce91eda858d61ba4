"""The mean colour in every hidden pixel: the least that an inpainter must beat.

Of all single colours the mean of the hidden pixels themselves has the least L2; these are the two guesses at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Frame, Inpainter
from ssl_inpaint.images import fill_mean
from ssl_inpaint.inpainters.checks import check


class Config(Settings):
    """Whose mean it is."""

    # "imagenet": one colour for all, that of the pretext task's holes; "context": that of the image's visible pixels
    colour: Literal["imagenet", "context"] = "imagenet"


@dataclass(frozen=True)
class MeanColour:
    """An `Inpainter`; see the module."""

    config: Config
    name: str
    frame: Frame | None = None

    def fill(self, images: Tensor, holes: Tensor) -> Tensor:
        """See `Inpainter.fill`; an image without a visible pixel has the ImageNet mean either way."""
        check(images, holes)
        filled = fill_mean(images, holes)
        if self.config.colour == "imagenet":
            return filled
        visible = (~holes).sum(dim=(2, 3), keepdim=True)
        means = torch.where(holes, 0.0, images).sum(dim=(2, 3), keepdim=True) / visible.clamp(min=1)
        return torch.where(holes & (visible > 0), means, filled)


def build(config: Config) -> Inpainter:
    """The inpainter with these settings."""
    return MeanColour(config, "Mean colour" if config.colour == "imagenet" else "Mean colour of the context")
