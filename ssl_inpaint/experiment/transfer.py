"""`ssl-inpaint transfer`: an encoder in, its scores on labelled data out, by a named protocol."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ssl_inpaint import catalog, checkpoint, config, files, records, train
from ssl_inpaint.bootstrap import Scores
from ssl_inpaint.errors import UsageError, unknown_name
from ssl_inpaint.experiment.checks import refuse_for_probes, refuse_sizes, refuse_used
from ssl_inpaint.experiment.crop_feed import CropFeed
from ssl_inpaint.experiment.feeds import Feed, Part
from ssl_inpaint.experiment.probe import Probe
from ssl_inpaint.experiment.scene_feed import SceneFeed
from ssl_inpaint.plans import PLAN_FILE, Protocol, TransferPlan
from ssl_inpaint.records import Ledger, Record
from ssl_inpaint.runtime import Runtime, claimed

SCORES_FILE = "scores.json"  # written last: a run with it is finished
DEVIATION = ", deviation"  # how metrics end that are no score but the spread of one
PREDICTIONS = "predictions"  # the folder of what was predicted on test, where it was asked for
OPEN_TO_SET = (
    "test_views",
    "cached_views",
    "learning_rates",
    "rescale",
)  # of the protocol itself; its parts are set by theirs


@dataclass(frozen=True)
class Transferred:
    """What a transfer run measured."""

    folder: Path
    scores: dict[str, float]  # on test
    records: list[Record]
    choices: dict[str, float]  # made without test: the learning rate, or what a probe chooses

    @property
    def learning_rate(self) -> float:
        """The one used, of tasks that have one for all."""
        return self.choices["learning_rate"]


def plan_transfer(
    data: str,
    source: str,
    task: str,
    mode: str,
    protocol: str | None,
    settings: Mapping[str, Mapping[str, str]],
    seed: int,
    has_predictions: bool = False,
) -> TransferPlan:
    """A complete plan from names and `--set` values; a changed setting marks the protocol's label.

    Without a protocol it is compact_<task>. With a frozen encoder, `train.learning_rate` takes the place of the
    learning rates that would have been tried.
    """
    base = _protocol(protocol or f"compact_{task}", task)
    shown = "crops" if base.scenes is None else "scenes"
    own_parts = [shown, *(["proposals"] if base.proposals else [])]
    config.refuse_unknown_parts(settings, ("data", "encoder", "head", *own_parts, "train", "protocol", "run"))
    module = catalog.load("transfer", task)
    if getattr(module, "IS_PROBE", False):
        refuse_for_probes(task, module.NEEDS, mode, settings, has_predictions)
    plain_head = config.check(module.Config, "head", base.head)
    head = config.override(plain_head, "head", settings.get("head", {}))
    loop = "frozen_train" if mode == "frozen" else "train"
    changed = config.override(base, "protocol", _own_settings(settings, mode)).model_copy(
        update={
            "head": head.model_dump(mode="json"),
            **{part: config.override(getattr(base, part), part, settings.get(part, {})) for part in own_parts},
            loop: config.override(getattr(base, loop), "train", settings.get("train", {})),
        }
    )
    _refuse_unused(changed, mode, settings)
    if changed.rescale != "none" and head.standardize:
        raise UsageError(
            "protocol.rescale and head.standardize exclude each other: rescaling is for networks without BatchNorm; "
            "add --set head.standardize=false."
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
            "has_predictions": has_predictions,
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

    Writes config.json and scores.json to the run folder and records to the ledger; of processes that share the run, the
    first one does. Failure where a frozen encoder was found changed afterwards; UsageError for whatever the user can
    mend, before anything is written.
    """
    began, group = time.monotonic(), runtime.group
    if plan.mode == "finetune":
        loop = train.shared(plan.protocol.train, group)
        plan = plan.model_copy(update={"protocol": plan.protocol.model_copy(update={"train": loop})})
    if not resume and group.is_first:
        refuse_used(folder)
    if ledger is not None:
        ledger.read()  # a broken one is better found now than when there is something to write to it
    encoder, card = checkpoint.open_encoder(plan.source, plan.encoder_settings, plan.seed)
    refuse_sizes(encoder, card.encoder, plan.protocol)
    with group.in_turn():
        feed = _feed(plan, runtime)
        test = feed.open("test")  # decoded, so that what is missing or broken shows at once; kept from all choices
    probe = Probe(plan, folder, encoder.to(runtime.device), card, feed, runtime, resume, workers)
    with claimed(folder) if group.is_first else nullcontext():
        if not resume and group.is_first:
            refuse_used(folder)  # again: another process may have used it meanwhile
        if group.is_first:
            files.write_json(folder / PLAN_FILE, {"schema": 1, **plan.model_dump(mode="json")})
        choices = probe.tune()
        is_kept = plan.has_predictions and group.is_first
        scores, fit_seconds = probe.measure(choices, test, folder / PREDICTIONS if is_kept else None)
        if not group.is_first:
            return Transferred(folder, scores.values, [], choices)
        seconds = time.monotonic() - began
        made = _records(plan, probe, test, scores, fit_seconds)
        if ledger is not None:
            ledger.add(made)
        summary = {"choices": choices, "scores": scores.values, "tuning": probe.tuning, "seconds": round(seconds, 1)}
        summary["intervals"] = scores.intervals()
        files.write_json(folder / SCORES_FILE, {"schema": 1, **summary})
    return Transferred(folder, scores.values, made, choices)


def _protocol(name: str, task: str) -> Protocol:
    found: Protocol = catalog.load("protocols", name).build()
    if found.task != task:
        raise UsageError(f"Protocol '{name}' is for task '{found.task}' and '{task}' was asked for: choose another.")
    return found


def _refuse_unused(protocol: Protocol, mode: str, settings: Mapping[str, Mapping[str, str]]) -> None:
    """UsageError for a setting that would change nothing but the name of the result."""
    views = settings.get("protocol", {}).keys() & {"test_views", "cached_views"}
    if protocol.scenes is not None and views:
        raise UsageError(f"protocol.{min(views)} is for crops and this protocol shows whole images: leave it out.")
    if mode == "frozen" and settings.get("head", {}).keys() & {"fixed", "has_fixed_statistics"}:
        raise UsageError("head.fixed and head.has_fixed_statistics are for fine-tuning and this encoder is frozen.")
    if settings.get("proposals") and not _reads_proposals(protocol.head):
        raise UsageError("Faster R-CNN proposes by itself, so --set proposals.FIELD cannot apply: leave it out.")


def _feed(plan: TransferPlan, runtime: Runtime) -> Feed:
    needs = catalog.load("transfer", plan.protocol.task).NEEDS
    if plan.protocol.scenes is None:
        if plan.protocol.crops is None:
            raise ValueError("a protocol shows crops or scenes")
        return CropFeed(plan, plan.protocol.crops, runtime)
    return SceneFeed(plan, plan.protocol.scenes, needs, _reads_proposals(plan.protocol.head), runtime)


def _reads_proposals(head: Mapping[str, object]) -> bool:
    return head.get("detector") == "fast"


def _own_settings(settings: Mapping[str, Mapping[str, str]], mode: str) -> dict[str, str]:
    """What `--set` says of the protocol itself."""
    own = dict(settings.get("protocol", {}))
    for name in own:
        if name not in OPEN_TO_SET:
            raise unknown_name("setting of protocol to --set", name, OPEN_TO_SET)
    if mode == "frozen" and own.get("rescale", "none") != "none":
        raise UsageError("protocol.rescale is for fine-tuning and this encoder is frozen: leave it out.")
    unused = sorted(own.keys() & {"cached_views", "learning_rates"})
    if mode == "finetune" and unused:
        raise UsageError(f"protocol.{unused[0]} is for a frozen encoder and this one is fine-tuned: leave it out.")
    if mode == "frozen" and "learning_rate" in settings.get("train", {}):
        if "learning_rates" in own:
            raise UsageError("train.learning_rate and protocol.learning_rates exclude each other: set one of them.")
        own["learning_rates"] = "[]"
    return own


def _records(plan: TransferPlan, probe: Probe, test: Part, scores: Scores, fit_seconds: float) -> list[Record]:
    card, protocol = probe.card, plan.protocol
    settings = config.hash_of(protocol.identity(), card.config_hash, card.encoder_config, *probe.feed.inputs())
    provenance = records.provenance(probe.runtime.describe(), fit_seconds, card.pretraining_seconds, probe.workers)
    return [
        Record(
            method=card.method + ("" if protocol.rescale == "none" else ", rescaled"),
            pretext=card.pretext,
            encoder=card.encoder,
            weights_sha256=probe.weights,
            supervision=card.supervision,
            task=protocol.task,
            protocol=plan.protocol_label,
            mode=plan.mode,
            dataset=test.dataset,
            dataset_sha256=test.digest,
            split="test",
            metric=name,
            seed=plan.seed,
            recipe=card.recipe,
            config_hash=settings,
            value=value,
            higher_is_better=not name.endswith(DEVIATION),
            n_examples=len(test),
            replicates=scores.packed(name),
            **provenance,
        )
        for name, value in scores.values.items()
        if ":" not in name  # one class's own score stays in scores.json
    ]
