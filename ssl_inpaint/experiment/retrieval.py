"""`ssl-inpaint nn-retrieval`: nearest neighbours of patches by several descriptors side by side (paper section 5.1)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ssl_inpaint import bootstrap, config, figures, files, holes, progress, records, resampled_metrics, retrieval
from ssl_inpaint.bootstrap import Scores
from ssl_inpaint.core import Descriptor
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment.checks import refuse_other
from ssl_inpaint.experiment.descriptors import Named, calibrated, open_descriptors
from ssl_inpaint.experiment.patches import Patches, open_patches
from ssl_inpaint.plans import PLAN_FILE, RetrievalConfig, RetrievalPlan
from ssl_inpaint.records import Ledger, Record
from ssl_inpaint.runtime import Runtime, claimed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROTOCOL = "patches/v1"
SCORES_FILE = "scores.json"  # written last: a run with it is finished


@dataclass(frozen=True)
class Retrieved:
    """What a retrieval run made."""

    folder: Path
    figures: list[Path]
    scores: dict[str, dict[str, dict[str, float]]]  # description -> descriptor -> metric; empty without labels
    records: list[Record]


def plan_retrieval(
    data: str, descriptors: Sequence[str], settings: Mapping[str, Mapping[str, str]], seed: int
) -> RetrievalPlan:
    """A complete plan from names and `--set` values."""
    config.refuse_unknown_parts(settings, ("data", "encoder", "retrieval", "run"))
    chosen = config.override(RetrievalConfig(), "retrieval", settings.get("retrieval", {}))
    if min(chosen.k) < 1:
        raise UsageError(f"retrieval.k = {min(chosen.k)}: precision is taken at 1 neighbour or more.")
    return RetrievalPlan(
        data=data,
        data_settings=dict(settings.get("data", {})),
        descriptors=tuple(descriptors),
        config=chosen,
        encoder_settings=dict(settings.get("encoder", {})),
        seed=seed,
    )


def nn_retrieval(plan: RetrievalPlan, folder: Path, runtime: Runtime, ledger: Ledger | None = None) -> Retrieved:
    """Compares plan.descriptors on patches of plan.data, with the centre hidden and with the whole patch.

    Writes neighbours-context.png, neighbours-whole.png, scores.json and config.json to the folder, and precision at k
    and mean average precision to the ledger where the data set has labels. A run that was stopped begins anew in its
    folder. UsageError for whatever the user can mend, before anything is written.
    """
    refuse_other(folder, plan, SCORES_FILE)
    if ledger is not None:
        ledger.read()  # a broken one is better found now than when there is something to write to it
    hole = _centre(plan.config)
    named = open_descriptors(plan, runtime)
    for one in named:  # a hole that leaves nothing to describe, or a size that an encoder cannot take
        one.descriptor.describe(torch.zeros(1, 3, *hole.shape), hole)
    queries, gallery = open_patches(plan.data, plan.data_settings, plan.config, plan.seed)
    largest = max(*plan.config.k, plan.config.shown_neighbours)
    if largest > len(gallery):
        raise UsageError(
            f"{largest} neighbours were asked for and the gallery has {len(gallery)} patches: "
            "lower retrieval.k and retrieval.shown_neighbours."
        )
    with claimed(folder):
        named = [calibrated(one, gallery) for one in named]
        files.write_json(folder / PLAN_FILE, {"schema": 1, **plan.model_dump(mode="json")})
        made, drawn, scores = [], [], {}
        for description, hidden in (("context", hole), ("whole", None)):
            neighbours, scores[description], found = _compare(
                plan, named, queries, gallery, hidden, description, runtime
            )
            made += found
            drawn.append(folder / f"neighbours-{description}.png")
            figures.save(_figure(plan.config, queries, gallery, neighbours, hidden), drawn[-1])
        if ledger is not None:
            ledger.add(made)
        files.write_json(folder / SCORES_FILE, {"schema": 1, "scores": scores})
    return Retrieved(folder, drawn, scores, made)


def _centre(plan: RetrievalConfig) -> Tensor:
    """S x S bool, True in the middle."""
    return holes.draw("centre", 1, plan.patch_size, torch.Generator(), plan.hole_fraction)[0, 0]


def _compare(
    plan: RetrievalPlan,
    named: Sequence[Named],
    queries: Patches,
    gallery: Patches,
    hole: Tensor | None,
    description: str,
    runtime: Runtime,
) -> tuple[dict[str, Tensor], dict[str, dict[str, float]], list[Record]]:
    """Neighbours, scores and records of every descriptor under one way to describe."""
    neighbours, scores, made = {}, {}, []
    for one in named:
        began = time.monotonic()
        label = f"{one.descriptor.name}, {description}"
        described = [torch.from_numpy(_describe(one.descriptor, p, hole, label)) for p in (queries, gallery)]
        name = one.descriptor.name
        k = max(*plan.config.k, plan.config.shown_neighbours)
        neighbours[name], _ = retrieval.top_k(described[0], described[1], k)
        if queries.labels is None or gallery.labels is None:
            continue
        is_right = (gallery.labels[neighbours[name]] == queries.labels[:, None]).double()
        each = {f"precision@{k}": is_right[:, :k].mean(dim=1).numpy() for k in plan.config.k}
        precisions = retrieval.average_precisions(described[0], described[1], queries.labels, gallery.labels)
        if not precisions.isnan().all():
            each["mAP"] = precisions.cpu().numpy()
        found = _scored(each, queries, gallery, plan.seed)
        scores[name] = found.values
        seconds = time.monotonic() - began
        made += _records(plan, one, queries, gallery, found, description, seconds, runtime)
    return neighbours, scores, made


def _scored(each: Mapping[str, np.ndarray], queries: Patches, gallery: Patches, seed: int) -> Scores:
    """The means over the queries that have a score, and over those of resampled images.

    Images are drawn, not queries, as several may be cut from one image. The seed is that of the queries.
    """
    values = {name: float(np.nanmean(of_queries)) for name, of_queries in each.items()}
    images, place = np.unique(queries.positions.numpy(), return_inverse=True)
    counts = bootstrap.draw_counts(f"{_digest(queries, gallery)} {seed}", len(images))
    if counts is None:
        return Scores(values)
    return Scores(values, {name: resampled_metrics.mean(scores, counts[place]) for name, scores in each.items()})


def _digest(queries: Patches, gallery: Patches) -> str:
    return config.hash_of(queries.digest, gallery.digest)


def _describe(descriptor: Descriptor, patches: Patches, hole: Tensor | None, label: str) -> np.ndarray:
    with progress.bar(label, len(patches)) as bar:
        found = []
        for some in patches.chunks():
            found.append(descriptor.describe(some, hole))
            bar.advance(len(some))
    return np.concatenate(found)


def _figure(
    plan: RetrievalConfig, queries: Patches, gallery: Patches, neighbours: Mapping[str, Tensor], hole: Tensor | None
) -> Figure:
    shown = min(plan.shown_queries, len(queries))
    found, is_relevant = {}, {}
    for name, indices in neighbours.items():
        chosen = indices[:shown, : plan.shown_neighbours]
        found[name] = gallery.cut(chosen.flatten()).unflatten(0, chosen.shape).numpy()
        if queries.labels is not None and gallery.labels is not None:
            is_relevant[name] = (gallery.labels[chosen] == queries.labels[:shown, None]).numpy()
    first = queries.cut(torch.arange(shown)).numpy()
    return figures.retrieval_figure(first, found, None if hole is None else hole.numpy(), is_relevant or None)


def _records(
    plan: RetrievalPlan,
    one: Named,
    queries: Patches,
    gallery: Patches,
    scores: Scores,
    description: str,
    seconds: float,
    runtime: Runtime,
) -> list[Record]:
    card = one.card
    is_plain = plan.config == RetrievalConfig()
    provenance = records.provenance(runtime.describe(), seconds, card.pretraining_seconds if card else 0.0, workers=1)
    return [
        Record(
            method=one.descriptor.name,
            pretext=card.pretext if card else "none",
            encoder=card.encoder if card else one.descriptor.name,
            weights_sha256=one.weights,
            supervision=card.supervision if card else "none",
            task="nn-retrieval",
            protocol=PROTOCOL if is_plain else f"{PROTOCOL} (changed)",
            mode=description,
            dataset=queries.split.dataset,
            dataset_sha256=_digest(queries, gallery),
            split="test queries, trainval gallery",
            metric=metric,
            seed=plan.seed,
            recipe=card.recipe if card else "none",
            config_hash=config.hash_of(
                plan.config, card.config_hash if card else "", card.encoder_config if card else ""
            ),
            value=value,
            higher_is_better=True,
            n_examples=len(queries),
            replicates=scores.packed(metric),
            **provenance,
        )
        for metric, value in scores.values.items()
    ]
