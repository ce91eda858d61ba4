"""The paper's control: the inpainting network with nothing hidden, asked for its own input.

Transfer is not better than random: 22.1 mAP against 23.9 after 250 steps of 32 on `shapes` (`bench pretexts`, frozen
classification, one seed). A longer run was not tried; as a control it need not be.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ssl_inpaint.core import Batch, Encoder, ParameterGroup, Player, TrainingFacts
from ssl_inpaint.losses import hidden_error, reconstruction_loss
from ssl_inpaint.pretext.generator import ContextEncoder, GeneratorConfig


class Config(GeneratorConfig):
    """As for inpainting, less everything about holes and adversaries."""

    later: ClassVar[frozenset[str]] = frozenset({"bottleneck", "bottleneck_units", "decoder_deviation"})
    distance: Literal["l2", "l1"] = "l2"


SUPERVISION = "none"


def method_name(config: Config) -> str:
    """The row's name in tables."""
    return "Autoencoder"


def build(config: Config, encoder: Encoder, facts: TrainingFacts) -> Autoencoder:
    """The task around `encoder`, for square images of facts.image_size."""
    return Autoencoder(config, encoder, facts)


class Autoencoder:
    """One player, the generator; every pixel is visible and every pixel counts. Source: paper section 5.2, Table 2."""

    def __init__(self, config: Config, encoder: Encoder, facts: TrainingFacts) -> None:
        self.config, self.encoder = config, encoder
        self.generator = ContextEncoder(encoder, facts.image_size, config)

    def players(self) -> dict[str, Player]:
        """The generator alone."""
        return {"generator": Player(self.generator, [ParameterGroup(list(self.generator.parameters()))])}

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """Reconstruction of the whole image."""
        images = batch.images
        everything = torch.ones_like(images[:, :1], dtype=torch.bool)
        yield (
            "generator",
            reconstruction_loss(self.generator(images), images, everything, distance=self.config.distance),
        )

    @torch.no_grad()
    def preview(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The images and their reconstructions."""
        return {"input": batch.images, "output": self.generator(batch.images)}

    @torch.no_grad()
    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error over all pixels, [0, 1] scale."""
        everything = torch.ones_like(batch.images[:, :1], dtype=torch.bool)
        return {"mse": hidden_error(self.generator(batch.images), batch.images, everything)}
