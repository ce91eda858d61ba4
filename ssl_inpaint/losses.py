"""The losses of the paper: reconstruction over hidden pixels (Eq. 1) and the adversarial pair (Eq. 2)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


def reconstruction_loss(
    prediction: Tensor,
    truth: Tensor,
    hole: Tensor,
    band: Tensor | None = None,
    band_weight: float = 10.0,
    distance: Literal["l2", "l1"] = "l2",
) -> Tensor:
    """Mean distance over hidden pixels, with the overlap band counted `band_weight` times (paper Eq. 1, section 3.3).

    Images B x 3 x H x W in [0, 1], `hole` and `band` B x 1 x H x W bool and disjoint; no other pixel counts. Distances
    are taken on the [-1, 1] scale of the released code, on which its weights 0.999 and 0.001 stand; so L2 is four
    times, L1 twice the value on [0, 1]. The sum is divided by the number of values in hole and band, without the
    weights, as released. Zero where nothing is hidden.
    """
    weight = hole.to(prediction.dtype)
    counted = hole
    if band is not None:
        weight = weight + band_weight * band.to(prediction.dtype)
        counted = hole | band
    error = 2 * (prediction - truth)
    error = error.square() if distance == "l2" else error.abs()
    return (weight * error).sum() / (prediction.shape[1] * counted.sum()).clamp(min=1)


def hidden_error(prediction: Tensor, truth: Tensor, hole: Tensor) -> Tensor:
    """Mean squared error over hidden pixels only, on the [0, 1] scale, without weights: the number to watch."""
    error = (prediction - truth).square() * hole
    return error.sum() / (prediction.shape[1] * hole.sum()).clamp(min=1)


def hidden_psnr(prediction: Tensor, truth: Tensor, hole: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over hidden pixels in dB, the mean of each image's own; 100 at most, images [0, 1]."""
    error = ((prediction - truth).square() * hole).sum(dim=(1, 2, 3))
    return (
        -10 * (error / (prediction.shape[1] * hole.sum(dim=(1, 2, 3)).clamp(min=1))).clamp(min=1e-10).log10()
    ).mean()


def discriminator_loss(real_logits: Tensor, generated_logits: Tensor) -> Tensor:
    """Binary cross-entropy on both halves, added and not halved (paper Eq. 2; train.lua's errD)."""
    real = functional.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    generated = functional.binary_cross_entropy_with_logits(generated_logits, torch.zeros_like(generated_logits))
    return real + generated


def generator_loss(generated_logits: Tensor) -> Tensor:
    """Non-saturating: cross-entropy of calling generated images real, as train.lua does for Eq. 2."""
    return functional.binary_cross_entropy_with_logits(generated_logits, torch.ones_like(generated_logits))


def multilabel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sigmoid cross-entropy over N x K labels 1 / 0; those that are 255 do not count (voc-classification)."""
    counted = labels != 255
    losses = functional.binary_cross_entropy_with_logits(logits, labels.clamp(max=1).to(logits.dtype), reduction="none")
    return (losses * counted).sum() / counted.sum().clamp(min=1)
