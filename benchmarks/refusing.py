"""What a script refuses is one sentence and exit code 2, as it is of the verbs."""

from __future__ import annotations

from typing import Any

import click

from ssl_inpaint.errors import UsageError


class _Refused(click.ClickException):
    exit_code = 2


class Script(click.Command):
    """A command that turns a UsageError into that, whether of its options or of its work."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """What the options say."""
        try:
            return super().make_context(*arguments, **options)
        except UsageError as error:
            raise _Refused(str(error)) from None

    def invoke(self, context: click.Context) -> Any:
        """Does the work."""
        try:
            return super().invoke(context)
        except UsageError as error:
            raise _Refused(str(error)) from None
