"""The command line: what every verb has in common, and the verbs in the order of `--help`."""

from __future__ import annotations

import click

from ssl_inpaint import catalog, options
from ssl_inpaint.options import Name
from ssl_inpaint.verbs import data, images, results, runs


@click.group(cls=options.Verbs, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="ssl-inpaint")
def main() -> None:
    """Context encoders, end to end: pretrain by inpainting, transfer the features, probe them, tabulate every number.

    Begin with:  ssl-inpaint quickstart
    """


@click.command("list")
@click.argument("kind", required=False, metavar="[KIND]", type=Name("kind of part", catalog.KINDS))
def list_parts(kind: str | None) -> None:
    """What there is: data sets, encoders, pretext tasks, ...

    KIND is data, encoders, pretext, transfer, descriptors, inpainters, recipes, protocols or benches; all, if absent.

    \b
    Example:
      ssl-inpaint list encoders
    """
    for folder in [kind] if kind else catalog.KINDS:
        click.secho(folder, bold=True)
        for name, description in catalog.parts(folder).items():
            click.echo(f"  {name:<20} {description}")


for verb in (
    *(list_parts, data.data, runs.pretrain, runs.transfer, images.nn_retrieval, images.inpaint, runs.import_file),
    *(results.tables, results.compare, runs.quickstart, runs.run_bench, results.report),
):
    main.add_command(verb)
