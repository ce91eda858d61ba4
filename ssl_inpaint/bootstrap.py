"""How far a score could have come out otherwise on other test examples: the bootstrap, and paired comparisons by it.

A replicate is the score on as many examples, drawn with replacement from those of the test set. Which are drawn follows
from the test set alone, so replicate r of all methods is of the same examples, and the differences of two methods'
replicates compare them in pairs without any example's outcome being kept.
Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 13.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

REPLICATES = 1000
LEAST_EXAMPLES = 10  # of fewer an interval says little and looks as if it said much
CONFIDENCE = 0.95
STORED = np.dtype("<f2")
ROUNDING = 1e-3  # of an interval's width: what two methods are further apart than, beyond 0, to be told apart


@dataclass(frozen=True)
class Scores:
    """Metric name to a score, and to its R replicates, of those metrics that have any."""

    values: dict[str, float]
    replicates: Mapping[str, np.ndarray] = field(default_factory=dict)

    def packed(self, name: str) -> str:
        """The replicates of that metric as `pack` makes them; "" where it has none."""
        return pack(self.values[name], self.replicates[name]) if name in self.replicates else ""

    def intervals(self) -> dict[str, tuple[float, float]]:
        """The lower and the higher end of each metric's interval, of those whose replicates are all defined."""
        found = {name: interval(self.values[name], known) for name, known in self.replicates.items()}
        return {name: (one.low, one.high) for name, one in found.items() if np.isfinite([one.low, one.high]).all()}


@dataclass(frozen=True)
class Interval:
    """Where a score, or a difference of two, may lie."""

    low: float
    high: float

    @property
    def has_zero(self) -> bool:
        """True where 0 is inside, or no further outside than replicates are rounded."""
        slack = ROUNDING * (self.high - self.low)
        return self.low - slack <= 0 <= self.high + slack


def draw_counts(identity: str, examples: int, replicates: int = REPLICATES) -> np.ndarray | None:
    """How often each of N examples is drawn in each of R resamplings: N x R uint16, columns adding up to N.

    Decided by `identity`, a text that names the test set, and N. None where N is below LEAST_EXAMPLES.
    """
    if examples < LEAST_EXAMPLES:
        return None
    key = int.from_bytes(hashlib.sha256(f"{identity} {examples}".encode()).digest()[:8], "little")
    bits = np.random.Philox(key=key)  # its raw numbers, unlike a Generator's, are the same in all versions of NumPy
    counts = np.empty((replicates, examples), np.uint16)
    for one in counts:
        drawn = (bits.random_raw(examples) >> np.uint64(32)) * np.uint64(examples) >> np.uint64(32)
        one[:] = np.bincount(drawn.astype(np.int64), minlength=examples)
    return np.ascontiguousarray(counts.T)


def interval(value: float, replicates: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """The percentile interval of the replicates, moved so that their mean is on `value`.

    Deviation: the plain percentile interval stays where the replicates are; average precision is higher where examples
    are repeated, so its replicates lie above the value (`benchmarks/interval_coverage.py` counts what that does).
    """
    outside = (1 - confidence) / 2
    low, high = np.quantile(replicates, [outside, 1 - outside]) - np.mean(replicates)
    return Interval(float(value + low), float(value + high))


def pack(value: float, replicates: np.ndarray) -> str:
    """R replicates as text: base64 of their differences from `value` in float16; "" where one is not finite."""
    differences = (np.asarray(replicates, np.float64) - value).astype(STORED)
    return base64.b64encode(differences.tobytes()).decode() if np.isfinite(differences).all() else ""


def unpack(value: float, text: str) -> np.ndarray | None:
    """What `pack` was given, rounded; None for "". ValueError for what is not its text."""
    if not text:
        return None
    try:
        differences = np.frombuffer(base64.b64decode(text, validate=True), STORED)
    except (binascii.Error, ValueError):
        raise ValueError("replicates are not base64 of float16 numbers") from None
    if len(differences) != REPLICATES or not np.isfinite(differences).all():
        raise ValueError(f"replicates are {len(differences)} numbers: they must be {REPLICATES} finite ones")
    return value + differences.astype(np.float64)
