"""Numbers to cells: records and published rows as one frame, one number a line, from which tables are laid out."""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from ssl_inpaint import bootstrap
from ssl_inpaint.durations import duration
from ssl_inpaint.records import MEASURED, Record

ROW = ["method", "encoder", "recipe", "settings", "pretext", "supervision", "source"]
COLUMN = ["dataset", "task", "mode", "protocol", "metric", "split", "dataset_sha256"]
VALUE = ["mean", "std", "low", "high", "n_seeds", "n_examples", "higher_is_better", "pretraining", "note"]
REPLICATES = "replicates"  # the mean over the seeds of those that records hold; None where one of them has none
RECORDS = "records"  # the positions, among all records given, of those behind a cell; none behind a published one
LOSSES = "pretext"  # the task whose metrics are losses, not fractions
FAMILIES = {
    "nn-retrieval": ", patch retrieval",
    "linear": ", linear probes of frozen layers",
    "inpaint": ", inpainting",
    LOSSES: ", pretext tasks on held-out images",
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


def measured_cells(records: Sequence[Record]) -> pd.DataFrame:
    """Mean and spread over the seeds of records that agree in all else that may change a number.

    Of several records of one seed (say, its weights were trained again) the newest counts, and a note says so. Numbers
    of different settings are never averaged: each gets a row, told apart by `settings`, which is empty elsewhere.
    `records` are the positions of the records that count in a cell; `low` and `high` its 95 % interval over resampled
    test examples, nan where a record has no replicates.
    """
    if not records:
        return pd.DataFrame(columns=["section", *ROW, *COLUMN, *VALUE, REPLICATES, RECORDS])
    frame = pd.DataFrame([asdict(r) | {"section": _section(r), "settings": r.config_hash} for r in records])
    frame["position"] = range(len(frame))
    place = ["section", *ROW, *COLUMN]
    older = frame.groupby(place)["seed"].transform("size") - frame.groupby(place)["seed"].transform("nunique")
    frame["note"] = older.map(
        lambda count: f"{count} older with the same seed and other weights left out" if count else ""
    )
    frame = frame.sort_values("created_at", kind="stable").drop_duplicates([*place, "seed"], keep="last")
    frame["settings"] = _settings(frame, {r.weights_sha256: r.config_hash for r in records if r.task == LOSSES})
    frame["pretraining"] = frame.groupby(["section", *ROW])["pretraining_seconds"].transform("mean").map(duration)
    cells = frame.groupby([*place, "higher_is_better", "pretraining", "note"], as_index=False).agg(
        mean=("value", "mean"),
        std=("value", "std"),
        n_seeds=("seed", "nunique"),
        n_examples=("n_examples", "max"),
        records=("position", tuple),
    )
    return _with_intervals(cells, records)


def _with_intervals(cells: pd.DataFrame, records: Sequence[Record]) -> pd.DataFrame:
    """With `replicates`, and `low` and `high`, where 95 % of them lie; nan without."""
    replicates = pd.Series(
        [_replicates([records[place] for place in places]) for places in cells[RECORDS]], dtype=object
    )
    intervals = [
        None if known is None else bootstrap.interval(mean, known)
        for mean, known in zip(cells["mean"], replicates, strict=True)
    ]
    ends = [(math.nan, math.nan) if one is None else (one.low, one.high) for one in intervals]
    return cells.assign(replicates=replicates, low=[low for low, _ in ends], high=[high for _, high in ends])


def _replicates(records: Sequence[Record]) -> np.ndarray | None:
    found = [bootstrap.unpack(record.value, record.replicates) for record in records]
    known = [one for one in found if one is not None]
    return np.mean(known, axis=0) if len(known) == len(found) else None


def _settings(frame: pd.DataFrame, trained: Mapping[str, str]) -> pd.Series[str]:
    """What tells rows apart that agree in all a reader sees: the settings of pretraining, then those of measuring.

    `trained` is weights hash -> settings of pretraining, as the record of the pretext task itself has them.
    """
    pretraining = frame["weights_sha256"].map(trained).fillna("")
    shown = [name for name in ROW if name != "settings"]
    # Inpainting hashes the whole network, which no pretext record knows; its own settings tell its runs apart.
    known = pretraining.mask(frame["task"] == "inpaint")
    is_told = known.groupby([frame[name] for name in shown]).transform("nunique") > 1
    place = [frame[name] for name in ["section", *shown, *COLUMN]]
    is_changed = frame["config_hash"].groupby([*place, pretraining]).transform("nunique") > 1
    found = pretraining.where(is_told, "") + " " + frame["config_hash"].where(is_changed, "")
    return found.str.strip()


def published_cells(chosen: Sequence[str] = tuple(PUBLISHED)) -> pd.DataFrame:
    """The numbers printed by others that come with the package (`published.csv`), in its order, without spread.

    Of the `chosen` tables of PUBLISHED only.
    """
    with importlib.resources.files("ssl_inpaint").joinpath("published.csv").open(encoding="utf-8") as file:
        frame = pd.read_csv(file, keep_default_na=False)
    frame = frame[frame["table"].isin(list(chosen))]
    is_error = frame["metric"].str.startswith("mean ")  # mean L1 and mean L2
    section = frame["table"].map(PUBLISHED) + (", " + frame["dataset"]).where(frame["table"] == "linear", "")
    renamed = frame.rename(columns={"value": "mean", "pretraining_time": "pretraining"})
    renamed[["encoder", "recipe", "settings", "mode", "split", "dataset_sha256"]] = ""
    numbers = {"std": math.nan, "low": math.nan, "high": math.nan, "n_seeds": 0, "n_examples": 0}
    cells = renamed.assign(section=section, higher_is_better=~is_error, **numbers)
    cells[REPLICATES] = pd.Series([None] * len(cells), index=cells.index, dtype=object)
    cells[RECORDS] = [()] * len(cells)
    return cells[["section", *ROW, *COLUMN, *VALUE, REPLICATES, RECORDS]]


def _section(record: Record) -> str:
    kind = "Measured" if record.source == MEASURED else "Cited"
    further = ", further metrics" if record.metric in FURTHER.get(record.task, ()) else ""
    if BY_NUMBER in record.metric:
        further = NUMBERED.get(record.task, further)
    return f"{kind}: {record.dataset}{FAMILIES.get(record.task, further)}"
