"""How speed is compared: two ways to do one thing, side by side in one process, a round of each in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Measured:
    """One line of the table of throughput."""

    what: str  # as in the table's first column: "training step, released network, joint loss, float32"
    size: str  # of the problem: "128 px, batch 32"
    compared_with: str  # in words: "port: 4x4 convolutions as bottleneck, three passes of the discriminator"
    ours: float  # of `unit`, the median over rounds
    other: float
    unit: str  # "images/s", "queries/s": more is better
    ratio: float  # ours / other, the median of the rounds' own ratios
    lowest: float  # of the rounds' ratios
    highest: float
    reach: float | None  # the ratio that was aimed at; None: there is none
    agreement: str  # how equal the results were, against which tolerance: "losses equal to 2e-7 (tolerance 1e-5)"
    device: str  # as in records: Runtime.describe()
    rounds: int


@dataclass(frozen=True)
class Compared:
    """Seconds of each round."""

    ours: tuple[float, ...]
    other: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times faster ours was, round by round."""
        return tuple(there / here for here, there in zip(self.ours, self.other, strict=True))

    def measured(
        self,
        what: str,
        size: str,
        compared_with: str,
        count: int,
        unit: str,
        reach: float | None,
        agreement: str,
        device: str,
    ) -> Measured:
        """As a line, where a round does `count` things."""
        return Measured(
            what=what,
            size=size,
            compared_with=compared_with,
            ours=count / statistics.median(self.ours),
            other=count / statistics.median(self.other),
            unit=unit,
            ratio=statistics.median(self.ratios),
            lowest=min(self.ratios),
            highest=max(self.ratios),
            reach=reach,
            agreement=agreement,
            device=device,
            rounds=len(self.ours),
        )


def side_by_side(
    ours: Callable[[], object],
    other: Callable[[], object],
    rounds: int,
    warm_up: int = 1,
    device: torch.device | None = None,
) -> Compared:
    """Seconds of `rounds` rounds of both, after `warm_up` of each; the order changes from round to round."""
    for _ in range(warm_up):
        seconds_of(ours, device)
        seconds_of(other, device)
    return in_turn(lambda: seconds_of(ours, device), lambda: seconds_of(other, device), rounds)


def in_turn(ours: Callable[[], float], other: Callable[[], float], rounds: int) -> Compared:
    """As side_by_side, of functions that return their own seconds; nothing is run before."""
    here, there = list[float](), list[float]()
    for place in range(rounds):
        for way, found in ((ours, here), (other, there)) if place % 2 == 0 else ((other, there), (ours, here)):
            found.append(way())
    return Compared(tuple(here), tuple(there))


def seconds_of(function: Callable[[], object], device: torch.device | None = None) -> float:
    """Wall-clock seconds of one call, the device's work included."""
    finish(device)
    began = time.perf_counter()
    function()
    finish(device)
    return time.perf_counter() - began


def finish(device: torch.device | None) -> None:
    """Waits for what a GPU has been given to do; a CPU is never behind."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
