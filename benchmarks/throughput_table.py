"""The table of throughput in Markdown, of the lines that `throughput.py` keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

KEY = ("what", "size", "hardware")  # of these three only the newest line is kept
HEADERS = ["what", "size", "ours", "compared with", "its speed", "ratio", "lowest to highest", "aim", "results"]
SIDES = ["left", "left", "right", "left", "right", "right", "right", "right", "left"]
_TITLE = """<!-- Made by benchmarks/throughput.py from throughput.json; edits are lost. -->

# Throughput

Ours against the plain way to write the same thing: both in one process, a round of each in turn; the ratio is the
median of the rounds' own ratios, more is better. `benchmarks/README.md` says what each row measures and what bounds it.
"""


def render(entries: Sequence[Mapping[str, Any]]) -> str:
    """A table for each piece of hardware."""
    parts = [_TITLE]
    for name in sorted({entry["hardware"] for entry in entries}):
        chosen = sorted((entry for entry in entries if entry["hardware"] == name), key=order_of)
        grid = tabulate(map(_cells, chosen), HEADERS, tablefmt="pipe", disable_numparse=True, colalign=SIDES)
        parts += [f"## {name}\n", grid, "", _origin(chosen), ""]
    return "\n".join(parts)


def order_of(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """By hardware, row, what and size."""
    return (entry["hardware"], entry["row"], entry["what"], entry["size"])


def _cells(entry: Mapping[str, Any]) -> list[str]:
    reach = entry["reach"]
    aim = "–" if reach is None else f"{reach:g}, {'met' if entry['ratio'] >= reach else 'not met'}"
    return [
        *(entry["what"], entry["size"], f"{entry['ours']:,.4g} {entry['unit']}"),
        *(entry["compared_with"], f"{entry['other']:,.4g}", f"{entry['ratio']:.2f}"),
        *(f"{entry['lowest']:.2f} to {entry['highest']:.2f} of {entry['rounds']}", aim, entry["agreement"]),
    ]


def _origin(entries: Sequence[Mapping[str, Any]]) -> str:
    """Commits, days and torch versions of the lines of one table."""
    days = sorted({entry["created_at"][:10] for entry in entries})
    commits = sorted({entry["commit"][:12] for entry in entries})
    versions = sorted({entry["versions"]["torch"] for entry in entries})
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"Measured {span}, commit {', '.join(commits)}, torch {', '.join(versions)}."
