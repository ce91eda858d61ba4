"""`ssl-inpaint quickstart`: the whole suite on the embedded data set, in minutes."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ssl_inpaint import cells, checkpoint, figures, progress, tables
from ssl_inpaint.config import Settings
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment import pretrain, retrieval, transfer
from ssl_inpaint.plans import PLAN_FILE, read_plan
from ssl_inpaint.records import Ledger, Record
from ssl_inpaint.runtime import Runtime, open_runtime

PRETEXTS = ("inpainting", "autoencoder", "supervised")


@dataclass(frozen=True)
class _Size:
    """How much is run: the minutes' version, or --full."""

    recipe: str
    protocol: str
    modes: tuple[str, ...]
    seeds: int
    train_settings: dict[str, str]


_QUICK = _Size("quick", "quick_cls", ("frozen",), 1, {})
_FULL = _Size("compact", "compact_cls", ("frozen", "finetune"), 3, {"steps": "1500"})


def quickstart(output: Path, seed: int = 0, full: bool = False) -> str:
    """Pretrains, transfers, retrieves and tabulates into `output`; returns what to print at the end.

    What is finished there already is not run again and what was stopped goes on, so the same command resumes.
    UsageError where the folder holds runs with other settings.
    """
    began = time.monotonic()
    size = _FULL if full else _QUICK
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file: choose another --output.")
    runtime, ledger = open_runtime(), Ledger(output / "results" / "measured.jsonl")
    seeds = range(seed, seed + size.seeds)
    total = size.seeds * (len(PRETEXTS) + (len(PRETEXTS) + 1) * len(size.modes)) + 2
    steps = iter(range(1, total + 1))
    for one in seeds:
        for pretext in PRETEXTS:
            _say(next(steps), total, f"pretrain {pretext}, seed {one}")
            _pretrain(output / "runs", pretext, size, one, runtime, ledger)
        sources = [f"random:{_run(output / 'runs', PRETEXTS[0], one)}"]
        sources += [str(_run(output / "runs", pretext, one)) for pretext in PRETEXTS]
        for mode in size.modes:
            for source in sources:
                name = "random" if source.startswith("random:") else Path(source).name.rsplit("-", 1)[0]
                _say(next(steps), total, f"transfer {name}, {mode}, seed {one}")
                _transfer(output / "runs" / f"cls-{mode}-{name}-{one}", source, mode, size, one, runtime, ledger)
    _say(next(steps), total, "nearest neighbours")
    sources = [str(_run(output / "runs", pretext, seed)) for pretext in PRETEXTS]
    _retrieve(output / "runs" / f"nn-retrieval-{seed}", sources, seed, runtime, ledger)
    _say(next(steps), total, "tables and figures")
    results, measured = output / "results", ledger.read()
    written = tables.write_tables(ledger.path, results)
    places = {
        "encoder": _run(output / "runs", "inpainting", seed) / checkpoint.ENCODER_FILE,
        "what it fills in": _run(output / "runs", "inpainting", seed) / "samples",
        "neighbours": output / "runs" / f"nn-retrieval-{seed}",
        "classification": _draw(measured, size.modes[-1], results / "classification.png"),
        "ledger": ledger.path,
        **{f"tables, {path.suffix[1:]}": path for path in written},
    }
    return _closing(measured, places, time.monotonic() - began)


def _say(step: int, total: int, what: str) -> None:
    progress.say(f"[{step}/{total}] {what}")


def _run(runs: Path, pretext: str, seed: int) -> Path:
    return runs / f"{pretext}-{seed}"


def _pretrain(runs: Path, pretext: str, size: _Size, seed: int, runtime: Runtime, ledger: Ledger) -> None:
    folder = _run(runs, pretext, seed)
    plan = pretrain.plan_pretraining("shapes", pretext, size.recipe, None, {"train": size.train_settings}, seed)
    if _is_finished(folder, plan, checkpoint.ENCODER_FILE):
        return
    pretrain.pretrain(plan, folder, runtime, ledger, resume=(folder / PLAN_FILE).exists())


def _transfer(
    folder: Path, source: str, mode: str, size: _Size, seed: int, runtime: Runtime, ledger: Ledger
) -> None:
    plan = transfer.plan_transfer("shapes", source, "cls", mode, size.protocol, {}, seed)
    if _is_finished(folder, plan, transfer.SCORES_FILE):
        return
    transfer.transfer(plan, folder, runtime, ledger, resume=(folder / PLAN_FILE).exists())


def _retrieve(folder: Path, runs: Sequence[str], seed: int, runtime: Runtime, ledger: Ledger) -> None:
    descriptors = ["hog", f"random:{runs[0]}", *runs]
    plan = retrieval.plan_retrieval("shapes", descriptors, {"retrieval": {"gallery": "2000"}}, seed)
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
