"""A trained context encoder: the network's own pixels in the hole, the given ones around it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Frame, Inpainter
from ssl_inpaint.images import IMAGENET_MEAN, fill_mean
from ssl_inpaint.inpainters.checks import check


class Config(Settings):
    """How the network is run; it is built elsewhere."""

    batch_size: int = Field(128, ge=1)  # images a forward pass


@dataclass(frozen=True)
class GeneratorInpainter:
    """An `Inpainter` that runs in eval mode, on the device where the network is."""

    config: Config
    generator: nn.Module
    name: str
    frame: Frame | None
    colour: tuple[float, float, float] = IMAGENET_MEAN  # of hidden pixels in what the network sees

    @torch.no_grad()
    def fill(self, images: Tensor, holes: Tensor) -> Tensor:
        """See `Inpainter.fill`; ValueError for images of another size than the frame's."""
        check(images, holes, self.frame.size if self.frame else None)
        if not holes.any():  # also a batch of none, which not every network takes
            return images.clone()
        was_training = self.generator.training
        self.generator.eval()
        try:
            return self._filled(images, holes)
        finally:
            self.generator.train(was_training)

    def _filled(self, images: Tensor, holes: Tensor) -> Tensor:
        device = next(self.generator.parameters(), images).device
        found = []
        for some, hidden in zip(images.split(self.config.batch_size), holes.split(self.config.batch_size), strict=True):
            output = self.generator(fill_mean(some, hidden, self.colour).to(device))
            found.append(torch.where(hidden, output.to(some), some))
        return torch.cat(found)


def build(
    config: Config,
    generator: nn.Module,
    name: str,
    frame: Frame,
    colour: tuple[float, float, float] = IMAGENET_MEAN,
) -> Inpainter:
    """The inpainter; `generator` maps B x 3 x S x S with filled holes to whole images of that shape, all in [0, 1]."""
    return GeneratorInpainter(config, generator, name, frame, colour)
