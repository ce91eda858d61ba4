"""Crops with labels: the feed of classification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_inpaint import predictions, progress, train
from ssl_inpaint.batches import Batches, Crops, FeatureBatches, ImageBatches, fixed_views, random_views
from ssl_inpaint.bootstrap import Scores
from ssl_inpaint.core import Batch, CropTransfer, Described, FeatureProbe, TransferFacts
from ssl_inpaint.data.device_store import near, near_maps
from ssl_inpaint.data.store import join
from ssl_inpaint.experiment.data import Examples, open_labelled
from ssl_inpaint.experiment.data_initialisation import random_crops
from ssl_inpaint.experiment.feeds import scores_of
from ssl_inpaint.experiment.unfinished import Unfinished
from ssl_inpaint.plans import TransferPlan
from ssl_inpaint.runtime import Runtime, seed_for
from ssl_inpaint.train import FitConfig

VIEW_BATCH = 128  # images described at a time


@dataclass(frozen=True)
class Labelled:
    """One decoded split with its labels."""

    name: str
    examples: Examples
    labels: Tensor

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return self.examples.split.dataset

    @property
    def digest(self) -> str:
        """Identifies images and labels by content."""
        return self.examples.digest

    def __len__(self) -> int:
        return len(self.examples.store)


class CropFeed:
    """Random crops to train on, fixed views to test on; a frozen encoder describes both once, or each step's crops."""

    def __init__(self, plan: TransferPlan, crops: Crops, runtime: Runtime) -> None:
        self.plan, self.crops, self.runtime = plan, crops, runtime
        self.is_frozen = plan.mode == "frozen"
        self._opened: dict[str, Labelled] = {}
        self.parts = {name: self.open(name) for name in ("train", "val")}
        self._caches: dict[tuple[str, bool], dict[str, Tensor]] = {}

    def open(self, name: str) -> Labelled:
        """One split, decoded and kept apart; UsageError where it is missing or has no labels."""
        examples, labels = open_labelled(self.plan.data, name, self.plan.data_settings, self.crops.store_size)
        self._opened[name] = Labelled(name, examples, labels)
        return self._opened[name]

    def admit(self, name: str) -> None:
        """Makes a split known that was opened before."""
        self.parts[name] = self._opened[name]

    def facts(self) -> TransferFacts:
        """Classes, and the size of crops."""
        split = self.parts["train"].examples.split
        count = len(self.parts["train"])
        return TransferFacts(self.crops.size, split.classes, split.is_multilabel, self.is_frozen, count)

    def batches(self, objective: CropTransfer, names: Sequence[str], loop: FitConfig) -> Batches:
        """Random crops, or random ones of the views that a frozen encoder has described, if it does so beforehand."""
        seed = seed_for(self.plan.seed, "transfer data")
        labels = torch.cat([self.parts[name].labels for name in names])
        if not self.is_frozen or self.plan.protocol.cached_views == 0:
            store = near(join([self.parts[name].examples.store for name in names]), self.runtime.device)
            return ImageBatches(store, labels, self.crops, loop.batch_size, seed)
        parts = [self._cached(objective, name, is_training=True) for name in names]
        features = {stage: torch.cat([part[stage] for part in parts]) for stage in parts[0]}
        return FeatureBatches(near_maps(features, self.runtime.device), labels, loop.batch_size, seed)

    def described(self, probe: FeatureProbe, names: Sequence[str], unfinished: Unfinished) -> Described:
        """Those splits joined as vectors: each stage's features flattened, averaged over the protocol's fixed views.

        What a run that was stopped has described is taken from `unfinished`.
        """
        parts = [self._cached(probe, name, is_training=False, unfinished=unfinished) for name in names]
        vectors = {
            stage: torch.cat([part[stage].flatten(2).float().mean(dim=1) for part in parts]) for stage in parts[0]
        }
        return Described(vectors, torch.cat([self.parts[name].labels for name in names]))

    def images(self, count: int, batch_size: int) -> Iterator[Tensor]:
        """Batches of random crops of training images."""
        store = self.parts["train"].examples.store
        return random_crops(store, self.crops, self.plan.seed, self.runtime)(count, batch_size)

    def inputs(self) -> list[str]:
        """Nothing else is read than images and labels."""
        return []

    def score(
        self, objective: CropTransfer, name: str, keep: Path | None = None, counts: np.ndarray | None = None
    ) -> Scores:
        """Of outputs averaged over the protocol's fixed views."""
        outputs = []
        for features in self._test_features(objective, name):
            views = {s: m.flatten(0, 1).to(self.runtime.device, torch.float32) for s, m in features.items()}
            count = len(next(iter(features.values())))
            with torch.no_grad():
                outputs.append(objective.outputs(views).unflatten(0, (count, -1)).mean(dim=1).cpu())
        whole = torch.cat(outputs) if self.is_frozen else self._joined(torch.cat(outputs), name)
        found, part = whole.numpy(), self.parts[name]
        if keep is not None:
            split = part.examples.split
            names = [split.images.name(int(position)) for position in part.examples.store.kept]
            predictions.write_scores(keep / "scores.csv", names, split.classes, found)
        return scores_of(objective, found, part.labels.numpy(), counts=counts)

    def _views(self, name: str, is_training: bool, turns: range) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Those batches of a split."""
        store, protocol = near(self.parts[name].examples.store, self.runtime.device), self.plan.protocol
        if not is_training:
            return fixed_views(store, self.crops, protocol.test_views, VIEW_BATCH, turns=turns)
        seed = seed_for(self.plan.seed, "cache", name)
        return random_views(store, self.crops, protocol.cached_views, VIEW_BATCH, seed, turns)

    def _turns(self, name: str) -> range:
        """This process's share of the batches."""
        batches, group = -(-len(self.parts[name]) // VIEW_BATCH), self.runtime.group
        return group.share(batches) if group.count <= batches else range(batches)  # or each process does them all

    def _joined(self, rows: Tensor, name: str) -> Tensor:
        """What the processes made of their shares, one image a row, in order."""
        count, group = len(self.parts[name]), self.runtime.group
        batches = -(-count // VIEW_BATCH)
        if group.count > batches:
            return rows
        ends = [min(count, turns.stop * VIEW_BATCH) for turns in group.shares(batches)]
        return group.joined(rows, [end - begin for begin, end in zip([0, *ends[:-1]], ends, strict=True)])

    def _described(
        self, objective: CropTransfer | FeatureProbe, name: str, is_training: bool, turns: range
    ) -> Iterator[dict[str, Tensor]]:
        """By stage B x views x ... features of those batches of one split, in order, by the encoder in eval mode."""
        share = min(len(self.parts[name]), VIEW_BATCH * len(turns))
        with progress.bar(f"describe {name}", share, is_shown=self.runtime.group.is_first) as bar:
            for positions, cut in self._views(name, is_training, turns):
                with torch.no_grad(), self.runtime.autocast():
                    found = [objective.features(train.on_device(Batch(view), self.runtime).images) for view in cut]
                yield {stage: torch.stack([one[stage] for one in found], dim=1) for stage in found[0]}
                bar.advance(len(positions))

    def _cached(
        self,
        objective: CropTransfer | FeatureProbe,
        name: str,
        is_training: bool,
        unfinished: Unfinished | None = None,
    ) -> dict[str, Tensor]:
        """By stage N x views x ... float16 of one split, described once and kept for every head on a frozen encoder."""
        key = (name, is_training)
        if key not in self._caches:

            def halves(turns: range) -> Iterator[dict[str, Tensor]]:
                for described in self._described(objective, name, is_training, turns):
                    yield {stage: maps.half().cpu() for stage, maps in described.items()}

            turns = self._turns(name)
            parts = list(
                halves(turns)
                if unfinished is None
                else unfinished.batches(f"{name}-{self.parts[name].digest[:12]}", turns, halves)
            )
            rows = {stage: torch.cat([part[stage] for part in parts]) for stage in parts[0]}
            self._caches[key] = {stage: self._joined(maps, name) for stage, maps in rows.items()}
        return self._caches[key]

    def _test_features(self, objective: CropTransfer, name: str) -> Iterator[dict[str, Tensor]]:
        if not self.is_frozen:
            yield from self._described(objective, name, is_training=False, turns=self._turns(name))
            return
        cached = self._cached(objective, name, is_training=False)
        for start in range(0, len(self.parts[name]), VIEW_BATCH):
            yield {stage: maps[start : start + VIEW_BATCH] for stage, maps in cached.items()}
