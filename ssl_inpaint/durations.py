"""Seconds in the unit a person would use."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use; empty for none."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s" if seconds else ""
