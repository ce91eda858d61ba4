"""Image classification: accuracy for one class an image, mean average precision for several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint import metrics, resampled_metrics
from ssl_inpaint.bootstrap import Scores
from ssl_inpaint.core import Batch, Encoder, Player, TransferFacts
from ssl_inpaint.losses import multilabel_loss
from ssl_inpaint.transfer import heads

NEEDS = "labels"


class Config(heads.HeadConfig):
    """The head on the encoder: the re-initialised fc6, fc7, fc8 of paper section 5.2, or one linear layer."""

    grid: int = Field(6, ge=1)  # the map is averaged down to at most this many cells a side
    average_precision: Literal["area", "step", "11-point"] = "step"  # kind of AP, named in the metric


def build(config: Config, encoder: Encoder, facts: TransferFacts) -> Classification:
    """The task on `encoder`; UsageError for a stage that it does not have."""
    return Classification(config, encoder, facts)


class Classification:
    """One player: the head alone on a frozen encoder, head and encoder together when fine-tuning."""

    def __init__(self, config: Config, encoder: Encoder, facts: TransferFacts) -> None:
        self.config, self.encoder, self.facts = config, encoder, facts
        self.stage = heads.chosen_stage(encoder, config.stage)
        encoder.eval()
        with torch.no_grad():
            probe = torch.zeros(1, 3, facts.image_size, facts.image_size, device=next(encoder.parameters()).device)
            width = self.features(probe)[self.stage].flatten(1).shape[1]
        self.head = _head(config, width, len(facts.classes))

    def players(self) -> dict[str, Player]:
        """The network as one player; the encoder's share only where it is not frozen."""
        return {"classifier": heads.player(self.encoder, self.head, self.config, self.facts.is_frozen)}

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """Cross-entropy, or sigmoid cross-entropy where an image may have several classes."""
        if batch.labels is None:
            raise ValueError("a batch for classification needs labels")
        features = self.features(batch.images) if batch.features is None else batch.features
        logits = self.outputs(features).float()
        if self.facts.is_multilabel:
            yield "classifier", multilabel_loss(logits, batch.labels)
        else:
            yield "classifier", functional.cross_entropy(logits, batch.labels)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The stage's map averaged to at most `grid` cells a side, B x C x g x g, under the stage's name."""
        maps: Tensor = self.encoder(images)[self.stage]
        side = min(self.config.grid, *maps.shape[-2:])
        return {self.stage: functional.adaptive_avg_pool2d(maps, side)}

    def outputs(self, features: Mapping[str, Tensor]) -> Tensor:
        """B x K logits."""
        logits: Tensor = self.head(features[self.stage])
        return logits

    def top(self, images: Tensor) -> Tensor:
        """B x K logits."""
        return self.outputs(self.features(images))

    def score(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """`mAP (<kind>)`, or `accuracy` and `mean class accuracy`, as fractions; then every class's own."""
        names = self.facts.classes
        if self.facts.is_multilabel:
            kind = self.config.average_precision
            mean, each = metrics.mean_average_precision(outputs, labels, kind)
            return {f"mAP ({kind})": mean} | {f"AP ({kind}): {c}": float(v) for c, v in zip(names, each, strict=True)}
        predictions = outputs.argmax(axis=1)
        own = {c: predictions[labels == k] == k for k, c in enumerate(names) if (labels == k).any()}
        return {
            "accuracy": metrics.accuracy(predictions, labels),
            "mean class accuracy": metrics.mean_class_accuracy(predictions, labels, len(names)),
            **{f"accuracy: {c}": float(is_right.mean()) for c, is_right in own.items()},
        }

    def score_resampled(self, outputs: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> Scores:
        """The same scores, and replicates of the means over classes."""
        values = self.score(outputs, labels)
        if self.facts.is_multilabel:
            kind = self.config.average_precision
            means = resampled_metrics.mean_average_precision_of_scores(outputs, labels, kind, counts)
            return Scores(values, {f"mAP ({kind})": means})
        predictions = outputs.argmax(axis=1)
        replicates = {
            "accuracy": resampled_metrics.accuracy(predictions, labels, counts),
            "mean class accuracy": resampled_metrics.mean_class_accuracy(predictions, labels, counts),
        }
        return Scores(values, replicates)


def _head(config: Config, width: int, classes: int) -> nn.Sequential:
    norm = [nn.BatchNorm1d(width, affine=False)] if config.standardize else []
    hidden, last = heads.fully_connected(width, config)
    head = nn.Sequential(nn.Flatten(), *norm, *hidden, nn.Linear(last, classes))
    heads.initialise(head, config.initial_deviation)
    return head
