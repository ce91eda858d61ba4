"""Verbs that show what the ledger holds."""

from __future__ import annotations

from pathlib import Path

import click

from ssl_inpaint.errors import Failure
from ssl_inpaint.options import LEDGER

EXISTING_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.option("--ledger", type=EXISTING_FILE, default=LEDGER, help="Records to tabulate.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("results"), help="Folder for the tables.")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if the tables there are not those of the ledger.")
def tables(ledger: Path, output: Path, check: bool) -> None:
    """Render the ledger as Markdown, LaTeX and CSV, published rows apart.

    \b
    Example:
      ssl-inpaint tables --check
    """
    from ssl_inpaint import tables as tabulation

    if not check:
        for path in tabulation.write_tables(ledger, output):
            click.echo(path)
        return
    stale = tabulation.stale_tables(ledger, output)
    if stale:
        raise Failure(
            f"Not up to date: {', '.join(map(str, stale))}. Run ssl-inpaint tables and commit what it writes."
        )
    click.echo("up to date")


@click.command()
@click.option("--ledger", type=EXISTING_FILE, default=LEDGER, help="Records to compare.")
@click.option("--data-set", default="shapes", help="Its name, as the tables have it.")
@click.option("--task", default="cls", help="cls, det, seg, linear, nn-retrieval, inpaint, ...")
@click.option("--metric", help="As the tables have it; all of the task's, if absent.")
@click.option("--mode", help="frozen, finetune, or as the tables have it; all of the task's, if absent.")
@click.option("--protocol", help="As the tables have it; all of the task's, if absent.")
@click.option("--figure", type=click.Path(path_type=Path, dir_okay=False), help="PNG file for the rows of one column.")
def compare(
    ledger: Path,
    data_set: str,
    task: str,
    metric: str | None,
    mode: str | None,
    protocol: str | None,
    figure: Path | None,
) -> None:
    """Every row against every other, paired on the same test examples.

    \b
    Example:
      ssl-inpaint compare --data-set shapes --task cls
      ssl-inpaint compare --data-set shapes --task knn --metric "mAP (step)" --figure neighbours.png
    """
    from ssl_inpaint import comparisons, figures
    from ssl_inpaint import tables as tabulation
    from ssl_inpaint.records import Ledger

    columns = comparisons.comparable_columns(Ledger(ledger).read(), data_set, task, metric, mode, protocol)
    shown = comparisons.only_column(columns) if figure else None
    click.echo(tabulation.to_text(comparisons.comparison_tables(columns)))
    if figure and shown:
        figures.save(comparisons.column_figure(shown), figure)
        click.echo(f"figure      {figure}")


@click.command()
@click.option("--ledger", type=EXISTING_FILE, default=LEDGER, help="Records to show.")
@click.option(
    "--runs", type=click.Path(path_type=Path), help="Folder of runs; runs/ beside that of the ledger, if absent."
)
@click.option("--output", type=click.Path(path_type=Path), default=Path("report.html"), help="File to write.")
def report(ledger: Path, runs: Path | None, output: Path) -> None:
    """Everything measured as one HTML page, with the records behind every number.

    The page needs no server and no network.

    \b
    Example:
      ssl-inpaint report --runs runs --output report.html
    """
    from ssl_inpaint import report as page

    made = page.write_report(ledger, runs, output)
    if made.left_out:
        click.echo(f"{len(made.left_out)} figures would make the page too large: it names them instead.", err=True)
    click.echo(f"page        {made.path} ({made.size_bytes / 1e6:.1f} MB, {made.runs} runs)")
