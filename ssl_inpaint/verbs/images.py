"""Verbs that show what a network does with images: neighbours and filled holes."""

from __future__ import annotations

from pathlib import Path

import click

from ssl_inpaint import options
from ssl_inpaint.errors import Failure, UsageError

INPAINTERS = "A RUN of pretrain, telea, ... (list inpainters) or nearest:DESCRIPTOR; with --evaluate, may be repeated."
HOLE = "centre, alpha, box:X,Y,WIDTH,HEIGHT, a mask (white is filled) or a folder of masks; --evaluate: kind of holes."
DESCRIPTORS = "hog, or SOURCE[@STAGE] with a source as in transfer --from; may be repeated."


@click.command("nn-retrieval")
@click.option("--data", "spec", default="shapes", help="NAME, NAME:PATH, or a path.")
@click.option("--descriptor", "descriptors", multiple=True, default=("hog", "random:compact_alexnet"), help=DESCRIPTORS)
@options.measuring
def nn_retrieval(
    spec: str, descriptors: tuple[str, ...], assignments: tuple[str, ...], seed: int, output: Path | None
) -> None:
    """Nearest neighbours of patches, by several descriptors side by side.

    \b
    Example:
      ssl-inpaint nn-retrieval --data voc2007:VOCdevkit --descriptor runs/ours --descriptor hog
    """
    from ssl_inpaint.experiment import retrieval as verb

    settings = options.settings_of(assignments)
    plan = verb.plan_retrieval(spec, descriptors, settings, seed)
    folder = output or options.new_folder(f"nn-retrieval-{seed}")
    runtime, ledger, _ = options.open_run(settings, "auto")
    made = verb.nn_retrieval(plan, folder, runtime, ledger)
    for description, by_descriptor in made.scores.items():
        for name, scores in by_descriptor.items():
            click.echo(f"{description}, {name}: " + ", ".join(f"{m} {100 * v:.2f} %" for m, v in scores.items()))
    for path in made.figures:
        click.echo(f"figure      {path}")
    click.echo(f"ledger      {ledger.path}" if made.records else "no labels, so neighbours are shown and not scored")


@click.command()
@click.argument("images")
@click.option("--with", "inpainters", multiple=True, metavar="INPAINTER", help=INPAINTERS)
@click.option("--hole", help=HOLE)
@click.option("--resize-mask", is_flag=True, help="Fit a mask of another size to its photograph.")
@click.option("--blend", is_flag=True, help="Carry the colours around the hole into it, so that no seam is seen.")
@click.option("--gallery", help="Data spec whose pixels nearest-neighbour inpainting may take.")
@click.option("--evaluate", is_flag=True, help="Compare inpainters on the images, or the test part of a data spec.")
@options.measuring
def inpaint(
    images: str,
    inpainters: tuple[str, ...],
    hole: str | None,
    resize_mask: bool,
    blend: bool,
    gallery: str | None,
    evaluate: bool,
    assignments: tuple[str, ...],
    seed: int,
    output: Path | None,
) -> None:
    """Fill holes in photographs, or measure how well that is done.

    IMAGES is a photograph or a folder of them; with --evaluate a data spec.

    \b
    Example:
      ssl-inpaint inpaint photo.jpg --with runs/ours --hole mask.png --blend
      ssl-inpaint inpaint --evaluate folder:held-out --with runs/ours --gallery folder:photos
    """
    settings = options.settings_of(assignments)
    folder = output or options.new_folder(f"inpaint-{Path(images).stem}")
    runtime, ledger, _ = options.open_run(settings, "auto")
    if evaluate:
        from ssl_inpaint.experiment import evaluation

        if resize_mask or blend:
            raise UsageError("--resize-mask and --blend are for filling, and --evaluate only measures: leave them out.")
        made = evaluation.evaluate(
            evaluation.plan_evaluation(images, inpainters, hole, gallery, settings, seed), folder, runtime, ledger
        )
        for sentence in made.notes:
            click.echo(sentence, err=True)
        click.echo(made.text())
        click.echo("\n".join(f"written     {path}" for path in made.written) + f"\nledger      {ledger.path}")
        return
    from ssl_inpaint.experiment import filling

    if len(inpainters) != 1:
        raise UsageError(
            f"{len(inpainters)} inpainters are named by --with: filling takes one, such as a run or telea."
        )
    done = filling.fill(
        filling.plan_filling(images, inpainters[0], hole or "centre", gallery, settings, seed, resize_mask, blend),
        folder,
        runtime,
    )
    for path in done.written:
        click.echo(path)
    click.echo(f"figure      {done.figure}")
    if done.failed:
        raise Failure("\n".join([f"{len(done.failed)} could not be filled:", *done.failed]))
