"""`ssl-inpaint bench`: rows x measurements x seeds, each cell once, by as many processes as there are."""

from __future__ import annotations

import errno
import fcntl
import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_inpaint import checkpoint, files, progress
from ssl_inpaint.errors import Failure, UsageError
from ssl_inpaint.experiment import bench_costs, crew, pretrain, transfer
from ssl_inpaint.experiment.bench_cells import RUNS, Cell
from ssl_inpaint.experiment.bench_costs import Estimate, Timings
from ssl_inpaint.plans import PLAN_FILE, PretrainPlan, read_plan
from ssl_inpaint.records import Ledger, Record, key
from ssl_inpaint.runtime import Runtime
from ssl_inpaint.train import Interrupted

CELLS, FAILURES = "cells", "failures"  # folders beside RUNS: of notes and locks, and of reasons
POLL_SECONDS = 5.0  # between looks at what other processes are doing
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what a file system says that has none


@dataclass(frozen=True)
class Outlook:
    """What of a bench is done, and what is left."""

    done: list[Cell]
    failed: dict[str, str]  # cell -> reason
    left: list[Cell]  # what failed too
    estimates: dict[str, Estimate | None]  # of those left, by name; None where nothing like the cell was measured


@dataclass
class Desk:
    """Where a bench is worked on, and by whom."""

    output: Path
    runtime: Runtime
    ledger: Ledger
    workers: int = 1
    has_own_share: bool = False  # True: no other process is given these cells, so locks may be missing
    _known: tuple[object, frozenset[str]] = field(default=(None, frozenset()), init=False)

    def folder(self, cell: Cell) -> Path:
        """The run folder of a cell."""
        return self.output / RUNS / cell.name

    def note(self, cell: Cell) -> Path:
        """The file that says which records a finished cell has made, and how long it took."""
        return self.output / CELLS / f"{cell.name}.json"

    def failure(self, cell: Cell) -> Path:
        """The file that says why a cell failed when it was last tried."""
        return self.output / FAILURES / f"{cell.name}.json"

    def known(self) -> frozenset[str]:
        """The keys of the ledger's records, read again where it has changed."""
        try:
            state = self.ledger.path.stat()
            stamp = (state.st_mtime_ns, state.st_size, state.st_ino)
        except OSError:
            stamp = None
        if stamp is None or stamp != self._known[0]:
            self._known = stamp, frozenset(map(key, self.ledger.read()))
        return self._known[1]


def outlook(cells: Sequence[Cell], desk: Desk) -> Outlook:
    """What is done, what failed and what is left, with estimates from what cells like it took."""
    records = desk.ledger.read()
    known = {key(record) for record in records}
    done = [cell for cell in cells if _is_done(cell, desk, known)]
    names = {cell.name for cell in done}
    left = [cell for cell in cells if cell.name not in names]
    noted = {path.name for path in (desk.output / FAILURES).glob("*.json")}  # one look at the folder for all cells
    failed = {cell.name: _failure(cell, desk) for cell in left if desk.failure(cell).name in noted}
    timings = Timings(_notes_of_time(desk.output) if left else [], records)
    return Outlook(done, failed, left, timings.estimates(left, desk.runtime.describe()))


def run(cells: Sequence[Cell], desk: Desk, retry: bool = False) -> Outlook:
    """Runs what is left, cell by cell; other processes on the same folder take the cells that this one does not.

    What fails is kept with its reason and the others are run; it is tried again where `retry` says so. Interrupted
    where it is asked to stop: the same command goes on. Each cell is run by this process alone, whoever started it.
    """
    numbers = {cell.name: number for number, cell in enumerate(cells, start=1)}
    waiting, tried, began = list(cells), set[str](), time.time()
    while waiting:
        still: dict[str, Cell] = {}
        has_worked = False
        for cell in waiting:
            if _is_done(cell, desk, desk.known()) or not _is_open(cell, desk, retry and cell.name not in tried, began):
                continue
            if cell.needs and not _is_ready(cell, desk):
                if cell.needs in still:
                    still[cell.name] = cell
                else:  # it is not being made: it failed
                    _note_failure(cell, desk, f"it needs {cell.needs}, which has failed")
                continue
            with _locked(desk.output / CELLS / f"{cell.name}.lock", desk.has_own_share) as is_mine:
                if not is_mine:
                    still[cell.name] = cell
                elif not _is_done(cell, desk, desk.known()):
                    progress.say(f"[{numbers[cell.name]}/{len(cells)}] {cell.name}")
                    tried.add(cell.name)
                    _attempt(cell, desk)
                    has_worked = True
        waiting = list(still.values())
        if waiting and not has_worked:
            time.sleep(POLL_SECONDS)
    return outlook(cells, desk)


def _is_done(cell: Cell, desk: Desk, known: Collection[str]) -> bool:
    """True where the folder holds that very run, whole, and the ledger its numbers; UsageError for another run."""
    folder = desk.folder(cell)
    if not (folder / PLAN_FILE).exists():
        return False
    if read_plan(type(cell.plan), folder) != cell.plan:
        raise UsageError(f"{folder} was made with other settings: choose another --output, or remove it.")
    if not (folder / cell.last_file).exists() or not desk.note(cell).exists():
        return False
    return all(name in known for name in _read(desk.note(cell), "keys", list))


def _is_open(cell: Cell, desk: Desk, may_retry: bool, began: float) -> bool:
    """True where the cell has not failed, or failed before this command began and may be tried again."""
    path = desk.failure(cell)
    try:
        failed_at = path.stat().st_mtime
    except FileNotFoundError:
        return True
    return may_retry and failed_at < began


def _is_ready(cell: Cell, desk: Desk) -> bool:
    return (desk.output / RUNS / cell.needs / checkpoint.ENCODER_FILE).exists()


def _attempt(cell: Cell, desk: Desk) -> None:
    is_begun, began = (desk.folder(cell) / PLAN_FILE).exists(), time.monotonic()
    try:
        with crew.alone():
            made = _made(cell, desk, is_begun)
    except Interrupted as stopped:
        raise Interrupted(f"{str(stopped).split(':')[0]}: the same command goes on from there.") from None
    except (UsageError, Failure, RuntimeError, ValueError, OSError) as error:  # of this cell; the others do not care
        _note_failure(cell, desk, (str(error).splitlines() or [type(error).__name__])[0])
        return
    seconds = time.monotonic() - began
    # What was gone on with took longer than can be told.
    took = {} if is_begun else {"time": bench_costs.note(cell, desk.runtime.describe(), seconds, made)}
    files.write_json(desk.note(cell), {"schema": 1, "keys": sorted(map(key, made)), **took})
    desk.failure(cell).unlink(missing_ok=True)


def _made(cell: Cell, desk: Desk, is_begun: bool) -> list[Record]:
    """The records of the cell, run now or gone on with."""
    folder = desk.folder(cell)
    if isinstance(cell.plan, PretrainPlan):
        return pretrain.pretrain(cell.plan, folder, desk.runtime, desk.ledger, is_begun, desk.workers).records
    return transfer.transfer(cell.plan, folder, desk.runtime, desk.ledger, is_begun, desk.workers).records


def _failure(cell: Cell, desk: Desk) -> str:
    """Why the cell failed when it was last tried."""
    return str(_read(desk.failure(cell), "reason", str))


def _note_failure(cell: Cell, desk: Desk, reason: str) -> None:
    progress.say(f"{cell.name} failed: {reason}")
    files.write_json(desk.failure(cell), {"schema": 1, "reason": reason})


def _read(path: Path, name: str, kind: type[Any]) -> Any:
    """One value of a note; UsageError where the file is damaged."""
    found = _content(path)
    if not isinstance(found, dict) or not isinstance(found.get(name), kind):
        raise UsageError(f"{path} cannot be read: remove it, and its cell is looked at anew.")
    return found[name]


def _content(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _notes_of_time(output: Path) -> Iterator[Mapping[str, Any]]:
    """How long cells took, of this bench and of those beside it, such as a short trial."""
    for path in sorted(output.parent.glob(f"*/{CELLS}/*.json")):
        found = _content(path)
        if isinstance(found, dict) and isinstance(found.get("time"), dict):
            yield found["time"]


@contextmanager
def _locked(path: Path, may_be_missing: bool) -> Iterator[bool]:
    """True inside where no other process holds the file; held until the end.

    UsageError where the file system has no locks, unless these may be missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            if not may_be_missing:
                raise UsageError(
                    f"The file system of {path.parent} has no locks, by which processes divide the work: "
                    "divide it beforehand by --share I/N (--share 1/1 for one process)."
                ) from None
        yield True
