"""The one exception for input a user can mend, and the suggestion of a nearby name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """Input that the user can mend: one sentence with what was wrong, the value, what is allowed and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class Failure(Exception):
    """What went wrong or was stopped without the user being at fault; the command line prints it and exits with 1."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that does not exist: lists the known names and suggests the nearest."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UsageError(f"There is no {what} '{name}': known are {', '.join(names) or 'none'}.{hint}")
