"""Progress on stderr: a bar with throughput and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

PLAIN_LINE_SECONDS = 30.0


def say(message: str) -> None:
    """One line on stderr, where messages to a person go; in one piece, as other processes may write there too."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


class Bar:
    """One running count of `total`; `advance` moves it and may show a short note such as a loss."""

    def __init__(
        self, label: str, total: int, done: int = 0, progress: Progress | None = None, is_shown: bool = True
    ) -> None:
        self._is_shown = is_shown
        self._label, self._total, self._done, self._progress = label, total, done, progress
        self._first, self._began = done, time.monotonic()
        self._spoke = self._began
        self._task = progress.add_task(label, total=total, completed=done, note="") if progress else None

    def advance(self, count: int = 1, note: str = "") -> None:
        """Counts `count` more as done."""
        self._done += count
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=count, note=note)
        elif self._is_shown and time.monotonic() - self._spoke >= PLAIN_LINE_SECONDS:
            self._spoke = time.monotonic()
            rate = (self._done - self._first) / max(self._spoke - self._began, 1e-9)
            left = (self._total - self._done) / rate if rate else float("inf")
            say(f"{self._label}: {self._done}/{self._total}, {rate:.1f}/s, {left:.0f} s left {note}".rstrip())


@contextmanager
def bar(label: str, total: int, done: int = 0, is_shown: bool = True) -> Iterator[Bar]:
    """A progress bar over `total` things of which `done` are behind us; of several processes only one shows it."""
    from rich.console import Console  # slow to import, and much is said without a bar

    console = Console(stderr=True)
    if not (is_shown and console.is_terminal):
        yield Bar(label, total, done, is_shown=is_shown)
        return
    with _live(console) as progress:
        yield Bar(label, total, done, progress)


def _live(console: Console) -> Progress:
    from rich import progress
    from rich.text import Text

    class Rate(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "-", style="progress.data.speed")

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        Rate(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        redirect_stdout=False,  # results printed meanwhile; rich would move them to stderr, where the bar is
    )
