"""Tables like the paper's, from the ledger alone, in four formats; published rows have tables of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from ssl_inpaint import files
from ssl_inpaint.cells import COLUMN, FAMILIES, LOSSES, PUBLISHED, RECORDS, ROW, VALUE, measured_cells, published_cells
from ssl_inpaint.records import MEASURED, Ledger, Record

USUAL_ORDER = {"task": ("cls", "det", "seg"), "mode": ("frozen", "finetune")}
BASELINE_PRETEXTS = ("", "-", "none", "random", "kmeans", "pca")
DECIBELS = "psnr"  # metrics with this in their names are no fractions
AS_THEY_ARE = ("SSIM", "LPIPS")  # metrics whose names begin so are not usually given in percent
NOTHING_MEASURED = "Nothing is measured yet: the ledger holds no records."
GENERATED = "Made from the ledger by `ssl-inpaint tables`; edits are lost."
PREAMBLE = r"\usepackage[utf8]{inputenc} \usepackage{booktabs,adjustbox}"
DASH = "\N{EN DASH}"
LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", DASH: "--"},
}


@dataclass(frozen=True)
class Entry:
    """One field of a table, as a reader sees it, and the positions of the records behind it."""

    text: str
    is_number: bool = True
    is_best: bool = False
    records: tuple[int, ...] = ()


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
    cells = cells.assign(column=_column_names(cells))
    best = _best(cells)
    entries = {
        c.Index: Entry(_number(c, is_uneven), is_best=c.Index in best, records=records)
        for c, records in zip(cells.itertuples(), cells[RECORDS], strict=True)
    }
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
        at = {c.column: entries[c.Index] for c in row.itertuples()}
        first = row.iloc[0].to_dict()
        numbers = [at.get(column, Entry(DASH)) for column in columns]
        lines.append((*_labels(first[n] for n in left), *numbers, *_labels(first[n] for n in right)))
    notes = [f"{_unit(cells)}, as printed by the source; measured elsewhere. {DASH}: no number found."]
    if is_measured:
        notes = _measured_notes(cells, columns, is_uneven, bool(best))
    return Table(heading, tuple(headers), tuple(lines), (*notes, *_cell_notes(cells)))


def _labels(texts: Iterable[str]) -> list[Entry]:
    return [Entry(text or DASH, is_number=False) for text in texts]


def _column_names(cells: pd.DataFrame) -> pd.Series[str]:
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


def _best(cells: pd.DataFrame) -> set[object]:
    """The index of the best cell of each column that leads by more than both deviations, of two seeds or more."""
    found = set()
    for _, column in cells.groupby("column"):
        first_two = column.sort_values("mean", ascending=not column["higher_is_better"].iloc[0])[:2]
        lead = first_two["mean"].diff().abs().iloc[-1]
        if len(first_two) == 2 and (first_two["n_seeds"] > 1).all() and lead > first_two["std"].sum():
            found.add(first_two.index[0])
    return found


def _number(cell: Any, is_count_shown: bool) -> str:
    scale, digits = 100, 1 if cell.higher_is_better else 2
    if DECIBELS in cell.metric.lower():
        scale, digits = 1, 2
    elif cell.metric.startswith(AS_THEY_ARE):
        scale, digits = 1, 3
    elif cell.task == LOSSES:
        scale, digits = 1, 4
    spread = f" ± {scale * cell.std:.{digits}f}" if cell.n_seeds > 1 else ""
    count = f" (n={cell.n_seeds})" if cell.n_seeds > 1 and is_count_shown else ""
    return f"{scale * cell.mean:.{digits}f}{spread}{count}"


def _measured_notes(cells: pd.DataFrame, columns: list[str], is_uneven: bool, has_best: bool) -> list[str]:
    seeds = cells["n_seeds"]
    notes = [f"{_unit(cells)}. {DASH}: not measured."]
    if seeds.max() > 1:
        notes.append(f"Mean ± sample standard deviation over {'n' if is_uneven else seeds.max()} seeds.")
    if seeds.min() == 1:
        notes.append("A number without ± is of a single seed.")
    if has_best:
        notes.append("Bold: best of its column, by more than the sum of both deviations.")
    for (protocol, split, n_examples), part in cells.groupby(["protocol", "split", "n_examples"]):
        names = [name for name in columns if name in set(part["column"])]
        of = "All columns" if names == columns else "; ".join(names)
        notes.append(f"{of}: protocol {protocol}, split {split}, {n_examples:,} examples.")
    return notes


def _unit(cells: pd.DataFrame) -> str:
    decibels = ", PSNR in dB" if cells["metric"].str.lower().str.contains(DECIBELS).any() else ""
    if (cells["task"] == LOSSES).all():
        return "Losses, images in [0, 1]" + decibels
    as_they_are = [name for name in AS_THEY_ARE if cells["metric"].str.startswith(name).any()]
    return "In percent" + decibels + (f", {' and '.join(as_they_are)} as they are" if as_they_are else "")


def _cell_notes(cells: pd.DataFrame) -> list[str]:
    notes = []
    for _, row in cells.groupby(ROW, sort=False):
        for note, part in row[row["note"] != ""].groupby("note", sort=False):
            of = [row["method"].iloc[0], *([] if len(part) == len(row) else part["column"])]
            notes.append(f"{'; '.join(of)}: {note}.")
    return notes


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
