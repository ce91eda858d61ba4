"""Weighted nearest neighbours on frozen features, nothing trained (Wu et al. 2018; Caron et al. 2021).

Each image is known from the k most similar training images by cosine, which vote with exp(similarity / T). The score
of a class is the share of the vote that its images have; where an image may have several classes, of the vote of those
images for which the class is counted. Every k has a score of its own, and the one that is best on val the plain name.
Source: eval_knn.py of facebookresearch/dino: k of 10, 20, 100, 200 and T of 0.07.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, TypeVar

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from ssl_inpaint import metrics, retrieval
from ssl_inpaint.bootstrap import Scores
from ssl_inpaint.core import Described, Encoder, TransferFacts
from ssl_inpaint.errors import UsageError
from ssl_inpaint.transfer import pooling
from ssl_inpaint.transfer.pooling import PoolingConfig
from ssl_inpaint.transfer.scoring import Scoring

T = TypeVar("T")
NEEDS = "features"
IS_PROBE = True


class Config(PoolingConfig):
    """How many neighbours vote and how steeply by similarity; of the deepest map averaged over all its cells."""

    features: int = Field(1, ge=1)  # one cell, whatever the channels
    pooling: Literal["bilinear", "average", "max"] = "average"
    k: tuple[PositiveInt, ...] = Field((10, 20, 100, 200), min_length=1)
    temperature: float = Field(0.07, gt=0)
    average_precision: Literal["area", "step", "11-point"] = "step"  # kind of AP, named in the metric


def build(config: Config, encoder: Encoder, facts: TransferFacts) -> NearestNeighbours:
    """The task on `encoder`; UsageError for a stage it does not have, or more neighbours than there are images."""
    if facts.examples and max(config.k) > facts.examples:
        raise UsageError(f"head.k = {max(config.k)}: there are {facts.examples} images in train; take fewer.")
    return NearestNeighbours(config, encoder, facts)


class NearestNeighbours:
    """Votes of the training images that are most similar."""

    def __init__(self, config: Config, encoder: Encoder, facts: TransferFacts) -> None:
        self.config, self.encoder, self.facts = config, encoder.eval(), facts
        self.stages = pooling.chosen_stages(encoder, config)
        self.scoring = Scoring(facts.is_multilabel, config.average_precision)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The pooled map of each stage, B x C x s x s."""
        return pooling.described(self.encoder, images, self.stages, self.config)

    def choose(
        self, train: Described, val: Described, generator: torch.Generator
    ) -> tuple[dict[str, float], dict[str, float]]:
        """`k` of each stage, the best on val (of equal ones the first), and the scores of all."""
        scores, best = self._scores(train, val), dict[str, float]()
        for stage in self.stages:
            by_k = {k: scores[self._metric(stage, k)] for k in self.config.k}
            best[self._named("k", stage)] = float(max(by_k, key=by_k.__getitem__))
        return best, scores

    def measure(
        self, known: Described, asked: Described, choices: Mapping[str, float], generator: torch.Generator
    ) -> dict[str, float]:
        """`accuracy` or `mAP (<kind>)` at the chosen k, then ` k=<k>` for each."""
        return self._with_chosen(self._scores(known, asked), choices)

    def measure_resampled(
        self,
        known: Described,
        asked: Described,
        choices: Mapping[str, float],
        generator: torch.Generator,
        counts: np.ndarray,
    ) -> Scores:
        """As `measure`, with replicates: the training images that vote are the same in all."""
        values, replicates = {}, {}
        for metric, shares in self._votes(known, asked):
            labels = asked.labels.numpy()
            values[metric] = self.scoring.score(shares, labels)
            replicates[metric] = self.scoring.resampled(shares, labels, counts)
        return Scores(self._with_chosen(values, choices), self._with_chosen(replicates, choices))

    def _with_chosen(self, scores: Mapping[str, T], choices: Mapping[str, float]) -> dict[str, T]:
        chosen = {s: scores[self._metric(s, int(choices[self._named("k", s)]))] for s in self.stages}
        return {self._metric(stage): value for stage, value in chosen.items()} | dict(scores)

    def _scores(self, known: Described, asked: Described) -> dict[str, float]:
        return {m: self.scoring.score(shares, asked.labels.numpy()) for m, shares in self._votes(known, asked)}

    def _votes(self, known: Described, asked: Described) -> Iterator[tuple[str, np.ndarray]]:
        """For each stage and k the metric's name, and the share of each class in the vote on each image, N x K."""
        device = next(self.encoder.parameters()).device
        for stage in self.stages:
            # What is known stays where it is, and goes to the device a chunk at a time.
            vectors = asked.features[stage].to(device)
            neighbours, similarities = retrieval.top_k(vectors, known.features[stage], max(self.config.k))
            for k in self.config.k:
                labels = known.labels[neighbours[:, :k].cpu()]
                shares = votes(similarities[:, :k].cpu(), labels, len(self.facts.classes), self.config.temperature)
                yield self._metric(stage, k), shares.numpy()

    def _metric(self, stage: str, k: int | None = None) -> str:
        return self._named(self.scoring.metric, stage) + ("" if k is None else f" k={k}")

    def _named(self, name: str, stage: str) -> str:
        """The deepest stage, where none is named in the settings, goes without saying."""
        return f"{name} {stage}" if self.config.stages else name


def votes(similarities: Tensor, labels: Tensor, classes: int, temperature: float) -> Tensor:
    """Q x K float64: the share of each class in the vote of k neighbours, each weighing exp(similarity / temperature).

    `similarities` are Q x k; `labels` Q x k, one class each, or Q x k x K of 1, 0 and 255, which does not count. Zero
    where no neighbour counts.
    """
    # Against the most similar one, which leaves the shares as they are and keeps the weights in range at any T.
    weights = ((similarities.double() - similarities.double().amax(dim=1, keepdim=True)) / temperature).exp()
    if labels.ndim == 2:
        shares = torch.zeros(len(labels), classes, dtype=torch.float64).scatter_add_(1, labels, weights)
        return shares / weights.sum(dim=1, keepdim=True)
    counted = (weights.unsqueeze(2) * (labels != metrics.NOT_COUNTED)).sum(dim=1)
    present = (weights.unsqueeze(2) * (labels == 1)).sum(dim=1)
    return torch.where(counted > 0, present / counted, 0.0)
