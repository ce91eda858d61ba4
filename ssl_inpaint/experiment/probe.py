"""One encoder on one data set under one protocol: tuned on train and val, scored on test once."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_inpaint import catalog, checkpoint, config, progress, train
from ssl_inpaint.batches import Batches, FeatureBatches, ImageBatches, fixed_views, random_views
from ssl_inpaint.checkpoint import Card
from ssl_inpaint.core import Batch, Encoder, Transfer, TransferFacts
from ssl_inpaint.errors import Failure
from ssl_inpaint.experiment import calibration
from ssl_inpaint.experiment.checks import refuse_lone_images
from ssl_inpaint.experiment.data import Examples, joined
from ssl_inpaint.plans import TransferPlan
from ssl_inpaint.runtime import Runtime, seed_for, seeded
from ssl_inpaint.train import FitConfig

VIEW_BATCH = 128  # images described at a time


class Probe:
    """One encoder on one data set under one protocol, knowing train and val; `measure` is told of test, at the end."""

    def __init__(
        self,
        plan: TransferPlan,
        folder: Path,
        encoder: Encoder,
        card: Card,
        parts: dict[str, tuple[Examples, Tensor]],
        runtime: Runtime,
        resume: bool,
        workers: int,
    ) -> None:
        self.plan, self.folder, self.encoder, self.parts = plan, folder, encoder, parts
        self.runtime, self.resume, self.workers = runtime, resume, workers
        self.is_frozen = plan.mode == "frozen"
        self.tuning: dict[str, dict[str, float]] = {}
        self.protocol = plan.protocol
        self.loop = self.protocol.frozen_train if self.is_frozen else self.protocol.train
        self.part = catalog.load("transfer", self.protocol.task)
        self.head_config = config.check(self.part.Config, "head", self.protocol.head)
        self.split = parts["train"][0].split
        refuse_lone_images(self._objective(), self.loop.batch_size)
        if card.pretext == "none":
            calibration.calibrate(encoder, self._calibration_images())
        self.weights = checkpoint.weights_sha256(encoder)
        self._caches: dict[tuple[str, bool], Tensor] = {}

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

    def measure(self, rate: float, test: tuple[Examples, Tensor]) -> tuple[dict[str, float], float]:
        """Trains on train and val with that learning rate and scores test; also the seconds that the fit took."""
        objective = self._objective()
        fit = self._fit(objective, ["train", "val"], rate, "final")
        self.parts = {**self.parts, "test": test}
        scores = self._score(objective, "test")
        if self.is_frozen and checkpoint.weights_sha256(self.encoder) != self.weights:
            raise Failure("The frozen encoder's parameters or buffers changed during the run, so no score counts.")
        return scores, fit.seconds

    def _objective(self) -> Transfer:
        facts = TransferFacts(self.protocol.crops.size, self.split.classes, self.split.is_multilabel, self.is_frozen)
        encoder = self.encoder if self.is_frozen else copy.deepcopy(self.encoder)
        with seeded(seed_for(self.plan.seed, "head")):
            objective: Transfer = self.part.build(self.head_config, encoder, facts)
        return objective

    def _fit(self, objective: Transfer, names: list[str], rate: float, label: str) -> train.Fit:
        loop = self.loop.model_copy(update={"learning_rate": rate})
        try:
            return train.fit(
                objective,
                self._batches(objective, names, loop),
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

    def _batches(self, objective: Transfer, names: list[str], loop: FitConfig) -> Batches:
        seed = seed_for(self.plan.seed, "transfer data")
        if not self.is_frozen:
            store, labels = joined([self.parts[name] for name in names])
            return ImageBatches(store, labels, self.protocol.crops, loop.batch_size, seed)
        features = torch.cat([self._cached(objective, name, is_training=True) for name in names])
        return FeatureBatches(features, torch.cat([self.parts[name][1] for name in names]), loop.batch_size, seed)

    def _calibration_images(self) -> Iterator[Tensor]:
        """Batches of random crops of training images; their labels are not read."""
        seed = seed_for(self.plan.seed, "calibration")
        store = self.parts["train"][0].store
        batches = ImageBatches(store, None, self.protocol.crops, calibration.BATCH_SIZE, seed)
        for step in range(calibration.BATCHES):
            yield train.on_device(batches.at(step), self.runtime).images

    def _views(self, name: str, is_training: bool) -> Iterator[tuple[Tensor, list[Tensor]]]:
        store, protocol = self.parts[name][0].store, self.protocol
        if not is_training:
            return fixed_views(store, protocol.crops, protocol.test_views, VIEW_BATCH)
        seed = seed_for(self.plan.seed, "cache", name)
        return random_views(store, protocol.crops, protocol.cached_views, VIEW_BATCH, seed)

    def _described(self, objective: Transfer, name: str, is_training: bool) -> Iterator[Tensor]:
        """B x views x ... features of one split, in order, by the encoder in eval mode."""
        store = self.parts[name][0].store
        with progress.bar(f"describe {name}", len(store)) as bar:
            for positions, cut in self._views(name, is_training):
                with torch.no_grad(), self.runtime.autocast():
                    found = [objective.features(train.on_device(Batch(view), self.runtime).images) for view in cut]
                yield torch.stack(found, dim=1)
                bar.advance(len(positions))

    def _cached(self, objective: Transfer, name: str, is_training: bool) -> Tensor:
        """N x views x ... float16 of one split, described once and kept for every head on the frozen encoder."""
        key = (name, is_training)
        if key not in self._caches:
            self._caches[key] = torch.cat([f.half().cpu() for f in self._described(objective, name, is_training)])
        return self._caches[key]

    def _score(self, objective: Transfer, name: str) -> dict[str, float]:
        """Outputs averaged over the protocol's fixed views, everything in eval mode."""
        for player in objective.players().values():
            player.module.eval()
        described = (
            iter(self._cached(objective, name, is_training=False).split(VIEW_BATCH))
            if self.is_frozen
            else self._described(objective, name, is_training=False)
        )
        outputs = []
        for features in described:
            views = features.flatten(0, 1).to(self.runtime.device, torch.float32)
            with torch.no_grad():
                outputs.append(objective.outputs(views).unflatten(0, features.shape[:2]).mean(dim=1).cpu())
        scores = objective.score(torch.cat(outputs).numpy(), self.parts[name][1].numpy())
        return {metric: value for metric, value in scores.items() if not np.isnan(value)}  # a class without examples
