"""One encoder on one data set under one protocol: tuned on train and val, scored on test once."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ssl_inpaint import catalog, checkpoint, config, train
from ssl_inpaint.checkpoint import Card
from ssl_inpaint.core import Encoder
from ssl_inpaint.errors import Failure
from ssl_inpaint.experiment import calibration, rescaling
from ssl_inpaint.experiment.checks import refuse_lone_images
from ssl_inpaint.experiment.feeds import Feed, Part
from ssl_inpaint.plans import TransferPlan
from ssl_inpaint.runtime import Runtime, seed_for, seeded


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
        self.head_config = config.check(self.part.Config, "head", self.protocol.head)
        self.facts = feed.facts()
        if card.pretext == "none":
            calibration.calibrate(encoder, feed.images(calibration.BATCHES, calibration.BATCH_SIZE))
        objective = self._objective(is_rescaled=False)  # before anything is written: it may refuse its settings
        if self.protocol.rescale != "none":
            rescaling.refuse_normalization(encoder, card.encoder)
        if self.part.NEEDS == "labels":  # maps of one image have many values for BatchNorm
            refuse_lone_images(objective, self.loop.batch_size)
        self.weights = checkpoint.weights_sha256(encoder)

    def tune(self) -> float:
        """The learning rate whose first metric on val is best after training on train, or the only one there is."""
        rates = self.protocol.learning_rates if self.is_frozen else ()
        if len(rates) < 2:
            return rates[0] if rates else self.loop.learning_rate
        best, best_score = rates[0], -np.inf
        for rate in rates:
            objective = self._objective()
            self._fit(objective, ["train"], rate, f"tune-{rate:g}")
            scores = self._score(objective, "val")
            self.tuning[f"{rate:g}"] = {name: value for name, value in scores.items() if ":" not in name}
            first = next(iter(scores.values()))
            if first > best_score:
                best, best_score = rate, first
        return best

    def measure(self, rate: float, test: Part, keep: Path | None = None) -> tuple[dict[str, float], float]:
        """Trains on train and val with that learning rate and scores test; also the seconds that the fit took.

        What was predicted on test is written to the folder `keep`, if given.
        """
        objective = self._objective()
        fit = self._fit(objective, ["train", "val"], rate, "final")
        self.feed.admit(test.name)
        scores = self._score(objective, test.name, keep)
        if self.is_frozen and checkpoint.weights_sha256(self.encoder) != self.weights:
            raise Failure("The frozen encoder's parameters or buffers changed during the run, so no score counts.")
        return scores, fit.seconds

    def _objective(self, is_rescaled: bool = True) -> Any:
        encoder = self.encoder if self.is_frozen else copy.deepcopy(self.encoder)
        with seeded(seed_for(self.plan.seed, "head")):
            objective = self.part.build(self.head_config, encoder, self.facts)
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
        try:
            return train.fit(
                objective,
                self.feed.batches(objective, names, loop),
                loop,
                seed=self.plan.seed,
                runtime=self.runtime,
                folder=self.folder / label,
                resume=self.resume,
                label=f"{self.protocol.task} {label}",
                workers=self.workers,
            )
        except train.Interrupted as stopped:  # names the folder of this fit, which is not what --resume takes
            raise train.Interrupted(f"{stopped} The run folder is {self.folder}.") from None

    def _score(self, objective: Any, name: str, keep: Path | None = None) -> dict[str, float]:
        """The metrics of one split, with everything in eval mode; without those of classes that have no examples."""
        for player in objective.players().values():
            player.module.to(self.runtime.device).eval()
        scores = self.feed.score(objective, name, keep)
        return {metric: value for metric, value in scores.items() if not np.isnan(value)}
