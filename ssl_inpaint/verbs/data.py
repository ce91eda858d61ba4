"""Verbs about data sets."""

from __future__ import annotations

from pathlib import Path

import click

from ssl_inpaint import options


@click.group()
def data() -> None:
    """Make and look at data sets."""


@data.command("make-shapes")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Another seed, other scenes.")
@click.option("--set", "assignments", multiple=True, metavar="data.FIELD=VALUE", help="E.g. data.train=500.")
@options.on_torch
def make_shapes(output: Path, seed: int, assignments: tuple[str, ...]) -> None:
    """Draw the embedded data set in the VOCdevkit layout.

    \b
    Example:
      ssl-inpaint data make-shapes --output shapes
    """
    from ssl_inpaint.config import override, refuse_unknown_parts
    from ssl_inpaint.data import shapes

    settings = options.settings_of(assignments)
    refuse_unknown_parts(settings, ("data",))
    config = override(shapes.Config(seed=seed), "data", settings.get("data", {}))
    click.echo(shapes.make_shapes(output, config))


@data.command("info")
@click.argument("spec")
@options.on_torch
def info(spec: str) -> None:
    """What is at a data spec: splits, images, classes.

    \b
    Example:
      ssl-inpaint data info voc2007:VOCdevkit
    """
    from ssl_inpaint.experiment.data import describe_data

    for line in describe_data(spec):
        click.echo(line)


@data.command("proposals")
@click.argument("spec")
@click.option("--protocol", type=options.part("protocols"), default="compact_det", help="Whose settings are used.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Write them there too, as .npz files.")
@click.option("--set", "assignments", multiple=True, metavar="PART.FIELD=VALUE", help="E.g. proposals.mode=quality.")
@options.on_torch
def proposals(spec: str, protocol: str, output: Path | None, assignments: tuple[str, ...]) -> None:
    """Search objects in all images of SPEC, for Fast R-CNN: once, on all cores.

    What is found is kept in the cache, so a search that was stopped goes on, and transfer --task det begins at once.

    \b
    Example:
      ssl-inpaint data proposals voc2007:VOCdevkit --protocol voc07_det
    """
    from ssl_inpaint.experiment.proposing import search_proposals

    for line in search_proposals(spec, protocol, options.settings_of(assignments), output):
        click.echo(line)
