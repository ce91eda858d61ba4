"""`ssl-inpaint quickstart`: the whole suite on the embedded data set, in minutes."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ssl_inpaint import cells, checkpoint, figures, progress, tables, train
from ssl_inpaint.config import Settings
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment import evaluation, pretrain, retrieval, transfer
from ssl_inpaint.plans import PLAN_FILE, read_plan
from ssl_inpaint.records import Ledger, Record
from ssl_inpaint.runtime import Runtime, open_runtime

PRETEXTS = ("inpainting", "autoencoder", "supervised")
TASKS = {"cls": "classification", "det": "detection", "seg": "segmentation"}
PREDICTED = ("det", "seg")  # whose predictions are kept


@dataclass(frozen=True)
class _Size:
    """How much is run."""

    recipe: str
    protocols: str  # their names begin so: quick_cls, quick_det, quick_seg
    rows: Mapping[str, tuple[str, ...]]  # which are measured, by task
    modes: tuple[str, ...] = ("frozen",)
    seeds: int = 1
    data: str = "shapes"
    pretraining: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # what differs from the recipe
    transfer: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # what differs from the protocol
    retrieval: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    evaluation: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


ALL = ("random", *PRETEXTS)
SOME = ("random", "inpainting", "supervised")  # the rows without which the others say little
MINUTES = _Size(
    "quick",
    "quick",
    {"cls": ALL, "det": SOME, "seg": SOME},
    retrieval={"retrieval": {"gallery": "2000"}},
    evaluation={"evaluation": {"images": "100", "gallery": "2000"}},
)
FULL = _Size(
    "compact",
    "compact",
    dict.fromkeys(TASKS, ALL),
    ("frozen", "finetune"),
    seeds=3,
    pretraining={"train": {"steps": "1500"}},
)


def quickstart(output: Path, seed: int = 0, full: bool = False) -> str:
    """Pretrains, transfers, retrieves and tabulates into `output`; returns what to print at the end.

    What is finished there already is not run again and what was stopped goes on, so the same command resumes.
    UsageError where the folder holds runs with other settings.
    """
    began = time.monotonic()
    size = FULL if full else MINUTES
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file: choose another --output.")
    runtime, ledger = open_runtime(), Ledger(output / "results" / "measured.jsonl")
    try:
        _run_all(output / "runs", size, seed, runtime, ledger)
    except train.Interrupted as stopped:
        raise train.Interrupted(f"{str(stopped).split(':')[0]}: the same command goes on from there.") from None
    results, measured = output / "results", ledger.read()
    written = tables.write_tables(ledger.path, results)
    ours = _run(output / "runs", "inpainting", seed)
    places = {
        "encoder": ours / checkpoint.ENCODER_FILE,
        "what it fills in": ours / "samples",
        "how it learned": ours / "learning_curve.png",
        "inpainters": _evaluated(output / "runs", seed) / evaluation.FIGURE_FILE,
        "neighbours": output / "runs" / f"nn-retrieval-{seed}",
        **{TASKS[task]: _draw(measured, task, size.modes[-1], results / f"{TASKS[task]}.png") for task in size.rows},
        **{f"predictions, {task}": _predictions(output / "runs", task, size, seed) for task in PREDICTED},
        "ledger": ledger.path,
        **{f"tables, {path.suffix[1:]}": path for path in written},
    }
    return _closing(measured, places, time.monotonic() - began)


def _run_all(runs: Path, size: _Size, seed: int, runtime: Runtime, ledger: Ledger) -> None:
    measured = sum(map(len, size.rows.values())) * len(size.modes)
    total = size.seeds * (len(PRETEXTS) + measured) + 2
    steps = iter(range(1, total + 1))
    for one in range(seed, seed + size.seeds):
        trained = {pretext: str(_run(runs, pretext, one)) for pretext in PRETEXTS}
        for pretext in PRETEXTS:
            progress.say(f"[{next(steps)}/{total}] pretrain {pretext}, seed {one}")
            _pretrain(runs, pretext, size, one, runtime, ledger)
        sources = {"random": f"random:{trained['inpainting']}", **trained}
        for task, mode, name in ((t, m, n) for t, names in size.rows.items() for m in size.modes for n in names):
            progress.say(f"[{next(steps)}/{total}] transfer {name}, {task}, {mode}, seed {one}")
            _transfer(_transferred(runs, task, mode, name, one), sources[name], task, mode, size, one, runtime, ledger)
    progress.say(f"[{next(steps)}/{total}] nearest neighbours")
    described = [str(_run(runs, pretext, seed)) for pretext in PRETEXTS]
    _retrieve(runs / f"nn-retrieval-{seed}", described, size, seed, runtime, ledger)
    progress.say(f"[{next(steps)}/{total}] inpainters side by side")
    _evaluate(_evaluated(runs, seed), str(_run(runs, "inpainting", seed)), size, seed, runtime, ledger)


def _run(runs: Path, pretext: str, seed: int) -> Path:
    return runs / f"{pretext}-{seed}"


def _pretrain(runs: Path, pretext: str, size: _Size, seed: int, runtime: Runtime, ledger: Ledger) -> None:
    folder = _run(runs, pretext, seed)
    plan = pretrain.plan_pretraining(size.data, pretext, size.recipe, None, size.pretraining, seed)
    if _is_finished(folder, plan, checkpoint.ENCODER_FILE):
        return
    pretrain.pretrain(plan, folder, runtime, ledger, resume=(folder / PLAN_FILE).exists())


def _transferred(runs: Path, task: str, mode: str, name: str, seed: int) -> Path:
    return runs / f"{task}-{mode}-{name}-{seed}"


def _predictions(runs: Path, task: str, size: _Size, seed: int) -> Path:
    return _transferred(runs, task, size.modes[-1], "supervised", seed) / transfer.PREDICTIONS / "gallery.png"


def _transfer(
    folder: Path, source: str, task: str, mode: str, size: _Size, seed: int, runtime: Runtime, ledger: Ledger
) -> None:
    protocol = f"{size.protocols}_{task}"
    plan = transfer.plan_transfer(
        size.data, source, task, mode, protocol, size.transfer, seed, has_predictions=task in PREDICTED
    )
    if _is_finished(folder, plan, transfer.SCORES_FILE):
        return
    transfer.transfer(plan, folder, runtime, ledger, resume=(folder / PLAN_FILE).exists())


def _retrieve(folder: Path, runs: Sequence[str], size: _Size, seed: int, runtime: Runtime, ledger: Ledger) -> None:
    descriptors = ["hog", f"random:{runs[0]}", *runs]
    plan = retrieval.plan_retrieval(size.data, descriptors, size.retrieval, seed)
    if _is_finished(folder, plan, retrieval.SCORES_FILE):
        return
    retrieval.nn_retrieval(plan, folder, runtime, ledger)


def _evaluated(runs: Path, seed: int) -> Path:
    return runs / f"inpaint-{seed}"


def _evaluate(folder: Path, run: str, size: _Size, seed: int, runtime: Runtime, ledger: Ledger) -> None:
    plan = evaluation.plan_evaluation(size.data, [run], "centre", None, size.evaluation, seed)
    if _is_finished(folder, plan, evaluation.SCORES_FILE):
        return
    evaluation.evaluate(plan, folder, runtime, ledger)


def _is_finished(folder: Path, plan: Settings, last_file: str) -> bool:
    """True where the folder holds that very run, whole; UsageError where it holds another."""
    if not (folder / PLAN_FILE).exists():
        return False
    if read_plan(type(plan), folder) != plan:
        raise UsageError(f"{folder} was made with other settings: choose another --output, or remove it.")
    return (folder / last_file).exists()


def _draw(measured: Sequence[Record], task: str, mode: str, path: Path) -> Path:
    of_task = [record for record in measured if record.task == task and record.mode == mode]
    shown = [record for record in of_task if record.metric not in cells.FURTHER.get(task, ())]
    rows = cells.measured_cells(shown).sort_values("mean")
    bars = [
        figures.Bar(row["method"], row["mean"], row["std"] if row["n_seeds"] > 1 else None, _kind(row))
        for row in rows.to_dict("records")
    ]
    figures.save(figures.results_bars(bars, f"{shown[0].metric} on {shown[0].dataset}, {mode} encoder"), path)
    return path


def _kind(row: Mapping[Hashable, object]) -> Literal["baseline", "pretext", "supervised"]:
    if row["supervision"] == "labels":
        return "supervised"
    return "baseline" if row["pretext"] == "none" else "pretext"


def _closing(measured: Sequence[Record], places: Mapping[str, Path], seconds: float) -> str:
    """The measured tables, then where everything is."""
    shown = tables.tables(cells.measured_cells(measured))
    lines = [tables.to_text(shown), "", f"Done in {seconds:.0f} s. What there is now:"]
    width = max(map(len, places))
    return "\n".join([*lines, *(f"  {name:<{width}}  {place}" for name, place in places.items())])
