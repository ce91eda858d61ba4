"""`ssl-inpaint inpaint --evaluate`: several inpainters on the same holes, scored on exactly the hidden pixels."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ssl_inpaint import cells, config, figures, files, holes, inpainting_figures, progress, records, tables, windows
from ssl_inpaint.core import Split
from ssl_inpaint.data.specs import open_data
from ssl_inpaint.data.store import open_store
from ssl_inpaint.errors import UsageError, unknown_name
from ssl_inpaint.experiment.checks import refuse_other
from ssl_inpaint.experiment.generators import open_generator
from ssl_inpaint.experiment.inpainters import NEAREST, Named, is_nearest, is_trained, open_inpainters, plain_parts
from ssl_inpaint.experiment.patches import Patches, middles
from ssl_inpaint.inpainting_metrics import HIGHER_IS_BETTER, HiddenPixelScores, Perceptual, open_lpips
from ssl_inpaint.plans import PLAN_FILE, EvaluationConfig, EvaluationPlan
from ssl_inpaint.records import Ledger, Record
from ssl_inpaint.runtime import Runtime, claimed, seed_for

CHUNK_IMAGES = 64
SCORES_FILE = "scores.json"  # written last: a run with it is finished
FIGURE_FILE = "methods.png"


@dataclass(frozen=True)
class Evaluated:
    """What a comparison made."""

    folder: Path
    scores: dict[str, dict[str, float]]  # inpainter -> metric
    records: list[Record]
    written: list[Path]  # figure and tables
    left_out: list[str]  # sentences

    def text(self) -> str:
        """The measured table, for a terminal."""
        return tables.to_text(tables.tables(cells.measured_cells(self.records)))


def plan_evaluation(
    data: str,
    inpainters: Sequence[str],
    hole: str | None,
    gallery: str | None,
    settings: Mapping[str, Mapping[str, str]],
    seed: int,
) -> EvaluationPlan:
    """A complete plan from names and `--set` values; what is not set of hole and size is the first network's own."""
    own = ("data", "evaluation", "encoder", "run")
    parts = {name: fields for name, fields in settings.items() if name not in own}
    config.refuse_unknown_parts(settings, (*own, *plain_parts(), NEAREST, "context_encoder"))
    trained = next((spec for spec in inpainters if is_trained(spec)), None)
    base = EvaluationConfig() if trained is None else _as_trained(trained)
    if hole is not None and hole not in holes.KINDS:
        raise unknown_name("kind of hole to evaluate with", hole, holes.KINDS)
    if hole is not None and hole != base.hole:
        base = base.model_copy(update={"hole": hole, "hole_fraction": EvaluationConfig().hole_fraction})
    return EvaluationPlan(
        data=data,
        data_settings=dict(settings.get("data", {})),
        inpainters=tuple(inpainters),
        gallery=gallery,
        config=config.override(base, "evaluation", settings.get("evaluation", {})),
        inpainter_settings={name: dict(fields) for name, fields in parts.items()},
        encoder_settings=dict(settings.get("encoder", {})),
        seed=seed,
    )


def evaluate(plan: EvaluationPlan, folder: Path, runtime: Runtime, ledger: Ledger | None = None) -> Evaluated:
    """Fills the same holes of plan.data by every inpainter of the plan.

    Writes methods.png, the tables of these numbers beside the published ones, scores.json and config.json to the
    folder, and the numbers to the ledger. One that was stopped begins anew in its folder. UsageError for whatever the
    user can mend, before anything is written.
    """
    refuse_other(folder, plan, SCORES_FILE)
    if ledger is not None:
        ledger.read()  # a broken one is better found now than when there is something to write to it
    squares = _open_squares(plan)
    specs, left_out = _chosen(plan, squares.split)
    named = open_inpainters(
        specs, plan.inpainter_settings, plan.encoder_settings, plan.seed, runtime, lambda: _open_gallery(plan, squares)
    )
    hole = _draw_holes(plan, len(squares))
    _refuse_beyond(named, hole)
    perceptual = open_lpips(runtime.device)
    scores, made, shown = {}, [], {}
    with claimed(folder):
        files.write_json(folder / PLAN_FILE, {"schema": 1, **plan.model_dump(mode="json")})
        for one in named:
            began = time.monotonic()
            found, filled = _scored(one, squares, hole, plan.config.shown, perceptual)
            scores[one.name], shown[one.name] = found, filled.numpy()
            made += _records(plan, one, squares, hole, found, time.monotonic() - began, runtime)
        count = min(plan.config.shown, len(squares))
        truth = squares.cut(torch.arange(count)).numpy()
        decibels = {name: found["PSNR (dB)"] for name, found in scores.items()}
        drawn = inpainting_figures.methods_figure(truth, hole[:count].numpy(), shown, decibels)
        figures.save(drawn, folder / FIGURE_FILE)
        written = [folder / FIGURE_FILE]
        for file, text in tables.render(made, ("table1",)).items():
            files.write_text(folder / file, text)
            written.append(folder / file)
        if ledger is not None:
            ledger.add(made)
        files.write_json(folder / SCORES_FILE, {"schema": 1, "scores": scores})
    return Evaluated(folder, scores, made, written, left_out)


def _as_trained(source: str) -> EvaluationConfig:
    trained = open_generator(source)
    own = trained.config
    return EvaluationConfig(hole=own.holes, hole_fraction=own.hole_fraction, size=trained.card.image_size)


def _open_squares(plan: EvaluationPlan) -> Patches:
    """The images to fill: test where there is one, all of a data set without parts."""
    found = _test_split(plan.data, plan.data_settings)
    store = open_store(found.images, plan.config.size)
    return middles(found, store, plan.config.size).drawn(plan.config.images, seed_for(plan.seed, "inpainting"))


def _test_split(spec: str, settings: Mapping[str, str]) -> Split:
    everything = open_data(spec, "pretrain", settings)
    has_parts = everything.labels is not None or everything.masks is not None or "test_fraction" in settings
    return open_data(spec, "test", settings) if has_parts else everything


def _open_gallery(plan: EvaluationPlan, squares: Patches) -> Patches:
    found = open_data(plan.gallery or plan.data, "pretrain", plan.data_settings)
    store = open_store(found.images, plan.config.size)
    if store.digest == squares.store.digest:
        raise UsageError(
            f"The gallery {plan.gallery or plan.data} holds the very images that are filled, and each would find "
            "itself: name another by --gallery."
        )
    return middles(found, store, plan.config.size).drawn(plan.config.gallery, seed_for(plan.seed, "gallery"))


def _chosen(plan: EvaluationPlan, split: Split) -> tuple[list[str], list[str]]:
    """Which inpainters are compared, and sentences on those that are not."""
    specs = list(plan.inpainters)
    if not plan.config.has_others:
        return specs, []
    others = [*plain_parts(), f"{NEAREST}:hog", *(f"{NEAREST}:{spec}" for spec in specs if is_trained(spec))]
    others = [spec for spec in others if spec not in specs]
    reason = ""
    if plan.gallery is None and split.name != "test":
        reason = "there is no gallery: name a data set by --gallery"
    elif plan.config.hole != "centre":
        reason = "each image has a hole of its own, for which the gallery would be described anew: name them by --with"
    left_out = [f"{spec} is left out, as {reason}." for spec in others if reason and is_nearest(spec)]
    return [*specs, *(spec for spec in others if not (reason and is_nearest(spec)))], left_out


def _draw_holes(plan: EvaluationPlan, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed_for(plan.seed, "holes"))
    return holes.draw(plan.config.hole, count, plan.config.size, generator, plan.config.hole_fraction)


def _refuse_beyond(named: Sequence[Named], hole: Tensor) -> None:
    """UsageError where a network predicts a central square only and the holes reach beyond it."""
    for one in named:
        if one.predicts < 1:
            reach = torch.ones_like(hole[:1])
            start = round(hole.shape[-1] * (1 - one.predicts) / 2)
            reach[..., start : hole.shape[-1] - start, start : hole.shape[-1] - start] = False
            if (hole & reach).any():
                raise UsageError(
                    f"{one.spec} predicts the central {100 * one.predicts:.3g} % of a square's side only and the holes "
                    "reach beyond: evaluate it with the holes that it was trained on, by leaving out --hole."
                )


def _scored(
    one: Named, squares: Patches, hole: Tensor, shown: int, perceptual: Perceptual | None
) -> tuple[dict[str, float], Tensor]:
    """The scores over all squares, and the first of them filled."""
    scores, first = HiddenPixelScores(perceptual), []
    with progress.bar(one.name, len(squares)) as bar:
        for chosen in torch.arange(len(squares)).split(CHUNK_IMAGES):
            truth = squares.cut(chosen)
            filled = windows.fill_squares(one.inpainter, truth, hole[chosen])
            scores.update(filled, truth, hole[chosen])
            first.append(filled[: max(0, shown - int(chosen[0]))])
            bar.advance(len(chosen))
    return scores.compute(), torch.cat(first)


def _protocol(plan: EvaluationPlan, hole: Tensor) -> str:
    """What is scored, in words: part of a result's identity."""
    chosen, size = plan.config, plan.config.size
    side = round(float(hole[0].sum()) ** 0.5)
    region = f"{side}x{side} centre" if chosen.hole == "centre" else f"{100 * chosen.hole_fraction:.3g} % {chosen.hole}"
    return f"{region} of {size}x{size}/v1"


def _records(
    plan: EvaluationPlan,
    one: Named,
    squares: Patches,
    hole: Tensor,
    scores: Mapping[str, float],
    seconds: float,
    runtime: Runtime,
) -> list[Record]:
    card = one.card
    made_in = 0.0 if card is None else card.pretraining_seconds
    return [
        Record(
            method=one.name,
            pretext="-" if card is None else card.pretext,
            encoder="-" if card is None else card.encoder,
            weights_sha256=one.weights,
            supervision="none" if card is None else card.supervision,
            task="inpaint",
            protocol=_protocol(plan, hole),
            mode="-",
            dataset=squares.split.dataset,
            dataset_sha256=squares.store.digest,
            split="test" if squares.split.name == "test" else "all",
            metric=metric,
            seed=plan.seed,
            recipe="-" if card is None else card.recipe,
            config_hash=config.hash_of(
                plan.config.model_dump(mode="json", exclude={"shown", "has_others"}), *one.identity
            ),
            value=value,
            higher_is_better=HIGHER_IS_BETTER[metric],
            n_examples=len(squares),
            **records.provenance(runtime.describe(), seconds, made_in, 1),
        )
        for metric, value in scores.items()
    ]
