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
from ssl_inpaint.experiment import pretrain, retrieval, transfer
from ssl_inpaint.plans import PLAN_FILE, read_plan
from ssl_inpaint.records import Ledger, Record
from ssl_inpaint.runtime import Runtime, open_runtime

PRETEXTS = ("inpainting", "autoencoder", "supervised")


@dataclass(frozen=True)
class _Size:
    """How much is run."""

    recipe: str
    protocol: str
    modes: tuple[str, ...] = ("frozen",)
    seeds: int = 1
    data: str = "shapes"
    pretraining: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # what differs from the recipe
    transfer: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # what differs from the protocol
    retrieval: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


MINUTES = _Size("quick", "quick_cls", retrieval={"retrieval": {"gallery": "2000"}})
FULL = _Size("compact", "compact_cls", ("frozen", "finetune"), seeds=3, pretraining={"train": {"steps": "1500"}})


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
        "neighbours": output / "runs" / f"nn-retrieval-{seed}",
        "classification": _draw(measured, size.modes[-1], results / "classification.png"),
        "ledger": ledger.path,
        **{f"tables, {path.suffix[1:]}": path for path in written},
    }
    return _closing(measured, places, time.monotonic() - began)


def _run_all(runs: Path, size: _Size, seed: int, runtime: Runtime, ledger: Ledger) -> None:
    total = size.seeds * (len(PRETEXTS) + (len(PRETEXTS) + 1) * len(size.modes)) + 1
    steps = iter(range(1, total + 1))
    for one in range(seed, seed + size.seeds):
        trained = {pretext: str(_run(runs, pretext, one)) for pretext in PRETEXTS}
        for pretext in PRETEXTS:
            progress.say(f"[{next(steps)}/{total}] pretrain {pretext}, seed {one}")
            _pretrain(runs, pretext, size, one, runtime, ledger)
        for mode in size.modes:
            for name, source in {"random": f"random:{trained['inpainting']}", **trained}.items():
                progress.say(f"[{next(steps)}/{total}] transfer {name}, {mode}, seed {one}")
                _transfer(runs / f"cls-{mode}-{name}-{one}", source, mode, size, one, runtime, ledger)
    progress.say(f"[{next(steps)}/{total}] nearest neighbours")
    sources = [str(_run(runs, pretext, seed)) for pretext in PRETEXTS]
    _retrieve(runs / f"nn-retrieval-{seed}", sources, size, seed, runtime, ledger)


def _run(runs: Path, pretext: str, seed: int) -> Path:
    return runs / f"{pretext}-{seed}"


def _pretrain(runs: Path, pretext: str, size: _Size, seed: int, runtime: Runtime, ledger: Ledger) -> None:
    folder = _run(runs, pretext, seed)
    plan = pretrain.plan_pretraining(size.data, pretext, size.recipe, None, size.pretraining, seed)
    if _is_finished(folder, plan, checkpoint.ENCODER_FILE):
        return
    pretrain.pretrain(plan, folder, runtime, ledger, resume=(folder / PLAN_FILE).exists())


def _transfer(folder: Path, source: str, mode: str, size: _Size, seed: int, runtime: Runtime, ledger: Ledger) -> None:
    plan = transfer.plan_transfer(size.data, source, "cls", mode, size.protocol, size.transfer, seed)
    if _is_finished(folder, plan, transfer.SCORES_FILE):
        return
    transfer.transfer(plan, folder, runtime, ledger, resume=(folder / PLAN_FILE).exists())


def _retrieve(folder: Path, runs: Sequence[str], size: _Size, seed: int, runtime: Runtime, ledger: Ledger) -> None:
    descriptors = ["hog", f"random:{runs[0]}", *runs]
    plan = retrieval.plan_retrieval(size.data, descriptors, size.retrieval, seed)
    if _is_finished(folder, plan, retrieval.SCORES_FILE):
        return
    retrieval.nn_retrieval(plan, folder, runtime, ledger)


def _is_finished(folder: Path, plan: Settings, last_file: str) -> bool:
    """True where the folder holds that very run, whole; UsageError where it holds another."""
    if not (folder / PLAN_FILE).exists():
        return False
    if read_plan(type(plan), folder) != plan:
        raise UsageError(f"{folder} was made with other settings: choose another --output, or remove it.")
    return (folder / last_file).exists()


def _draw(measured: Sequence[Record], mode: str, path: Path) -> Path:
    shown = [record for record in measured if record.task == "cls" and record.mode == mode]
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
