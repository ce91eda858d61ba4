"""`ssl-inpaint bench`: rows x measurements x seeds, each cell once, by as many processes as there are."""

from __future__ import annotations

import fcntl
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ssl_inpaint import catalog, checkpoint, config, files, progress
from ssl_inpaint.cells import LOSSES, duration
from ssl_inpaint.data.specs import open_data
from ssl_inpaint.errors import Failure, UsageError
from ssl_inpaint.experiment import pretrain, transfer
from ssl_inpaint.plans import PLAN_FILE, Bench, Measurement, PretrainPlan, Row, TransferPlan, read_plan
from ssl_inpaint.records import Ledger, Record, key
from ssl_inpaint.runtime import Runtime
from ssl_inpaint.train import Interrupted

RUNS, CELLS, FAILURES = "runs", "cells", "failures"
POLL_SECONDS = 5.0  # between looks at what other processes are doing


@dataclass(frozen=True)
class Cell:
    """One run of a bench: an encoder to pretrain, or one to measure."""

    name: str  # of its folder
    plan: PretrainPlan | TransferPlan
    needs: str = ""  # the cell whose encoder it reads

    @property
    def last_file(self) -> str:
        """What a finished folder has."""
        return checkpoint.ENCODER_FILE if isinstance(self.plan, PretrainPlan) else transfer.SCORES_FILE


@dataclass(frozen=True)
class Outlook:
    """What of a bench is done, and what is left."""

    done: list[Cell]
    failed: dict[str, str]  # cell -> reason
    left: list[Cell]
    seconds: float | None  # estimate of what is left, by records like it; None where nothing like it was measured
    unknown: int  # cells left that no record is like


@dataclass(frozen=True)
class Desk:
    """Where a bench is worked on."""

    output: Path
    runtime: Runtime
    ledger: Ledger
    workers: int = 1

    def folder(self, cell: Cell) -> Path:
        """The run folder of a cell."""
        return self.output / RUNS / cell.name


def plan_bench(name: str, data: Mapping[str, str], seeds: int | None) -> Bench:
    """The bench of that name with data sets put in; UsageError for a name of data that it does not have."""
    bench: Bench = catalog.load("benches", name).build()
    strange = sorted(data.keys() - bench.data.keys())
    if strange:
        known = ", ".join(sorted(bench.data))
        raise UsageError(f"Bench '{name}' has no data set '{strange[0]}': name one of {known} by --data NAME=SPEC.")
    changed = {"data": {**bench.data, **data}, **({} if seeds is None else {"seeds": seeds})}
    return config.check(Bench, "bench", {**bench.model_dump(), **changed})


def cells_of(bench: Bench, output: Path, first_seed: int = 0) -> list[Cell]:
    """Every cell, a seed at a time, what is needed before what needs it; UsageError for names that do not exist."""
    found = []
    for seed in range(first_seed, first_seed + bench.seeds):
        trained = {row.name: output / RUNS / f"{row.name}-{seed}" for row in bench.rows if row.pretext}
        found += [_pretraining(bench, row, seed) for row in bench.rows if row.pretext]
        for measured in bench.measurements:
            rows = [row for row in bench.rows if not measured.rows or row.name in measured.rows]
            found += [_transfer(bench, measured, row, trained, seed) for row in rows]
    return found


def refuse_missing_data(bench: Bench) -> None:
    """UsageError where a data set is not there, before anything is run."""
    for spec in sorted(set(bench.data.values())):
        open_data(spec, "pretrain")


def outlook(cells: Sequence[Cell], desk: Desk) -> Outlook:
    """What is done, what failed and what is left, with an estimate from records of the same kind."""
    records = desk.ledger.read()
    known = {key(record) for record in records}
    done = [cell for cell in cells if _is_done(cell, desk, known)]
    names = {cell.name for cell in done}
    left = [cell for cell in cells if cell.name not in names]
    failed = {cell.name: reason for cell in left if (reason := _failure(cell, desk))}
    costs = [_cost(cell, records) for cell in left]
    seconds = [cost for cost in costs if cost is not None]
    return Outlook(done, failed, left, sum(seconds) if seconds else None, len(costs) - len(seconds))


def describe(cells: Sequence[Cell], found: Outlook) -> list[str]:
    """The plan in lines for a person: each cell and how it stands, then what is left."""
    done = {cell.name for cell in found.done}
    lines = []
    for cell in cells:
        reason = found.failed.get(cell.name)
        stand = "done" if cell.name in done else f"failed: {reason}" if reason else "left"
        lines.append(f"{cell.name:<44} {stand}")
    left = f"{len(found.done)} of {len(cells)} cells are done"
    if found.left and found.seconds is not None:
        left += f", {duration(found.seconds)} are left as cells like them took before"
    if found.left and found.unknown:
        left += f", {found.unknown} are like none measured before"
    return [*lines, f"{left}."]


def run(cells: Sequence[Cell], desk: Desk, retry: bool = False) -> Outlook:
    """Runs what is left, cell by cell; other processes on the same folder take the cells that this one does not.

    What fails is kept with its reason and the others are run; it is tried again where `retry` says so. Interrupted
    where it is asked to stop: the same command goes on.
    """
    waiting, tried = list(cells), set[str]()
    while waiting:
        known = _known(desk)
        still: list[Cell] = []
        has_worked = False
        for cell in waiting:
            if _is_done(cell, desk, known) or (_failure(cell, desk) and (not retry or cell.name in tried)):
                continue
            if cell.needs and not _is_ready(cell, desk):
                if any(other.name == cell.needs for other in still):
                    still.append(cell)
                else:  # it is not being made: it failed
                    _note_failure(cell, desk, f"it needs {cell.needs}, which has failed")
                continue
            with _locked(desk.output / CELLS / f"{cell.name}.lock") as is_mine:
                if not is_mine:
                    still.append(cell)
                elif not _is_done(cell, desk, _known(desk)):
                    progress.say(f"[{cells.index(cell) + 1}/{len(cells)}] {cell.name}")
                    tried.add(cell.name)
                    _attempt(cell, desk)
                    has_worked = True
        waiting = still
        if waiting and not has_worked:
            time.sleep(POLL_SECONDS)
    return outlook(cells, desk)


def _pretraining(bench: Bench, row: Row, seed: int) -> Cell:
    plan = pretrain.plan_pretraining(bench.data[row.data], row.pretext, row.recipe, row.encoder, row.settings, seed)
    return Cell(f"{row.name}-{seed}", plan)


def _transfer(bench: Bench, measured: Measurement, row: Row, trained: Mapping[str, Path], seed: int) -> Cell:
    source, needs, settings = row.source, "", dict(measured.settings)
    if row.pretext:
        source, needs = str(trained[row.name]), f"{row.name}-{seed}"
    elif row.settings.get("encoder"):
        settings["encoder"] = row.settings["encoder"]
    for name, folder in trained.items():
        if f"{{{name}}}" in source:
            source, needs = source.replace(f"{{{name}}}", str(folder)), f"{name}-{seed}"
    plan = transfer.plan_transfer(
        *(bench.data[measured.data], source, measured.task, measured.mode, measured.protocol, settings, seed),
        has_predictions=measured.has_predictions,
    )
    return Cell("-".join([measured.task, measured.data, measured.mode, row.name, str(seed)]), plan, needs)


def _known(desk: Desk) -> set[str]:
    return {key(record) for record in desk.ledger.read()}


def _is_done(cell: Cell, desk: Desk, known: set[str]) -> bool:
    """True where the folder holds that very run, whole, and the ledger its numbers; UsageError for another run."""
    folder = desk.folder(cell)
    if not (folder / PLAN_FILE).exists():
        return False
    if read_plan(type(cell.plan), folder) != cell.plan:
        raise UsageError(f"{folder} was made with other settings: choose another --output, or remove it.")
    noted = desk.output / CELLS / f"{cell.name}.json"
    if not (folder / cell.last_file).exists() or not noted.exists():
        return False
    return set(json.loads(noted.read_text(encoding="utf-8"))["keys"]) <= known


def _is_ready(cell: Cell, desk: Desk) -> bool:
    return (desk.output / RUNS / cell.needs / checkpoint.ENCODER_FILE).exists()


def _attempt(cell: Cell, desk: Desk) -> None:
    try:
        made = _made(cell, desk)
    except Interrupted as stopped:
        raise Interrupted(f"{str(stopped).split(':')[0]}: the same command goes on from there.") from None
    except (UsageError, Failure, RuntimeError, ValueError, OSError) as error:  # of this cell; the others do not care
        _note_failure(cell, desk, (str(error).splitlines() or [type(error).__name__])[0])
        return
    files.write_json(desk.output / CELLS / f"{cell.name}.json", {"schema": 1, "keys": sorted(map(key, made))})
    (desk.output / FAILURES / f"{cell.name}.json").unlink(missing_ok=True)


def _made(cell: Cell, desk: Desk) -> list[Record]:
    """The records of the cell, run now or gone on with."""
    folder = desk.folder(cell)
    is_begun = (folder / PLAN_FILE).exists()
    if isinstance(cell.plan, PretrainPlan):
        return pretrain.pretrain(cell.plan, folder, desk.runtime, desk.ledger, is_begun, desk.workers).records
    return transfer.transfer(cell.plan, folder, desk.runtime, desk.ledger, is_begun, desk.workers).records


def _failure(cell: Cell, desk: Desk) -> str:
    """Why the cell failed when it was last tried; empty where it did not."""
    path = desk.output / FAILURES / f"{cell.name}.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["reason"]) if path.exists() else ""


def _note_failure(cell: Cell, desk: Desk, reason: str) -> None:
    progress.say(f"{cell.name} failed: {reason}")
    files.write_json(desk.output / FAILURES / f"{cell.name}.json", {"schema": 1, "reason": reason})


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """True inside where no other process holds the file; held until the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _cost(cell: Cell, records: Sequence[Record]) -> float | None:
    """Seconds that such a cell took before, by the median; None where there was none."""
    plan = cell.plan
    if isinstance(plan, PretrainPlan):
        alike = [r.seconds for r in records if (r.task, r.recipe, r.pretext) == (LOSSES, plan.recipe, plan.pretext)]
    else:
        wanted = (plan.protocol.task, plan.protocol_label, plan.mode)
        alike = [r.seconds for r in records if (r.task, r.protocol, r.mode) == wanted]
    return statistics.median(alike) if alike else None
