"""Runs by the very commands a user would type, each once: a finished one is left as it is, a stopped one goes on."""

from __future__ import annotations

from pathlib import Path

import click

from ssl_inpaint.cli import main as ssl_inpaint

# What a finished run folder of each verb has.
LAST_FILES = {
    "pretrain": "encoder.safetensors",
    **dict.fromkeys(("transfer", "nn-retrieval", "inpaint"), "scores.json"),
}
RESUMABLE = ("pretrain", "transfer")


def run_once(verb: str, folder: Path, seed: int, ledger: Path | None, *arguments: str) -> None:
    """The verb into that run folder; `ledger` None: the verbs' own."""
    if (folder / LAST_FILES[verb]).exists():
        return
    common = [] if ledger is None else ["--set", f"run.ledger={ledger}"]
    if verb in RESUMABLE and (folder / "config.json").exists():
        command = [verb, "--resume", str(folder), *common]  # a run knows its seed
    else:
        command = [verb, *arguments, "--seed", str(seed), *common, "--output", str(folder)]
    click.echo("ssl-inpaint " + " ".join(command))
    ssl_inpaint(command, standalone_mode=False)
