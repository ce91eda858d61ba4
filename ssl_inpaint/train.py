"""The one training loop: pretraining, transfer and adversaries alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ssl_inpaint import allocation, progress
from ssl_inpaint.batches import Batches
from ssl_inpaint.config import Settings, hash_of
from ssl_inpaint.core import Batch, Objective, Player, Truth
from ssl_inpaint.distributed import Group
from ssl_inpaint.errors import Failure, UsageError
from ssl_inpaint.images import to_float
from ssl_inpaint.prefetch import prefetched
from ssl_inpaint.runlog import RunLog
from ssl_inpaint.runtime import Precision, Runtime, StopRequest, seeded
from ssl_inpaint.state import TrainingState
from ssl_inpaint.stepping import NotFinite, Replayed, Stepper

STOP_EVERY_STEPS = 8  # processes that share a run agree on stopping so often


class FitConfig(Settings):
    """How long and how: everything about optimisation that may change a number."""

    later: ClassVar[frozenset[str]] = frozenset({"parts", "cuda_graph"})
    steps: int = Field(2000, ge=1)
    batch_size: int = Field(64, ge=1)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)  # Adam's first decay, or SGD's momentum; 0.5 in the released code
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    decay_every_steps: int = Field(10_000, ge=1)  # of the "step" schedule
    decay_factor: float = Field(0.5, gt=0, le=1)
    clip_norm: float | None = Field(None, gt=0)  # of each player's gradient; None: never clipped
    precision: Precision = "auto"
    channels_last: bool = True
    compile: bool = False  # torch.compile: pays off on long runs only
    # The whole step captured once and replayed, which spares a GPU from waiting for the next small kernel; changes
    # nothing on a CPU, and for batches in several parts.
    cuda_graph: bool = False
    # Of a batch, gone through in turn by one process or shared by several: draws, losses and BatchNorm are of a part
    # each, so that results depend on the parts, and not on how many processes there are.
    parts: int = Field(1, ge=1)
    log_every_steps: int = Field(20, ge=1)
    checkpoint_every_steps: int = Field(500, ge=1)
    sample_every_steps: int = Field(500, ge=1)

    @model_validator(mode="after")
    def _is_whole(self) -> FitConfig:
        if self.batch_size % self.parts:
            raise ValueError(f"batch_size {self.batch_size} does not come in {self.parts} equal parts")
        if self.cuda_graph and self.optimizer == "sgd":
            raise ValueError("cuda_graph is for adam and adamw")
        return self


@dataclass(frozen=True)
class Fit:
    """What a finished run of the loop cost and where its losses ended (mean over the last logged window)."""

    steps: int
    examples: int
    seconds: float
    losses: dict[str, float]


class Interrupted(Failure):
    """The loop was asked to stop; what it had is in the checkpoint, if there is a folder."""


def fit(
    objective: Objective,
    batches: Batches,
    config: FitConfig,
    *,
    seed: int,
    runtime: Runtime,
    folder: Path | None = None,
    resume: bool = False,
    label: str = "training",
    workers: int = 1,
    on_sample: Callable[[int], None] | None = None,
) -> Fit:
    """Optimises `objective` for config.steps and returns what it cost.

    With a folder: log.jsonl, TensorBoard events and checkpoint.pt are written there, and `resume` goes on from the
    checkpoint; on a CPU the result then equals that of an uninterrupted run bit for bit. Raises Interrupted after
    SIGTERM or Ctrl-C, once the checkpoint is written, and NotFinite where a loss or a weight is no longer a number:
    the checkpoint is then the last good one.
    """
    group = runtime.group
    _refuse_shares(config, group)
    players = objective.players()
    for player in players.values():
        _prepare(player, config, runtime)
    optimizers = {name: _optimizer(player, config, runtime) for name, player in players.items()}
    state = TrainingState(folder, players, optimizers, hash_of(config, seed))
    if resume:
        state.load()
    for player in players.values():
        group.equalise([*player.module.parameters(), *player.module.buffers()])
    examples = config.steps * config.batch_size
    if state.step >= config.steps:
        return Fit(config.steps, examples, state.seconds, state.losses)
    stop = StopRequest()
    eager = Stepper(objective, players, optimizers, runtime, seed, config.parts, config.clip_norm)
    stepper = Replayed(eager) if _is_captured(config, runtime) else eager
    with (
        stop.listening(),
        RunLog(folder if group.is_first else None, state.step, state.window) as log,
        seeded(seed),
        _chosen_kernels(getattr(batches, "has_one_size", False)),
        allocation.kept() if runtime.device.type == "cpu" else nullcontext(),
        progress.bar(label, examples, done=state.step * config.batch_size, is_shown=group.is_first) as bar,
        prefetched(batches, range(state.step, config.steps), workers, config.parts, runtime) as upcoming,
    ):
        began = time.monotonic() - state.seconds
        for parts in upcoming:
            rate = learning_rate_at(config, state.step)
            _set_learning_rates(optimizers, players, rate)
            stepper.seed_draws(state.step)
            state.step += 1
            losses = stepper.step([on_device(batch, runtime, config.channels_last) for batch in parts], state.step)
            state.seconds = time.monotonic() - began
            log.note(losses, config.batch_size)
            bar.advance(config.batch_size, note=log.latest())
            if _is_due(state.step, config.log_every_steps, config):
                state.losses = log.write(state.step, state.seconds, rate)
                _refuse_lost(state.losses, state.step)
            if on_sample is not None and _is_due(state.step, config.sample_every_steps, config):
                on_sample(state.step)
            is_asked_to_stop = _is_asked_to_stop(stop, group, state.step)  # read once: it may come at any moment
            if is_asked_to_stop or _is_due(state.step, config.checkpoint_every_steps, config):
                _refuse_broken(players, state.step)
                state.window = log.window()
                if group.is_first:
                    state.save()
            if is_asked_to_stop:
                break
    if is_asked_to_stop:
        raise Interrupted(_stopped(stop.signal_name or "another process", state, config.steps))
    return Fit(config.steps, examples, state.seconds, state.losses)


def shared(config: FitConfig, group: Group) -> FitConfig:
    """The settings with as many parts as there are processes, where nothing was said of parts."""
    return config.model_copy(update={"parts": group.count}) if config.parts == 1 else config


def learning_rate_at(config: FitConfig, step: int) -> float:
    """The base learning rate of a step, counted from 0: warm-up, then the schedule as a function of progress."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "cosine":
        share = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
    if config.schedule == "step":
        return config.learning_rate * config.decay_factor ** (step // config.decay_every_steps)
    return config.learning_rate


def on_device(batch: Batch, runtime: Runtime, channels_last: bool = True) -> Batch:
    """The batch where the network is, in float32: images in [0, 1], features with the values they are cached with."""

    def moved(tensor: Tensor) -> Tensor:
        return tensor.to(runtime.device, non_blocking=True)

    def pixels(tensor: Tensor) -> Tensor:
        data = moved(tensor)
        data = to_float(data) if data.dtype == torch.uint8 else data.float()
        return data.contiguous(memory_format=torch.channels_last) if channels_last and data.ndim == 4 else data

    features = batch.features
    truths = batch.truths
    return Batch(
        pixels(batch.images),
        None if batch.labels is None else moved(batch.labels),
        None if features is None else {name: pixels(maps) for name, maps in features.items()},
        batch.sizes,
        None if truths is None else tuple(_moved(truth, moved) for truth in truths),
    )


def _moved(truth: Truth, moved: Callable[[Tensor], Tensor]) -> Truth:
    return Truth(*(moved(getattr(truth, field.name)) for field in fields(truth)))


def _prepare(player: Player, config: FitConfig, runtime: Runtime) -> None:
    player.module.to(runtime.device).train()
    if config.channels_last:
        player.module.to(memory_format=torch.channels_last)
    if config.compile:
        for part in player.module.children() if isinstance(player.module, nn.ModuleDict) else [player.module]:
            part.compile()  # a ModuleDict is never called itself


def _optimizer(player: Player, config: FitConfig, runtime: Runtime) -> torch.optim.Optimizer:
    groups = [
        {"params": list(g.parameters), "weight_decay": config.weight_decay * g.weight_decay_ratio}
        for g in player.groups
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.learning_rate, momentum=config.beta1, fused=True)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    is_captured = _is_captured(config, runtime)
    # A graph reads the learning rate from the GPU, where it is changed between two replays.
    rate = torch.tensor(config.learning_rate, device=runtime.device) if is_captured else config.learning_rate
    return kind(groups, rate, betas=(config.beta1, 0.999), fused=True, capturable=is_captured)


def _is_captured(config: FitConfig, runtime: Runtime) -> bool:
    return config.cuda_graph and config.parts == 1 and runtime.device.type == "cuda"


def _set_learning_rates(optimizers: dict[str, torch.optim.Optimizer], players: dict[str, Player], rate: float) -> None:
    for name, player in players.items():
        for state, group in zip(optimizers[name].param_groups, player.groups, strict=True):
            if isinstance(state["lr"], Tensor):
                state["lr"].fill_(rate * group.learning_rate_ratio)
            else:
                state["lr"] = rate * group.learning_rate_ratio


@contextmanager
def _chosen_kernels(has_one_size: bool) -> Iterator[None]:
    """cuDNN tries what is fastest where batches are alike; `cudnn.flags` would turn off whatever it is not told."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = has_one_size
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _refuse_shares(config: FitConfig, group: Group) -> None:
    if config.parts % group.count:
        raise UsageError(
            f"{group.count} processes cannot share train.parts = {config.parts} equally: "
            f"set it to a multiple of {group.count}, or start a number of processes that divides it."
        )


def _is_asked_to_stop(stop: StopRequest, group: Group, step: int) -> bool:
    """True where a signal came, to this process or to any that shares the run: they stop after the same step."""
    if group.count == 1:
        return stop.signal_name is not None
    if step % STOP_EVERY_STEPS:
        return False
    asked = torch.tensor([float(stop.signal_name is not None)])
    group.add_up([asked])
    return bool(asked)


def _refuse_lost(losses: Mapping[str, float], step: int) -> None:
    """On a GPU losses are looked at here first."""
    for name, value in losses.items():
        if not math.isfinite(value):
            raise NotFinite(f"The loss of '{name}' is {value} by step {step}: lower train.learning_rate.")


def _is_due(step: int, every: int, config: FitConfig) -> bool:
    return step % every == 0 or step == config.steps


def _refuse_broken(players: dict[str, Player], step: int) -> None:
    """A finite loss may have a gradient that is not: its weights must not replace the last good checkpoint."""
    for name, player in players.items():
        if not all(bool(torch.isfinite(parameter).all()) for parameter in player.module.parameters()):
            raise NotFinite(f"Weights of '{name}' are not finite after step {step}: lower train.learning_rate.")


def _stopped(signal_name: str, state: TrainingState, steps: int) -> str:
    kept = f"all is kept in {state.path}; go on by --resume RUN_FOLDER" if state.path else "nothing is kept (no folder)"
    return f"Stopped by {signal_name} after step {state.step} of {steps}: {kept}."
