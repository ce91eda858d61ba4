"""What a probe of features has done so far, kept in its run folder until it is finished: a stopped one goes on.

Of describing a split at most KEEP_SECONDS of work are lost, and one score, however long it takes; what takes no longer
in all is not kept at all.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssl_inpaint import files
from ssl_inpaint.errors import UsageError

KEEP_SECONDS = 20.0
Features = dict[str, Tensor]  # by stage, B x ...


class Unfinished:
    """A folder of features by batch, and of scores by name; `identity` is of all that these depend on."""

    def __init__(self, folder: Path, identity: str, is_writer: bool = True) -> None:
        self._root, self._is_writer = folder, is_writer
        self._folder = folder / identity  # what was made otherwise is not found
        self._notes_file = self._folder / "scores.json"
        self._notes: dict[str, float] = self._read_notes()
        self._kept_at = time.monotonic()

    def batches(self, name: str, turns: range, describe: Callable[[range], Iterator[Features]]) -> Iterator[Features]:
        """The features of those batches, in order: what is kept of them, and of the rest what `describe` makes."""
        start = turns.start
        while (file := self._file_from(name, start, turns.stop)) is not None:
            yield _read(file)
            start = _stop(file)
        fresh, began = list[Features](), time.monotonic()
        for turn, described in zip(range(start, turns.stop), describe(range(start, turns.stop)), strict=True):
            fresh.append(described)
            if time.monotonic() - began >= KEEP_SECONDS:
                self._write(name, range(turn + 1 - len(fresh), turn + 1), fresh)
                fresh, began = [], time.monotonic()
            yield described

    def noted(self, name: str, score: Callable[[], float]) -> float:
        """The score of that name that is kept, or else what `score` gives, which is kept too."""
        if name not in self._notes:
            self._notes[name] = score()
            if self._is_writer and time.monotonic() - self._kept_at >= KEEP_SECONDS:
                files.write_json(self._notes_file, {"schema": 1, "scores": self._notes})
                self._kept_at = time.monotonic()
        return self._notes[name]

    def clear(self) -> None:
        """Removes all of it, now that the run is finished."""
        if self._is_writer and self._root.exists():
            shutil.rmtree(self._root)

    def _file_from(self, name: str, start: int, stop: int) -> Path | None:
        """The longest file of batches from `start` on, none of them beyond `stop`."""
        found = [file for file in self._folder.glob(f"{name}-{start}-*.safetensors") if start < _stop(file) <= stop]
        return max(found, key=_stop, default=None)

    def _write(self, name: str, turns: range, batches: list[Features]) -> None:
        joined = {stage: torch.cat([one[stage] for one in batches]).contiguous() for stage in batches[0]}
        with files.replacing(self._folder / f"{name}-{turns.start}-{turns.stop}.safetensors") as temporary:
            save_file(joined, temporary)

    def _read_notes(self) -> dict[str, float]:
        try:
            found: dict[str, float] = json.loads(self._notes_file.read_text(encoding="utf-8"))["scores"]
            return {name: float(score) for name, score in found.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, LookupError, TypeError, AttributeError):
            raise _damaged(self._notes_file) from None


def _stop(file: Path) -> int:
    return int(file.stem.rpartition("-")[2])


def _read(file: Path) -> Features:
    try:
        return load_file(file)
    except (OSError, SafetensorError):
        raise _damaged(file) from None


def _damaged(file: Path) -> UsageError:
    return UsageError(f"{file} is damaged: remove it, and what was in it is computed again.")
