"""`ssl-inpaint quickstart`: the whole suite on the embedded data set, in minutes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssl_inpaint import cells as tabulation
from ssl_inpaint import checkpoint, comparisons, figures, report, tables
from ssl_inpaint.config import Settings
from ssl_inpaint.errors import Failure, UsageError
from ssl_inpaint.experiment import bench, bench_cells, bench_plans, evaluation, retrieval, transfer
from ssl_inpaint.plans import PLAN_FILE, read_plan
from ssl_inpaint.records import Ledger, Record
from ssl_inpaint.runtime import Runtime, open_runtime

TASKS = {"cls": "classification", "det": "detection", "seg": "segmentation"}
SHOWN = "supervised"  # the row whose predictions are pointed to


@dataclass(frozen=True)
class _Size:
    """How much is run."""

    bench: str
    retrieval: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    evaluation: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


MINUTES = _Size(
    "quick",
    retrieval={"retrieval": {"queries": "250", "gallery": "1000"}},
    evaluation={"evaluation": {"images": "60", "gallery": "2000"}},
)
FULL = _Size("compact")


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
    desk = bench.Desk(output, runtime, ledger)
    chosen = bench_plans.plan_bench(size.bench, {}, None)
    cells = bench_cells.cells_of(chosen, output, seed)
    found = bench.run(cells, desk, retry=True)
    if found.left:
        raise Failure(" ".join(f"{name} failed: {reason}" for name, reason in found.failed.items()))
    runs, spec = output / bench_cells.RUNS, chosen.data["voc"]
    trained = [str(desk.folder(cell)) for cell in cells if cell.plan.verb == "pretrain" and cell.plan.seed == seed]
    _retrieve(runs / f"nn-retrieval-{seed}", spec, trained, size, seed, runtime, ledger)
    _evaluate(runs / f"inpaint-{seed}", spec, trained[0], size, seed, runtime, ledger)
    results, everything = output / "results", ledger.read()
    written = tables.write_tables(ledger.path, results)
    mode = chosen.measurements[-1].mode
    columns = {m.task: m.data for m in chosen.measurements if m.mode == mode}
    places = {
        "encoder": Path(trained[0]) / checkpoint.ENCODER_FILE,
        "how it learned": Path(trained[0]) / "learning_curve.png",
        "what it fills in": Path(trained[0]) / "samples_over_time.png",
        "inpainters": runs / f"inpaint-{seed}" / evaluation.FIGURE_FILE,
        "neighbours": runs / f"nn-retrieval-{seed}",
        **{TASKS[task]: _draw(everything, task, mode, results / f"{TASKS[task]}.png") for task in columns},
        **{
            f"predictions, {task}": runs / f"{task}-{data}-{mode}-{SHOWN}-{seed}" / transfer.PREDICTIONS / "gallery.png"
            for task, data in columns.items()
            if task != "cls"
        },
        "ledger": ledger.path,
        **{f"tables, {path.suffix[1:]}": path for path in written},
        "all on one page": report.write_report(ledger.path, runs, output / "report.html").path,
    }
    return _closing(everything, places, time.monotonic() - began)


def _retrieve(
    folder: Path, spec: str, runs: Sequence[str], size: _Size, seed: int, runtime: Runtime, ledger: Ledger
) -> None:
    plan = retrieval.plan_retrieval(spec, ["hog", f"random:{runs[0]}", *runs], size.retrieval, seed)
    if not _is_finished(folder, plan, retrieval.SCORES_FILE):
        retrieval.nn_retrieval(plan, folder, runtime, ledger)


def _evaluate(folder: Path, spec: str, run: str, size: _Size, seed: int, runtime: Runtime, ledger: Ledger) -> None:
    plan = evaluation.plan_evaluation(spec, [run], "centre", None, size.evaluation, seed)
    if not _is_finished(folder, plan, evaluation.SCORES_FILE):
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
    shown = [record for record in of_task if record.metric not in tabulation.FURTHER.get(task, ())]
    figures.save(comparisons.column_figure(tabulation.measured_cells(shown)), path)
    return path


def _closing(measured: Sequence[Record], places: Mapping[str, Path], seconds: float) -> str:
    """The measured tables, then where everything is."""
    shown = tables.tables(tabulation.measured_cells(measured))
    lines = [tables.to_text(shown), "", f"Done in {seconds:.0f} s. What there is now:"]
    width = max(map(len, places))
    return "\n".join([*lines, *(f"  {name:<{width}}  {place}" for name, place in places.items())])
