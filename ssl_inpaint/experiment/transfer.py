"""`ssl-inpaint transfer`: an encoder in, its scores on labelled data out, by a named protocol."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ssl_inpaint import catalog, checkpoint, config, files, records
from ssl_inpaint.checkpoint import Card
from ssl_inpaint.errors import UsageError, unknown_name
from ssl_inpaint.experiment.checks import refuse_size, refuse_used
from ssl_inpaint.experiment.data import Examples, open_labelled
from ssl_inpaint.experiment.probe import Probe
from ssl_inpaint.plans import PLAN_FILE, Protocol, TransferPlan
from ssl_inpaint.records import Ledger, Record
from ssl_inpaint.runtime import Runtime, claimed

SCORES_FILE = "scores.json"  # written last: a run with it is finished
OPEN_TO_SET = ("test_views", "cached_views", "learning_rates")  # of the protocol itself; its parts are set by theirs


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
    """A complete plan from names and `--set` values; a changed setting marks the protocol's label.

    With a frozen encoder, `train.learning_rate` takes the place of the learning rates that would have been tried.
    """
    config.refuse_unknown_parts(settings, ("data", "encoder", "head", "crops", "train", "protocol", "run"))
    base: Protocol = catalog.load("protocols", protocol).build()
    if base.task != task:
        raise UsageError(f"Protocol '{protocol}' is for task '{base.task}' and '{task}' was asked for: choose another.")
    module = catalog.load("transfer", task)
    plain_head = config.check(module.Config, "head", base.head)
    head = config.override(plain_head, "head", settings.get("head", {}))
    loop = "frozen_train" if mode == "frozen" else "train"
    changed = config.override(base, "protocol", _own_settings(settings, mode)).model_copy(
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

    Writes config.json and scores.json to the run folder and records to the ledger. Failure where a frozen encoder was
    found changed afterwards; UsageError for whatever the user can mend, before anything is written.
    """
    began = time.monotonic()
    if not resume:
        refuse_used(folder)
    if ledger is not None:
        ledger.read()  # a broken one is better found now than when there is something to write to it
    encoder, card = checkpoint.open_encoder(plan.source, plan.encoder_settings, plan.seed)
    crops = plan.protocol.crops
    refuse_size(encoder, card.encoder, crops.size)
    parts = {
        name: open_labelled(plan.data, name, plan.data_settings, crops.store_size) for name in ("train", "val", "test")
    }
    test = parts.pop("test")  # decoded, so that what is missing or broken shows at once; kept from all choices
    probe = Probe(plan, folder, encoder.to(runtime.device), card, parts, runtime, resume, workers)
    with claimed(folder):
        if not resume:
            refuse_used(folder)  # again: another process may have used it meanwhile
        files.write_json(folder / PLAN_FILE, {"schema": 1, **plan.model_dump(mode="json")})
        rate = probe.tune()
        scores, fit_seconds = probe.measure(rate, test)
        seconds = time.monotonic() - began
        made = _records(plan, card, probe, test[0], scores, fit_seconds, workers)
        if ledger is not None:
            ledger.add(made)
        summary = {"learning_rate": rate, "scores": scores, "tuning": probe.tuning, "seconds": round(seconds, 1)}
        files.write_json(folder / SCORES_FILE, {"schema": 1, **summary})
    return Transferred(folder, scores, made, rate)


def _own_settings(settings: Mapping[str, Mapping[str, str]], mode: str) -> dict[str, str]:
    """What `--set` says of the protocol itself."""
    own = dict(settings.get("protocol", {}))
    for name in own:
        if name not in OPEN_TO_SET:
            raise unknown_name("setting of protocol to --set", name, OPEN_TO_SET)
    unused = sorted(own.keys() & {"cached_views", "learning_rates"})
    if mode == "finetune" and unused:
        raise UsageError(f"protocol.{unused[0]} is for a frozen encoder and this one is fine-tuned: leave it out.")
    if mode == "frozen" and "learning_rate" in settings.get("train", {}):
        if "learning_rates" in own:
            raise UsageError("train.learning_rate and protocol.learning_rates exclude each other: set one of them.")
        own["learning_rates"] = "[]"
    return own


def _records(
    plan: TransferPlan,
    card: Card,
    probe: Probe,
    examples: Examples,
    scores: Mapping[str, float],
    fit_seconds: float,
    workers: int,
) -> list[Record]:
    protocol = plan.protocol.model_dump(mode="json")
    provenance = records.provenance(probe.runtime.describe(), fit_seconds, card.pretraining_seconds, workers)
    return [
        Record(
            method=card.method,
            pretext=card.pretext,
            encoder=card.encoder,
            weights_sha256=probe.weights,
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
            **provenance,
        )
        for name, value in scores.items()
        if ":" not in name  # one class's own score stays in scores.json
    ]
