"""What the command line imports before it answers, and how long that takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ssl_inpaint import catalog

SLOW = {"scipy", "sklearn", "pandas", "torchvision", "timm", "matplotlib", "cv2", "rich", "google", "torchmetrics"}
RUN = """
import sys, time
from ssl_inpaint.cli import main
began = time.process_time()
if {with_torch}:
    import torch
imported = time.process_time()
try:
    main({command})
except SystemExit as ended:
    assert not ended.code, ended.code
print(imported - began, time.process_time() - imported, *sys.modules)
"""


def started(*command: str, with_torch: bool = False) -> tuple[float, float, set[str]]:
    """Seconds of the processor that importing torch took, and the command after it; the modules there are then."""
    code = RUN.format(command=list(command), with_torch=with_torch)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    torch, rest, *modules = run.stdout.splitlines()[-1].split()
    return float(torch), float(rest), set(modules)


def test_a_dry_run_of_a_thousand_cells_takes_less_than_importing_torch(tmp_path: Path) -> None:
    places = ["--output", str(tmp_path / "bench"), "--set", f"run.ledger={tmp_path / 'none.jsonl'}"]
    command = ["bench", "photographs", "--dry-run", "--seeds", "9", *places]
    torch, rest, modules = started(*command, with_torch=True)
    assert not SLOW & modules
    assert rest < torch


def test_a_plan_of_every_probe_imports_no_solver(tmp_path: Path) -> None:
    _, _, modules = started("bench", "probes", "--dry-run", "--output", str(tmp_path))
    assert not SLOW & modules


@pytest.mark.parametrize("command", [["list"], ["--help"], ["bench", "--help"], ["transfer", "--help"]])
def test_what_only_speaks_of_the_suite_needs_no_numbers(command: list[str]) -> None:
    assert not {"torch", "numpy", "pydantic", *SLOW} & started(*command)[2]


def test_a_part_is_described_whatever_comes_before_its_docstring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "__file__", str(tmp_path / "catalog.py"))
    folder = tmp_path / "encoders"
    folder.mkdir()
    texts = {
        "commented": '# A licence.\n\n"""First line.\n\nMore.\n"""\ndef build(): ...\n',
        "quoted": "r'''First\\line.'''\ndef build(): ...\n",
        "silent": "import os\ntext = 'no docstring'\ndef build(): ...\n",
        "no_part": '"""It says def build(.\n\n    def build(): no."""\nclass A:\n    def build(self): ...\n',
    }
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    assert catalog.parts("encoders") == {"commented": "First line.", "quoted": "First\\line.", "silent": ""}
