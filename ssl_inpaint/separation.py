"""Whether two cells of a column can be told apart: by resampled test examples, by seeds, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssl_inpaint import bootstrap
from ssl_inpaint.bootstrap import Interval
from ssl_inpaint.cells import Cell


@dataclass(frozen=True)
class Comparison:
    """One cell against another."""

    difference: float  # of the first over the second, as scores are
    interval: Interval | None  # of the difference, paired over the test examples; None: one has no replicates
    is_separated: bool | None  # None: there are neither replicates nor several seeds of both


def compare(first: Cell, second: Cell) -> Comparison:
    """Two cells of one column.

    They are separated where all that is known of both says so: the interval of the difference over test examples leaves
    out 0; the means over seeds are further apart than both deviations together.
    """
    difference, interval, verdicts = float(first.mean - second.mean), None, []
    if first.replicates is not None and second.replicates is not None:
        interval = bootstrap.interval(difference, first.replicates - second.replicates)
        verdicts.append(not interval.has_zero)
    if min(first.n_seeds, second.n_seeds) > 1:
        verdicts.append(abs(difference) > first.std + second.std)
    return Comparison(difference, interval, all(verdicts) if verdicts else None)


def ranked(column: Sequence[Cell]) -> list[Cell]:
    """The cells of one column, best first."""
    return sorted(column, key=lambda cell: cell.mean, reverse=column[0].higher_is_better)


def against_best(column: Sequence[Cell]) -> dict[Cell, Comparison]:
    """Each cell of one column but the best against it, the better ones first; empty for a single cell."""
    best, *others = ranked(column)
    return {one: compare(one, best) for one in others}


def marked(best: Cell, compared: Mapping[Cell, Comparison]) -> set[Cell]:
    """The best cell of one column and those not separated from it, of what `against_best` found.

    Empty where none is separated, or where it is not known of one whether it is.
    """
    verdicts = [one.is_separated for one in compared.values()]
    if None in verdicts or not any(verdicts):
        return set()
    return {best} | {cell for cell, one in compared.items() if not one.is_separated}
