"""Checkpoints and logs: whole or not at all, refused where they do not fit, never executed."""

from __future__ import annotations

import errno
import pickle
import random
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssl_inpaint.core import ParameterGroup, Player
from ssl_inpaint.errors import UsageError
from ssl_inpaint.runlog import RunLog, read_log
from ssl_inpaint.state import TrainingState


def _state(folder: Path | None, width: int = 3, identity: str = "a", value: float = 1.0) -> TrainingState:
    module = nn.Linear(width, 2)
    nn.init.constant_(module.weight, value)
    player = Player(module, [ParameterGroup(list(module.parameters()))])
    return TrainingState(folder, {"net": player}, {"net": torch.optim.SGD(module.parameters(), 0.1)}, identity)


def _saved(folder: Path) -> Path:
    state = _state(folder, value=7.0)
    state.step, state.seconds, state.losses, state.window = 5, 2.5, {"net": 0.1}, {"sums": {"net": 0.3}, "steps": 2}
    state.save()
    return folder / "checkpoint.pt"


def test_what_was_saved_is_taken_up(tmp_path: Path) -> None:
    _saved(tmp_path)
    state = _state(tmp_path)
    state.load()
    assert (state.step, state.seconds, state.losses) == (5, 2.5, {"net": 0.1})
    assert state.window == {"sums": {"net": 0.3}, "steps": 2}
    assert (state.players["net"].module.weight == 7).all()


def test_without_a_folder_or_a_checkpoint_nothing_happens(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        state = _state(folder)
        state.load()
        assert state.step == 0
    _state(None).save()
    assert list(tmp_path.iterdir()) == []


def test_other_settings_are_refused(tmp_path: Path) -> None:
    _saved(tmp_path)
    with pytest.raises(UsageError, match="other settings: resume with the settings it began with"):
        _state(tmp_path, identity="b").load()


def test_another_network_is_refused(tmp_path: Path) -> None:
    _saved(tmp_path)
    with pytest.raises(UsageError, match=r"another network.*size mismatch for weight"):
        _state(tmp_path, width=4).load()
    renamed = _state(tmp_path)
    renamed.players = {"other": renamed.players["net"]}
    with pytest.raises(UsageError, match=r"another network.*'other'"):
        renamed.load()


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    torch.save({**torch.load(path, weights_only=True), "schema": 99}, path)
    with pytest.raises(UsageError, match="schema 99 and this version reads 1"):
        _state(tmp_path).load()


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(2)])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(UsageError, match="no checkpoint of this suite: remove it to begin anew"):
        _state(tmp_path).load()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_broken_files_are_named_and_never_a_traceback(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    whole, draw = path.read_bytes(), random.Random(0)
    broken = [b"", whole[:1], whole[: len(whole) // 2], whole[:-1]]
    broken += [draw.randbytes(size) for size in (1, 2, 10, 100, 1000) for _ in range(20)]
    for _ in range(100):  # the pickle inside, one byte changed
        inside = bytearray(pickle.dumps({"step": 1, "modules": [1, {"a": (2, 3)}]}, 2))
        inside[draw.randrange(len(inside))] = draw.randrange(256)
        broken.append(bytes(inside))
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"checkpoint\.pt is broken, .*remove it to begin anew"):
            _state(tmp_path).load()


def test_a_checkpoint_that_may_not_be_read_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").mkdir()
    with pytest.raises(UsageError, match=r"checkpoint\.pt cannot be read: Is a directory"):
        _state(tmp_path).load()


class _Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("is_zipped", [True, False])
def test_a_checkpoint_cannot_execute_anything(tmp_path: Path, is_zipped: bool) -> None:
    target = tmp_path / "executed"
    content = {"schema": 1, "identity": "a", "step": _Malicious(target)}
    torch.save(content, tmp_path / "checkpoint.pt", _use_new_zipfile_serialization=is_zipped)
    with pytest.raises(UsageError, match="broken, or no checkpoint"):
        _state(tmp_path).load()
    assert not target.exists()
    torch.load(tmp_path / "checkpoint.pt", weights_only=False)
    assert target.exists()  # it would have


@contextmanager
def _files_up_to(size: int) -> Iterator[None]:
    """The kernel refuses larger files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 10, 500, 1500])
def test_a_full_disk_leaves_the_former_checkpoint(tmp_path: Path, room: int) -> None:
    before = _saved(tmp_path).read_bytes()
    with _files_up_to(room), pytest.raises(UsageError, match=r"Cannot write .*checkpoint\.pt.*Free space"):
        _state(tmp_path, width=1000).save()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected pos 5")])
def test_every_way_in_which_torch_fails_to_write_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    before = _saved(tmp_path).read_bytes()

    def save(content: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(UsageError, match=r"No space left|unexpected pos 5"):
        _state(tmp_path).save()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def _write_lines(folder: Path | None, steps: range, log_every: int = 1, first: int = 0) -> None:
    with RunLog(folder, first) as log:
        for step in steps:
            log.note({"net": torch.tensor(float(step))}, 2)
            if step % log_every == 0:
                log.write(step, float(step), 0.1)


def test_lines_after_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    _write_lines(tmp_path, range(1, 9))
    _write_lines(tmp_path, range(6, 8), first=5)
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("tail", [b'{"step": 9, "sec', b"\0\0\0\0", b"\xff\xfe", b"{"])
def test_a_last_line_cut_short_is_left_out_and_written_again(tmp_path: Path, tail: bytes) -> None:
    _write_lines(tmp_path, range(1, 4))
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(tail)
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2, 3]
    _write_lines(tmp_path, range(4, 6), first=3)
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 4, 5]


def test_a_window_goes_on_where_it_was(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0) as log:
        log.note({"net": torch.tensor(0.1)}, 8)
        log.note({"net": torch.tensor(0.2)}, 8)
        window = log.window()
    with RunLog(tmp_path, 2, window) as log:
        log.note({"net": torch.tensor(0.4)}, 8)
        means = log.write(3, 2.0, 0.5)
    with RunLog(None, 0) as plain:
        for value in (0.1, 0.2, 0.4):
            plain.note({"net": torch.tensor(value)}, 8)
        assert plain.write(3, 2.0, 0.5) == means
    assert read_log(tmp_path / "log.jsonl")[0]["images_per_second"] == 12.0


def test_throughput_counts_since_the_last_line_only(tmp_path: Path) -> None:
    _write_lines(tmp_path, range(1, 4))
    with RunLog(tmp_path, 3) as log:
        log.note({"net": torch.tensor(0.0)}, 10)
        log.write(4, 5.0, 0.1)
    assert [line["images_per_second"] for line in read_log(tmp_path / "log.jsonl")] == [2.0, 2.0, 2.0, 5.0]


def test_tensorboard_shows_the_log(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _write_lines(tmp_path, range(1, 9))
    _write_lines(tmp_path, range(6, 8), first=5)
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    lines = read_log(tmp_path / "log.jsonl")
    for name in ("loss/net", "learning_rate", "images_per_second", "seconds"):
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert shown == [(line["step"], pytest.approx(line[name])) for line in lines], name


def test_events_are_on_disk_as_soon_as_the_line_is(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0) as log:
        before = sum(path.stat().st_size for path in (tmp_path / "events").iterdir())
        log.note({"net": torch.tensor(1.0)}, 2)
        log.write(1, 1.0, 0.1)
        assert sum(path.stat().st_size for path in (tmp_path / "events").iterdir()) > before


@pytest.mark.parametrize("room", [0, 30, 600])
def test_a_full_disk_is_said_by_the_log_too(tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # TensorBoard's own thread fails as well

    def fill() -> None:
        with RunLog(tmp_path, 0) as log, _files_up_to(room):
            for step in range(1, 200):
                log.note({"net": torch.tensor(1.0)}, 2)
                log.write(step, 1.0, 0.1)

    with pytest.raises(UsageError, match=r"Cannot write .*(log\.jsonl|events)"):
        fill()
    assert all(line["loss/net"] == 1.0 for line in read_log(tmp_path / "log.jsonl"))


def test_without_a_folder_nothing_is_written_and_the_means_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with RunLog(None, 0) as log:
        log.note({"a": torch.tensor(1.0), "b": torch.tensor(4.0)}, 1)
        log.note({"a": torch.tensor(2.0), "b": torch.tensor(8.0)}, 1)
        assert log.write(2, 1.0, 0.1) == {"a": 1.5, "b": 6.0}
        assert log.latest() == "a 1.5  b 6"
    assert list(tmp_path.iterdir()) == []
