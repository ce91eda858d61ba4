"""What the command line imports before it answers; how long that takes is `benchmarks/rows/start.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ssl_inpaint import catalog

SLOW = {"scipy", "sklearn", "pandas", "torchvision", "timm", "matplotlib", "cv2", "rich", "google", "torchmetrics"}
RUN = """
import sys
from ssl_inpaint.cli import main
try:
    main({command})
except SystemExit as ended:
    assert not ended.code, ended.code
print(*sys.modules)
"""


def imported_by(*command: str) -> set[str]:
    """The modules that are there once the command has run."""
    run = subprocess.run([sys.executable, "-c", RUN.format(command=list(command))], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("bench", ["photographs", "probes"])
def test_a_dry_run_imports_neither_solvers_nor_networks_of_others(bench: str, tmp_path: Path) -> None:
    places = ["--output", str(tmp_path / "bench"), "--set", f"run.ledger={tmp_path / 'none.jsonl'}"]
    assert not SLOW & imported_by("bench", bench, "--dry-run", *places)


@pytest.mark.parametrize("command", [["list"], ["--help"], ["bench", "--help"], ["transfer", "--help"]])
def test_what_only_speaks_of_the_suite_needs_no_numbers(command: list[str]) -> None:
    assert not {"torch", "numpy", "pydantic", *SLOW} & imported_by(*command)


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
