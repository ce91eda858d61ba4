"""Pretraining on unlabelled photographs, then transfer, retrieval and inpainting on others: ours beside its baselines.

    python benchmarks/photographs.py --photos filelist:photos/list.txt --voc voc2007:VOCdevkit \\
        --labels imagefolder:caltech101 --masks maskfolder:CamVid --street voc2007:paris_street

Rows: random, context encoder (random regions), with --controls the autoencoder, with --labels a network trained on the
classes of that data set. Measured on --voc: classification, detection and retrieval with HOG beside; on --masks:
segmentation; all frozen and fine-tuned by the compact protocols. A second network, of the recipe compact_joint, fills
held-out holes of --voc and --street beside every other inpainter (Table 1). What is finished is not run again, so the
same command resumes, and --tasks may name a part of it. What it measured is in results/tables.md.
"""

from __future__ import annotations

from pathlib import Path

import click
from running import run_once

TASKS = ("cls", "det", "seg", "nn-retrieval", "inpaint")


@click.command()
@click.option("--photos", required=True, help="Data spec of the unlabelled photographs.")
@click.option("--voc", required=True, help="Data spec of the set with labels and boxes.")
@click.option("--labels", help="Data spec of classes for a supervised row.")
@click.option("--masks", multiple=True, help="Data spec of a set with masks; may be repeated.")
@click.option("--street", multiple=True, help="Data spec whose test images are filled too; may be repeated.")
@click.option("--tasks", default=",".join(TASKS), show_default=True, help="What to measure.")
@click.option("--modes", default="frozen,finetune", show_default=True)
@click.option("--steps", default=4000, show_default=True, help="Pretraining steps of 64 images.")
@click.option("--seed", default=0, show_default=True)
@click.option("--controls", is_flag=True, help="The autoencoder too.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/photographs"), show_default=True)
def photographs(
    photos: str,
    voc: str,
    labels: str | None,
    masks: tuple[str, ...],
    street: tuple[str, ...],
    tasks: str,
    modes: str,
    steps: int,
    seed: int,
    controls: bool,
    runs: Path,
) -> None:
    """Runs what is not there yet, by the very commands a user would type."""
    pretraining = {"inpainting": photos, **({"autoencoder": photos} if controls else {})}
    pretraining |= {"supervised": labels} if labels else {}
    trained = {name: str(runs / f"{name}-{seed}") for name in pretraining}
    for name, data in pretraining.items():
        arguments = ["--data", data, "--pretext", name, "--set", f"train.steps={steps}"]
        run_once("pretrain", Path(trained[name]), seed, None, *arguments)
    sources = {"random": f"random:{trained['inpainting']}", **trained}
    measured = {"cls": [voc], "det": [voc], "seg": list(masks)}
    chosen = tasks.split(",")
    for mode in modes.split(","):
        for task, data in ((t, d) for t, specs in measured.items() if t in chosen for d in specs):
            for name, source in sources.items():
                folder = runs / "-".join([task, Path(data).name, mode, name, str(seed)])
                arguments = ["--task", task, "--data", data, "--from", source, "--mode", mode]
                run_once("transfer", folder, seed, None, *arguments)
    if "nn-retrieval" in chosen:
        descriptors = [part for source in ("hog", *sources.values()) for part in ("--descriptor", source)]
        run_once("nn-retrieval", runs / f"nn-retrieval-{seed}", seed, None, "--data", voc, *descriptors)
    if "inpaint" in chosen:
        joint = runs / f"joint-{seed}"
        run_once("pretrain", joint, seed, None, "--data", photos, "--recipe", "compact_joint")
        for data in (voc, *street):
            folder = runs / f"inpaint-{Path(data).name}-{seed}"
            run_once("inpaint", folder, seed, None, "--evaluate", data, "--with", str(joint))


if __name__ == "__main__":
    photographs()
