"""Progress goes to stderr alone, with a rate that counts this run only."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest

from ssl_inpaint import progress


class _Clock:
    """A monotonic clock that stands still until it is told to go."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    found = _Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=found.monotonic))
    return found


@pytest.fixture
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "150")):
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("no_terminal")
def test_without_a_terminal_a_plain_line_now_and_then_on_stderr(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.bar("training", 100) as bar:
        for _ in range(8):
            clock.now += 10.0
            bar.advance(5, note="net 0.5")
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.splitlines() == [
        "training: 15/100, 0.5/s, 170 s left net 0.5",
        "training: 30/100, 0.5/s, 140 s left net 0.5",
    ]


@pytest.mark.usefixtures("no_terminal")
def test_a_short_task_is_silent_without_a_terminal(clock: _Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("training", 3) as bar:
        for _ in range(3):
            clock.now += 1.0
            bar.advance()
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("no_terminal")
def test_the_rate_of_a_resumed_run_does_not_count_what_was_done_before(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.bar("training", 1000, done=900) as bar:
        clock.now += 30.0
        bar.advance(60)
    assert capsys.readouterr().err == "training: 960/1000, 2.0/s, 20 s left\n"


@pytest.mark.usefixtures("no_terminal")
def test_a_clock_that_stands_still_divides_nothing_by_zero(
    clock: _Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
    with progress.bar("training", 10) as bar:
        bar.advance(0)
        bar.advance(10)
    assert len(capsys.readouterr().err.splitlines()) == 2


def _last_frame(text: str) -> str:
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return next(line for line in reversed(re.split(r"[\r\n]+", plain)) if "training" in line)


@pytest.mark.usefixtures("terminal")
def test_a_terminal_shows_count_rate_time_left_and_note(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("training", 10) as bar:
        for _ in range(4):
            bar.advance(2, note="net 0.5")
    found = capsys.readouterr()
    assert found.out == ""
    assert re.search(r"training .* 8/10 +[\d.]+/s +\d:\d\d:\d\d +net 0\.5", _last_frame(found.err))


@pytest.mark.usefixtures("terminal")
def test_a_terminals_rate_does_not_count_what_was_done_before(capsys: pytest.CaptureFixture[str]) -> None:
    before = 10**12
    with progress.bar("training", before + 10, done=before) as bar:
        for _ in range(4):
            bar.advance(1)
    frame = _last_frame(capsys.readouterr().err)
    found = re.search(r"([\d.]+)/s", frame)
    assert f"{before + 4}/{before + 10}" in frame
    assert found is not None and float(found[1]) < before / 100  # steps cannot take less than 0.1 ns


@pytest.mark.usefixtures("terminal")
def test_results_printed_under_a_bar_stay_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("training", 2) as bar:
        print("a result")
        progress.say("a message")
        bar.advance(2)
    found = capsys.readouterr()
    assert found.out == "a result\n" and "a message" in found.err


def test_messages_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    progress.say("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_a_message_is_written_in_one_piece_as_other_processes_write_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[str] = []
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=pieces.append, flush=lambda: None))
    progress.say("[1/2] a cell")
    assert pieces == ["[1/2] a cell\n"]
