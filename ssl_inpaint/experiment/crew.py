"""The processes that work on a bench together, as torchrun starts them: each takes cells of its own.

There is no process group: file locks on a folder that all see decide who runs what, so a process that fails or is
stopped keeps nobody waiting.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ssl_inpaint.errors import UsageError

# What torchrun tells its processes; a cell must not read it as a request to train with them.
TOLD = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK")


@dataclass(frozen=True)
class Crew:
    """This process among those that were started together; alone where none were."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on this machine
    local_size: int = 1

    @property
    def is_speaker(self) -> bool:
        """True for the one process that says how things stand at the end."""
        return self.rank == 0

    def device(self, chosen: str, cuda_devices: int) -> str:
        """The device of this process: the chosen one, or for "auto" one of the machine's in turn."""
        if chosen != "auto" or self.local_size == 1 or cuda_devices == 0:
            return chosen
        return f"cuda:{self.local_rank % cuda_devices}"

    def threads(self, cores: int) -> int:
        """This process's share of the machine's cores, at least one."""
        return max(1, cores // self.local_size)


def crew_of(environment: Mapping[str, str]) -> Crew:
    """What torchrun's variables say; alone where they are not set, UsageError where they contradict each other."""
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return Crew()
    try:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local_rank = int(environment.get("LOCAL_RANK", rank))
        local_size = int(environment.get("LOCAL_WORLD_SIZE", size))
    except ValueError:
        rank, size, local_rank, local_size = 0, 0, 0, 0
    if not (0 <= rank < size and 0 <= local_rank < local_size):
        told = ", ".join(f"{name}={environment[name]}" for name in TOLD if name in environment)
        raise UsageError(f"{told} are no ranks of one group: start the command by torchrun, or unset them.")
    return Crew(rank, size, local_rank, local_size)


def placed(settings: Mapping[str, Mapping[str, str]], crew: Crew) -> dict[str, dict[str, str]]:
    """`--set` values with this process's device in run.device, where several share a machine.

    On CPUs each process also gets its share of the cores as torch's threads.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    own = dict(settings.get("run", {}))
    chosen = crew.device(own.get("device", "auto"), count)
    if crew.local_size > 1:
        own["device"] = chosen
        if not count or chosen == "cpu":
            torch.set_num_threads(crew.threads(len(os.sched_getaffinity(0))))
    return {**{part: dict(values) for part, values in settings.items()}, **({"run": own} if own else {})}


@contextmanager
def alone() -> Iterator[None]:
    """torchrun's variables hidden inside, so that a cell trains by itself, and put back as they were outside."""
    hidden = {name: os.environ.pop(name) for name in TOLD if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
