"""Image classification: accuracy for one class an image, mean average precision for several."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint import metrics
from ssl_inpaint.config import Settings
from ssl_inpaint.core import Batch, Encoder, ParameterGroup, Player, TransferFacts
from ssl_inpaint.errors import unknown_name
from ssl_inpaint.losses import multilabel_loss


class Config(Settings):
    """The head on the encoder: the re-initialised fc6, fc7, fc8 of paper section 5.2, or one linear layer."""

    stage: str = ""  # which map the head reads; empty: the deepest
    hidden: tuple[PositiveInt, ...] = (4096, 4096)  # units of fc6, fc7; none: a linear classifier
    grid: int = Field(6, ge=1)  # the map is averaged down to at most this many cells a side
    dropout: float = Field(0.5, ge=0, lt=1)  # after each hidden layer
    # BatchNorm without affine before fc6, so that features of any scale (a deviation well above 0.003) train alike.
    standardize: bool = False
    initial_deviation: float | None = None  # of the head's Gaussian weights (bias 0.1); None: torch's default
    encoder_learning_rate_ratio: float = Field(1.0, gt=0)  # when fine-tuning
    bias_learning_rate_ratio: float = Field(1.0, gt=0)  # of biases and of BatchNorm's scales; they never decay
    average_precision: Literal["area", "step", "11-point"] = "step"  # kind of AP, named in the metric


def build(config: Config, encoder: Encoder, facts: TransferFacts) -> Classification:
    """The task on `encoder`; UsageError for a stage that it does not have."""
    if config.stage and config.stage not in encoder.stages:
        raise unknown_name("stage", config.stage, encoder.stages)
    return Classification(config, encoder, facts)


class Classification:
    """One player: the head alone on a frozen encoder, head and encoder together when fine-tuning."""

    def __init__(self, config: Config, encoder: Encoder, facts: TransferFacts) -> None:
        self.config, self.encoder, self.facts = config, encoder, facts
        self.stage = config.stage or list(encoder.stages)[-1]
        encoder.eval()
        with torch.no_grad():
            probe = torch.zeros(1, 3, facts.image_size, facts.image_size, device=next(encoder.parameters()).device)
            width = self.features(probe).flatten(1).shape[1]
        self.head = _head(config, width, len(facts.classes))

    def players(self) -> dict[str, Player]:
        """The network as one player; the encoder's share only where it is not frozen."""
        module = self.head if self.facts.is_frozen else nn.ModuleDict({"encoder": self.encoder, "head": self.head})
        groups = self._groups(self.head, 1.0)
        if not self.facts.is_frozen:
            groups += self._groups(self.encoder, self.config.encoder_learning_rate_ratio)
        return {"classifier": Player(module, groups)}

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """Cross-entropy, or sigmoid cross-entropy where an image may have several classes."""
        if batch.labels is None:
            raise ValueError("a batch for classification needs labels")
        features = batch.images if self.facts.is_frozen else self.features(batch.images)
        logits = self.outputs(features).float()
        if self.facts.is_multilabel:
            yield "classifier", multilabel_loss(logits, batch.labels)
        else:
            yield "classifier", functional.cross_entropy(logits, batch.labels)

    def features(self, images: Tensor) -> Tensor:
        """B x C x g x g, the stage's map averaged to at most `grid` cells a side."""
        maps: Tensor = self.encoder(images)[self.stage]
        side = min(self.config.grid, *maps.shape[-2:])
        return functional.adaptive_avg_pool2d(maps, side)

    def outputs(self, features: Tensor) -> Tensor:
        """B x K logits."""
        logits: Tensor = self.head(features)
        return logits

    def score(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """`mAP (<kind>)`, or `accuracy` and `mean class accuracy`, as fractions; then every class's own."""
        names = self.facts.classes
        if self.facts.is_multilabel:
            kind = self.config.average_precision
            mean, each = metrics.mean_average_precision(outputs, labels, kind)
            return {f"mAP ({kind})": mean} | {f"AP ({kind}): {c}": float(v) for c, v in zip(names, each, strict=True)}
        predictions = outputs.argmax(axis=1)
        return {
            "accuracy": metrics.accuracy(predictions, labels),
            "mean class accuracy": metrics.mean_class_accuracy(predictions, labels, len(names)),
        }

    def _groups(self, module: nn.Module, ratio: float) -> list[ParameterGroup]:
        weights = [p for p in module.parameters() if p.ndim > 1]
        biases = [p for p in module.parameters() if p.ndim <= 1]
        found = [ParameterGroup(weights, ratio)]
        if biases:
            found.append(ParameterGroup(biases, ratio * self.config.bias_learning_rate_ratio, weight_decay_ratio=0.0))
        return found


def _head(config: Config, width: int, classes: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    if config.standardize:
        layers.append(nn.BatchNorm1d(width, affine=False))
    for hidden in config.hidden:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(config.dropout)]
        width = hidden
    layers.append(nn.Linear(width, classes))
    head = nn.Sequential(*layers)
    if config.initial_deviation is not None:
        for layer in head:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=config.initial_deviation)
                nn.init.constant_(layer.bias, 0.1)
    return head
