"""What the verbs of the command line share: options, names that suggest the nearest, errors as one sentence."""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import click

from ssl_inpaint import catalog
from ssl_inpaint.errors import Failure, UsageError, unknown_name

if TYPE_CHECKING:
    from ssl_inpaint.records import Ledger
    from ssl_inpaint.runtime import Precision, Runtime

P = ParamSpec("P")
LEDGER = Path("results/measured.jsonl")
SHARED = ("pretrain", "transfer", "bench")  # verbs whose work torchrun's processes share


class Verbs(click.Group):
    """Turns a UsageError into one sentence and exit code 2, a Failure into one sentence and exit code 1."""

    def invoke(self, context: click.Context) -> Any:
        """Runs the verb."""
        try:
            return super().invoke(context)
        except UsageError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(2)
        except Failure as error:
            click.echo(str(error), err=True)
            sys.exit(1)

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb; UsageError where several processes would all do, and write, the same."""
        found = super().resolve_command(context, arguments)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and found[0] not in SHARED:
            raise UsageError(f"'{found[0]}' is work for one process: start it without torchrun.")
        return found


class Name(click.Choice[str]):
    """One of several names; another one is answered with the nearest."""

    def __init__(self, what: str, names: Iterable[str]) -> None:
        super().__init__(list(names))
        self.what = what

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """The name itself; UsageError where it is not among them."""
        if value not in self.choices:
            raise unknown_name(self.what, value, self.choices)
        return str(value)


def part(kind: str) -> Name:
    """One of the parts in the folder `kind`."""
    return Name(catalog.KINDS[kind], catalog.parts(kind))


def on_torch(verb: Callable[P, None]) -> Callable[P, None]:
    """A verb that needs torch, which is imported first, in nine tenths of the time.

    Of the 180,000 objects that this makes nothing is garbage, and looking for some, again and again, takes the rest.
    """

    @functools.wraps(verb)
    def run(*arguments: P.args, **options: P.kwargs) -> None:
        if gc.isenabled() and "torch" not in sys.modules:
            gc.disable()
            try:
                import torch  # noqa: F401
            finally:
                gc.freeze()  # nor are these looked at later
                gc.enable()
        verb(*arguments, **options)

    return run


def resumable(function: Callable[..., None]) -> Callable[..., None]:
    """The option of verbs whose runs can go on where they were stopped."""
    text = "Go on with this run folder; no other option applies, but --set run.FIELD=VALUE."
    return click.option("--resume", type=click.Path(path_type=Path), help=text)(function)


def measuring(function: Callable[..., None]) -> Callable[..., None]:
    """The options that every measuring verb has; all of them need torch."""
    set_help = "Any other setting; may be repeated. A wrong name is answered with the right ones."
    folder = click.Path(path_type=Path, file_okay=False)
    for option in (
        click.option("--set", "assignments", multiple=True, metavar="PART.FIELD=VALUE", help=set_help),
        click.option("--seed", type=click.IntRange(min=0), default=0, help="Decides every random draw."),
        click.option("--output", type=folder, help="Run folder; a new one in runs/, if absent."),
    ):
        function = option(function)
    return on_torch(function)


def settings_of(assignments: Sequence[str]) -> dict[str, dict[str, str]]:
    """What `--set` says, by part and field."""
    from ssl_inpaint.config import parse_settings

    return parse_settings(assignments)


def pairs_of(texts: Sequence[str]) -> dict[str, str]:
    """`["voc=voc2007:PATH"]` to `{"voc": "voc2007:PATH"}`; UsageError where the form is another."""
    found = {}
    for text in texts:
        name, equals, spec = text.partition("=")
        if not (name and equals and spec):
            raise UsageError(f"'{text}' names no data set of the bench: write --data NAME=SPEC.")
        found[name] = spec
    return found


def open_run(
    settings: Mapping[str, Mapping[str, str]], precision: Precision, is_shared: bool = False
) -> tuple[Runtime, Ledger, int]:
    """What `--set run.FIELD=VALUE` says of the machine: none of it belongs to a result's identity.

    A run that is shared is one of all processes that torchrun has started.
    """
    from ssl_inpaint.config import override
    from ssl_inpaint.records import Ledger
    from ssl_inpaint.runtime import RunSettings, open_runtime

    chosen = override(RunSettings(ledger=str(LEDGER)), "run", settings.get("run", {}))
    return open_runtime(chosen.device, precision, is_shared), Ledger(Path(chosen.ledger)), chosen.workers


def refuse_others(context: click.Context) -> None:
    """UsageError where --resume is given with anything that its run has settled already."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in ("resume", "assignments")
        and context.get_parameter_source(str(parameter.name)) is click.core.ParameterSource.COMMANDLINE
    ]
    given += [f"--set {text}" for text in context.params["assignments"] if not text.startswith("run.")]
    if given:
        raise UsageError(f"--resume goes on with the settings of its run, so {given[0]} cannot apply: leave it out.")


def new_folder(name: str) -> Path:
    """runs/<name>, with a number behind it where that is taken."""
    plain = name.replace(":", "-").replace("=", "-").replace("/", "-")
    for attempt in range(1, 10_000):
        folder = Path("runs") / (plain if attempt == 1 else f"{plain}-{attempt}")
        if not folder.exists():
            return folder
    raise UsageError(f"runs/ holds 10,000 runs called {plain}: name a folder by --output.")
