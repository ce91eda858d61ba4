"""`ssl-inpaint pretrain`: unlabelled images in, a run folder with an encoder out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from ssl_inpaint import catalog, checkpoint, config, files, holes, records, train
from ssl_inpaint.batches import ImageBatches
from ssl_inpaint.checkpoint import Card
from ssl_inpaint.config import Settings
from ssl_inpaint.core import Pretext, TrainingFacts
from ssl_inpaint.data.device_store import near
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment.checks import refuse_lone_images, refuse_size, refuse_used
from ssl_inpaint.experiment.data import Examples, hold_out, open_examples
from ssl_inpaint.experiment.data_initialisation import random_crops
from ssl_inpaint.experiment.generators import GENERATOR_FILE
from ssl_inpaint.experiment.starting import Start, open_start
from ssl_inpaint.experiment.watcher import Watcher
from ssl_inpaint.plans import PLAN_FILE, PretrainPlan, Recipe
from ssl_inpaint.records import Ledger, Record
from ssl_inpaint.runtime import Runtime, claimed, seed_for, seeded


@dataclass(frozen=True)
class Pretrained:
    """What a pretraining run made."""

    folder: Path
    card: Card
    fit: train.Fit
    validation: dict[str, float]  # at the last step
    records: list[Record]


def plan_pretraining(
    data: str,
    pretext: str,
    recipe: str,
    encoder: str | None,
    settings: Mapping[str, Mapping[str, str]],
    seed: int,
    start: str = "",
) -> PretrainPlan:
    """A complete plan from names and `--set` values; UsageError names whatever does not exist or is not allowed.

    It trains the recipe's encoder, or `encoder`, from random weights; or what `start` names, which `transfer --from`
    could measure, from its own.
    """
    config.refuse_unknown_parts(settings, ("data", "encoder", "pretext", "crops", "train", "run"))
    base: Recipe = catalog.load("recipes", recipe).build()
    if start and encoder:
        raise UsageError(f"--from {start} has an architecture of its own, so --encoder cannot apply: leave it out.")
    trained = checkpoint.architecture_of(start) if start else encoder or base.encoder
    is_drawn = not start or start.partition(":")[0] in ("random", *checkpoint.BY_DATA)
    own = base.encoder_settings if is_drawn and trained == base.encoder else {}
    part = catalog.load("pretext", pretext)
    of_recipe = {name: v for name, v in base.pretext_settings.items() if name in part.Config.model_fields}
    pretext_settings = {**of_recipe, **settings.get("pretext", {})}
    if "holes" not in part.Config.model_fields and pretext_settings.keys() & {"holes", "silhouettes"}:
        raise UsageError(f"Pretext '{pretext}' hides nothing, so holes cannot apply: leave them out.")
    silhouettes = pretext_settings.pop("silhouettes", None)
    pretext_config = config.override(part.Config(), "pretext", pretext_settings)
    if silhouettes is not None and pretext_config.holes != "region":
        raise UsageError(f"pretext.silhouettes are for region holes, and the holes are '{pretext_config.holes}'.")
    return PretrainPlan(
        data=data,
        data_settings=dict(settings.get("data", {})),
        encoder=trained,
        encoder_settings={**own, **settings.get("encoder", {})},
        start="" if start == f"random:{trained}" else start,
        pretext=pretext,
        pretext_config=pretext_config.model_dump(mode="json"),
        silhouettes=silhouettes,
        crops=config.override(base.crops, "crops", settings.get("crops", {})),
        train=config.override(base.train, "train", settings.get("train", {})),
        recipe=recipe,
        seed=seed,
    )


def pretrain(
    plan: PretrainPlan,
    folder: Path,
    runtime: Runtime,
    ledger: Ledger | None = None,
    resume: bool = False,
    workers: int = 1,
) -> Pretrained:
    """Trains plan.pretext on plan.data and writes the run folder; of processes that share the run, the first one does.

    {config.json, start.json, log.jsonl, validation.jsonl, events/, checkpoint.pt, samples/*.png, learning_curve.png,
    encoder.safetensors}, for inpainting also samples_over_time.png and generator.safetensors. With a ledger the
    held-out scores of the task itself are recorded. UsageError where the folder holds another run, or is in use;
    nothing is written before data, encoder and settings have been checked.
    """
    group = runtime.group
    plan = plan.model_copy(update={"train": train.shared(plan.train, group)})
    part = catalog.load("pretext", plan.pretext)
    pretext_config = config.check(part.Config, "pretext", plan.pretext_config)
    if not resume and group.is_first:
        refuse_used(folder)
    if ledger is not None:
        ledger.read()  # a broken one is better found now than when there is something to write to it
    start = open_start(plan, folder, resume)
    encoder = start.encoder
    refuse_size(encoder, start.card.encoder, "crops.size", plan.crops.size)
    with group.in_turn():
        examples = open_examples(plan.data, "pretrain", plan.data_settings, plan.crops.store_size)
    facts = _facts(plan, examples)
    with seeded(seed_for(plan.seed, "pretext")):
        objective: Pretext = part.build(pretext_config, encoder, facts)
    refuse_lone_images(objective, plan.train.batch_size // plan.train.parts)
    members, held_out = hold_out(examples)
    labels = examples.labels if part.SUPERVISION == "labels" else None
    store = near(examples.store, runtime.device)
    encoder.to(runtime.device)
    start = start.prepared(random_crops(store, plan.crops, plan.seed, runtime, members))
    batches = ImageBatches(store, labels, plan.crops, plan.train.batch_size, seed_for(plan.seed, "data"), members)
    with claimed(folder) if group.is_first else nullcontext():
        if not resume and group.is_first:
            refuse_used(folder)  # again: another process may have used it meanwhile
        if group.is_first:
            files.write_json(folder / PLAN_FILE, {"schema": 1, **plan.model_dump(mode="json")})
            start.write(folder)
        watcher = Watcher(folder, objective, examples, labels, held_out, plan, runtime)
        fit = train.fit(
            objective,
            batches,
            plan.train,
            seed=plan.seed,
            runtime=runtime,
            folder=folder,
            resume=resume,
            label=f"pretrain {plan.pretext}",
            workers=workers,
            on_sample=watcher.look if group.is_first else None,
        )
        card = _card(plan, part, pretext_config, start, examples, facts, fit)
        if not group.is_first:
            return Pretrained(folder, card, fit, {}, [])
        watcher.draw()
        validation = watcher.latest()
        made = _records(plan, part, card, encoder, validation, len(held_out), fit, runtime, workers)
        if ledger is not None:
            ledger.add(made)
        if plan.pretext == "inpainting":
            checkpoint.save_weights(folder / GENERATOR_FILE, objective.players()["generator"].module, card)
        # Last of all: a folder with it is a finished run.
        checkpoint.save_weights(folder / checkpoint.ENCODER_FILE, encoder, card)
    return Pretrained(folder, card, fit, validation, made)


def _facts(plan: PretrainPlan, examples: Examples) -> TrainingFacts:
    silhouettes = None
    if plan.silhouettes is not None:
        from ssl_inpaint.data.silhouettes import load_silhouettes

        silhouettes = holes.signed_distance(torch.from_numpy(load_silhouettes(Path(plan.silhouettes))))
    classes = len(examples.split.classes) if examples.labels is not None else 0
    return TrainingFacts(plan.crops.size, classes, examples.split.is_multilabel, silhouettes)


def _card(
    plan: PretrainPlan,
    part: ModuleType,
    pretext_config: Settings,
    start: Start,
    examples: Examples,
    facts: TrainingFacts,
    fit: train.Fit,
) -> Card:
    # By content, not by folder; the procedural set has no part in the hash.
    silhouettes = [] if facts.silhouettes is None else [hashlib.sha256(facts.silhouettes.numpy().tobytes()).hexdigest()]
    own = [pretext_config.identity(), plan.crops, plan.train, plan.encoder_settings, *silhouettes]
    return start.card.model_copy(
        update={
            "method": start.method(part.method_name(pretext_config)),
            "pretext": plan.pretext,
            "pretext_config": plan.pretext_config,
            "supervision": start.supervision(part.SUPERVISION),
            "dataset": examples.split.dataset,
            "dataset_sha256": examples.digest,
            "image_size": plan.crops.size,
            "seed": plan.seed,
            "steps": fit.steps,
            "recipe": plan.recipe,
            "config_hash": config.hash_of(*own, *start.identity(plan)),
            "pretraining_seconds": start.card.pretraining_seconds + fit.seconds,
        }
    )


def _records(
    plan: PretrainPlan,
    part: ModuleType,
    card: Card,
    encoder: torch.nn.Module,
    validation: Mapping[str, float],
    count: int,
    fit: train.Fit,
    runtime: Runtime,
    workers: int,
) -> list[Record]:
    provenance = records.provenance(runtime.describe(), fit.seconds, card.pretraining_seconds, workers)
    weights = checkpoint.weights_sha256(encoder)
    return [
        Record(
            method=card.method,
            pretext=card.pretext,
            encoder=card.encoder,
            weights_sha256=weights,
            supervision=card.supervision,
            task="pretext",
            protocol=f"{plan.pretext} held-out/v1",
            mode="-",
            dataset=card.dataset,
            dataset_sha256=card.dataset_sha256,
            split="pretrain, held out",
            metric=name,
            seed=plan.seed,
            recipe=plan.recipe,
            config_hash=card.config_hash,
            value=value,
            higher_is_better=name in getattr(part, "HIGHER_IS_BETTER", ()),
            n_examples=count,
            **provenance,
        )
        for name, value in validation.items()
    ]
