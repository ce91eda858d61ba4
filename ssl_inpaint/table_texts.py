"""What tables say of their cells: names of columns, numbers in their unit, and the notes below."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ssl_inpaint.bootstrap import Interval
from ssl_inpaint.cells import FAMILIES, LOSSES, Cell, grouped, row_of
from ssl_inpaint.separation import Comparison

DASH = "\N{EN DASH}"
DECIBELS = "psnr"  # metrics with this in their names are no fractions
AS_THEY_ARE = ("SSIM", "LPIPS")  # metrics whose names begin so are not usually given in percent
BOLD = (
    "Bold: the best of its column and what is not separated from it (separated: the 95 % interval of the difference, "
    "paired over the test examples, leaves out 0, and between rows of several seeds the lead is above both deviations "
    "together; pairs are not corrected for their number)."
)


def column_names(cells: Sequence[Cell]) -> dict[Cell, str]:
    """A name for the column of every cell: task, mode and metric, with as much more as tells columns apart."""
    has_datasets = len({cell.dataset for cell in cells}) > 1
    names = {cell: _column_name(cell, has_datasets) for cell in cells}
    for field in ("protocol", "split", "dataset_sha256"):
        for name, alike in grouped(cells, names.__getitem__).items():
            if len({getattr(cell, field) for cell in alike}) > 1:
                names |= {cell: f"{name} ({getattr(cell, field)[:24]})" for cell in alike}
    return names


def _column_name(cell: Cell, has_dataset: bool) -> str:
    parts = [cell.dataset] if has_dataset else []
    parts += [] if cell.task in FAMILIES else [cell.task]
    parts += [] if cell.mode in ("", "-") else [cell.mode]
    return " ".join([*parts, cell.metric])


def number(cell: Cell, is_count_shown: bool) -> str:
    """The mean, with the deviation over several seeds, or for a single one the interval over test examples."""
    if cell.n_seeds > 1:
        count = f" (n={cell.n_seeds})" if is_count_shown else ""
        return f"{scaled(cell, cell.mean)} ± {scaled(cell, cell.std)}{count}"
    return scaled(cell, cell.mean) + (f" {interval(cell, cell)}" if cell.replicates is not None else "")


def scaled(cell: Cell, value: float) -> str:
    """A value of the cell's metric in its unit, such as percent, with the digits of its metric."""
    scale, digits = scale_of(cell)
    return f"{scale * value:.{digits}f}"


def scale_of(cell: Cell) -> tuple[int, int]:
    """What its values are multiplied by to be shown, 100 for percent, and with how many digits they are."""
    if DECIBELS in cell.metric.lower():
        return 1, 2
    if cell.metric.startswith(AS_THEY_ARE):
        return 1, 3
    if cell.task == LOSSES:
        return 1, 4
    return 100, 1 if cell.higher_is_better else 2


def interval(cell: Cell, known: Cell | Interval) -> str:
    """What is `known` to lie between two values, `low` and `high`, in the unit of the cell."""
    return f"[{scaled(cell, known.low)}, {scaled(cell, known.high)}]"


def verdict(found: Comparison) -> str:
    """Whether two rows are told apart, in a word or two."""
    return {True: "separated", False: "not separated", None: "not known"}[found.is_separated]


def measured_notes(names: Mapping[Cell, str], columns: Sequence[str], is_uneven: bool, has_bold: bool) -> list[str]:
    """What a reader must know of the numbers of one table: of its measured cells, by the names of their columns."""
    seeds = [cell.n_seeds for cell in names]
    notes = [f"{unit(names)}. {DASH}: not measured."]
    if max(seeds) > 1:
        notes.append(f"Mean ± sample standard deviation over {'n' if is_uneven else max(seeds)} seeds.")
    if min(seeds) == 1:
        notes.append("A number without ± is of a single seed.")
    if any(cell.replicates is not None and cell.n_seeds == 1 for cell in names):
        notes.append("In brackets: 95 % bootstrap interval over test examples, of the one network that was trained.")
    if has_bold:
        notes.append(BOLD)
    measured_alike = grouped(names, lambda cell: (cell.protocol, cell.split, cell.n_examples))
    for (protocol, split, n_examples), part in sorted(measured_alike.items()):
        found = {names[cell] for cell in part}
        of = "All columns" if found == set(columns) else "; ".join(name for name in columns if name in found)
        notes.append(f"{of}: protocol {protocol}, split {split}, {n_examples:,} examples.")
    return notes


def cell_notes(names: Mapping[Cell, str]) -> list[str]:
    """The notes of single cells, under the names of their rows, and of their columns where not all have them."""
    notes = []
    for row in grouped(names, row_of).values():
        for note, part in grouped((cell for cell in row if cell.note), lambda cell: cell.note).items():
            of = [row[0].method, *([] if len(part) == len(row) else [names[cell] for cell in part])]
            notes.append(f"{'; '.join(of)}: {note}.")
    return notes


def unit(cells: Collection[Cell]) -> str:
    """In what the numbers are given."""
    decibels = ", PSNR in dB" if any(DECIBELS in cell.metric.lower() for cell in cells) else ""
    if all(cell.task == LOSSES for cell in cells):
        return "Losses, images in [0, 1]" + decibels
    as_they_are = [name for name in AS_THEY_ARE if any(cell.metric.startswith(name) for cell in cells)]
    return "In percent" + decibels + (f", {' and '.join(as_they_are)} as they are" if as_they_are else "")
