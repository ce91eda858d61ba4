"""What run folders hold for a reader: the settings of each run, its figures, and what was scored class by class."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ssl_inpaint.errors import UsageError

SETTINGS_FILE, SCORES_FILE = "config.json", "scores.json"
FIGURES = {  # file to caption; several files fit a pattern, and they stand in this order
    "learning_curve.png": "Learning curve",
    "samples_over_time.png": "What it fills in, look by look",
    "neighbours-*.png": "Nearest neighbours",
    "methods.png": "The same holes, filled by each method",
    "before_after.png": "Before and after",
    "predictions/gallery.png": "Predictions beside the truth",
}
LAST_SAMPLES = "What it fills in, at the last look"
DESCRIBING = ("pretext", "mode", "source", "encoder", "descriptors", "inpainters", "inpainter", "photos", "data")


@dataclass(frozen=True)
class Drawn:
    """A figure of a run."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Run:
    """One run folder; `name` is its path below the folder of runs."""

    name: str
    verb: str
    settings: Mapping[str, object]  # its config.json
    class_scores: Mapping[tuple[str, str], float]  # (metric, class) to a fraction
    figures: tuple[Drawn, ...]

    @property
    def task(self) -> str:
        """What was measured, or "" where nothing was."""
        protocol = self.settings.get("protocol")
        return str(protocol.get("task", "")) if isinstance(protocol, Mapping) else ""

    @property
    def description(self) -> str:
        """What was run on what, in a line."""
        words = [self.task, *(_words(self.settings[name]) for name in DESCRIBING if self.settings.get(name))]
        label = str(self.settings.get("protocol_label", ""))
        return ", ".join(word for word in (*words, label, f"seed {self.settings.get('seed', 0)}") if word)


def find_runs(folder: Path) -> list[Run]:
    """All runs below `folder`, however deep, by name; not what a run keeps inside its own folder.

    UsageError where there is no such folder, or where settings or scores of a run cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder of runs {folder}: name the one that holds them.")
    return [_run(place, place.relative_to(folder).as_posix(), settings) for place, settings in _below(folder)]


def _below(folder: Path) -> list[tuple[Path, Mapping[str, object]]]:
    found, here = [], folder.resolve()
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if here.is_relative_to(place.resolve()):
            continue  # a link back up, which would never end
        settings = _read(place / SETTINGS_FILE) if (place / SETTINGS_FILE).is_file() else {}
        found += [(place, settings)] if "verb" in settings else _below(place)
    return found


def _run(folder: Path, name: str, settings: Mapping[str, object]) -> Run:
    found = _read(folder / SCORES_FILE) if (folder / SCORES_FILE).is_file() else {}
    scores = found.get("scores")
    own = {}
    for score, value in scores.items() if isinstance(scores, Mapping) else ():
        metric, colon, of = score.partition(": ")
        if colon and isinstance(value, float) and math.isfinite(value):
            own[metric, of] = value
    return Run(name, str(settings["verb"]), settings, own, _figures(folder))


def _figures(folder: Path) -> tuple[Drawn, ...]:
    found = [Drawn(path, text) for pattern, text in FIGURES.items() for path in sorted(folder.glob(pattern))]
    samples = sorted((folder / "samples").glob("*.png"))
    if samples and not (folder / "samples_over_time.png").exists():
        found.append(Drawn(samples[-1], LAST_SAMPLES))
    return tuple(found)


def _read(path: Path) -> Mapping[str, object]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):  # not to be opened, not UTF-8, or not JSON
        content = None
    if not isinstance(content, dict):
        raise UsageError(f"{path} cannot be read as a JSON object: restore it, or move its folder out of the runs.")
    return content


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
