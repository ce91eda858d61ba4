"""Whether two cells of a column can be told apart: by resampled test examples, by seeds, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import pandas as pd

from ssl_inpaint import bootstrap
from ssl_inpaint.bootstrap import Interval


class Cell(Protocol):
    """A line of `cells.measured_cells` or `cells.published_cells`, as a named tuple."""

    Index: int
    method: str
    encoder: str
    recipe: str
    settings: str
    task: str
    metric: str
    mean: float
    std: float
    low: float
    high: float
    n_seeds: int
    higher_is_better: bool
    replicates: np.ndarray | None
    records: tuple[int, ...]


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


def against_best(column: pd.DataFrame) -> dict[int, Comparison]:
    """Each cell of one column but the best against it, by index, the better ones first; empty for a single cell."""
    best, *others = ranked(column)
    return {one.Index: compare(one, best) for one in others}


def ranked(column: pd.DataFrame) -> list[Cell]:
    """The cells of one column, best first."""
    is_rising = not column["higher_is_better"].iloc[0]
    return cast(list[Cell], list(column.sort_values("mean", ascending=is_rising, kind="stable").itertuples()))


def marked(column: pd.DataFrame) -> set[int]:
    """The index of the best cell of one column and of those not separated from it.

    Empty where none is separated, or where it is not known of one whether it is.
    """
    found = against_best(column)
    verdicts = [one.is_separated for one in found.values()]
    if None in verdicts or not any(verdicts):
        return set()
    return set(column.index) - {index for index, one in found.items() if one.is_separated}
