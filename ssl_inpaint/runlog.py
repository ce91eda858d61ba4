"""What a run writes as it goes: JSON lines for reading back, TensorBoard events for watching."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ssl_inpaint import files
from ssl_inpaint.errors import UsageError


class RunLog:
    """log.jsonl and events/ in a run folder (nowhere, without one); losses are averaged between two lines.

    Lines past `first_step` are dropped on opening: a resumed run writes them again, from `window` on (what `window`
    gave when that step was done). UsageError where the disk is full or read-only.
    """

    def __init__(self, folder: Path | None, first_step: int, window: Mapping[str, Any] | None = None) -> None:
        self.path = folder / "log.jsonl" if folder else None
        began: Mapping[str, Any] = window or {"sums": {}, "steps": 0, "examples": 0}
        self._sums = {name: torch.tensor(total) for name, total in began["sums"].items()}
        self._steps, self._examples = int(began["steps"]), int(began["examples"])
        self._seconds = 0.0
        self._latest = ""
        self._events: Any = None
        if self.path is not None and folder is not None:
            kept = [line for line in read_log(self.path) if line["step"] <= first_step]
            files.write_text(self.path, "".join(json.dumps(line, sort_keys=True) + "\n" for line in kept))
            self._seconds = kept[-1]["seconds"] if kept else 0.0
            with _writing(folder):
                self._events = _event_writer(folder / "events", first_step)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            with _writing(Path(self._events.log_dir)):
                self._events.close()

    def note(self, losses: dict[str, Tensor], examples: int) -> None:
        """Adds one step's losses to the running window."""
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros(())).to(loss.device) + loss
        self._steps += 1
        self._examples += examples

    def window(self) -> dict[str, Any]:
        """What was noted since the last line, in plain values, for a checkpoint between two lines."""
        sums = {name: float(total) for name, total in self._sums.items()}
        return {"sums": sums, "steps": self._steps, "examples": self._examples}

    def write(self, step: int, seconds: float, learning_rate: float) -> dict[str, float]:
        """One line with the window's mean losses and throughput; returns those means and opens a new window."""
        means = {name: float(total) / max(1, self._steps) for name, total in self._sums.items()}
        line: dict[str, float] = {"step": step, "seconds": round(seconds, 3), "learning_rate": learning_rate}
        line |= {f"loss/{name}": value for name, value in means.items()}
        line["images_per_second"] = round(self._examples / max(seconds - self._seconds, 1e-9), 2)
        if self.path is not None:
            with _writing(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, sort_keys=True) + "\n")
        if self._events is not None:
            self._write_events(line, step)
        self._sums, self._steps, self._examples, self._seconds = {}, 0, 0, seconds
        self._latest = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
        return means

    def latest(self) -> str:
        """The last written losses in short, for a progress bar."""
        return self._latest

    def _write_events(self, line: Mapping[str, float], step: int) -> None:
        with _writing(Path(self._events.log_dir)):
            for name, value in line.items():
                if name != "step":
                    self._events.add_scalar(name, value, step)
            self._events.flush()  # a killed run then shows as much here as in log.jsonl


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log.jsonl, in order; empty where there is none. A last line cut short by a stop is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"Cannot write {path}: {error.strerror or error}. Free space and resume the run.") from None


def _event_writer(folder: Path, first_step: int) -> Any:
    """A TensorBoard writer, or None where the tensorboard package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first_step + 1)
