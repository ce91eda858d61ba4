"""Numbers to cells: records over their seeds, and published rows, each a number with all that places it in a table."""

from __future__ import annotations

import csv
import importlib.resources
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np

from ssl_inpaint import bootstrap
from ssl_inpaint.durations import duration
from ssl_inpaint.records import MEASURED, Record

ROW = ["method", "encoder", "recipe", "settings", "pretext", "supervision", "source"]
COLUMN = ["dataset", "task", "mode", "protocol", "metric", "split", "dataset_sha256"]
SHARED = ("section", *ROW, *COLUMN, "higher_is_better", "pretraining", "note")  # what the records of a cell agree in
VALUE = ["mean", "std", "low", "high", "n_seeds", "n_examples", "higher_is_better", "pretraining", "note"]
LOSSES = "pretext"  # the task whose metrics are losses, not fractions
FAMILIES = {
    "nn-retrieval": ", patch retrieval",
    "linear": ", linear probes of frozen layers",
    "inpaint": ", inpainting",
    LOSSES: ", pretext task {task} on held-out images",  # one a table, as they have few metrics in common
}
# Metrics beside the one of a task that Table 2 has: they stand in a table of their own.
FURTHER = {
    "det": ("mAP (area)", "AP (COCO)", "AP50 (COCO)", "AP75 (COCO)"),
    "seg": ("pixel accuracy", "mean class accuracy"),
}
BY_NUMBER = " k="  # in metrics that count something: neighbours, or examples of a class
NUMBERED = {"knn": ", nearest neighbours by their number k", "svm": ", SVM on k examples of a class"}
PUBLISHED = {
    "table1": "Published: inpainting, as in the paper's Table 1",
    "table2": "Published: transfer of AlexNet, as in the paper's Table 2",
    "linear": "Published: linear probes of frozen AlexNet layers",
}


Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, eq=False)  # no two are the same, whatever they say
class Cell:
    """One number of a table, where it stands (the fields of ROW and COLUMN), and what is known of it."""

    section: str  # the heading of its table
    method: str
    encoder: str
    recipe: str
    settings: str  # what tells rows apart that agree in all else a reader sees; else empty
    pretext: str
    supervision: str
    source: str
    dataset: str
    task: str
    mode: str
    protocol: str
    metric: str
    split: str
    dataset_sha256: str
    higher_is_better: bool
    pretraining: str  # its time, in words
    note: str
    mean: float
    std: float = math.nan  # over seeds; nan for a single one
    low: float = math.nan  # the ends of the 95 % interval over resampled test examples; nan without replicates
    high: float = math.nan
    n_seeds: int = 0  # 0: published
    n_examples: int = 0
    replicates: np.ndarray | None = None  # the mean over the seeds; None where a record has none
    records: tuple[int, ...] = ()  # the positions, among all records given, of those that count


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """The items of each key, both in the order in which they first appear."""
    found: dict[Key, list[Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def row_of(cell: Cell) -> tuple[str, ...]:
    """The fields of ROW, which cells of one row share."""
    return tuple(getattr(cell, name) for name in ROW)


def measured_cells(records: Sequence[Record]) -> list[Cell]:
    """Mean and spread over the seeds of records that agree in all else that may change a number, sorted.

    Of several records of one seed (say, its weights were trained again) the newest counts, and a note says so. Numbers
    of different settings are never averaged: each gets a row, told apart by `settings`.
    """
    notes = _newest(records)
    settings = _settings(records, notes)
    rows = {place: (_section(records[place]), *_row(records[place], settings[place])) for place in notes}
    times = {
        row: duration(_mean([records[place].pretraining_seconds for place in places]))
        for row, places in grouped(rows, rows.__getitem__).items()
    }

    def identity(place: int) -> tuple[str | bool, ...]:
        record, row = records[place], rows[place]
        return (*row, *_column(record), record.higher_is_better, times[row], notes[place])

    return [_cell(shared, places, records) for shared, places in sorted(grouped(notes, identity).items())]


@cache
def published_cells(chosen: tuple[str, ...] = tuple(PUBLISHED)) -> tuple[Cell, ...]:
    """The numbers printed by others that come with the package (`published.csv`), in its order, without spread.

    Of the `chosen` tables of PUBLISHED only.
    """
    text = importlib.resources.files("ssl_inpaint").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(_published(line) for line in csv.DictReader(text.splitlines()) if line["table"] in chosen)


def _published(line: Mapping[str, str]) -> Cell:
    further = f", {line['dataset']}" if line["table"] == "linear" else ""
    texts: dict[str, Any] = {name: line.get(name, "") for name in (*ROW, *COLUMN, "note")}
    return Cell(
        **texts,
        section=PUBLISHED[line["table"]] + further,
        higher_is_better=not line["metric"].startswith("mean "),  # mean L1 and mean L2
        pretraining=line["pretraining_time"],
        mean=float(line["value"]),
    )


def _cell(shared: tuple[str | bool, ...], places: Sequence[int], records: Sequence[Record]) -> Cell:
    """The cell of the records at `places`, which have the fields SHARED in common."""
    of = [records[place] for place in places]
    mean, replicates = _mean([record.value for record in of]), _replicates(of)
    interval = None if replicates is None else bootstrap.interval(mean, replicates)
    squares = [(record.value - mean) ** 2 for record in of]
    fields: dict[str, Any] = dict(zip(SHARED, shared, strict=True))
    return Cell(
        **fields,
        mean=mean,
        std=math.sqrt(math.fsum(squares) / (len(of) - 1)) if len(of) > 1 else math.nan,
        low=interval.low if interval else math.nan,
        high=interval.high if interval else math.nan,
        n_seeds=len(of),
        n_examples=max(record.n_examples for record in of),
        replicates=replicates,
        records=tuple(places),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _replicates(records: Sequence[Record]) -> np.ndarray | None:
    found = [bootstrap.unpack(record.value, record.replicates) for record in records]
    known = [one for one in found if one is not None]
    return np.mean(known, axis=0) if len(known) == len(found) else None


def _newest(records: Sequence[Record]) -> dict[int, str]:
    """The positions of the records that count, in order of age, each with a note of what was left out for it."""
    found: dict[int, str] = {}
    by_age = sorted(range(len(records)), key=lambda place: records[place].created_at)
    same = grouped(by_age, lambda place: _place(records[place], records[place].config_hash))
    for places in same.values():
        of_seeds = {records[place].seed: place for place in places}  # the newest of each
        older = len(places) - len(of_seeds)
        note = f"{older} older with the same seed and other weights left out" if older else ""
        found |= dict.fromkeys(of_seeds.values(), note)
    return {place: found[place] for place in by_age if place in found}


def _settings(records: Sequence[Record], counting: Iterable[int]) -> dict[int, str]:
    """What tells rows apart that agree in all a reader sees: the settings of pretraining, then those of measuring.

    The settings of pretraining are those that the record of the pretext task itself has, of the same weights.
    """
    known = {record.weights_sha256: record.config_hash for record in records if record.task == LOSSES}
    trained = {place: known.get(records[place].weights_sha256, "") for place in counting}
    trainings: dict[tuple[str, ...], set[str]] = {}
    measurings: dict[tuple[str, ...], set[str]] = {}
    for place, own in trained.items():
        record = records[place]
        # Inpainting hashes the whole network, which no pretext record knows; its own settings tell its runs apart.
        trainings.setdefault(_row(record), set()).update(() if record.task == "inpaint" else (own,))
        measurings.setdefault((*_place(record), own), set()).add(record.config_hash)
    found = {}
    for place, own in trained.items():
        record = records[place]
        is_told, is_changed = len(trainings[_row(record)]) > 1, len(measurings[(*_place(record), own)]) > 1
        found[place] = f"{own if is_told else ''} {record.config_hash if is_changed else ''}".strip()
    return found


def _row(record: Record, settings: str = "") -> tuple[str, ...]:
    return tuple(settings if name == "settings" else getattr(record, name) for name in ROW)


def _column(record: Record) -> tuple[str, ...]:
    return tuple(getattr(record, name) for name in COLUMN)


def _place(record: Record, settings: str = "") -> tuple[str, ...]:
    return (_section(record), *_row(record, settings), *_column(record))


def _section(record: Record) -> str:
    kind = "Measured" if record.source == MEASURED else "Cited"
    further = ", further metrics" if record.metric in FURTHER.get(record.task, ()) else ""
    if BY_NUMBER in record.metric:
        further = NUMBERED.get(record.task, further)
    family = FAMILIES.get(record.task, further).format(task=record.protocol.split(" ")[0])
    return f"{kind}: {record.dataset}{family}"
