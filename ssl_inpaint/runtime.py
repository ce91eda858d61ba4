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

from ssl_inpaint.config import Settings
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

    def autocast(self) -> AbstractContextManager[object]:
        """bfloat16 for matrix products and convolutions where chosen; weights and losses stay float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_bf16)

    def describe(self) -> str:
        """The device in words, for the provenance of a record."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"cpu, {torch.get_num_threads()} threads"


def open_runtime(device: str = "auto", precision: Precision = "auto") -> Runtime:
    """The device by name ("auto": CUDA where there is one) and bfloat16 where the hardware computes it ("auto")."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise unknown_name("device", device, ("auto", "cpu", "cuda"))
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"Device '{device}' was asked for and torch sees no CUDA device: use --device cpu.")
    chosen = torch.device(device)
    return Runtime(chosen, precision == "bf16" or (precision == "auto" and has_fast_bf16(chosen)))


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
        """Catches the first signal and restores the handlers at the end; a second one acts as usual."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGTERM, signal.SIGINT)
        before: dict[int, Any] = {number: signal.getsignal(number) for number in signals}

        def note(number: int, frame: FrameType | None) -> None:
            self.signal_name = signal.Signals(number).name
            signal.signal(number, before[number])

        for number in signals:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number in signals:
                signal.signal(number, before[number])


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
        except OSError:
            raise UsageError(
                f"The run folder {folder} is in use by another process: wait, or choose another."
            ) from None
        yield
