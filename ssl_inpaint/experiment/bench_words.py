"""How a bench stands, in lines for a person."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ssl_inpaint.durations import duration
from ssl_inpaint.experiment.bench import Outlook
from ssl_inpaint.experiment.bench_cells import Cell
from ssl_inpaint.experiment.bench_costs import Basis, Estimate

UNKNOWN = "how long is not known"
BASES: dict[Basis, str] = {
    "whole": "as cells like it took",
    "training": "of training alone, as runs like it took",
    "throughput": "by the images a second of its encoder and task",
}


def describe(cells: Sequence[Cell], found: Outlook, device: str) -> list[str]:
    """Each cell and how it stands, with an estimate of what is left; then the sums, by device."""
    done = {cell.name for cell in found.done}
    width = max((len(cell.name) for cell in cells), default=0)
    lines = []
    for cell in cells:
        reason = found.failed.get(cell.name)
        stand = "done" if cell.name in done else f"failed: {reason}" if reason else "left"
        cost = "" if cell.name in done else f", {_cost(found.estimates[cell.name], device)}"
        lines.append(f"{cell.name:<{width}}  {stand}{cost}")
    return [*lines, f"{len(found.done)} of {len(cells)} cells are done{_sums(found, device)}."]


def _cost(estimate: Estimate | None, device: str) -> str:
    if estimate is None:
        return UNKNOWN
    where = "" if estimate.device == device else f" on another device ({estimate.device})"
    return f"about {_time(estimate.seconds)}{where} {BASES[estimate.basis]}"


def _sums(found: Outlook, device: str) -> str:
    by_device: dict[str, list[float]] = defaultdict(list)
    for estimate in found.estimates.values():
        if estimate is not None:
            by_device[estimate.device].append(estimate.seconds)
    parts = []
    for name in sorted(by_device, key=lambda name: (name != device, name)):
        where = f"here ({name})" if name == device else f"on another device ({name})"
        parts.append(f"about {_time(sum(by_device[name]))} {where} for {_cells(len(by_device[name]))} more")
    unknown = sum(estimate is None for estimate in found.estimates.values())
    if unknown:
        parts.append(f"{UNKNOWN} for {_cells(unknown)} more, as nothing like that was measured")
    return "; ".join(["", *parts])


def _cells(count: int) -> str:
    return f"{count} cell" if count == 1 else f"{count} cells"


def _time(seconds: float) -> str:
    return duration(max(seconds, 1.0))
