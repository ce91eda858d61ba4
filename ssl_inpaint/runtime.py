"""The machine a run happens on: device, arithmetic, seeds, and how signals and folders are handled."""

from __future__ import annotations

import fcntl
import hashlib
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from pydantic import Field

from ssl_inpaint import distributed
from ssl_inpaint.config import Settings
from ssl_inpaint.distributed import ALONE, Group
from ssl_inpaint.errors import UsageError, unknown_name

Precision = Literal["auto", "bf16", "fp32"]


class RunSettings(Settings):
    """How the machine is used and where numbers go: nothing that may change a number."""

    device: str = "auto"  # cpu, cuda, cuda:1; auto: CUDA where there is one
    workers: int = Field(1, ge=1)  # threads that cut the next batches
    ledger: str


@dataclass(frozen=True)
class Runtime:
    """Where tensors live and in which precision the forward pass is computed."""

    device: torch.device
    is_bf16: bool
    group: Group = ALONE  # the processes that share the run

    def autocast(self) -> AbstractContextManager[object]:
        """bfloat16 for matrix products and convolutions where chosen; weights and losses stay float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_bf16)

    def describe(self) -> str:
        """The device in words, for the provenance of a record."""
        times = "" if self.group.count == 1 else f"{self.group.count} x "
        if self.device.type == "cuda":
            return times + torch.cuda.get_device_name(self.device)
        return f"{times}cpu, {torch.get_num_threads()} threads"


def open_runtime(device: str = "auto", precision: Precision = "auto", is_shared: bool = False) -> Runtime:
    """The device by name ("auto": CUDA where there is one) and bfloat16 where the hardware computes it ("auto").

    Where the run is shared, the processes that torchrun has started join, each with the GPU of its number.
    """
    group = distributed.join() if is_shared else ALONE
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if group.local_rank >= count > 0 and device in ("auto", "cuda"):
        raise UsageError(
            f"Process {group.local_rank} of this machine has no GPU of its own among {count}: start {count}."
        )
    if device in ("auto", "cuda") and count and group.count > 1:
        device = f"cuda:{group.local_rank}"
    elif device == "auto":
        device = "cuda" if count else "cpu"
    if device.startswith("cuda") and not count:
        raise UsageError(f"Device '{device}' was asked for and torch sees no CUDA device: use --set run.device=cpu.")
    known = ("auto", "cpu", "cuda", *(f"cuda:{index}" for index in range(count)))
    if device not in known:
        raise unknown_name("device", device, known)
    chosen = torch.device(device)
    return Runtime(chosen, precision == "bf16" or (precision == "auto" and has_fast_bf16(chosen)), group)


def has_fast_bf16(device: torch.device) -> bool:
    """True where the hardware multiplies bfloat16 itself: CUDA from Ampere on, CPUs with avx512_bf16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def seed_for(*what: object) -> int:
    """A 63-bit seed that depends on all of `what` and nothing else: the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, what)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's global random state set to `seed` inside, and put back as it was outside."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class StopRequest:
    """Set by SIGTERM or Ctrl-C while `listening`; the loop looks at it between two steps."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catches the first signal and restores the handlers at the end; a second one of either kind acts as usual.

        A signal that is ignored outside, as Ctrl-C is for a job in the background, stays ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        found: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        before = {number: handler for number, handler in found.items() if handler not in (signal.SIG_IGN, None)}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def note(number: int, frame: FrameType | None) -> None:
            self.signal_name = signal.Signals(number).name
            restore()

        try:
            for number in before:
                signal.signal(number, note)
            yield
        finally:
            restore()


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Holds a run folder for this process; UsageError where another holds it, or where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("w")
    except OSError as error:
        raise UsageError(f"Cannot write to {folder}: {error.strerror or error}. Choose another --output.") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"The run folder {folder} is in use by another process: wait, or choose another."
            ) from None
        except OSError as error:  # a file system without locks
            raise UsageError(f"Cannot lock {folder}: {error.strerror or error}. Choose another --output.") from None
        yield
