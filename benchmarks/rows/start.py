"""How soon a bench of about a thousand cells says what is left of it, beside a process that imports torch alone."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from measuring import Measured, side_by_side

NAME = "start"
SEEDS = 9
CELLS = 981  # of bench photographs, that many seeds


def measure(device: torch.device, rounds: int, is_small: bool) -> Iterator[Measured]:
    """One line; ValueError where the plan has another number of cells."""
    with tempfile.TemporaryDirectory() as folder:
        places = ("--output", str(Path(folder) / "bench"), "--set", f"run.ledger={Path(folder) / 'none.jsonl'}")
        planned = ("-m", "ssl_inpaint", "bench", "photographs", "--dry-run", "--seeds", str(SEEDS), *places)
        text = _run(*planned)
        if f"0 of {CELLS} cells are done" not in text:
            raise ValueError(f"a plan of {CELLS} cells was expected: {text[:200]}")
        found = side_by_side(lambda: _run(*planned), lambda: _run("-c", "import torch"), rounds, warm_up=0)
    yield found.measured(
        what="bench --dry-run, from the command to its plan",
        size=f"{CELLS} cells",
        compared_with="a process that imports torch",
        count=1,
        unit="starts/s",
        reach=None,
        agreement="every cell is in the plan",
        device="cpu, 1 process",
    )


def _run(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout
