"""The context encoder's own task: fill in the hidden part of an image (Pathak et al. 2016).

Transfer, as far as it was trained here, is not better than random. 250 steps of 32 on `shapes` (`bench pretexts`,
frozen classification, one seed): 23.2 mAP by central holes, 21.7 by blocks, 21.9 by regions, 22.1 by regions with the
joint loss, random 23.9. 4,000 steps of 64 on 11,247 photographs (VOC07-resplit, compact-cls): 32.0 against 34.2 frozen,
39.6 against 41.0 fine-tuned. Tried: those holes and losses, the channel-wise layer with and without dropout. The paper
trained 100,000 steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ssl_inpaint import holes
from ssl_inpaint.core import Batch, Encoder, ParameterGroup, Player, TrainingFacts
from ssl_inpaint.images import IMAGENET_MEAN, RELEASED_FILL, fill_mean
from ssl_inpaint.losses import discriminator_loss, generator_loss, hidden_error, hidden_psnr, reconstruction_loss
from ssl_inpaint.pretext.discriminator import Discriminator
from ssl_inpaint.pretext.generator import ContextEncoder, GeneratorConfig


class Config(GeneratorConfig):
    """The defaults are the paper's feature-learning setting: random regions, reconstruction loss only."""

    later: ClassVar[frozenset[str]] = frozenset(
        {"bottleneck", "bottleneck_units", "decoder_deviation", "predicts", "visible_weight", "discriminator_channels"}
        | {"fill"}
    )
    holes: Literal["centre", "blocks", "region", "noise"] = "region"
    hole_fraction: float = Field(0.25, gt=0, le=0.9)  # of the image's area
    loss: Literal["reconstruction", "joint", "adversarial"] = "reconstruction"
    distance: Literal["l2", "l1"] = "l2"  # the paper saw no significant difference
    # Width of the visible band around the hole that is predicted too: 7 in the paper's centre net, 4 in the README's.
    # It lies outside the hole, which keeps its area: the released 64 x 64 target with its 56 x 56 hole is
    # hole_fraction = (56 / 128)^2 and 4 pixels, the paper's 50 x 50 hole (50 / 128)^2 and 7 pixels.
    overlap_pixels: int = Field(0, ge=0)
    overlap_weight: float = Field(10.0, ge=0)  # of that band in the reconstruction loss
    # Of all visible pixels in the reconstruction loss. 0 is the paper's Eq. 1; the released random-region code has 1,
    # or 10 where it is told to use the overlap.
    visible_weight: float = Field(0.0, ge=0)
    # "target": only the central hole and its band, by a smaller decoder, as in the released network for central holes.
    predicts: Literal["image", "target"] = "image"
    fill: Literal["mean", "released"] = "mean"  # colour of hidden pixels in the input: see `images.fill_mean`
    reconstruction_weight: float = Field(0.999, ge=0)  # of the joint loss
    adversarial_weight: float = Field(0.001, ge=0)
    discriminator_learning_rate_ratio: float = Field(0.1, gt=0)  # in the joint loss; the generator's rate is the base
    discriminator_channels: int = Field(64, ge=1)  # of its first convolution

    @property
    def fill_colour(self) -> tuple[float, float, float]:
        """What the network sees where pixels are hidden: R, G, B in [0, 1]."""
        return RELEASED_FILL if self.fill == "released" else IMAGENET_MEAN

    def target_size(self, image_size: int) -> int:
        """Pixels a side of the square that is judged, and of the only one predicted where `predicts` is "target"."""
        if self.holes != "centre":
            return image_size
        return min(image_size, round(image_size * self.hole_fraction**0.5) + 2 * self.overlap_pixels)

    @model_validator(mode="after")
    def _is_consistent(self) -> Config:
        if self.loss != "reconstruction" and self.adversarial_weight == 0:
            raise ValueError("adversarial_weight must be above 0 where the loss is joint or adversarial")
        if self.predicts == "target" and self.holes != "centre":
            raise ValueError(f"only a central hole is a target of its own, and holes is '{self.holes}'")
        if self.visible_weight and (self.overlap_pixels or self.predicts == "target"):
            raise ValueError("visible_weight has no place beside overlap_pixels, or where only the target is predicted")
        return self


SUPERVISION = "none"
HIGHER_IS_BETTER = ("hidden_psnr", "mean_fill_psnr")  # of what `validate` measures; less is better of the rest


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
        target = config.target_size(facts.image_size)
        self.generator = ContextEncoder(
            encoder, facts.image_size, config, target if config.predicts == "target" else None
        )
        self.silhouettes = facts.silhouettes
        self.terms: dict[str, Tensor] = {}  # of the latest step
        self.discriminator: Discriminator | None = None
        if config.loss != "reconstruction":
            self.discriminator = Discriminator(target, config.discriminator_channels)

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
        prediction = self.generator(self._seen(truth, hole))
        if self.discriminator is None:
            yield "generator", self._reconstruction(prediction, truth, hole)
            return
        real, filled = self._judged(truth, prediction, hole)
        yield "discriminator", discriminator_loss(self.discriminator(real), self.discriminator(filled.detach()))
        self.discriminator.requires_grad_(False)  # the generator's loss passes through, its gradient stays out
        try:
            adversarial = generator_loss(self.discriminator(filled))
            reconstruction = self._reconstruction(prediction, truth, hole)
            self.terms = {"reconstruction": reconstruction.detach()}
            yield "generator", self._total(reconstruction, adversarial)
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
        seen = self._seen(truth, hole)
        return {"input": seen, "output": torch.where(hole, self.generator(seen), truth), "truth": truth}

    @torch.no_grad()
    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Squared error and PSNR on hidden pixels, [0, 1] scale, and those of the mean-colour fill to compare with."""
        truth = batch.images
        hole = self.draw_holes(len(truth), truth.shape[-1], generator)
        found, plain = self.generator(self._seen(truth, hole)), fill_mean(truth, hole)
        return {
            "hidden_mse": hidden_error(found, truth, hole),
            "mean_fill_mse": hidden_error(plain, truth, hole),
            "hidden_psnr": hidden_psnr(found, truth, hole),
            "mean_fill_psnr": hidden_psnr(plain, truth, hole),
        }

    def _seen(self, truth: Tensor, hole: Tensor) -> Tensor:
        return fill_mean(truth, hole, self.config.fill_colour)

    def _reconstruction(self, prediction: Tensor, truth: Tensor, hole: Tensor) -> Tensor:
        config = self.config
        band, weight = None, config.overlap_weight
        if config.overlap_pixels:
            band = holes.band(hole, config.overlap_pixels)
        elif config.visible_weight:
            band, weight = ~hole, config.visible_weight
        return reconstruction_loss(prediction, truth, hole, band, weight, config.distance)

    def _total(self, reconstruction: Tensor, adversarial: Tensor) -> Tensor:
        if self.config.loss == "adversarial":
            return adversarial
        return self.config.reconstruction_weight * reconstruction + self.config.adversarial_weight * adversarial

    def _judged(self, truth: Tensor, prediction: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """What the discriminator sees, real and generated: the central hole with its band, or the whole image.

        Deviation: for free holes the visible pixels are the real ones, so that only hidden pixels are judged.
        """
        size = truth.shape[-1]
        if self.config.holes != "centre":
            return truth, torch.where(hole, prediction, truth)
        side = self.config.target_size(size)
        start = (size - side) // 2
        window = (..., slice(start, start + side), slice(start, start + side))
        return truth[window], prediction[window]
