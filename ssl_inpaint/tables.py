"""Tables like the paper's, from the ledger alone, in four formats; published rows have tables of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from ssl_inpaint import files, separation, table_texts
from ssl_inpaint.cells import COLUMN, PUBLISHED, ROW, VALUE, measured_cells, published_cells
from ssl_inpaint.records import MEASURED, Ledger, Record
from ssl_inpaint.table_texts import DASH

USUAL_ORDER = {"task": ("cls", "det", "seg"), "mode": ("frozen", "finetune")}
BASELINE_PRETEXTS = ("", "-", "none", "random", "kmeans", "pca")
INTERVAL = "95 % interval"
NOTHING_MEASURED = "Nothing is measured yet: the ledger holds no records."
GENERATED = "Made from the ledger by `ssl-inpaint tables`; edits are lost."
PREAMBLE = r"\usepackage[utf8]{inputenc} \usepackage{booktabs,adjustbox}"
LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", DASH: "--"},
}


@dataclass(frozen=True)
class Entry:
    """One field of a table, as a reader sees it, the positions of the records behind it, and what more is known."""

    text: str
    is_number: bool = True
    is_best: bool = False  # or not separated from the best
    records: tuple[int, ...] = ()
    details: tuple[tuple[str, str], ...] = ()  # (what, text): its interval, and how it compares with the best


@dataclass(frozen=True)
class Table:
    """A heading, rows of as many entries as there are headers, and notes; no headers where there are only notes."""

    heading: str
    headers: tuple[Entry, ...]
    rows: tuple[tuple[Entry, ...], ...]
    notes: tuple[str, ...]


def tables(cells: pd.DataFrame) -> list[Table]:
    """One table a section of the cells (see `ssl_inpaint.cells`), in the order in which the sections first appear.

    Measured rows: baselines first, labels last, better below worse. Published rows: in the order of the file.
    """
    return [_table(str(heading), section) for heading, section in cells.groupby("section", sort=False)]


def to_markdown(shown: Sequence[Table]) -> str:
    """The tables for a page on GitHub."""
    parts = [f"<!-- {GENERATED} -->"]
    for table in shown:
        parts += [f"## {table.heading}", _markdown_grid(table), "\n".join(f"- {note}" for note in table.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_latex(shown: Sequence[Table]) -> str:
    """The tables for an article that loads booktabs and adjustbox."""
    return "\n\n".join([f"% {GENERATED}\n% In the preamble: {PREAMBLE}", *map(_latex_table, shown)]) + "\n"


def to_text(shown: Sequence[Table]) -> str:
    """The tables for a terminal, in aligned columns."""
    parts = []
    for table in shown:
        headers, *rows = [[entry.text for entry in line] for line in (table.headers, *table.rows)]
        sides = ["right" if header.is_number else "left" for header in table.headers]
        grid = tabulate(rows, headers, disable_numparse=True, colalign=sides) if rows else ""
        parts += [table.heading, grid, "\n".join(table.notes)]
    return "\n\n".join(part for part in parts if part)


def to_csv(cells: pd.DataFrame) -> str:
    """One line a number, fractions with six significant digits, with all that places it."""
    columns = ["section", *ROW, *COLUMN, *VALUE]
    return cells.to_csv(index=False, columns=columns, float_format="%.6g", lineterminator="\n")


def render(records: Sequence[Record], published_tables: Sequence[str] = tuple(PUBLISHED)) -> dict[str, str]:
    """File name to text of all tables, measured before published; the same records give the same text."""
    measured, published = measured_cells(records), published_cells(published_tables)
    nothing = [] if records else [Table("Measured", (), (), (NOTHING_MEASURED,))]
    shown = [*nothing, *tables(measured), *tables(published)]
    cells = pd.concat([measured, published]) if records else published
    return {"tables.md": to_markdown(shown), "tables.tex": to_latex(shown), "tables.csv": to_csv(cells)}


def write_tables(ledger_path: Path, output: Path) -> list[Path]:
    """Writes the tables of a ledger into the folder `output` and says where."""
    texts = {output / name: text for name, text in render(Ledger(ledger_path).read()).items()}
    for path, text in texts.items():
        files.write_text(path, text)
    return list(texts)


def stale_tables(ledger_path: Path, output: Path) -> list[Path]:
    """The files in `output` that are missing, or that say something other than the ledger."""
    texts = {output / name: text for name, text in render(Ledger(ledger_path).read()).items()}
    return [path for path, text in texts.items() if not path.is_file() or path.read_bytes() != text.encode()]


def _table(heading: str, cells: pd.DataFrame) -> Table:
    is_measured = bool((cells["n_seeds"] > 0).all())
    is_uneven = cells.loc[cells["n_seeds"] > 1, "n_seeds"].nunique() > 1
    cells = cells.assign(column=table_texts.column_names(cells))
    entries: dict[object, Entry] = {}
    for _, column in cells.groupby("column"):
        entries |= _entries(column, is_uneven)
    rows = [row for _, row in cells.groupby(ROW, sort=False)]
    if is_measured:
        rows.sort(key=_row_order)
    columns = [str(name) for name in cells.sort_values(COLUMN, key=_column_order, kind="stable")["column"].unique()]
    always = ("method", "encoder") if is_measured else ("method",)
    left = [name for name in ROW[:4] if name in always or cells[name].nunique() > 1]
    right = [name for name in ("pretraining", "source") if not cells[name].isin(["", MEASURED]).all()]
    headers = [*_labels(left), *map(Entry, columns), *_labels(right)]
    lines = []
    for row in rows:
        at = {column: entries[index] for index, column in row["column"].items()}
        first = row.iloc[0].to_dict()
        numbers = [at.get(column, Entry(DASH)) for column in columns]
        lines.append((*_labels(first[n] for n in left), *numbers, *_labels(first[n] for n in right)))
    notes = [f"{table_texts.unit(cells)}, as printed by the source; measured elsewhere. {DASH}: no number found."]
    if is_measured:
        has_bold = any(entry.is_best for entry in entries.values())
        notes = table_texts.measured_notes(cells, columns, is_uneven, has_bold)
    return Table(heading, tuple(headers), tuple(lines), (*notes, *table_texts.cell_notes(cells)))


def _entries(column: pd.DataFrame, is_count_shown: bool) -> dict[object, Entry]:
    """The entries of one column by the index of their cells."""
    best, *_ = ranked = separation.ranked(column)
    is_measured = best.n_seeds > 0
    marked = separation.marked(column) if is_measured else set()
    compared = separation.against_best(column) if is_measured else {}
    found: dict[object, Entry] = {}
    for cell in ranked:
        details = []
        if cell.replicates is not None:
            details.append((INTERVAL, table_texts.interval(cell, cell)))
        if (one := compared.get(cell.Index)) is not None and one.interval is not None:
            text = f"{table_texts.scaled(cell, one.difference)} {table_texts.interval(cell, one.interval)}"
            details.append((f"against {best.method}", f"{text}, {table_texts.verdict(one)}"))
        text = table_texts.number(cell, is_count_shown)
        found[cell.Index] = Entry(text, True, cell.Index in marked, cell.records, tuple(details))
    return found


def _labels(texts: Iterable[str]) -> list[Entry]:
    return [Entry(text or DASH, is_number=False) for text in texts]


def _column_order(values: pd.Series[str]) -> pd.Series[str]:
    """The sort key of one field of COLUMN: the usual order of tasks and modes, numbers by size."""
    order = USUAL_ORDER.get(str(values.name), ())
    usual = values.map({name: f"{position:02}" for position, name in enumerate(order)})
    natural = values.map(lambda text: "~" + re.sub(r"\d+", lambda n: n[0].zfill(9), text.lower()))
    return usual.fillna(natural).astype(str)


def _row_order(row: pd.DataFrame) -> tuple[int, float, str, str]:
    first = row.iloc[0]
    is_baseline = first["pretext"] in BASELINE_PRETEXTS
    rank = 2 if first["supervision"] == "labels" else 0 if is_baseline else 1
    goodness = row["mean"].where(row["higher_is_better"], -row["mean"]).mean()
    return rank, float(goodness), first["method"], first["encoder"]


def _markdown_grid(table: Table) -> str:
    def line(texts: Iterable[str]) -> str:
        return f"| {' | '.join(texts)} |"

    def fields(entries: Iterable[Entry]) -> list[str]:
        return [f"**{e.text}**" if e.is_best else e.text.replace("|", r"\|") for e in entries]

    rule = ["---:" if header.is_number else ":---" for header in table.headers]
    lines = [line(fields(table.headers)), line(rule), *(line(fields(row)) for row in table.rows)]
    return "\n".join(lines) if table.rows else ""


def _latex_table(table: Table) -> str:
    def line(entries: Iterable[Entry]) -> str:
        texts = (rf"\textbf{{{_escaped(e.text)}}}" if e.is_best else _escaped(e.text) for e in entries)
        return "  " + " & ".join(texts) + r" \\"

    notes = r"\par\smallskip\footnotesize " + _escaped(" ".join(table.notes))
    if not table.rows:
        return "\n".join([r"\begin{table}[t]", rf"\caption{{{_escaped(table.heading)}}}", notes, r"\end{table}"])
    alignment = "".join("r" if header.is_number else "l" for header in table.headers)
    begin = [r"\begin{table}[t]", r"\centering", rf"\caption{{{_escaped(table.heading)}}}"]
    grid = [r"\begin{adjustbox}{max width=\linewidth}", rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"]
    lines = [line(table.headers), r"\midrule", *map(line, table.rows), r"\bottomrule"]
    return "\n".join([*begin, *grid, *lines, r"\end{tabular}", r"\end{adjustbox}", notes, r"\end{table}"])


def _escaped(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
