"""The rows of a column: each against every other, whether they are told apart, and a figure of all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

from ssl_inpaint import bars, separation, table_texts
from ssl_inpaint.cells import Cell, grouped, measured_cells
from ssl_inpaint.errors import UsageError, unknown_name
from ssl_inpaint.records import Record
from ssl_inpaint.table_texts import DASH
from ssl_inpaint.tables import BASELINE_PRETEXTS, INTERVAL, Entry, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMING = ("encoder", "recipe", "settings")  # what tells rows of one method apart
MODES = {"frozen": ", frozen encoder", "finetune": ", fine-tuned encoder", "-": ""}
LIMITS = (
    "First over second, the better row first, in the unit of the tables. The interval is paired over resampled test "
    "examples; pairs are not corrected for how many they are: of 20 that do not differ about 1 is called separated."
)


def comparable_columns(
    records: Sequence[Record],
    dataset: str,
    task: str,
    metric: str | None = None,
    mode: str | None = None,
    protocol: str | None = None,
) -> dict[str, list[Cell]]:
    """The columns of a task on a data set that have two rows or more, called as the tables call them.

    `metric`, `mode` and `protocol` choose among those of the task; None: all. UsageError for a name of which there are
    no records, and where no column has two rows.
    """
    cells = measured_cells(records)
    chosen = {"dataset": dataset, "task": task, "protocol": protocol, "mode": mode, "metric": metric}
    for what, name in chosen.items():
        if name is not None:
            cells = _chosen(cells, what, name)
    names = table_texts.column_names(cells)
    columns = {name: of for name, of in sorted(grouped(cells, names.__getitem__).items()) if len(of) > 1}
    if not columns:
        raise UsageError(f"No two rows of {dataset}, {task} share a column: measure another one, or choose otherwise.")
    return columns


def comparison_tables(columns: Mapping[str, Sequence[Cell]]) -> list[Table]:
    """A table of pairs for each column."""
    *others, last = [_table(f"{column[0].dataset}: {name}", column) for name, column in columns.items()]
    return [*others, replace(last, notes=(*last.notes, LIMITS))]


def only_column(columns: Mapping[str, Sequence[Cell]]) -> Sequence[Cell]:
    """The one there is; UsageError where there are several, for a figure shows one."""
    if len(columns) > 1:
        raise UsageError(
            f"A figure shows one column, not {len(columns)} ({', '.join(columns)}): "
            "choose by --metric, --mode or --protocol."
        )
    return next(iter(columns.values()))


def column_figure(column: Sequence[Cell]) -> Figure:
    """The rows of a column as dots, best first, with their spread or interval."""
    names, one = _names(column), column[0]
    scale, digits = table_texts.scale_of(one)
    shown = [
        bars.Bar(names[cell], cell.mean, cell.std if cell.n_seeds > 1 else None, _kind(cell), _interval(cell))
        for cell in separation.ranked(column)
    ]
    mode = MODES.get(one.mode, f", {one.mode}")
    label = f"{one.metric} on {one.dataset}{mode}" + (" (%)" if scale == 100 else "")
    return bars.results_bars(shown, label, scale, digits)


def _chosen(cells: Sequence[Cell], what: str, name: str) -> list[Cell]:
    known = list(dict.fromkeys(getattr(cell, what) for cell in cells))
    if name not in known:
        label = {"dataset": "data set among the records"}.get(what, f"{what} among these records")
        raise unknown_name(label, name, known)
    return [cell for cell in cells if getattr(cell, what) == name]


def _table(heading: str, column: Sequence[Cell]) -> Table:
    headers = [Entry(text, is_number=False) for text in ("first", "second")]
    headers += [Entry("difference"), Entry(INTERVAL), Entry("", is_number=False)]
    names = _names(column)
    rows = [_row(pair, names) for pair in combinations(separation.ranked(column), 2)]
    cell = column[0]
    of = f"protocol {cell.protocol}, split {cell.split}, {cell.n_examples:,} examples"
    return Table(heading, tuple(headers), tuple(rows), (f"{table_texts.unit(column)}, {of}.",))


def _names(column: Sequence[Cell]) -> dict[Cell, str]:
    """What to call each row: by its method, and where others have the same by what these do not agree in."""
    names = dict[Cell, str]()
    for method, alike in grouped(column, lambda cell: cell.method).items():
        varying = [field for field in NAMING if len({getattr(cell, field) for cell in alike}) > 1]
        for cell in alike:
            names[cell] = ", ".join(filter(None, (method, *(getattr(cell, field) for field in varying))))
    return names


def _kind(cell: Cell) -> bars.Kind:
    if cell.pretext in BASELINE_PRETEXTS:
        return "baseline"
    kinds: dict[str, bars.Kind] = {"labels": "supervised", "unknown": "unknown"}
    return kinds.get(cell.supervision, "pretext")


def _interval(cell: Cell) -> tuple[float, float] | None:
    return None if math.isnan(cell.low) else (cell.low, cell.high)


def _row(pair: tuple[Cell, Cell], names: Mapping[Cell, str]) -> tuple[Entry, ...]:
    first, second = pair
    found = separation.compare(first, second)
    interval = DASH if found.interval is None else table_texts.interval(first, found.interval)
    return (
        *(Entry(names[cell], is_number=False) for cell in pair),
        Entry(table_texts.scaled(first, found.difference)),
        Entry(interval),
        Entry(table_texts.verdict(found), is_number=False),
    )
