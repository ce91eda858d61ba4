"""Tables like the paper's, from the ledger alone, in four formats; published rows have tables of their own."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from ssl_inpaint import files, separation, table_texts
from ssl_inpaint.cells import COLUMN, PUBLISHED, ROW, VALUE, Cell, grouped, measured_cells, published_cells, row_of
from ssl_inpaint.records import MEASURED, Ledger, Record
from ssl_inpaint.table_texts import DASH

USUAL_ORDER = {"task": ("cls", "det", "seg"), "mode": ("frozen", "finetune")}
BASELINE_PRETEXTS = ("", "-", "none", "random", "kmeans", "pca")
INTERVAL = "95 % interval"
NOTHING_MEASURED = "Nothing is measured yet: the ledger holds no records."
GENERATED = "Made from the ledger by `ssl-inpaint tables`; edits are lost."
PREAMBLE = r"\usepackage[utf8]{inputenc} \usepackage{booktabs,adjustbox}"
DIGITS = re.compile(r"\d+")
LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", DASH: "--"},
}
ESCAPES = str.maketrans(LATEX)


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


def tables(cells: Sequence[Cell]) -> list[Table]:
    """One table a section of the cells (see `ssl_inpaint.cells`), in the order in which the sections first appear.

    Measured rows: baselines first, labels last, better below worse. Published rows: in the order of the file.
    """
    return [_table(heading, section) for heading, section in grouped(cells, lambda cell: cell.section).items()]


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


def to_csv(cells: Iterable[Cell]) -> str:
    """One line a number, fractions with six significant digits, with all that places it."""
    columns, text = ["section", *ROW, *COLUMN, *VALUE], io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_field(getattr(cell, name)) for name in columns] for cell in cells)
    return text.getvalue()


def render(records: Sequence[Record], published_tables: Sequence[str] = tuple(PUBLISHED)) -> dict[str, str]:
    """File name to text of all tables, measured before published; the same records give the same text."""
    measured, published = measured_cells(records), published_cells(tuple(published_tables))
    nothing = [] if records else [Table("Measured", (), (), (NOTHING_MEASURED,))]
    shown = [*nothing, *tables(measured), *tables(published)]
    markdown, latex, plain = to_markdown(shown), to_latex(shown), to_csv([*measured, *published])
    return {"tables.md": markdown, "tables.tex": latex, "tables.csv": plain}


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


def _table(heading: str, cells: Sequence[Cell]) -> Table:
    is_measured = all(cell.n_seeds > 0 for cell in cells)
    is_uneven = len({cell.n_seeds for cell in cells if cell.n_seeds > 1}) > 1
    names = table_texts.column_names(cells)
    entries: dict[Cell, Entry] = {}
    for column in grouped(cells, names.__getitem__).values():
        entries |= _entries(column, is_uneven)
    rows = list(grouped(cells, row_of).values())
    if is_measured:
        rows.sort(key=_row_order)
    columns = list(dict.fromkeys(names[cell] for cell in sorted(cells, key=_column_order)))
    always = ("method", "encoder") if is_measured else ("method",)
    left = [name for name in ROW[:4] if name in always or len({getattr(cell, name) for cell in cells}) > 1]
    right = [name for name in ("pretraining", "source") if {getattr(cell, name) for cell in cells} - {"", MEASURED}]
    lines = []
    for row in rows:
        at = {names[cell]: entries[cell] for cell in row}
        numbers = [at.get(column, Entry(DASH)) for column in columns]
        sides = [_labels(getattr(row[0], name) for name in side) for side in (left, right)]
        lines.append((*sides[0], *numbers, *sides[1]))
    notes = [f"{table_texts.unit(cells)}, as printed by the source; measured elsewhere. {DASH}: no number found."]
    if is_measured:
        has_bold = any(entry.is_best for entry in entries.values())
        notes = table_texts.measured_notes(names, columns, is_uneven, has_bold)
    headers = (*_labels(left), *map(Entry, columns), *_labels(right))
    return Table(heading, headers, tuple(lines), (*notes, *table_texts.cell_notes(names)))


def _entries(column: Sequence[Cell], is_count_shown: bool) -> dict[Cell, Entry]:
    """The entries of the cells of one column."""
    best = separation.ranked(column)[0]
    compared = separation.against_best(column) if best.n_seeds > 0 else {}
    marked = separation.marked(best, compared)
    found = {}
    for cell in column:
        details = []
        if cell.replicates is not None:
            details.append((INTERVAL, table_texts.interval(cell, cell)))
        if (one := compared.get(cell)) is not None and one.interval is not None:
            text = f"{table_texts.scaled(cell, one.difference)} {table_texts.interval(cell, one.interval)}"
            details.append((f"against {best.method}", f"{text}, {table_texts.verdict(one)}"))
        text = table_texts.number(cell, is_count_shown)
        found[cell] = Entry(text, True, cell in marked, cell.records, tuple(details))
    return found


def _labels(texts: Iterable[str]) -> list[Entry]:
    return [Entry(text or DASH, is_number=False) for text in texts]


def _field(value: object) -> object:
    """Fractions with six digits, empty where not known; all else as it is."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value


def _column_order(cell: Cell) -> list[str]:
    """The sort key of a column: the usual order of tasks and modes, numbers by size."""
    return [_rank(name, getattr(cell, name)) for name in COLUMN]


def _rank(field: str, text: str) -> str:
    usual = USUAL_ORDER.get(field, ())
    return f"{usual.index(text):02}" if text in usual else "~" + DIGITS.sub(lambda n: n[0].zfill(9), text.lower())


def _row_order(row: Sequence[Cell]) -> tuple[int, float, str, str]:
    first = row[0]
    rank = 2 if first.supervision == "labels" else 0 if first.pretext in BASELINE_PRETEXTS else 1
    goodness = math.fsum(cell.mean if cell.higher_is_better else -cell.mean for cell in row) / len(row)
    return rank, goodness, first.method, first.encoder


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
    return text.translate(ESCAPES)
