"""Several processes on one run, one device each, as torchrun starts them: who is who, and sums over all of them.

A batch is cut into `train.parts`; each process takes an equal share of them, and a lone one takes all in turn. What is
drawn for a part depends on the part, not on who works on it, so the number of processes changes nothing but rounding.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from ssl_inpaint.errors import UsageError

# Processes wait for each other: on resuming one may find done what others do again. torchrun ends all if one fails.
PATIENCE = timedelta(hours=6)
Thing = TypeVar("Thing")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Group:
    """The processes of one run, and which of them this is."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0  # on this machine

    @property
    def is_first(self) -> bool:
        """True for the one process that writes and speaks."""
        return self.rank == 0

    def shares(self, things: int) -> list[range]:
        """Which of so many things are each process's: neighbours, equally many for each or one fewer."""
        return [range(rank * things // self.count, (rank + 1) * things // self.count) for rank in range(self.count)]

    def share(self, things: int) -> range:
        """Which of them are this process's."""
        return self.shares(things)[self.rank]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its sum over all processes, which give tensors of the same shapes and devices."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        distributed.all_reduce(flat)
        pieces = flat.split([tensor.numel() for tensor in tensors])
        with torch.no_grad():
            for tensor, piece in zip(tensors, pieces, strict=True):
                tensor.copy_(piece.view_as(tensor))

    def equalise(self, tensors: Sequence[Tensor]) -> None:
        """Gives every process the first one's tensors."""
        if self.count > 1:
            with torch.no_grad():
                for tensor in tensors:
                    distributed.broadcast(tensor.detach(), src=0)

    def joined(self, rows: Tensor, lengths: Sequence[int]) -> Tensor:
        """The rows of all processes one after the other, `lengths` how many each has; on the CPU."""
        if self.count == 1:
            return rows
        mine = torch.zeros(max(lengths), *rows.shape[1:], dtype=rows.dtype)
        mine[: len(rows)] = rows.cpu()
        parts = [torch.empty_like(mine) for _ in lengths]
        distributed.all_gather([part.view(torch.uint8) for part in parts], mine.view(torch.uint8))
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    def spread(self, things: Sequence[Thing], work: Callable[[Thing], Made]) -> Iterator[tuple[Thing, Made]]:
        """Each thing with what `work` makes of it, in order: every process works on its share and is given the rest.

        They go on in step, a thing each, so that none holds more than it needs.
        """
        for start in range(0, len(things), self.count):
            some = things[start : start + self.count]
            mine = work(some[self.rank]) if self.rank < len(some) else None
            made: list[Any] = [mine]
            if self.count > 1:
                made = [None] * self.count
                distributed.all_gather_object(made, mine)
            yield from zip(some, made, strict=False)  # the last may be fewer

    def wait(self) -> None:
        """Until all processes have come to this place."""
        if self.count > 1:
            distributed.barrier()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process of each machine goes first, the others once it is done: they find what it has cached."""
        if self.local_rank:
            self.wait()
        try:
            yield
        finally:
            if not self.local_rank:
                self.wait()


ALONE = Group()


def asked_for() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join() -> Group:
    """The group of all processes that torchrun has started, joined once; ALONE without it.

    UsageError where they do not find one another.
    """
    if asked_for() == 1:
        return ALONE
    try:
        if not distributed.is_initialized():
            has_gpus = torch.cuda.is_available()
            if has_gpus:
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            distributed.init_process_group("cpu:gloo,cuda:nccl" if has_gpus else "gloo", timeout=PATIENCE)
            atexit.register(distributed.destroy_process_group)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"The processes of torchrun could not join ({reason}): check its --rdzv settings.") from None
    return Group(distributed.get_rank(), distributed.get_world_size(), int(os.environ["LOCAL_RANK"]))
