"""`ssl-inpaint inpaint --evaluate`: several inpainters on the same holes, scored on exactly the hidden pixels."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ssl_inpaint import (
    bootstrap,
    cells,
    config,
    figures,
    files,
    holes,
    inpainting_figures,
    progress,
    records,
    resampled_metrics,
    tables,
    windows,
)
from ssl_inpaint.bootstrap import Scores
from ssl_inpaint.errors import unknown_name
from ssl_inpaint.experiment import contenders
from ssl_inpaint.experiment.checks import refuse_other
from ssl_inpaint.experiment.inpainters import (
    NEAREST,
    TRAINED,
    Named,
    is_nearest,
    is_trained,
    open_inpainters,
    open_trained,
    plain_parts,
)
from ssl_inpaint.experiment.patches import Patches
from ssl_inpaint.experiment.squares import draw_holes, open_gallery, open_squares
from ssl_inpaint.inpainting_metrics import HIGHER_IS_BETTER, HiddenPixelScores, Perceptual, lpips_file, open_lpips
from ssl_inpaint.plans import PLAN_FILE, EvaluationConfig, EvaluationPlan
from ssl_inpaint.records import Ledger, Record
from ssl_inpaint.runtime import Runtime, claimed

CHUNK_IMAGES = 64
LARGEST_SHARE = 0.94  # of a square's side that a central hole can take
SCORES_FILE = "scores.json"  # written last: a run with it is finished
FIGURE_FILE = "methods.png"


@dataclass(frozen=True)
class Evaluated:
    """What a comparison made."""

    folder: Path
    scores: dict[str, dict[str, float]]  # inpainter -> metric
    records: list[Record]
    written: list[Path]  # figure and tables
    notes: list[str]  # sentences: what is left out, and what numbers must not be taken for

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
    config.refuse_unknown_parts(settings, (*own, *plain_parts(), NEAREST, TRAINED))
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
    squares = open_squares(plan)
    hole = draw_holes(plan, len(squares))
    specs, notes = contenders.chosen(plan, squares.split, hole)
    named = open_inpainters(
        specs, _settings(plan, specs), plan.encoder_settings, plan.seed, runtime, lambda: _gallery(plan, squares)
    )
    contenders.refuse_beyond(named, hole, plan.config)
    notes += contenders.suspicions(plan, named, squares)
    perceptual = open_lpips(runtime.device)
    if perceptual is None:
        notes.append(
            f"LPIPS is left out, as torchvision's AlexNet is not on this machine: it belongs at {lpips_file()}."
        )
    scores, made, shown = {}, [], {}
    with claimed(folder):
        refuse_other(folder, plan, SCORES_FILE)  # again: another process may have finished it meanwhile
        files.write_json(folder / PLAN_FILE, {"schema": 1, **plan.model_dump(mode="json")})
        for one in named:
            began = time.monotonic()
            found, filled = _scored(one, squares, hole, plan, perceptual)
            scores[one.name], shown[one.name] = found.values, filled.numpy()
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
    return Evaluated(folder, scores, made, written, notes)


def _as_trained(source: str) -> EvaluationConfig:
    trained = open_trained(source)
    own = trained.config
    return EvaluationConfig(hole=own.holes, hole_fraction=own.hole_fraction, size=trained.card.image_size)


def _settings(plan: EvaluationPlan, specs: Sequence[str]) -> dict[str, dict[str, str]]:
    """Of the inpainters; nearest neighbours expect the central hole that they are asked for."""
    if plan.config.hole != "centre" or not any(map(is_nearest, specs)):
        return plan.inpainter_settings
    expected = {"hole_share": str(min(plan.config.hole_fraction**0.5, LARGEST_SHARE))}
    return {**plan.inpainter_settings, NEAREST: expected | plan.inpainter_settings.get(NEAREST, {})}


def _gallery(plan: EvaluationPlan, squares: Patches) -> Patches:
    """The part of plan.data beside test, or the data set that is named, which data.FIELD says nothing of."""
    spec, settings = plan.gallery or plan.data, plan.data_settings if plan.gallery in (None, plan.data) else {}
    return open_gallery(spec, settings, plan.config, plan.seed, squares.store)


def _scored(
    one: Named, squares: Patches, hole: Tensor, plan: EvaluationPlan, perceptual: Perceptual | None
) -> tuple[Scores, Tensor]:
    """The scores over all squares, and the first of them filled."""
    scores, first, shown = HiddenPixelScores(perceptual), [], plan.config.shown
    with progress.bar(one.name, len(squares)) as bar:
        for chosen in torch.arange(len(squares)).split(CHUNK_IMAGES):
            truth = squares.cut(chosen)
            filled = windows.fill_squares(one.inpainter, truth, hole[chosen])
            scores.update(filled, truth, hole[chosen])
            first.append(filled[: max(0, shown - int(chosen[0]))])
            bar.advance(len(chosen))
    # The seed decides which squares are cut and where the holes are.
    counts = bootstrap.draw_counts(f"{squares.store.digest} {plan.seed}", len(squares))
    if counts is None:
        return Scores(scores.compute()), torch.cat(first)
    replicates = {name: resampled_metrics.mean(values, counts) for name, values in scores.each().items()}
    return Scores(scores.compute(), replicates), torch.cat(first)


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
    scores: Scores,
    seconds: float,
    runtime: Runtime,
) -> list[Record]:
    card = one.card
    made_in = 0.0 if card is None else card.pretraining_seconds
    provenance = records.provenance(runtime.describe(), seconds, made_in, workers=1)
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
                plan.config.model_dump(mode="json", include={"hole", "hole_fraction", "size"}),
                len(squares),
                *one.identity,
            ),
            value=value,
            higher_is_better=HIGHER_IS_BETTER[metric],
            n_examples=len(squares),
            replicates=scores.packed(metric),
            **provenance,
        )
        for metric, value in scores.values.items()
    ]
