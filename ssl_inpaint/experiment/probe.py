"""One encoder on one data set under one protocol: tuned on train and val, scored on test once."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ssl_inpaint import bootstrap, catalog, checkpoint, config, train
from ssl_inpaint.bootstrap import Scores
from ssl_inpaint.checkpoint import Card
from ssl_inpaint.core import Encoder
from ssl_inpaint.distributed import ALONE
from ssl_inpaint.errors import Failure
from ssl_inpaint.experiment import data_initialisation, rescaling
from ssl_inpaint.experiment.checks import refuse_lone_images
from ssl_inpaint.experiment.crop_feed import VIEW_BATCH, CropFeed
from ssl_inpaint.experiment.feeds import Feed, Part
from ssl_inpaint.experiment.unfinished import Unfinished
from ssl_inpaint.plans import TransferPlan
from ssl_inpaint.runtime import Runtime, seed_for, seeded

SCHEMA = 1  # of what is kept: another one where features or scores come to mean something else
UNFINISHED = "unfinished"  # the folder of what a probe of features goes on from, until it is finished


class Probe:
    """One encoder on one data set under one protocol, knowing train and val; `measure` is told of test, at the end."""

    def __init__(
        self,
        plan: TransferPlan,
        folder: Path,
        encoder: Encoder,
        card: Card,
        feed: Feed,
        runtime: Runtime,
        resume: bool,
        workers: int,
    ) -> None:
        self.plan, self.folder, self.encoder, self.card, self.feed = plan, folder, encoder, card, feed
        self.runtime, self.resume, self.workers = runtime, resume, workers
        self.is_frozen = plan.mode == "frozen"
        self.tuning: dict[str, dict[str, float]] = {}
        self.protocol = plan.protocol
        self.loop = self.protocol.frozen_train if self.is_frozen else self.protocol.train
        self.part = catalog.load("transfer", self.protocol.task)
        self.is_probe = getattr(self.part, "IS_PROBE", False)
        self.head_config = config.check(self.part.Config, "head", self.protocol.head)
        self.facts = feed.facts()
        if self.is_frozen:
            encoder.requires_grad_(False)
        objective = self._objective(is_rescaled=False)  # before any work: it may refuse its settings
        if self.protocol.rescale != "none":
            rescaling.refuse_normalization(encoder, card.encoder)
        if self.part.NEEDS == "labels":  # maps of one image have many values for BatchNorm
            refuse_lone_images(objective, self.loop.batch_size // self.loop.parts)
        self.card = data_initialisation.prepare(encoder, card, feed.images)
        self.weights = checkpoint.weights_sha256(encoder)

    def tune(self) -> dict[str, float]:
        """What is chosen on train and val, by name: the learning rate, or what a probe chooses for itself."""
        if self.part.NEEDS == "features":
            return self._choose()
        return self._tune_at_once() if self.is_probe else {"learning_rate": self._tune_in_turn()}

    def measure(self, choices: Mapping[str, float], test: Part, keep: Path | None = None) -> tuple[Scores, float]:
        """Trains on train and val as chosen and scores test, once and resampled; also the seconds that the fit took.

        What was predicted on test is written to the folder `keep`, if given.
        """
        objective = self._objective(choices)
        if self.part.NEEDS == "features":
            self.feed.admit(test.name)
            scores, seconds = self._measure_features(objective, choices, test)
        else:
            seconds = self._fit(objective, ["train", "val"], choices.get("learning_rate", 1.0), "final").seconds
            self.feed.admit(test.name)
            scores = self._score(objective, test.name, keep, bootstrap.draw_counts(test.digest, len(test)))
        if self.is_frozen and checkpoint.weights_sha256(self.encoder) != self.weights:
            raise Failure("The frozen encoder's parameters or buffers changed during the run, so no score counts.")
        return scores, seconds

    @property
    def _rates(self) -> tuple[float, ...]:
        return (self.protocol.learning_rates if self.is_frozen else ()) or (self.loop.learning_rate,)

    def _tune_in_turn(self) -> float:
        """The learning rate whose first metric on val is best after training on train, or the only one there is."""
        best, best_score = self._rates[0], -np.inf
        for rate in self._rates if len(self._rates) > 1 else ():
            objective = self._objective()
            self._fit(objective, ["train"], rate, f"tune-{rate:g}")
            scores = self._score(objective, "val").values
            self.tuning[f"{rate:g}"] = _means(scores)
            first = next(iter(scores.values()))
            if first > best_score:
                best, best_score = rate, first
        return best

    def _tune_at_once(self) -> dict[str, float]:
        """What the probe chooses once heads of all learning rates were trained on train and scored on val."""
        objective, scores = self._objective(), dict[str, float]()
        if len(self._rates) > 1:
            self._fit(objective, ["train"], 1.0, "tune")  # of which each head takes its own learning rate
            scores = self._score(objective, "val").values
            self.tuning["val"] = _means(scores)
        found: dict[str, float] = objective.choose(scores)
        return found

    def _choose(self) -> dict[str, float]:
        """What a probe without a training loop chooses for itself on train and val."""
        probe = self._objective()
        found: dict[str, float]
        with self._stopping():
            known, val = (self._crops.described(probe, [name], self._unfinished) for name in ("train", "val"))
            if hasattr(probe, "choose_noted"):
                found, scores = probe.choose_noted(known, val, self._generator(), self._unfinished.noted)
            else:
                found, scores = probe.choose(known, val, self._generator())
        self.tuning["val"] = _means(scores)
        return found

    def _measure_features(self, probe: Any, choices: Mapping[str, float], test: Part) -> tuple[Scores, float]:
        counts = bootstrap.draw_counts(test.digest, len(test))
        with self._stopping():
            known, asked = (
                self._crops.described(probe, names, self._unfinished) for names in (["train", "val"], [test.name])
            )
            began = time.monotonic()
            if counts is not None and hasattr(probe, "measure_resampled"):
                found = probe.measure_resampled(known, asked, choices, self._generator(), counts)
            else:
                found = Scores(probe.measure(known, asked, choices, self._generator()))
            seconds = time.monotonic() - began
        self.runtime.group.wait()  # others may still read what is kept
        self._unfinished.clear()
        return Scores(_numbers(found.values), found.replicates), seconds

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Says how to go on where Ctrl-C ends what has no training loop to stop in."""
        try:
            yield
        except KeyboardInterrupt:
            kept = f"described features and chosen costs that took long are kept; go on by --resume {self.folder}"
            raise train.Interrupted(f"Stopped by SIGINT: {kept}.") from None

    @cached_property
    def _unfinished(self) -> Unfinished:
        digests = [part.digest for part in (self._crops.parts["train"], self._crops.parts["val"])]
        ways = (SCHEMA, VIEW_BATCH, self.runtime.is_bf16)  # how features are made, and numbered
        identity = config.hash_of(self.weights, self.protocol.identity(), self.plan.seed, *ways, *digests)
        return Unfinished(self.folder / UNFINISHED, identity, self.runtime.group.is_first)

    @property
    def _crops(self) -> CropFeed:
        if not isinstance(self.feed, CropFeed):
            raise ValueError("a probe of features reads labelled crops, so its protocol must show crops")
        return self.feed

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(seed_for(self.plan.seed, "probe"))

    def _objective(self, choices: Mapping[str, float] | None = None, is_rescaled: bool = True) -> Any:
        encoder = self.encoder if self.is_frozen else copy.deepcopy(self.encoder)
        facts = self.facts
        if self.is_probe:
            facts = dataclasses.replace(facts, learning_rates=self._rates, choices=choices or {})
        with seeded(seed_for(self.plan.seed, "head")):
            objective = self.part.build(self.head_config, encoder, facts)
        if is_rescaled and self.protocol.rescale != "none":
            self._rescale(objective)
        return objective

    def _rescale(self, objective: Any) -> None:
        network = nn.ModuleDict({"encoder": objective.encoder, "head": objective.head}).to(self.runtime.device)
        rescaling.rescale(
            network,
            objective.top,
            list(self.feed.images(rescaling.BATCHES, rescaling.BATCH_SIZE)),
            self.protocol.rescale,
            torch.Generator(self.runtime.device).manual_seed(seed_for(self.plan.seed, "rescaling")),
            untrained=network if self.card.pretext == "none" else objective.head,
            name=self.card.encoder,
        )

    def _fit(self, objective: Any, names: list[str], rate: float, label: str) -> train.Fit:
        loop = self.loop.model_copy(update={"learning_rate": rate})
        # A head on cached features is light: every process trains it, and the first one's counts.
        runtime = dataclasses.replace(self.runtime, group=ALONE) if self.is_frozen else self.runtime
        is_written = self.runtime.group.is_first or not self.is_frozen
        try:
            found = train.fit(
                objective,
                self.feed.batches(objective, names, loop),
                loop,
                seed=self.plan.seed,
                runtime=runtime,
                folder=self.folder / label if is_written else None,
                resume=self.resume,
                label=f"{self.protocol.task} {label}",
                workers=self.workers,
            )
        except train.Interrupted as stopped:  # names the folder of this fit, which is not what --resume takes
            raise train.Interrupted(f"{stopped} The run folder is {self.folder}.") from None
        if self.is_frozen:
            heads = [player.module for player in objective.players().values()]
            self.runtime.group.equalise([tensor for head in heads for tensor in head.state_dict().values()])
        return found

    def _score(self, objective: Any, name: str, keep: Path | None = None, counts: np.ndarray | None = None) -> Scores:
        """The metrics of one split, with everything in eval mode; without those of classes that have no examples."""
        for player in objective.players().values():
            player.module.to(self.runtime.device).eval()
        found = self.feed.score(objective, name, keep, counts)
        return Scores(_numbers(found.values), found.replicates)


def _numbers(scores: Mapping[str, float]) -> dict[str, float]:
    """Without those of classes that have no examples."""
    return {metric: value for metric, value in scores.items() if not np.isnan(value)}


def _means(scores: Mapping[str, float]) -> dict[str, float]:
    """Without the scores of single classes, whose names have a colon."""
    return {name: value for name, value in scores.items() if ":" not in name}
