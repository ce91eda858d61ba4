"""The cells of a bench: rows x measurements x seeds as plans, and how several processes may divide them beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_inpaint import checkpoint
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment import pretrain, transfer
from ssl_inpaint.plans import PretrainPlan, TransferPlan
from ssl_inpaint.rows import Bench, Measurement, Row

RUNS = "runs"  # the folder of run folders in that of a bench


@dataclass(frozen=True)
class Cell:
    """One run of a bench: an encoder to pretrain, or one to measure."""

    name: str  # of its folder
    plan: PretrainPlan | TransferPlan
    needs: str = ""  # the cell whose encoder it reads
    encoder: str = ""  # the part that is trained or measured; empty where only a file or folder knows

    @property
    def last_file(self) -> str:
        """What a finished folder has."""
        return checkpoint.ENCODER_FILE if isinstance(self.plan, PretrainPlan) else transfer.SCORES_FILE


@dataclass(frozen=True)
class Share:
    """One of `count` parts of the work, counted from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """`"2/8"` to the second of eight; UsageError where it is none."""
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise UsageError(f"--share {text}: write I/N, counted from 1: 1/4, 2/4, 3/4, 4/4.")
        return cls(int(number), int(count))

    def of(self, cells: Sequence[Cell]) -> list[Cell]:
        """Its cells, in order; the same split for all processes that are given the same cells.

        A pretraining stays together with all that is measured of it. Shares are even in cells, not in hours.
        """
        groups: dict[str, list[Cell]] = {}
        for cell in cells:
            groups.setdefault(cell.needs or cell.name, []).append(cell)
        sizes = [0] * self.count
        mine = set[str]()
        for group in sorted(groups.values(), key=len, reverse=True):  # the sort is stable
            smallest = sizes.index(min(sizes))
            sizes[smallest] += len(group)
            if smallest == self.number - 1:
                mine |= {cell.name for cell in group}
        return [cell for cell in cells if cell.name in mine]


def cells_of(bench: Bench, output: Path, first_seed: int = 0) -> list[Cell]:
    """Every cell, a seed at a time, what is needed before what needs it; UsageError for names that do not exist."""
    seeds = range(first_seed, first_seed + bench.seeds)
    # Planned once each: over seeds and rows only a few fields differ, which need no checking.
    pretrainings = {row.name: _pretraining(bench, row) for row in bench.rows if row.pretext}
    transfers = [(measured, _transfer(bench, measured)) for measured in bench.measurements]
    found = []
    for seed in seeds:
        sources = {row.name: row.source for row in bench.rows if row.source}
        sources |= {name: str(output / RUNS / f"{name}-{seed}") for name in pretrainings}
        for name, pretraining in pretrainings.items():
            plan = pretraining.model_copy(update={"seed": seed})
            found.append(Cell(f"{name}-{seed}", plan, encoder=plan.encoder))
        for measured, transferred in transfers:
            rows = [row for row in bench.rows if not measured.rows or row.name in measured.rows]
            found += [_measuring(measured, transferred, row, pretrainings, sources, seed) for row in rows]
    return found


def _pretraining(bench: Bench, row: Row) -> PretrainPlan:
    data = bench.data[row.data]
    return pretrain.plan_pretraining(data, row.pretext, row.recipe, row.encoder, row.settings, 0, row.start)


def _transfer(bench: Bench, measured: Measurement) -> TransferPlan:
    return transfer.plan_transfer(
        *(bench.data[measured.data], "", measured.task, measured.mode, measured.protocol, measured.settings, 0),
        has_predictions=measured.has_predictions,
    )


def _measuring(
    measured: Measurement,
    plan: TransferPlan,
    row: Row,
    pretrainings: Mapping[str, PretrainPlan],
    sources: Mapping[str, str],
    seed: int,
) -> Cell:
    source = sources[row.name]
    made_by = row.name if row.pretext else ""
    for name in row.named:
        source = source.replace(f"{{{name}}}", sources[name])
        made_by = name if name in pretrainings else ""
    changed = {"source": source, "seed": seed}
    if not row.pretext and row.settings.get("encoder"):
        changed["encoder_settings"] = {**plan.encoder_settings, **row.settings["encoder"]}
    name = "-".join([measured.task, measured.data, measured.mode, row.name, str(seed)])
    encoder = pretrainings[made_by].encoder if made_by else checkpoint.architecture_of(source)
    return Cell(name, plan.model_copy(update=changed), f"{made_by}-{seed}" if made_by else "", encoder)
