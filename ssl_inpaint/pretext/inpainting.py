"""The context encoder's own task: fill in the hidden part of an image (Pathak et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ssl_inpaint import holes
from ssl_inpaint.config import Settings
from ssl_inpaint.core import Batch, Encoder, ParameterGroup, Player, TrainingFacts
from ssl_inpaint.images import fill_mean
from ssl_inpaint.losses import discriminator_loss, generator_loss, hidden_error, reconstruction_loss
from ssl_inpaint.pretext.discriminator import Discriminator
from ssl_inpaint.pretext.generator import ContextEncoder


class Config(Settings):
    """The defaults are the paper's feature-learning setting: random regions, reconstruction loss only."""

    holes: Literal["centre", "blocks", "region", "noise"] = "region"
    hole_fraction: float = Field(0.25, gt=0, le=0.9)  # of the image's area
    loss: Literal["reconstruction", "joint", "adversarial"] = "reconstruction"
    distance: Literal["l2", "l1"] = "l2"  # the paper saw no significant difference
    # Width of the visible band around the hole that is predicted too: 7 in the paper's centre net, 4 in the README's.
    # Deviation: it lies outside the hole, which keeps its area; the released code shrinks the hole inside a 64 x 64
    # target instead (hole_fraction = 0.19 is its 56 x 56 hole in 128 x 128).
    overlap_pixels: int = Field(0, ge=0)
    overlap_weight: float = Field(10.0, ge=0)  # of that band in the reconstruction loss
    reconstruction_weight: float = Field(0.999, ge=0)  # of the joint loss
    adversarial_weight: float = Field(0.001, ge=0)
    discriminator_learning_rate_ratio: float = Field(0.1, gt=0)  # in the joint loss; the generator's rate is the base
    # Deviation: none on the channel-wise layer, where the paper (as recalled) drops half. BatchNorm behind it gathers
    # statistics that are wrong once nothing is dropped: fills come out grey. With no BatchNorm, 0.5 is the paper's.
    dropout: float = Field(0.0, ge=0, lt=1)
    decoder_channels: tuple[int, ...] = Field((128, 64, 64, 32), min_length=1)
    # Deviation: BatchNorm in the decoder, for short training; "none" is the paper's.
    decoder_normalization: Literal["batch", "none"] = "batch"

    @model_validator(mode="after")
    def _adversary_counts(self) -> Config:
        if self.loss != "reconstruction" and self.adversarial_weight == 0:
            raise ValueError("adversarial_weight must be above 0 where the loss is joint or adversarial")
        return self


SUPERVISION = "none"


def method_name(config: Config) -> str:
    """The row's name in tables."""
    return f"Context encoder ({config.holes}" + ("" if config.loss == "reconstruction" else f", {config.loss}") + ")"


def build(config: Config, encoder: Encoder, facts: TrainingFacts) -> Inpainting:
    """The task around `encoder`, for square images of facts.image_size."""
    return Inpainting(config, encoder, facts)


class Inpainting:
    """Players: the generator and, unless the loss is reconstruction only, the discriminator."""

    def __init__(self, config: Config, encoder: Encoder, facts: TrainingFacts) -> None:
        self.config, self.encoder = config, encoder
        self.generator = ContextEncoder(
            encoder, facts.image_size, config.decoder_channels, config.dropout, config.decoder_normalization
        )
        self.silhouettes = facts.silhouettes
        self.discriminator: Discriminator | None = None
        if config.loss != "reconstruction":
            self.discriminator = Discriminator(self._judged_size(facts.image_size))

    def players(self) -> dict[str, Player]:
        """Generator at the base learning rate; in the joint loss the discriminator at a tenth of it (train.lua)."""
        found = {"generator": Player(self.generator, [ParameterGroup(list(self.generator.parameters()))])}
        if self.discriminator is not None:
            ratio = self.config.discriminator_learning_rate_ratio if self.config.loss == "joint" else 1.0
            group = ParameterGroup(list(self.discriminator.parameters()), learning_rate_ratio=ratio)
            found["discriminator"] = Player(self.discriminator, [group])
        return found

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """The discriminator's loss first, then the generator's, on one pass of the generator.

        Deviation: the generator is judged by the discriminator just updated; train.lua takes the output from before
        the update and the gradient from after it.
        """
        truth = batch.images
        hole = self.draw_holes(len(truth), truth.shape[-1], generator)
        prediction = self.generator(fill_mean(truth, hole))
        if self.discriminator is None:
            yield "generator", self._reconstruction(prediction, truth, hole)
            return
        real, filled = self._judged(truth, prediction, hole)
        yield "discriminator", discriminator_loss(self.discriminator(real), self.discriminator(filled.detach()))
        self.discriminator.requires_grad_(False)  # the generator's loss passes through, its gradient stays out
        try:
            adversarial = generator_loss(self.discriminator(filled))
            yield "generator", self._total(self._reconstruction(prediction, truth, hole), adversarial)
        finally:
            self.discriminator.requires_grad_(True)

    def draw_holes(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """B x 1 x size x size bool, a hole of its own for every sample."""
        return holes.draw(self.config.holes, count, size, generator, self.config.hole_fraction, self.silhouettes)

    @torch.no_grad()
    def preview(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """What the generator saw, what it made of the hole, and the truth."""
        truth = batch.images
        hole = self.draw_holes(len(truth), truth.shape[-1], generator)
        seen = fill_mean(truth, hole)
        return {"input": seen, "output": torch.where(hole, self.generator(seen), truth), "truth": truth}

    @torch.no_grad()
    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error on hidden pixels, [0, 1] scale, and that of the mean-colour fill to compare with."""
        truth = batch.images
        hole = self.draw_holes(len(truth), truth.shape[-1], generator)
        seen = fill_mean(truth, hole)
        return {
            "hidden_mse": hidden_error(self.generator(seen), truth, hole),
            "mean_fill_mse": hidden_error(seen, truth, hole),
        }

    def _reconstruction(self, prediction: Tensor, truth: Tensor, hole: Tensor) -> Tensor:
        config = self.config
        band = holes.band(hole, config.overlap_pixels) if config.overlap_pixels else None
        return reconstruction_loss(prediction, truth, hole, band, config.overlap_weight, config.distance)

    def _total(self, reconstruction: Tensor, adversarial: Tensor) -> Tensor:
        if self.config.loss == "adversarial":
            return adversarial
        return self.config.reconstruction_weight * reconstruction + self.config.adversarial_weight * adversarial

    def _judged_size(self, image_size: int) -> int:
        if self.config.holes != "centre":
            return image_size
        return round(image_size * self.config.hole_fraction**0.5)

    def _judged(self, truth: Tensor, prediction: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """What the discriminator sees, real and generated: the central square, or the whole image.

        Deviation: for free holes the visible pixels are the real ones, so that only hidden pixels are judged. The
        overlap band is not judged either; the released discriminator sees it.
        """
        size, side = truth.shape[-1], self._judged_size(truth.shape[-1])
        start = (size - side) // 2
        window = (..., slice(start, start + side), slice(start, start + side))
        return truth[window], torch.where(hole, prediction, truth)[window]
