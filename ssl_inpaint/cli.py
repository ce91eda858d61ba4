"""The command line: one verb a function, each a few lines around one library call."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssl_inpaint import catalog
from ssl_inpaint.errors import UsageError

if TYPE_CHECKING:
    from ssl_inpaint.records import Ledger
    from ssl_inpaint.runtime import Runtime

LEDGER = Path("results/measured.jsonl")
HOLES = click.Choice(["centre", "blocks", "region", "noise"])


class _Verbs(click.Group):
    """Turns a UsageError into one sentence and exit code 2, an interruption into exit code 1."""

    def invoke(self, context: click.Context) -> Any:
        from ssl_inpaint.errors import Failure

        try:
            return super().invoke(context)
        except UsageError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(2)
        except Failure as error:
            click.echo(str(error), err=True)
            sys.exit(1)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="ssl-inpaint")
def main() -> None:
    """Context encoders, end to end: pretrain by inpainting, transfer the features, probe them, tabulate every number.

    Begin with:  ssl-inpaint quickstart
    """


def _choice(kind: str) -> click.Choice[str]:
    return click.Choice(list(catalog.parts(kind)))


def _shared(function: Callable[..., None]) -> Callable[..., None]:
    """The options that every measuring verb has."""
    for option in (
        click.option("--set", "assignments", multiple=True, metavar="PART.FIELD=VALUE", help="Any other setting."),
        click.option("--seed", type=click.IntRange(min=0), default=0, help="Decides every random draw."),
        click.option(
            "--output", type=click.Path(path_type=Path, file_okay=False), help="Run folder; made up if absent."
        ),
    ):
        function = option(function)
    return function


@main.command("list")
@click.argument("kind", required=False, type=click.Choice(list(catalog.KINDS)))
def list_parts(kind: str | None) -> None:
    """What there is: data sets, encoders, pretext tasks, ...

    Example:  ssl-inpaint list encoders
    """
    for folder in [kind] if kind else catalog.KINDS:
        click.secho(folder, bold=True)
        for name, description in catalog.parts(folder).items():
            click.echo(f"  {name:<20} {description}")


@main.group()
def data() -> None:
    """Make and look at data sets."""


@data.command("make-shapes")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Another seed, other scenes.")
@click.option("--set", "assignments", multiple=True, metavar="data.FIELD=VALUE", help="E.g. data.train=500.")
def make_shapes(output: Path, seed: int, assignments: tuple[str, ...]) -> None:
    """Draw the embedded data set in the VOCdevkit layout.

    Example:  ssl-inpaint data make-shapes --output shapes
    """
    from ssl_inpaint.config import override, parse_settings, refuse_unknown_parts
    from ssl_inpaint.data import shapes

    settings = parse_settings(assignments)
    refuse_unknown_parts(settings, ("data",))
    config = override(shapes.Config(seed=seed), "data", settings.get("data", {}))
    click.echo(shapes.make_shapes(output, config))


@data.command("info")
@click.argument("spec")
def info(spec: str) -> None:
    """What is at a data spec: splits, images, classes.

    Example:  ssl-inpaint data info voc2007:VOCdevkit
    """
    from ssl_inpaint.experiment.data import describe_data

    for line in describe_data(spec):
        click.echo(line)


@main.command()
@click.option("--data", "spec", default="shapes", help="NAME, NAME:PATH, or a path.")
@click.option("--pretext", type=_choice("pretext"), default="inpainting", help="The task to learn from.")
@click.option("--encoder", help="NAME or timm:NAME; the recipe's, if absent.")
@click.option("--holes", type=HOLES, help="Shape of the holes; the pretext's own choice, if absent.")
@click.option("--recipe", type=_choice("recipes"), default="compact", help="Named settings.")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this run folder; no other option applies.")
@_shared
@click.pass_context
def pretrain(
    context: click.Context,
    spec: str,
    pretext: str,
    encoder: str | None,
    holes: str | None,
    recipe: str,
    resume: Path | None,
    assignments: tuple[str, ...],
    seed: int,
    output: Path | None,
) -> None:
    """Pretrain an encoder on unlabelled images.

    Example:  ssl-inpaint pretrain --data folder:photos --holes region --output runs/ours
    """
    from ssl_inpaint.experiment import pretrain as verb
    from ssl_inpaint.plans import PretrainPlan, read_plan

    settings = _settings([*assignments, *([f"pretext.holes={holes}"] if holes else [])])
    if resume:
        _refuse_others(context)
        plan, folder = read_plan(PretrainPlan, resume), resume
    else:
        plan = verb.plan_pretraining(spec, pretext, recipe, encoder, settings, seed)
        folder = output or _new_folder(f"{pretext}-{plan.encoder}-{seed}")
    runtime, ledger, workers = _run(settings, plan.train.precision)
    made = verb.pretrain(plan, folder, runtime, ledger, resume is not None, workers)
    click.echo(f"{made.card.method}: {made.fit.examples} images in {made.fit.seconds:.0f} s")
    for name, value in made.validation.items():
        click.echo(f"  held out, {name}: {value:.5f}")
    click.echo(f"run folder  {folder}\nencoder     {folder / 'encoder.safetensors'}\nledger      {ledger.path}")


@main.command()
@click.option("--task", type=_choice("transfer"), default="cls", help="What to measure.")
@click.option(
    "--from", "source", default="random:compact_alexnet", help="random:ENCODER, RUN, ENCODER=FILE, timm:NAME."
)
@click.option("--data", "spec", default="shapes", help="NAME, NAME:PATH, or a path; with labels.")
@click.option("--mode", type=click.Choice(["frozen", "finetune"]), default="frozen", help="Train the head, or all.")
@click.option("--protocol", type=_choice("protocols"), default="compact_cls", help="Named, versioned settings.")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this run folder; no other option applies.")
@_shared
@click.pass_context
def transfer(
    context: click.Context,
    task: str,
    source: str,
    spec: str,
    mode: str,
    protocol: str,
    resume: Path | None,
    assignments: tuple[str, ...],
    seed: int,
    output: Path | None,
) -> None:
    """Measure an encoder on labelled data.

    Example:  ssl-inpaint transfer --task cls --from runs/ours --data voc2007:VOCdevkit --mode frozen
    """
    from ssl_inpaint.experiment import transfer as verb
    from ssl_inpaint.plans import TransferPlan, read_plan

    settings = _settings(assignments)
    if resume:
        _refuse_others(context)
        plan, folder = read_plan(TransferPlan, resume), resume
    else:
        plan = verb.plan_transfer(spec, source, task, mode, protocol, settings, seed)
        folder = output or _new_folder(f"{task}-{mode}-{Path(source).name}-{seed}")
    runtime, ledger, workers = _run(settings, plan.protocol.train.precision)
    made = verb.transfer(plan, folder, runtime, ledger, resume is not None, workers)
    for record in made.records:
        click.echo(
            f"{record.method}, {record.mode}, {record.dataset} {record.split} ({record.n_examples} images): "
            f"{record.metric} {100 * record.value:.2f} %"
        )
    click.echo(f"run folder  {folder}\nledger      {ledger.path}")


@main.command("nn-retrieval")
@click.option("--data", "spec", default="shapes", help="NAME, NAME:PATH, or a path.")
@click.option("--descriptor", "descriptors", multiple=True, help="hog, or SOURCE[@STAGE] as in transfer --from.")
@_shared
def nn_retrieval(
    spec: str, descriptors: tuple[str, ...], assignments: tuple[str, ...], seed: int, output: Path | None
) -> None:
    """Nearest neighbours of patches, by several descriptors side by side.

    Example:  ssl-inpaint nn-retrieval --data voc2007:VOCdevkit --descriptor runs/ours --descriptor hog
    """
    from ssl_inpaint.experiment import retrieval as verb

    settings = _settings(assignments)
    chosen = descriptors or ("hog", "random:compact_alexnet")
    plan = verb.plan_retrieval(spec, chosen, settings, seed)
    folder = output or _new_folder(f"nn-retrieval-{seed}")
    runtime, ledger, _ = _run(settings, "auto")
    made = verb.nn_retrieval(plan, folder, runtime, ledger)
    for description, by_descriptor in made.scores.items():
        for name, scores in by_descriptor.items():
            click.echo(f"{description}, {name}: " + ", ".join(f"{m} {100 * v:.2f} %" for m, v in scores.items()))
    click.echo("\n".join(["", *(f"figure      {path}" for path in made.figures), f"ledger      {ledger.path}"]).strip())


@main.command()
@click.option("--ledger", type=click.Path(path_type=Path), default=LEDGER, help="Records to tabulate.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("results"), help="Folder for the tables.")
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if the tables there are not those of the ledger.")
def tables(ledger: Path, output: Path, check: bool) -> None:
    """Render the ledger as Markdown, LaTeX and CSV, published rows apart.

    Example:  ssl-inpaint tables --check
    """
    from ssl_inpaint import tables as tabulation
    from ssl_inpaint.errors import Failure

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


@main.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("quickstart"), help="Folder for everything.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Decides every random draw.")
@click.option("--full", is_flag=True, help="Longer training and three seeds: about an hour on 2 cores.")
def quickstart(output: Path, seed: int, full: bool) -> None:
    """The whole suite on the embedded data set, in minutes.

    Example:  ssl-inpaint quickstart
    """
    from ssl_inpaint.experiment import quickstart as verb

    click.echo(verb.quickstart(output, seed, full))


def _settings(assignments: list[str] | tuple[str, ...]) -> dict[str, dict[str, str]]:
    from ssl_inpaint.config import parse_settings

    return parse_settings(assignments)


def _run(settings: dict[str, dict[str, str]], precision: Any) -> tuple[Runtime, Ledger, int]:
    """What `--set run.FIELD=VALUE` says of the machine: none of it belongs to a result's identity."""
    from ssl_inpaint.config import override
    from ssl_inpaint.records import Ledger
    from ssl_inpaint.runtime import RunSettings, open_runtime

    chosen = override(RunSettings(ledger=str(LEDGER)), "run", settings.get("run", {}))
    return open_runtime(chosen.device, precision), Ledger(Path(chosen.ledger)), chosen.workers


def _refuse_others(context: click.Context) -> None:
    given = [
        name
        for name in context.params
        if name not in ("resume", "assignments")
        and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise UsageError(f"--resume goes on with the settings of its run, so --{given[0]} cannot apply: leave it out.")
    from ssl_inpaint.config import refuse_unknown_parts

    refuse_unknown_parts(_settings(context.params["assignments"]), ("run",))


def _new_folder(name: str) -> Path:
    """runs/<name>, with a number behind it where that is taken."""
    plain = name.replace(":", "-").replace("=", "-").replace("/", "-")
    for attempt in range(1, 10_000):
        folder = Path("runs") / (plain if attempt == 1 else f"{plain}-{attempt}")
        if not folder.exists():
            return folder
    raise UsageError(f"runs/ holds 10,000 runs called {plain}: name a folder by --output.")
