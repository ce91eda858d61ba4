"""Pretraining on unlabelled photographs, then classification and retrieval on a VOC folder: ours beside its baselines.

    python benchmarks/photographs.py --photos filelist:photos/list.txt --voc voc2007:VOCdevkit

Rows: random, context encoder (random regions) and, with --controls, the autoencoder; frozen and fine-tuned by
compact-cls/v1; retrieval with HOG beside. What is finished is not run again, so the same command resumes.
Cost on 2 CPU cores, 4,000 steps: half an hour of pretraining a row, and seven minutes of transfer a row.
What it measured is in results/tables.md.
"""

from __future__ import annotations

from pathlib import Path

import click

from ssl_inpaint.cli import main as ssl_inpaint


@click.command()
@click.option("--photos", required=True, help="Data spec of the unlabelled photographs.")
@click.option("--voc", required=True, help="Data spec of the labelled set.")
@click.option("--steps", default=4000, show_default=True, help="Pretraining steps of 64 images.")
@click.option("--seed", default=0, show_default=True)
@click.option("--controls", is_flag=True, help="The autoencoder too.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/photographs"), show_default=True)
def photographs(photos: str, voc: str, steps: int, seed: int, controls: bool, runs: Path) -> None:
    """Runs what is not there yet, by the very commands a user would type."""
    names = ["inpainting", *(["autoencoder"] if controls else [])]
    for name in names:
        settings = ["--set", f"train.steps={steps}"]
        _once(
            "pretrain",
            runs / f"{name}-{seed}",
            "encoder.safetensors",
            seed,
            "--data",
            photos,
            "--pretext",
            name,
            *settings,
        )
    trained = {name: str(runs / f"{name}-{seed}") for name in names}
    sources = {"random": f"random:{trained['inpainting']}", **trained}
    for mode in ("frozen", "finetune"):
        for name, source in sources.items():
            folder = runs / f"cls-{mode}-{name}-{seed}"
            _once("transfer", folder, "scores.json", seed, "--data", voc, "--from", source, "--mode", mode)
    descriptors = [part for source in ("hog", *sources.values()) for part in ("--descriptor", source)]
    _once("nn-retrieval", runs / f"nn-retrieval-{seed}", "scores.json", seed, "--data", voc, *descriptors)


def _once(verb: str, folder: Path, last_file: str, seed: int, *arguments: str) -> None:
    if (folder / last_file).exists():
        return
    if (folder / "config.json").exists() and verb != "nn-retrieval":
        command = [verb, "--resume", str(folder)]
    else:
        command = [verb, *arguments, "--seed", str(seed), "--output", str(folder)]
    click.echo("ssl-inpaint " + " ".join(command))
    ssl_inpaint(command, standalone_mode=False)


if __name__ == "__main__":
    photographs()
