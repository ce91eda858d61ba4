"""Devices by name, seeds that are the same everywhere, signals caught once, folders held by one process."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ssl_inpaint.errors import UsageError
from ssl_inpaint.runtime import StopRequest, claimed, has_fast_bf16, open_runtime, seed_for, seeded


@pytest.mark.parametrize(("name", "near"), [("cude", "cuda"), ("CPU0", None), ("cpus", "cpu"), ("mps", None)])
def test_an_unknown_device_is_refused_with_the_nearest(name: str, near: str | None) -> None:
    hint = f"Did you mean '{near}'" if near else "known are auto, cpu, cuda"
    with pytest.raises(UsageError, match=hint):
        open_runtime(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:x"])
def test_cuda_where_there_is_none_is_refused_with_the_way_out(name: str) -> None:
    with pytest.raises(UsageError, match=rf"'{name}'.*no CUDA device: use --set run\.device=cpu"):
        open_runtime(name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="for machines with CUDA")
def test_a_cuda_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="known are auto, cpu, cuda"):
        open_runtime("cuda:99")


def test_auto_takes_what_there_is() -> None:
    found = open_runtime("auto")
    assert found.device.type == ("cuda" if torch.cuda.is_available() else "cpu") and found.describe()


def test_precision_is_the_chosen_one_or_what_the_hardware_does_fast() -> None:
    assert open_runtime("cpu", "bf16").is_bf16 and not open_runtime("cpu", "fp32").is_bf16
    assert open_runtime("cpu", "auto").is_bf16 == has_fast_bf16(torch.device("cpu"))
    matrix = torch.ones(2, 2)
    for precision, expected in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with open_runtime("cpu", precision).autocast():  # type: ignore[arg-type]
            assert (matrix @ matrix).dtype == expected


def test_seeds_are_the_same_on_every_machine_and_for_ever() -> None:
    assert seed_for(0, "step", 0) == 1373431530665165896
    assert seed_for("crop") == 198935821518842651


def test_seeds_are_spread_and_fit_a_generator() -> None:
    seeds = [seed_for(a, b) for a in range(50) for b in range(50)]
    assert len(set(seeds)) == 2500 and min(seeds) >= 0 and max(seeds) < 2**63
    assert all(abs(sum(seed >> bit & 1 for seed in seeds) / 2500 - 0.5) < 0.05 for bit in range(63))  # 5 deviations
    torch.Generator().manual_seed(2**63 - 1)


def test_the_global_random_state_is_put_back_even_after_an_error() -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with pytest.raises(KeyError), seeded(5):
        inside = torch.rand(2)
        raise KeyError
    assert torch.equal(torch.rand(2), expected)
    with seeded(5):
        assert torch.equal(torch.rand(2), inside)


@pytest.fixture
def own_handlers() -> Iterator[list[int]]:
    """Handlers that note what reached them, and the usual ones afterwards."""
    reached: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda n, frame: reached.append(n)) for number in numbers}
    yield reached
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_request_and_the_handlers_come_back(own_handlers: list[int], number: int) -> None:
    stop, before = StopRequest(), signal.getsignal(number)
    with stop.listening():
        assert stop.signal_name is None
        os.kill(os.getpid(), number)
        assert stop.signal_name == signal.Signals(number).name
    assert signal.getsignal(number) is before and own_handlers == []


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_of_either_kind_acts_as_usual(own_handlers: list[int], second: int) -> None:
    stop = StopRequest()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), second)
    assert own_handlers == [second] and stop.signal_name == "SIGINT"


def test_a_second_ctrl_c_interrupts() -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest().listening():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_handlers_come_back_after_an_error(own_handlers: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), StopRequest().listening():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a job that a shell put in the background
    try:
        stop = StopRequest()
        with stop.listening():
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal_name is None and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def _hold(folder: Path, is_held: object) -> None:
    with claimed(folder):
        is_held.set()  # type: ignore[attr-defined]
        signal.pause()


def test_a_folder_is_held_by_one_process_and_free_after_its_kill(tmp_path: Path) -> None:
    spawning = multiprocessing.get_context("spawn")  # imports torch anew: about two seconds
    is_held = spawning.Event()
    holder = spawning.Process(target=_hold, args=(tmp_path / "run", is_held), daemon=True)
    holder.start()
    try:
        assert is_held.wait(60)
        with pytest.raises(UsageError, match=r"run is in use by another process: wait, or choose another"):
            claimed(tmp_path / "run").__enter__()
        with claimed(tmp_path / "other"):
            pass
    finally:
        holder.kill()
        holder.join()
    with claimed(tmp_path / "run"):
        pass


def test_a_folder_is_held_once_in_a_process_too_and_freed_at_the_end(tmp_path: Path) -> None:
    for _ in range(2):
        with claimed(tmp_path), pytest.raises(UsageError, match="in use"), claimed(tmp_path):
            pass
    with pytest.raises(KeyError), claimed(tmp_path):
        raise KeyError
    with claimed(tmp_path):
        pass


def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"Cannot write to .*file.*another --output"), claimed(tmp_path / "file"):
        pass
