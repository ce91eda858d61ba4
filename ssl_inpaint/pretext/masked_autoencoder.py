"""Masked autoencoder: most patches never reach the vision transformer, which is to draw them (He et al. 2022).

Where the context encoder shows a convolutional network a quarter of the image as a flat hole, three quarters of the
patches are dropped here before the first block: the encoder neither sees nor computes anything in their place, and a
small decoder, thrown away afterwards, puts one and the same token there.

No shortcut through the input: a patch is embedded by itself, so nothing of a hidden one gets past the drop, and places
are drawn anew for every sample. What comes cheaply is the mean of each patch, which the colour around it gives away:
normalised targets take it out, and `validate` sets beside the error that of knowing the mean and no more.

Measured, one seed, 200 steps of 64 of recipe `mae` on `shapes`: held-out error 0.72 of what patch means leave, by hue
and shading first of all. Nearest neighbours then find no more than at random (compact-knn, mAP 19.2 % against 19.0 %).
Nor does transfer after 250 steps at 64 pixels beat the same transformer at random: 20.6 mAP against 20.5 (`bench
pretexts`, frozen classification). So short a run does not make features; a longer one has not been tried.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ssl_inpaint.core import Batch, Encoder, ParameterGroup, Player, TrainingFacts
from ssl_inpaint.errors import UsageError
from ssl_inpaint.images import fill_mean
from ssl_inpaint.pretext.generator import deepest_side
from ssl_inpaint.pretext.patch_painter import DecoderConfig, PatchEncoder, PatchPainter

VARIANCE_FLOOR = 1e-6  # added to a patch's variance before it is divided by, as released


class Config(DecoderConfig):
    """The paper's masking and targets; a decoder for small machines."""

    hidden_fraction: float = Field(0.75, gt=0, lt=1)  # of the patches
    # The target is each hidden patch less its own mean, over its own deviation; False: its pixels in [0, 1].
    normalized_targets: bool = True


SUPERVISION = "none"
NEEDS = "patches"  # of the encoder, beside its stages: see PatchEncoder


def method_name(config: Config) -> str:
    """The row's name in tables."""
    return "Masked autoencoder" + ("" if config.normalized_targets else " (raw pixels)")


def build(config: Config, encoder: Encoder, facts: TrainingFacts) -> MaskedAutoencoding:
    """The task around `encoder`, for square images of facts.image_size.

    UsageError where the encoder is no plain vision transformer, or its patches do not tile such images.
    """
    return MaskedAutoencoding(config, encoder, facts)


class MaskedAutoencoding:
    """One player, encoder and decoder; the loss is on hidden patches only. Source: He et al. 2022 and released code."""

    def __init__(self, config: Config, encoder: Encoder, facts: TrainingFacts) -> None:
        self.config, self.encoder = config, encoder
        if not isinstance(encoder, PatchEncoder):
            raise UsageError(
                "Pretext 'masked_autoencoder' drops patches before the encoder's first block, and this encoder is no "
                "plain vision transformer: write --encoder timm:vit_tiny_patch16_224, with --set encoder.image_size="
                f"{facts.image_size} (and encoder.patch_size=8) for images of that size, or --recipe mae."
            )
        self.patch_size = encoder.patch_size
        self.patches = (facts.image_size // self.patch_size) ** 2
        if facts.image_size % self.patch_size or self.patches < 2:
            raise UsageError(
                f"Patches of {self.patch_size} pixels do not tile images of {facts.image_size}, two patches at least: "
                "set encoder.patch_size, or crops.size and encoder.image_size, so that one divides the other."
            )
        if len(encoder.positions) != self.patches:
            raise UsageError(
                f"The encoder learns positions of {len(encoder.positions)} patches and images of {facts.image_size} "
                f"pixels have {self.patches}: set encoder.image_size={facts.image_size}, or crops.size to its own."
            )
        side = deepest_side(encoder, facts.image_size)
        self.network = PatchPainter(encoder, encoder.stages[list(encoder.stages)[-1]].channels, side, config)

    def players(self) -> dict[str, Player]:
        """Encoder and decoder; weights decay, biases and norms do not (as released)."""
        parameters = list(self.network.parameters())
        decaying = ParameterGroup([p for p in parameters if p.ndim > 1])
        others = ParameterGroup([p for p in parameters if p.ndim <= 1], weight_decay_ratio=0.0)
        return {"autoencoder": Player(self.network, [decaying, others])}

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """Squared error of the hidden patches, mean over patches and pixels."""
        kept, hidden = self.draw_patches(len(batch.images), generator)
        yield "autoencoder", self._error(self.network(batch.images, kept, hidden), batch.images, hidden)

    def draw_patches(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """B x V of patches kept and B x M of those hidden, by the order of one draw a patch; V is 1 at least."""
        draws = torch.rand(count, self.patches, generator=generator, device=generator.device)
        kept = max(1, int(self.patches * (1 - self.config.hidden_fraction)))
        order = draws.argsort(dim=1)
        return order[:, :kept], order[:, kept:]

    @torch.no_grad()
    def preview(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The visible patches, the hidden ones drawn in, and the truth.

        Normalised targets say nothing of a patch's mean and deviation: those of the truth are lent to the drawing.
        """
        truth = batch.images
        kept, hidden = self.draw_patches(len(truth), generator)
        patches = split(truth, self.patch_size)
        drawn = self.network(truth, kept, hidden).float()
        if self.config.normalized_targets:
            mean, deviation = statistics(taken(patches, hidden))
            drawn = drawn * deviation + mean
        index = hidden.unsqueeze(2).expand_as(drawn)
        output = joined(patches.scatter(1, index, drawn.to(patches.dtype)), self.patch_size)
        is_hidden = joined(torch.zeros_like(patches).scatter(1, index, 1.0), self.patch_size)[:, :1] > 0
        return {"input": fill_mean(truth, is_hidden), "output": output.clamp(0, 1), "truth": truth}

    @torch.no_grad()
    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Squared error on hidden patches, and that of filling each with its own mean: 1 for normalised targets.

        For raw pixels that is to ask for more than chance, as no network is told the mean of what it does not see.
        """
        kept, hidden = self.draw_patches(len(batch.images), generator)
        target = self._target(batch.images, hidden)
        return {
            "hidden_patch_mse": self._error(self.network(batch.images, kept, hidden), batch.images, hidden),
            "patch_mean_mse": (target - target.mean(dim=2, keepdim=True)).square().mean(),
        }

    def _error(self, prediction: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
        return functional.mse_loss(prediction.float(), self._target(images, hidden))

    def _target(self, images: Tensor, hidden: Tensor) -> Tensor:
        """B x M x (3 P P) of the hidden patches.

        Deviation: of images in [0, 1]; the released code has divided each channel by its ImageNet deviation before.
        """
        pixels = taken(split(images.float(), self.patch_size), hidden)
        if not self.config.normalized_targets:
            return pixels
        mean, deviation = statistics(pixels)
        return (pixels - mean) / deviation


def split(images: Tensor, size: int) -> Tensor:
    """B x 3 x H x W to B x N x (3 size size), patches row by row."""
    return functional.unfold(images, size, stride=size).transpose(1, 2)


def joined(patches: Tensor, size: int) -> Tensor:
    """The square images that `split` took apart."""
    side = round(patches.shape[1] ** 0.5) * size
    return functional.fold(patches.transpose(1, 2), (side, side), size, stride=size)


def taken(patches: Tensor, chosen: Tensor) -> Tensor:
    """B x N x D and B x M int64 to B x M x D."""
    return patches.gather(1, chosen.unsqueeze(2).expand(-1, -1, patches.shape[2]))


def statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch over its pixels and channels, B x N x 1 each; a flat one deviates by 0.001."""
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return mean, (variance + VARIANCE_FLOOR).sqrt()
