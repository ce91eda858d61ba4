"""Linear probes of every layer of a frozen encoder, at all learning rates at once (Zhang et al. 2017).

Each map is resized to about 9,000 features and standardised, and one linear layer is trained on it. Heads for all
layers and all learning rates train side by side on the same batches: one pass over the features is enough, and as no
gradient goes from one head to another, each ends as it would alone. The learning rate of each layer is chosen on val.
Source: feature_learning_tests/linear of richzhang/colorization: BatchNorm without scale and shift, weights from zero.
"""

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
from ssl_inpaint.core import Batch, Encoder, ParameterGroup, Player, TransferFacts
from ssl_inpaint.losses import multilabel_loss
from ssl_inpaint.transfer import pooling
from ssl_inpaint.transfer.pooling import PoolingConfig

NEEDS = "labels"
IS_PROBE = True


class Config(PoolingConfig):
    """Which layers, at which size, and how fast biases learn; no stage named means all of them."""

    bias_learning_rate_ratio: float = Field(1.0, gt=0)  # they never decay
    average_precision: Literal["area", "step", "11-point"] = "step"  # kind of AP, named in the metric


def build(config: Config, encoder: Encoder, facts: TransferFacts) -> LinearProbes:
    """The task on `encoder`; UsageError for a stage that it does not have."""
    return LinearProbes(config, encoder, facts)


class LinearProbes:
    """One player a stage, with a head for each learning rate: all of them, or the one that was chosen for the stage."""

    def __init__(self, config: Config, encoder: Encoder, facts: TransferFacts) -> None:
        self.config, self.encoder, self.facts = config, encoder, facts
        self.stages = pooling.chosen_stages(encoder, config, has_all=True)
        encoder.eval()
        probe = torch.zeros(1, 3, facts.image_size, facts.image_size, device=next(encoder.parameters()).device)
        rates = facts.learning_rates or (1.0,)
        self.rates = {name: (facts.choices[name],) if name in facts.choices else rates for name in self.stages}
        self.heads = {
            name: Heads(maps.shape[1:], len(facts.classes), len(self.rates[name]))
            for name, maps in self.features(probe).items()
        }

    def players(self) -> dict[str, Player]:
        """Every stage's heads, each with its own learning rate."""
        return {name: Player(heads, self._groups(heads, self.rates[name])) for name, heads in self.heads.items()}

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """For each stage the sum of its heads' cross-entropies (of sigmoids, where an image may have several classes).

        A loss is finite at any learning rate: its gradient is bounded, so weights grow by no more than that a step.
        """
        if batch.labels is None:
            raise ValueError("a batch for linear probes needs labels")
        features = self.features(batch.images) if batch.features is None else batch.features
        for name, heads in self.heads.items():
            yield name, _summed_loss(heads(features[name]).float(), batch.labels)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The pooled map of every stage, B x C x s x s."""
        return pooling.described(self.encoder, images, self.stages, self.config)

    def outputs(self, features: Mapping[str, Tensor]) -> Tensor:
        """B x heads x K logits, stage after stage and in each by learning rate."""
        return torch.cat([heads(features[name]) for name, heads in self.heads.items()], dim=1)

    def top(self, images: Tensor) -> Tensor:
        """B x heads x K logits."""
        return self.outputs(self.features(images))

    def score(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """`accuracy <head>`, or `mAP (<kind>) <head>` and every class's own, as fractions, for N x heads x K logits.

        A head is called by its stage, and by its learning rate too while there are several.
        """
        found: dict[str, float] = {}
        each: dict[str, float] = {}
        for place, (stage, rate) in enumerate(self._named()):
            metric, head = self._metric(stage, rate), self._head(stage, rate)
            if not self.facts.is_multilabel:
                found[metric] = metrics.accuracy(outputs[:, place].argmax(axis=1), labels)
                continue
            kind = self.config.average_precision
            found[metric], of_classes = metrics.mean_average_precision(outputs[:, place], labels, kind)
            named = zip(self.facts.classes, of_classes, strict=True)
            each |= {f"AP ({kind}) {head}: {name}": float(value) for name, value in named}
        return found | each

    def score_resampled(self, outputs: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> Scores:
        """The same scores, and replicates of each head's mean."""
        replicates, kind = dict[str, np.ndarray](), self.config.average_precision
        for place, (stage, rate) in enumerate(self._named()):
            own = outputs[:, place]
            if self.facts.is_multilabel:
                means = resampled_metrics.mean_average_precision_of_scores(own, labels, kind, counts)
            else:
                means = resampled_metrics.accuracy(own.argmax(axis=1), labels, counts)
            replicates[self._metric(stage, rate)] = means
        return Scores(self.score(outputs, labels), replicates)

    def choose(self, scores: Mapping[str, float]) -> dict[str, float]:
        """The best learning rate of each stage; of equal ones the first."""
        best: dict[str, float] = {}
        for stage, rate in self._named():
            if stage not in best or scores[self._metric(stage, rate)] > scores[self._metric(stage, best[stage])]:
                best[stage] = rate
        return best

    def _groups(self, heads: Heads, rates: tuple[float, ...]) -> list[ParameterGroup]:
        groups = []
        for rate, weight, bias in zip(rates, heads.weights, heads.biases, strict=True):
            groups.append(ParameterGroup([weight], rate))
            groups.append(ParameterGroup([bias], rate * self.config.bias_learning_rate_ratio, weight_decay_ratio=0.0))
        return groups

    def _named(self) -> list[tuple[str, float]]:
        return [(stage, rate) for stage, rates in self.rates.items() for rate in rates]

    def _head(self, stage: str, rate: float) -> str:
        return stage if len(self.rates[stage]) == 1 else f"{stage} at {rate:g}"

    def _metric(self, stage: str, rate: float) -> str:
        kind = f"mAP ({self.config.average_precision})" if self.facts.is_multilabel else "accuracy"
        return f"{kind} {self._head(stage, rate)}"


class Heads(nn.Module):
    """Linear layers on one map, which is standardised for all of them by the statistics of the batch."""

    def __init__(self, shape: torch.Size, classes: int, count: int) -> None:
        super().__init__()
        width = shape.numel()
        self.norm = nn.BatchNorm2d(shape[0], affine=False)  # a channel has one mean and variance, as in Caffe
        # From zero, as Caffe's inner products begin: where they do is no matter, as the problem is convex.
        self.weights = nn.ParameterList(torch.zeros(classes, width) for _ in range(count))
        self.biases = nn.ParameterList(torch.zeros(classes) for _ in range(count))

    def forward(self, maps: Tensor) -> Tensor:
        """B x C x s x s to B x heads x K logits, by one matrix product."""
        vectors = self.norm(maps).flatten(1)
        logits = functional.linear(vectors, torch.cat(list(self.weights)), torch.cat(list(self.biases)))
        return logits.unflatten(1, (len(self.weights), -1))


def _summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Of B x heads x K logits the sum over the heads of each one's mean loss."""
    count = logits.shape[1]
    repeated = labels.unsqueeze(1).expand(-1, count, *labels.shape[1:])
    if labels.ndim == 2:
        return count * multilabel_loss(logits, repeated)  # what is not counted is so in every head alike
    return count * functional.cross_entropy(logits.transpose(1, 2), repeated)
