"""What training makes of where it starts: of random weights as steps go on, and of filters made of the images.

    python benchmarks/starts.py

Each row is pretrained by the recipe `quick` on `shapes` and its features measured by quick_cls, by the very commands a
user would type; what is finished is not run again, so the same command goes on. The table is results/starts.md, its
records are in a ledger beside it: in the tables of all rows these would be told apart by hashes of settings alone.
About 45 minutes of one CPU core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from running import run_once
from tabulate import tabulate

from ssl_inpaint import cells, checkpoint, files, table_texts
from ssl_inpaint.records import Ledger, Record

PCA = "pca:compact_alexnet"
NARROW = ("--set", "encoder.channels=48,128,192,192,128")  # the encoder of the recipe
FOLDER = click.Path(path_type=Path, file_okay=False)


@dataclass(frozen=True)
class Row:
    """A task, what it starts from and how long it is trained."""

    pretext: str  # empty: nothing is trained
    start: str = ""  # as in pretrain --from; empty: random weights
    steps: int = 250
    batch: int = 32
    rate: str = "1e-3"

    @property
    def folder(self) -> str:
        """Of its run."""
        start = self.start.partition(":")[0] or "random"
        return f"{self.pretext}-{start}-{self.steps}x{self.batch}-{self.rate}" if self.pretext else start

    @property
    def arguments(self) -> list[str]:
        """Of pretrain."""
        settings = {"steps": self.steps, "batch_size": self.batch, "learning_rate": self.rate}
        told = [part for name, value in settings.items() for part in ("--set", f"train.{name}={value}")]
        start = ["--from", self.start] if self.start else []
        return ["--data", "shapes", "--recipe", "quick", "--pretext", self.pretext, *start, *told]


ROWS = (
    Row(""),
    Row("inpainting"),
    Row("inpainting", steps=1000, batch=64),
    Row("rotation"),
    Row("supervised"),
    Row("", PCA),
    Row("inpainting", PCA, rate="1e-4"),
    Row("inpainting", PCA),
    Row("rotation", PCA),
    Row("supervised", PCA),
)


@click.command()
@click.option("--seed", default=0, show_default=True)
@click.option("--runs", type=FOLDER, default=Path("runs/starts"), show_default=True)
@click.option("--output", type=FOLDER, default=Path("results"), show_default=True, help="Where table and ledger go.")
def starts(seed: int, runs: Path, output: Path) -> None:
    """Runs what is not there yet and writes the table."""
    ledger, found = output / "starts.jsonl", list[tuple[Row, Path]]()
    for row in ROWS:
        trained, measured = runs / f"{row.folder}-{seed}", runs / f"cls-{row.folder}-{seed}"
        if row.pretext:
            run_once("pretrain", trained, seed, ledger, *row.arguments)
        source = [str(trained)] if row.pretext else [row.start or "random:compact_alexnet", *NARROW]
        protocol = ["--task", "cls", "--mode", "frozen", "--protocol", "quick_cls", "--data", "shapes"]
        run_once("transfer", measured, seed, ledger, *protocol, "--from", *source)
        found.append((row, trained))
    text = render(found, Ledger(ledger).read())
    files.write_text(output / "starts.md", text)
    click.echo(text)


def render(found: Sequence[tuple[Row, Path]], records: Sequence[Record]) -> str:
    """The table in Markdown, of rows with their runs and of the ledger's records."""
    lines, used = [], list[Record]()
    for row, folder in found:
        measured = _measured(row, folder, records)
        (cell,) = cells.measured_cells([measured])
        task = cell.method.partition(",")[0] if row.pretext else "nothing is trained"
        length = f"{row.steps:,} x {row.batch}, {row.rate}" if row.pretext else "–"
        lines.append(
            ["filters by PCA" if row.start else "random weights", task, length, table_texts.number(cell, False)]
        )
        used.append(measured)
    headers = ["starts from", "learns by", "steps x images, learning rate", f"{used[0].metric}, frozen"]
    grid = tabulate(lines, headers, tablefmt="pipe", disable_numparse=True, colalign=("left", "left", "left", "right"))
    of = f"{used[0].n_examples:,} test images of {used[0].dataset}, protocol {used[0].protocol}, seed {used[0].seed}"
    return f"{_TITLE}\n{grid}\n\n- In percent, on {of}; in brackets the 95 % bootstrap interval over these images.\n"


_TITLE = """<!-- Made by benchmarks/starts.py from results/starts.jsonl; edits are lost. -->

## What training makes of where it starts
"""


def _measured(row: Row, folder: Path, records: Sequence[Record]) -> Record:
    """The row's record of classification, the newest: of a run's weights, or by what nothing was trained for."""
    known = [r for r in records if r.task == "cls" and r.replicates]
    if row.pretext:
        encoder, _ = checkpoint.open_encoder(str(folder), {}, 0)
        weights = checkpoint.weights_sha256(encoder)
        known = [r for r in known if r.weights_sha256 == weights]
    else:
        known = [r for r in known if r.pretext == (row.start.partition(":")[0] or "none")]
    if not known:
        raise ValueError(f"the ledger has no record of {row.folder}")
    return max(known, key=lambda r: r.created_at)


if __name__ == "__main__":
    starts()
