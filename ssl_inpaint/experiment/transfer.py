"""`ssl-inpaint transfer`: an encoder in, its scores on labelled data out, by a named protocol."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ssl_inpaint import catalog, checkpoint, config, files, progress, records, train
from ssl_inpaint.batches import Batches, FeatureBatches, ImageBatches, fixed_views, random_views
from ssl_inpaint.checkpoint import Card
from ssl_inpaint.core import Batch, Encoder, Transfer, TransferFacts
from ssl_inpaint.data.store import ImageStore
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment.data import Examples, joined, open_labelled
from ssl_inpaint.plans import PLAN_FILE, Protocol, TransferPlan
from ssl_inpaint.records import Ledger, Record
from ssl_inpaint.runtime import Runtime, claimed, seed_for, seeded
from ssl_inpaint.train import FitConfig

SCORES_FILE = "scores.json"  # written last: a run with it is finished
CALIBRATION_STEPS = 20  # batches that set the BatchNorm statistics of an encoder that never had any
VIEW_BATCH = 128  # images described at a time


@dataclass(frozen=True)
class Transferred:
    """What a transfer run measured."""

    folder: Path
    scores: dict[str, float]  # on test
    records: list[Record]
    learning_rate: float  # the one used, chosen on val where there was a choice


def plan_transfer(
    data: str, source: str, task: str, mode: str, protocol: str, settings: Mapping[str, Mapping[str, str]], seed: int
) -> TransferPlan:
    """A complete plan from names and `--set` values; a changed setting marks the protocol's label."""
    config.refuse_unknown_parts(settings, ("data", "encoder", "head", "crops", "train", "protocol", "run"))
    base: Protocol = catalog.load("protocols", protocol).build()
    if base.task != task:
        raise UsageError(f"Protocol '{protocol}' is for task '{base.task}' and '{task}' was asked for: choose another.")
    module = catalog.load("transfer", task)
    plain_head = config.check(module.Config, "head", base.head)
    head = config.override(plain_head, "head", settings.get("head", {}))
    loop = "frozen_train" if mode == "frozen" else "train"
    changed = config.override(base, "protocol", settings.get("protocol", {})).model_copy(
        update={
            "head": head.model_dump(mode="json"),
            "crops": config.override(base.crops, "crops", settings.get("crops", {})),
            loop: config.override(getattr(base, loop), "train", settings.get("train", {})),
        }
    )
    plain = base.model_copy(update={"head": plain_head.model_dump(mode="json")})
    return config.check(
        TransferPlan,
        "plan",
        {
            "data": data,
            "data_settings": dict(settings.get("data", {})),
            "source": source,
            "encoder_settings": dict(settings.get("encoder", {})),
            "mode": mode,
            "protocol": changed,
            "protocol_label": base.label if changed == plain else f"{base.label} (changed)",
            "seed": seed,
        },
    )


def transfer(
    plan: TransferPlan,
    folder: Path,
    runtime: Runtime,
    ledger: Ledger | None = None,
    resume: bool = False,
    workers: int = 1,
) -> Transferred:
    """Measures plan.source on plan.data: tunes on train and val, trains on both, scores test once.

    Writes config.json and scores.json to the run folder and records to the ledger. RuntimeError where a frozen
    encoder was found changed afterwards; UsageError for whatever the user can mend, before anything is trained.
    """
    began = time.monotonic()
    if not resume and (folder / PLAN_FILE).exists():
        raise UsageError(f"{folder} holds a run already: go on by --resume {folder}, or choose another --output.")
    encoder, card = checkpoint.open_encoder(plan.source, plan.encoder_settings, plan.seed)
    crops = plan.protocol.crops
    if crops.size < encoder.smallest_input:
        raise UsageError(f"crops.size = {crops.size}: '{card.encoder}' takes {encoder.smallest_input} pixels or more.")
    parts = {
        name: open_labelled(plan.data, name, plan.data_settings, crops.store_size) for name in ("train", "val", "test")
    }
    with claimed(folder):
        files.write_json(folder / PLAN_FILE, {"schema": 1, **plan.model_dump(mode="json")})
        bench = _Bench(plan, folder, encoder.to(runtime.device), card, parts, runtime, resume, workers)
        rate = bench.tune()
        scores, fit_seconds = bench.measure(rate)
        seconds = time.monotonic() - began
        made = _records(plan, card, bench, scores, fit_seconds, workers)
        if ledger is not None:
            ledger.add(made)
        summary = {"learning_rate": rate, "scores": scores, "tuning": bench.tuning, "seconds": round(seconds, 1)}
        files.write_json(folder / SCORES_FILE, {"schema": 1, **summary})
    return Transferred(folder, scores, made, rate)


class _Bench:
    """One encoder on one data set under one protocol; the test split is touched by `measure` alone, once."""

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
        if card.pretext == "none":
            calibrate(encoder, parts["train"][0].store, plan, runtime)
        self.weights = checkpoint.weights_sha256(encoder)
        self.split = parts["train"][0].split
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

    def measure(self, rate: float) -> tuple[dict[str, float], float]:
        """Trains on train and val with that learning rate and scores test; also the seconds that the fit took."""
        objective = self._objective()
        fit = self._fit(objective, ["train", "val"], rate, "final")
        scores = self._score(objective, "test")
        if self.is_frozen and checkpoint.weights_sha256(self.encoder) != self.weights:
            raise RuntimeError("The frozen encoder's parameters or buffers changed during the run: no score counts.")
        return scores, fit.seconds

    def _objective(self) -> Transfer:
        facts = TransferFacts(self.protocol.crops.size, self.split.classes, self.split.is_multilabel, self.is_frozen)
        encoder = self.encoder if self.is_frozen else copy.deepcopy(self.encoder)
        with seeded(seed_for(self.plan.seed, "head")):
            objective: Transfer = self.part.build(self.head_config, encoder, facts)
        return objective

    def _fit(self, objective: Transfer, names: list[str], rate: float, label: str) -> train.Fit:
        loop = self.loop.model_copy(update={"learning_rate": rate})
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

    def _batches(self, objective: Transfer, names: list[str], loop: FitConfig) -> Batches:
        seed = seed_for(self.plan.seed, "transfer data")
        if not self.is_frozen:
            store, labels = joined([self.parts[name] for name in names])
            return ImageBatches(store, labels, self.protocol.crops, loop.batch_size, seed)
        features = torch.cat([self._cached(objective, name, is_training=True) for name in names])
        return FeatureBatches(features, torch.cat([self.parts[name][1] for name in names]), loop.batch_size, seed)

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
        return objective.score(torch.cat(outputs).numpy(), self.parts[name][1].numpy())


def calibrate(encoder: Encoder, store: ImageStore, plan: TransferPlan, runtime: Runtime) -> None:
    """Sets the BatchNorm statistics of a random encoder to those of training images; their labels are not read.

    A random network as built has means 0 and variances 1 there, which describe nothing: no fair baseline.
    """
    norms = [module for module in encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    batches = ImageBatches(store, None, plan.protocol.crops, 64, seed_for(plan.seed, "calibration"))
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
    encoder.train()
    with torch.no_grad():
        for step in range(CALIBRATION_STEPS):
            encoder(train.on_device(batches.at(step), runtime).images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    encoder.eval()


def _records(
    plan: TransferPlan, card: Card, bench: _Bench, scores: Mapping[str, float], fit_seconds: float, workers: int
) -> list[Record]:
    examples, _ = bench.parts["test"]
    protocol = plan.protocol.model_dump(mode="json")
    return [
        Record(
            method=card.method,
            pretext=card.pretext,
            encoder=card.encoder,
            weights_sha256=bench.weights,
            supervision=card.supervision,
            task=plan.protocol.task,
            protocol=plan.protocol_label,
            mode=plan.mode,
            dataset=examples.split.dataset,
            dataset_sha256=examples.digest,
            split="test",
            metric=name,
            seed=plan.seed,
            recipe=card.recipe,
            config_hash=config.hash_of(protocol, card.config_hash, card.encoder_config),
            value=value,
            higher_is_better=True,
            n_examples=len(examples.store),
            **records.provenance(bench.runtime.describe(), fit_seconds, card.pretraining_seconds, workers),
        )
        for name, value in scores.items()
        if ":" not in name  # one class's own score stays in scores.json
    ]
