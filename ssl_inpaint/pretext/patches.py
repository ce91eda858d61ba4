"""What tasks on patches of an image share: cutting them, guards against shortcuts, the head, and boards to look at."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint.core import Encoder
from ssl_inpaint.images import IMAGENET_DEVIATION, IMAGENET_MEAN
from ssl_inpaint.pretext.generator import deepest_side

FLAT = 1 / 255  # patches that deviate less are not stretched: it would be rounding that is enlarged


def cut(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """B x N x 3 x side x side pixels of images B x 3 x H x W, as they are.

    `corners` are B x N x 3 x 2 int64, the row and column of the first pixel in each channel, or B x N x 1 x 2, in all
    of them; patches must lie inside the image.
    """
    steps = torch.arange(side, device=images.device)
    rows, columns = corners[..., 0, None, None] + steps[:, None], corners[..., 1, None, None] + steps
    samples = torch.arange(len(images), device=images.device).view(-1, 1, 1, 1, 1)
    channels = torch.arange(images.shape[1], device=images.device).view(1, 1, -1, 1, 1)
    return images[samples, channels, rows, columns]


def places(cells: Tensor) -> Tensor:
    """Numbers 0..8 in reading order to rows and columns 0..2 of the 3 x 3 board: ... to ... x 2."""
    return torch.stack([cells // 3, cells % 3], dim=-1)


def enlarged(patches: Tensor, side: int) -> Tensor:
    """B x N x 3 x s x s to `side` pixels by bilinear interpolation; patches that large or larger stay as they are."""
    if patches.shape[-1] >= side:
        return patches
    larger = functional.interpolate(patches.flatten(0, 1), size=side, mode="bilinear", align_corners=False)
    return larger.unflatten(0, patches.shape[:2])


def normalised(patches: Tensor) -> Tensor:
    """Each patch with the mean colour and the deviation of ImageNet's images, so that neither tells where it lies.

    The mean is taken from each channel, the deviation over all of them together: ratios of contrast are kept. Values
    may leave [0, 1]. Source: deepcontext's train.py (both), the released jigsaw code (the mean).
    """
    centred = patches - patches.mean(dim=(-2, -1), keepdim=True)
    deviation = centred.square().mean(dim=(-3, -2, -1), keepdim=True).sqrt()
    mean, usual = (patches.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_DEVIATION))
    return mean + usual * centred / deviation.clamp(min=FLAT)


class PatchNetwork(nn.Module):
    """B x N x 3 x s x s patches to logits of K answers: a layer for each patch alone, then layers for some together.

    Patches pass the encoder's deepest stage, flattened, and one fully-connected layer, with the same weights for each
    (siamese, context-free). Of every image, the patches of each of `groups` are concatenated and pass the layers of
    `fused_units`, then the classifier.
    BatchNorm sees the patches of an image in one batch: no more than what the head is shown of them anyway.
    """

    groups: Tensor

    def __init__(
        self,
        encoder: Encoder,
        side: int,
        groups: Sequence[Sequence[int]],
        units: int,
        fused_units: Sequence[int],
        answers: int,
    ) -> None:
        super().__init__()
        self.encoder, self.side = encoder, max(side, encoder.smallest_input)
        self.stage = list(encoder.stages)[-1]
        self.register_buffer("groups", torch.tensor(groups), persistent=False)
        features = encoder.stages[self.stage].channels * deepest_side(encoder, self.side) ** 2
        self.each = nn.Sequential(nn.Flatten(), *fully_connected(features, units))
        widths = [len(groups[0]) * units, *fused_units]
        hidden = [layer for pair in itertools.pairwise(widths) for layer in fully_connected(*pair)]
        self.fused = nn.Sequential(*hidden, nn.Linear(widths[-1], answers))

    def forward(self, patches: Tensor) -> Tensor:
        """Patches of `side` pixels to (B * groups) x K, all groups of an image one after another."""
        maps = self.encoder(patches.flatten(0, 1))[self.stage]
        alone = self.each(maps).unflatten(0, patches.shape[:2])
        together = alone[:, self.groups].flatten(0, 1).flatten(1)
        return self.fused(together).float()


def fully_connected(inputs: int, outputs: int) -> list[nn.Module]:
    """Linear, BatchNorm, ReLU."""
    return [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]


def scores(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The share of right answers and the mean cross-entropy, of N x K logits."""
    is_right = logits.argmax(dim=1) == labels
    return {"accuracy": is_right.float().mean(), "cross_entropy": functional.cross_entropy(logits, labels)}


def board(tiles: Tensor) -> Tensor:
    """B x 9 x 3 x s x s tiles in reading order to images of a 3 x 3 board on grey, clipped to [0, 1]."""
    margin = max(1, tiles.shape[-1] // 16)
    framed = functional.pad(tiles.clamp(0, 1), (margin,) * 4, value=0.5)
    return framed.unflatten(1, (3, 3)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
