"""The upper rows of Table 2: the same encoder trained on the labels. Not self-supervised."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Batch, Encoder, ParameterGroup, Player, TrainingFacts
from ssl_inpaint.errors import UsageError
from ssl_inpaint.losses import multilabel_loss


class Config(Settings):
    """Of the classifier on the encoder's deepest stage."""

    dropout: float = Field(0.5, ge=0, lt=1)


SUPERVISION = "labels"


def method_name(config: Config) -> str:
    """The row's name in tables."""
    return "Supervised"


def build(config: Config, encoder: Encoder, facts: TrainingFacts) -> Supervised:
    """The task around `encoder`; UsageError where the data set has no labels."""
    if not facts.classes:
        raise UsageError("Pretext 'supervised' needs labels and this data set has none: choose a labelled data set.")
    return Supervised(config, encoder, facts)


class Supervised:
    """One player: encoder, average pooling, dropout, one linear layer. It reads labels, and says so in every record."""

    def __init__(self, config: Config, encoder: Encoder, facts: TrainingFacts) -> None:
        self.encoder, self.is_multilabel = encoder, facts.is_multilabel
        self.stage = list(encoder.stages)[-1]
        self.network = nn.ModuleDict(
            {
                "encoder": encoder,
                "head": nn.Sequential(
                    nn.AdaptiveAvgPool2d(1),
                    nn.Flatten(),
                    nn.Dropout(config.dropout),
                    nn.Linear(encoder.stages[self.stage].channels, facts.classes),
                ),
            }
        )

    def players(self) -> dict[str, Player]:
        """The classifier alone."""
        return {"classifier": Player(self.network, [ParameterGroup(list(self.network.parameters()))])}

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """Cross-entropy, by class or by sigmoid where an image may have several."""
        yield "classifier", self._loss(batch)

    def preview(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Nothing to see."""
        return {}

    @torch.no_grad()
    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss on images that were not trained on."""
        return {"cross_entropy": self._loss(batch)}

    def _loss(self, batch: Batch) -> Tensor:
        if batch.labels is None:
            raise ValueError("a batch for the supervised pretext needs labels")
        logits = self.network["head"](self.encoder(batch.images)[self.stage]).float()
        if self.is_multilabel:
            return multilabel_loss(logits, batch.labels)
        return functional.cross_entropy(logits, batch.labels)
