"""Linear SVMs on frozen features, with all examples and with few of each class (Goyal et al. 2019).

Vectors of about 9,000 features have length 1, and each class has a machine of its own against the rest. Its cost C is
chosen by cross-validation within train and val, by mean average precision over the folds; where each image has one
class, one cost serves all, chosen by accuracy. Few examples: of each class k positives and k negatives for every other
class, drawn several times over; their score is the mean over the draws, and their deviation is given beside it.
Source: tools/svm of facebookresearch/fair_self_supervision_benchmark.
Deviation: the cost for k examples is chosen on the images of train and val that were not drawn; the reference takes
that of the best mean on test.
Deviation: VOC's difficult objects (labels of 255) count nowhere; the reference trains on them as negatives where it
trains on all images, and drops them elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from ssl_inpaint import metrics, progress
from ssl_inpaint.bootstrap import Scores
from ssl_inpaint.core import Described, Encoder, Noted, TransferFacts
from ssl_inpaint.transfer import machines, pooling
from ssl_inpaint.transfer.machines import Solver
from ssl_inpaint.transfer.pooling import PoolingConfig
from ssl_inpaint.transfer.scoring import Scoring

NEEDS = "features"
IS_PROBE = True
FOLD_AP: metrics.ApKind = "step"  # which the reference chooses by, whatever it scores by


class Config(PoolingConfig):
    """Which costs are tried, and how few examples; of the deepest map, where no stage is named."""

    pooling: Literal["bilinear", "average", "max"] = "average"
    costs: tuple[PositiveFloat, ...] = Field((0.01, 0.1, 1, 2, 5, 10, 15, 20, 50, 100, 1000), min_length=1)
    folds: int = Field(3, ge=2)  # fewer for classes with fewer examples
    positive_weight: float = Field(2.0, gt=0)  # of positives in the loss
    most_iterations: int = Field(2000, ge=1)
    # "dual" is the reference; the primal problem is solved faster where images outnumber features.
    solver: Literal["dual", "primal"] = "dual"
    shots: tuple[PositiveInt, ...] = (1, 2, 4, 8, 16, 32, 64, 96)  # what a class has too few of is left out
    samples: int = Field(5, ge=1)  # draws of so few examples
    average_precision: Literal["area", "step", "11-point"] = "area"  # kind of AP, named in the metric


def build(config: Config, encoder: Encoder, facts: TransferFacts) -> SupportVectors:
    """The task on `encoder`; UsageError for a stage that it does not have."""
    return SupportVectors(config, encoder, facts)


class SupportVectors:
    """A machine for each class, with all examples and with few."""

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
        """The cost of each class (or of all) and of each number of examples; and the scores that each was chosen by."""
        return self.choose_noted(train, val, generator, lambda name, score: score())

    def choose_noted(
        self, train: Described, val: Described, generator: torch.Generator, noted: Noted
    ) -> tuple[dict[str, float], dict[str, float]]:
        """As `choose`, with the score of each cost noted."""
        labels = self._labels(torch.cat([train.labels, val.labels]))
        solver, drawn = self._solver(generator), self._drawn(labels, generator)
        if missing := [str(k) for k in self.config.shots if k not in drawn]:
            progress.say(f"Classes have too few examples to draw {', '.join(missing)} of each: left out.")
        costs, scores = dict[str, float](), dict[str, float]()
        for stage in self.stages:
            vectors = machines.normalised(torch.cat([train.features[stage], val.features[stage]]))
            name = self._named("cost", stage)
            for which, by_cost in self._cross_validated(name, vectors, labels, solver, noted):
                self._take(which, by_cost, costs, scores)
            with progress.bar("SVM on few examples", len(drawn)) as bar:
                for k, draws in drawn.items():
                    score = partial(self._left_out, vectors, labels, draws, solver)
                    self._take(f"{name} k={k}", self._by_cost(f"{name} k={k}", score, noted), costs, scores)
                    bar.advance()
        return costs, scores

    def measure(
        self, known: Described, asked: Described, choices: Mapping[str, float], generator: torch.Generator
    ) -> dict[str, float]:
        """`mAP (<kind>)` or `accuracy`; the same with ` k=<k>` and ` k=<k>, deviation`; then every class's own AP."""
        return self.measure_resampled(known, asked, choices, generator, None).values

    def measure_resampled(
        self,
        known: Described,
        asked: Described,
        choices: Mapping[str, float],
        generator: torch.Generator,
        counts: np.ndarray | None,
    ) -> Scores:
        """As `measure`, with replicates unless `counts` is None; machines and draws are the same in all of them."""
        truth = asked.labels.numpy()
        found, each, replicates = dict[str, float](), dict[str, float](), dict[str, np.ndarray]()
        for stage, few, outputs in self._outputs(known, asked, choices, generator):
            name = self._named(self.scoring.metric, stage) + few
            scores = [self.scoring.score(of_draw, truth) for of_draw in outputs]
            found[name] = float(np.mean(scores))
            if not few:
                each |= self._of_classes(outputs[0], truth, stage)
            elif len(scores) > 1:
                found[f"{name}, deviation"] = float(np.std(scores, ddof=1))
            if counts is not None:
                each_draw = [self.scoring.resampled(of_draw, truth, counts) for of_draw in outputs]
                replicates[name] = np.mean(each_draw, axis=0)
        return Scores(found | each, replicates)

    def _outputs(
        self, known: Described, asked: Described, choices: Mapping[str, float], generator: torch.Generator
    ) -> Iterator[tuple[str, str, list[np.ndarray]]]:
        """The stage, which examples ("": all; or " k=<k>") and, for each draw of them, N x K outputs for `asked`."""
        labels = self._labels(known.labels)
        solver, drawn = self._solver(generator), self._drawn(labels, generator)
        for stage in self.stages:
            vectors, others = (machines.normalised(one.features[stage]) for one in (known, asked))
            cost = self._named("cost", stage)
            costs = tuple(choices[cost + of_class] for of_class in self._class_names())
            yield stage, "", [machines.decide(others, machines.fit_each(vectors, labels, costs, solver))]
            for k, draws in drawn.items():
                costs = (choices[f"{cost} k={k}"],) * labels.shape[1]
                fitted = (machines.fit_each(vectors, draw, costs, solver) for draw in draws)
                yield stage, f" k={k}", [machines.decide(others, of_draw) for of_draw in fitted]

    def _labels(self, labels: Tensor) -> np.ndarray:
        """N x K of 1, 0 and 255, of any labels."""
        if self.facts.is_multilabel:
            return labels.numpy()
        return torch.nn.functional.one_hot(labels, len(self.facts.classes)).numpy()

    def _solver(self, generator: torch.Generator) -> Solver:
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        own = self.config
        return Solver(own.positive_weight, own.most_iterations, own.solver == "dual", seed)

    def _class_names(self) -> list[str]:
        """What distinguishes the costs of classes, one for each: nothing, where one cost serves all."""
        return [f": {name}" if self.facts.is_multilabel else "" for name in self.facts.classes]

    def _drawn(self, labels: np.ndarray, generator: torch.Generator) -> dict[int, list[np.ndarray]]:
        """By k the labels of each draw, 255 where an image was not drawn for a class.

        Only those k of which every class has as many, and of which some class has more, to choose the cost on.
        """
        positives = (labels == 1).sum(axis=0)
        usable = [k for k in self.config.shots if k <= positives.min() and k < positives.max()]
        return {k: [self._draw(labels, k, generator) for _ in range(self.config.samples)] for k in usable}

    def _draw(self, labels: np.ndarray, k: int, generator: torch.Generator) -> np.ndarray:
        classes = labels.shape[1]
        if self.facts.is_multilabel:
            drawn = [machines.few(of_class, k, (classes - 1) * k, generator) for of_class in labels.T]
            return np.stack(drawn, axis=1)
        chosen = [machines.few(of_class, k, 0, generator) == 1 for of_class in labels.T]
        return np.where(np.any(chosen, axis=0)[:, None], labels, metrics.NOT_COUNTED)

    def _by_cost(self, name: str, score: Callable[[float], float], noted: Noted) -> dict[float, float]:
        return {cost: noted(f"{name}, {cost!r}", partial(score, cost)) for cost in self.config.costs}

    def _cross_validated(
        self, name: str, vectors: np.ndarray, labels: np.ndarray, solver: Solver, noted: Noted
    ) -> Iterator[tuple[str, dict[float, float]]]:
        """By name (and class) the mean score over the folds at each cost; nothing where there are too few for folds."""
        groups = np.split(labels, labels.shape[1], axis=1) if self.facts.is_multilabel else [labels]
        with progress.bar("SVM cross-validation", len(groups)) as bar:
            for of_class, group in zip(self._class_names(), groups, strict=False):
                by, which = group[:, 0] if self.facts.is_multilabel else group.argmax(axis=1), name + of_class
                splits = list(machines.folds(by, self.config.folds))
                score = partial(self._of_folds, vectors, group, splits, solver)
                yield which, self._by_cost(which, score, noted) if splits else {}
                bar.advance()

    def _of_folds(
        self,
        vectors: np.ndarray,
        labels: np.ndarray,
        splits: list[tuple[np.ndarray, np.ndarray]],
        solver: Solver,
        cost: float,
    ) -> float:
        scores = []
        for fitted, scored in splits:
            machine = machines.fit_each(vectors[fitted], labels[fitted], (cost,) * labels.shape[1], solver)
            outputs = machines.decide(vectors[scored], machine)
            if self.facts.is_multilabel:
                scores.append(metrics.average_precision(outputs[:, 0], labels[scored, 0], FOLD_AP))
            else:
                scores.append(metrics.accuracy(outputs.argmax(axis=1), labels[scored].argmax(axis=1)))
        return float(np.mean(scores))

    def _left_out(
        self, vectors: np.ndarray, labels: np.ndarray, draws: list[np.ndarray], solver: Solver, cost: float
    ) -> float:
        """The mean score on what was not drawn, of machines fitted to what was."""
        scores = []
        for draw in draws:
            outputs = machines.decide(vectors, machines.fit_each(vectors, draw, (cost,) * labels.shape[1], solver))
            left = np.where(draw == metrics.NOT_COUNTED, labels, metrics.NOT_COUNTED)
            if self.facts.is_multilabel:
                scores.append(self.scoring.score(outputs, left))
            else:
                is_left = left[:, 0] != metrics.NOT_COUNTED
                scores.append(self.scoring.score(outputs[is_left], labels[is_left].argmax(axis=1)))
        return float(np.mean(scores))

    def _take(
        self, name: str, by_cost: Mapping[float, float], costs: dict[str, float], scores: dict[str, float]
    ) -> None:
        """Puts in the best cost (of equal ones the first) and its score; the middle one where there is no choice."""
        if by_cost:
            costs[name] = max(by_cost, key=by_cost.__getitem__)
            scores[name] = by_cost[costs[name]]
        else:
            costs[name] = sorted(self.config.costs)[len(self.config.costs) // 2]

    def _of_classes(self, outputs: np.ndarray, labels: np.ndarray, stage: str) -> dict[str, float]:
        if not self.facts.is_multilabel:
            return {}
        kind = self.config.average_precision
        _, each = metrics.mean_average_precision(outputs, labels, kind)
        name = self._named(f"AP ({kind})", stage)
        return {f"{name}: {c}": float(value) for c, value in zip(self.facts.classes, each, strict=True)}

    def _named(self, name: str, stage: str) -> str:
        """The deepest stage, where none is named in the settings, goes without saying."""
        return f"{name} {stage}" if self.config.stages else name
