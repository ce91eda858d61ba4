"""SimCLR: two random views of an image are to find each other among those of all others (Chen et al. 2020).

Shortcut: crops of one image share its colours, and a histogram alone would match them; that is what colour jitter and
grey views are for (section 3.2 of the paper), and a test holds it. BatchNorm in encoder and head reads all 2 B views of
one step together on one device, so no statistics tell which views belong together.

Deviation: views are crops of the square that the loader cut, not of the whole image: with crops.smallest_share near 1
little is lost. Deviation: the loop's optimisers; the released code has LARS, for its batches of 4,096.

Measured, one seed, 150 steps of 32 of recipe `quick` with whole squares (crops.smallest_share=1) on `shapes`: held-out
partners found in 7.5 % where chance is 1.0 %, and still rising. Nearest neighbours were then worse than at random
(compact-knn, mAP 20.0 % against 22.2 %), and after 250 steps frozen classification is not better (`bench pretexts`,
23.4 mAP against 23.9): so short a run does not beat random, and a longer one has not been tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Batch, Encoder, ParameterGroup, Player, TrainingFacts
from ssl_inpaint.pretext import augmentations


class Config(Settings):
    """The views are those of the paper on ImageNet; the temperature is its CIFAR-10 run's."""

    # 0.1 is the released ImageNet command's, with batches of 4,096; 0.5 the CIFAR-10 command's, with 512. Batches here
    # are of 32 to 256: with so few negatives, 0.1 would let the nearest one or two rule the gradient.
    temperature: float = Field(0.5, gt=0)
    projection_width: int | None = Field(None, ge=1)  # hidden units of the head; None: the encoder's channels
    projection_channels: int = Field(128, ge=2)  # of the vectors that are compared
    smallest_area: float = Field(0.08, gt=0, le=1)  # of a view, as a share of the image
    jitter_strength: float = Field(1.0, ge=0, le=2.5)  # of the colours; 0.5 for CIFAR-10
    jitter_probability: float = Field(0.8, ge=0, le=1)
    grey_probability: float = Field(0.2, ge=0, le=1)
    blur_probability: float = Field(0.5, ge=0, le=1)  # 0 for CIFAR-10


SUPERVISION = "none"
HIGHER_IS_BETTER = ("retrieval_accuracy", "retrieval_chance")  # of what `validate` measures; less is better of the rest


def method_name(config: Config) -> str:
    """The row's name in tables."""
    return "SimCLR"


def build(config: Config, encoder: Encoder, facts: TrainingFacts) -> SimCLR:
    """The task around `encoder`, for square images of any size."""
    return SimCLR(config, encoder)


class SimCLR:
    """One player: encoder, average pooling and a head that is thrown away. Source: Chen et al. 2020, section 2."""

    def __init__(self, config: Config, encoder: Encoder) -> None:
        self.config, self.encoder = config, encoder
        self.stage = list(encoder.stages)[-1]
        head = projection(encoder.stages[self.stage].channels, config.projection_width, config.projection_channels)
        self.network = nn.ModuleDict({"encoder": encoder, "head": head})

    def players(self) -> dict[str, Player]:
        """Encoder and head; weights decay, biases and norms do not (as released)."""
        parameters = list(self.network.parameters())
        decaying = ParameterGroup([p for p in parameters if p.ndim > 1])
        others = ParameterGroup([p for p in parameters if p.ndim <= 1], weight_decay_ratio=0.0)
        return {"contrast": Player(self.network, [decaying, others])}

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """NT-Xent of two new views of every image."""
        yield "contrast", contrast(self._similarities(batch, generator))

    @torch.no_grad()
    def draw_view(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """One view of every image: crop, mirror, colours, grey, blur, as the released code orders them."""
        config = self.config
        with torch.autocast(images.device.type, enabled=False):
            view = augmentations.random_resized_crops(images.float(), generator, config.smallest_area)
            view = augmentations.random_colours(view, generator, config.jitter_strength, config.jitter_probability)
            view = augmentations.random_grey(view, generator, config.grey_probability)
            return augmentations.random_blur(view, generator, config.blur_probability)

    @torch.no_grad()
    def preview(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The images and two views of each."""
        views = [self.draw_view(batch.images, generator) for _ in range(2)]
        return {"input": batch.images, "view": views[0], "output": views[1]}

    @torch.no_grad()
    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """NT-Xent, how often a view's nearest among the other 2 B - 1 is its partner, and the chance of that.

        Chance is 1 / (2 B - 1), and the loss of a network that tells nothing apart is the logarithm of 2 B - 1.
        """
        similarities = self._similarities(batch, generator)
        is_found = similarities.argmax(dim=1) == partners(len(batch.images)).to(similarities.device)
        return {
            "nt_xent": contrast(similarities),
            "retrieval_accuracy": is_found.float().mean(),
            "retrieval_chance": torch.tensor(1 / (len(similarities) - 1)),
        }

    def _similarities(self, batch: Batch, generator: torch.Generator) -> Tensor:
        views = torch.cat([self.draw_view(batch.images, generator) for _ in range(2)])
        vectors = self.network["head"](self.network["encoder"](views)[self.stage])
        return similarities_of(vectors, self.config.temperature)


def projection(channels: int, width: int | None, out: int) -> nn.Sequential:
    """Maps B x C x h x w to B x out: average, linear, BatchNorm, ReLU, linear, BatchNorm, as released.

    Deviation: the last BatchNorm has no scale, which the released one has; neither has a shift.
    """
    hidden = width or channels
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, out, bias=False),
        nn.BatchNorm1d(out, affine=False),
    )


def similarities_of(vectors: Tensor, temperature: float) -> Tensor:
    """2 B x 2 B cosines over the temperature, float32; minus infinity where a view meets itself."""
    with torch.autocast(vectors.device.type, enabled=False):
        unit = functional.normalize(vectors.float(), dim=1)
        found = unit @ unit.T / temperature
    return found.masked_fill(torch.eye(len(found), dtype=torch.bool, device=found.device), -math.inf)


def contrast(similarities: Tensor) -> Tensor:
    """NT-Xent (Eq. 1): the mean over all 2 B views of the cross-entropy of their partner among the other 2 B - 1.

    Rows are the first views of all images, then the second ones in the same order.
    """
    return functional.cross_entropy(similarities, partners(len(similarities) // 2).to(similarities.device))


def partners(count: int) -> Tensor:
    """2 B int64: which row holds the other view of the same image."""
    return torch.arange(2 * count).roll(count)
