"""What tables say of their cells: names of columns, numbers in their unit, and the notes below."""

from __future__ import annotations

import pandas as pd

from ssl_inpaint.bootstrap import Interval
from ssl_inpaint.cells import FAMILIES, LOSSES, ROW
from ssl_inpaint.separation import Cell, Comparison

DASH = "\N{EN DASH}"
DECIBELS = "psnr"  # metrics with this in their names are no fractions
AS_THEY_ARE = ("SSIM", "LPIPS")  # metrics whose names begin so are not usually given in percent
BOLD = (
    "Bold: the best of its column and what is not separated from it (separated: the 95 % interval of the difference, "
    "paired over the test examples, leaves out 0, and between rows of several seeds the lead is above both deviations "
    "together; pairs are not corrected for their number)."
)


def column_names(cells: pd.DataFrame) -> pd.Series[str]:
    """A name for the column of every cell: task, mode and metric, with as much more as tells columns apart."""
    names = cells["metric"]
    names = names.mask(~cells["mode"].isin(["", "-"]), cells["mode"] + " " + names)
    names = names.mask(~cells["task"].isin(list(FAMILIES)), cells["task"] + " " + names)
    if cells["dataset"].nunique() > 1:
        names = cells["dataset"] + " " + names
    for field in ("protocol", "split", "dataset_sha256"):
        is_shared = cells.groupby(names)[field].transform("nunique") > 1
        names = names.mask(is_shared, names + " (" + cells[field].str.slice(0, 24) + ")")
    return names


def number(cell: Cell, is_count_shown: bool) -> str:
    """The mean, with the deviation over several seeds, or for a single one the interval over test examples."""
    if cell.n_seeds > 1:
        count = f" (n={cell.n_seeds})" if is_count_shown else ""
        return f"{scaled(cell, cell.mean)} ± {scaled(cell, cell.std)}{count}"
    return scaled(cell, cell.mean) + (f" {interval(cell, cell)}" if cell.replicates is not None else "")


def scaled(cell: Cell, value: float) -> str:
    """A value of the cell's metric in its unit, such as percent, with the digits of its metric."""
    scale, digits = 100, 1 if cell.higher_is_better else 2
    if DECIBELS in cell.metric.lower():
        scale, digits = 1, 2
    elif cell.metric.startswith(AS_THEY_ARE):
        scale, digits = 1, 3
    elif cell.task == LOSSES:
        scale, digits = 1, 4
    return f"{scale * value:.{digits}f}"


def interval(cell: Cell, known: Cell | Interval) -> str:
    """What is `known` to lie between two values, `low` and `high`, in the unit of the cell."""
    return f"[{scaled(cell, known.low)}, {scaled(cell, known.high)}]"


def verdict(found: Comparison) -> str:
    """Whether two rows are told apart, in a word or two."""
    return {True: "separated", False: "not separated", None: "not known"}[found.is_separated]


def measured_notes(cells: pd.DataFrame, columns: list[str], is_uneven: bool, has_bold: bool) -> list[str]:
    """What a reader must know of the numbers of one table of measured `cells`, whose `column` is among `columns`."""
    seeds = cells["n_seeds"]
    notes = [f"{unit(cells)}. {DASH}: not measured."]
    if seeds.max() > 1:
        notes.append(f"Mean ± sample standard deviation over {'n' if is_uneven else seeds.max()} seeds.")
    if seeds.min() == 1:
        notes.append("A number without ± is of a single seed.")
    if (cells["replicates"].notna() & (seeds == 1)).any():
        notes.append("In brackets: 95 % bootstrap interval over test examples, of the one network that was trained.")
    if has_bold:
        notes.append(BOLD)
    for (protocol, split, n_examples), part in cells.groupby(["protocol", "split", "n_examples"]):
        names = [name for name in columns if name in set(part["column"])]
        of = "All columns" if names == columns else "; ".join(names)
        notes.append(f"{of}: protocol {protocol}, split {split}, {n_examples:,} examples.")
    return notes


def cell_notes(cells: pd.DataFrame) -> list[str]:
    """The notes of single cells, under the names of their rows, and of their columns where not all have them."""
    notes = []
    for _, row in cells.groupby(ROW, sort=False):
        for note, part in row[row["note"] != ""].groupby("note", sort=False):
            of = [row["method"].iloc[0], *([] if len(part) == len(row) else part["column"])]
            notes.append(f"{'; '.join(of)}: {note}.")
    return notes


def unit(cells: pd.DataFrame) -> str:
    """In what the numbers are given."""
    decibels = ", PSNR in dB" if cells["metric"].str.lower().str.contains(DECIBELS).any() else ""
    if (cells["task"] == LOSSES).all():
        return "Losses, images in [0, 1]" + decibels
    as_they_are = [name for name in AS_THEY_ARE if cells["metric"].str.startswith(name).any()]
    return "In percent" + decibels + (f", {' and '.join(as_they_are)} as they are" if as_they_are else "")
