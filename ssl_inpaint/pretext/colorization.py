"""Colorization: the colour of a grey image as a choice among bins of Lab's ab plane (Zhang, Isola, Efros 2016).

The encoder sees the lightness on three equal channels, whichever it is, so what it does with colours is never trained:
`--encoder grey:compact_alexnet` (or grey:ANY) pretrains the same and has transfer see grey images too.
Rare colours count more: each place is weighted by 1 / ((1 - share) p + share / bins) of its nearest bin, where p is how
often the bin occurs, and the weights of all places average to one.
Transfer is worse than random after 250 steps of 32 on `shapes`: 22.5 mAP against 23.9, by 0.1 to 2.7 (`bench pretexts`,
frozen classification of grey images). Colours are drawn at random there, so little can be learned: the right bin of a
held-out place is found in 3.5 %, the commonest is right in 2.7 %. Photographs were not tried.

Source: section 2 of "Colorful Image Colorization", ECCV 2016, and caffe_traininglayers.py of the released code (what
images without colour count, weights by the nearest bin). The numbers of the paper's text are as recalled.
Deviation: p comes from the batches as training goes; the paper takes it from all of ImageNet before.
Deviation: bins are the cells of the grid that hold a colour of 8-bit sRGB, 261; the released list of 313 has these and
others around them, which are never nearest to a colour.
Deviation: places are those of the encoder's deepest map, doubled by up-convolutions with BatchNorm, and their colour is
the mean of the pixels there; the released AlexNet keeps a map at stride 8 by dilation and takes single pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint import colours
from ssl_inpaint.config import Settings
from ssl_inpaint.core import Batch, Encoder, ParameterGroup, Player, TrainingFacts
from ssl_inpaint.winograd import Doubling

GRID = 10  # side of a bin, in units of a and b
GREY = 5  # an image with no |a| or |b| above it has no colour, as in the released code


class Config(Settings):
    """The paper's, with a small decoder."""

    decoder_channels: tuple[int, ...] = Field((256, 128), min_length=1)  # one up-convolution each, doubling the map
    neighbours: int = Field(5, ge=1, le=25)  # bins among which a colour is divided; the released code has 10
    spread: float = Field(5.0, gt=0)  # sigma of the Gaussian of their distances, in units of a and b
    uniform_share: float = Field(0.5, gt=0, le=1)  # lambda: 1 gives every colour the same weight
    temperature: float = Field(0.38, gt=0)  # of the annealed mean by which bins become one colour, in samples only


SUPERVISION = "none"
HIGHER_IS_BETTER = ("accuracy", "constant_accuracy")


def method_name(config: Config) -> str:
    """The row's name in tables."""
    return "Colorization"


def build(config: Config, encoder: Encoder, facts: TrainingFacts) -> Colorization:
    """The task around `encoder`."""
    return Colorization(config, encoder)


class Colorizer(nn.Module):
    """Grey images to B x bins x h x w logits, and the distribution of colours seen in training."""

    bins: Tensor
    distribution: Tensor
    steps: Tensor

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self.stage, stage = list(encoder.stages.items())[-1]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((stage.channels, *config.decoder_channels)):
            layers += [Doubling(before, after, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        bins = torch.tensor(colour_bins(), dtype=torch.float32)
        self.decoder = nn.Sequential(*layers, nn.Conv2d(config.decoder_channels[-1], len(bins), 1))
        self.register_buffer("bins", bins, persistent=False)
        self.register_buffer("distribution", torch.full((len(bins),), 1 / len(bins)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        """B x 3 x H x W in [0, 1], of which the lightness alone is looked at."""
        logits: Tensor = self.decoder(self.encoder(colours.grey(images))[self.stage])
        return logits.float()

    def encode(self, ab: Tensor) -> Tensor:
        """Colours B x 2 x h x w to B x bins x h x w shares, which add up to one over the nearest few bins."""
        a, b = (self.bins[:, i, None, None] for i in range(2))
        distances = (ab[:, :1] - a).square() + (ab[:, 1:] - b).square()
        nearest, chosen = distances.topk(self.config.neighbours, dim=1, largest=False)
        shares = (-nearest / (2 * self.config.spread**2)).softmax(dim=1)
        return torch.zeros_like(distances).scatter(1, chosen, shares)

    @torch.no_grad()
    def note(self, shares: Tensor, is_counted: Tensor) -> None:
        """Takes the colours of a training batch into the distribution: the mean over all steps so far."""
        if is_counted.any():
            self.steps += 1
            self.distribution += (shares[is_counted].mean(dim=(0, 2, 3)) - self.distribution) / self.steps

    def weights(self) -> Tensor:
        """What a place counts by its nearest bin; the mean over the distribution is one. Source: the paper's Eq. 4."""
        share = self.config.uniform_share
        rarity = 1 / ((1 - share) * self.distribution + share / len(self.bins))
        return rarity / (self.distribution * rarity).sum()


class Colorization:
    """One player, encoder and decoder. Grey images in the data count for nothing: they have no colour to teach."""

    def __init__(self, config: Config, encoder: Encoder) -> None:
        self.config, self.encoder = config, encoder
        self.network = Colorizer(encoder, config)

    def players(self) -> dict[str, Player]:
        """The colorizer alone."""
        return {"colorizer": Player(self.network, [ParameterGroup(list(self.network.parameters()))])}

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """Cross-entropy with the divided colours, weighted; the mean over all places, those of grey images included."""
        logits = self.network(batch.images)
        shares, is_coloured = self._targets(batch.images, (logits.shape[-2], logits.shape[-1]))
        if self.network.training:
            self.network.note(shares, is_coloured)
        weights = self._weights(shares, is_coloured)
        yield "colorizer", (weights * _cross_entropy(logits, shares)).mean()

    @torch.no_grad()
    def preview(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The lightness, the colours found for it (the annealed mean of the bins, smoothed), and the truth."""
        images = batch.images
        shares = (self.network(images) / self.config.temperature).softmax(dim=1)
        ab = torch.einsum("bqhw,qc->bchw", shares, self.network.bins)
        ab = functional.interpolate(ab.float(), size=images.shape[-2:], mode="bilinear", align_corners=False)
        found = colours.from_lab(torch.cat([colours.to_lab(images)[:, :1], ab], dim=1))
        return {"input": colours.grey(images), "output": found, "truth": images}

    @torch.no_grad()
    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Bins found, and the cross-entropy; beside them what the best answer without looking would have.

        All are means over places weighted as in training, by the colours of the training images.
        """
        logits = self.network(batch.images)
        shares, is_coloured = self._targets(batch.images, (logits.shape[-2], logits.shape[-1]))
        weights = self._weights(shares, is_coloured)
        weights = weights / weights.sum().clamp(min=1e-12)
        expected = self.network.distribution * self.network.weights()
        constant = expected.clamp(min=1e-12).log()[None, :, None, None].expand_as(logits)
        found = {"": logits, "constant_": constant}
        truth = shares.argmax(dim=1)
        accuracies = {f"{k}accuracy": (weights * (v.argmax(dim=1) == truth)).sum() for k, v in found.items()}
        entropies = {f"{k}cross_entropy": (weights * _cross_entropy(v, shares)).sum() for k, v in found.items()}
        return accuracies | entropies

    @torch.no_grad()
    def _targets(self, images: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Divided colours, B x bins x h x w, and which images have any colour, B bool."""
        ab = colours.to_lab(images)[:, 1:]
        return self.network.encode(functional.adaptive_avg_pool2d(ab, size)), ab.abs().amax(dim=(1, 2, 3)) > GREY

    def _weights(self, shares: Tensor, is_coloured: Tensor) -> Tensor:
        """B x h x w: the weight of each place, by its nearest bin; 0 in images without colour."""
        return self.network.weights()[shares.argmax(dim=1)] * is_coloured[:, None, None]


@cache
def colour_bins() -> tuple[tuple[int, int], ...]:
    """The centres (a, b) of the cells of the grid that hold a colour of 8-bit sRGB.

    Six faces of the cube of colours are enough: whatever is inside has a colour of the same a and b on them.
    """
    levels = torch.linspace(0, 1, 256)
    first, second = torch.meshgrid(levels, levels, indexing="ij")
    faces = []
    for end, channel in itertools.product((0.0, 1.0), range(3)):
        planes = [first, second]
        planes.insert(channel, torch.full_like(first, end))
        faces.append(torch.stack(planes))
    cells = (colours.to_lab(torch.stack(faces))[:, 1:] / GRID).round().int() * GRID
    found = cells.permute(0, 2, 3, 1).reshape(-1, 2).unique(dim=0)
    return tuple((int(a), int(b)) for a, b in found)


def _cross_entropy(logits: Tensor, shares: Tensor) -> Tensor:
    """B x h x w, of shares that add up to one over the bins."""
    return -(shares * logits.log_softmax(dim=1)).sum(dim=1)
