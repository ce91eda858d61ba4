"""Every row of a column against every other: differences, their intervals, and whether the rows are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from ssl_inpaint import separation, table_texts
from ssl_inpaint.cells import Cell, grouped, measured_cells
from ssl_inpaint.errors import UsageError, unknown_name
from ssl_inpaint.records import Record
from ssl_inpaint.table_texts import DASH
from ssl_inpaint.tables import INTERVAL, Entry, Table

NAMING = ("method", "encoder", "recipe", "settings")  # what tells rows apart
LIMITS = (
    "First over second, the better row first, in the unit of the tables. The interval is paired over resampled test "
    "examples; pairs are not corrected for how many they are: of 20 that do not differ about 1 is called separated."
)


def comparison_tables(records: Sequence[Record], dataset: str, task: str, metric: str | None = None) -> list[Table]:
    """A table of pairs for each column of a task on a data set, called as the tables call it.

    `metric` chooses among the metrics of the task; None: all. UsageError for a name of which there are no records, and
    where no column has two rows.
    """
    cells = measured_cells(records)
    for what, name in (("dataset", dataset), ("task", task), ("metric", metric)):
        if name is not None:
            cells = _chosen(cells, what, name)
    names = table_texts.column_names(cells)
    columns = [(name, of) for name, of in sorted(grouped(cells, names.__getitem__).items()) if len(of) > 1]
    if not columns:
        raise UsageError(f"No two rows of {dataset}, {task} share a column: measure another one, or choose otherwise.")
    *others, last = [_table(f"{dataset}: {name}", column) for name, column in columns]
    return [*others, replace(last, notes=(*last.notes, LIMITS))]


def _chosen(cells: Sequence[Cell], what: str, name: str) -> list[Cell]:
    known = list(dict.fromkeys(getattr(cell, what) for cell in cells))
    if name not in known:
        label = {"dataset": "data set among the records"}.get(what, f"{what} among these records")
        raise unknown_name(label, name, known)
    return [cell for cell in cells if getattr(cell, what) == name]


def _table(heading: str, column: Sequence[Cell]) -> Table:
    headers = [Entry(text, is_number=False) for text in ("first", "second")]
    headers += [Entry("difference"), Entry(INTERVAL), Entry("", is_number=False)]
    varying = [name for name in NAMING if name == "method" or len({getattr(cell, name) for cell in column}) > 1]
    rows = [_row(pair, varying) for pair in combinations(separation.ranked(column), 2)]
    cell = column[0]
    of = f"protocol {cell.protocol}, split {cell.split}, {cell.n_examples:,} examples"
    return Table(heading, tuple(headers), tuple(rows), (f"{table_texts.unit(column)}, {of}.",))


def _row(pair: tuple[Cell, Cell], varying: Sequence[str]) -> tuple[Entry, ...]:
    first, second = pair
    found = separation.compare(first, second)
    names = [", ".join(filter(None, (getattr(one, name) for name in varying))) for one in pair]
    interval = DASH if found.interval is None else table_texts.interval(first, found.interval)
    return (
        *(Entry(name, is_number=False) for name in names),
        Entry(table_texts.scaled(first, found.difference)),
        Entry(interval),
        Entry(table_texts.verdict(found), is_number=False),
    )
