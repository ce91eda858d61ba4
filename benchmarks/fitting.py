"""Ours, where training is timed: a recipe's pretext task stepped by `train.fit`, as users run it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from measuring import Compared, finish, seconds_of
from torch import Tensor

from ssl_inpaint import config
from ssl_inpaint.checkpoint import build_encoder
from ssl_inpaint.core import Batch, TrainingFacts
from ssl_inpaint.plans import Recipe
from ssl_inpaint.pretext import inpainting
from ssl_inpaint.runtime import Runtime
from ssl_inpaint.train import FitConfig, fit

WARM_UP_STEPS = 6  # libraries choose kernels, optimisers make their state, a graph is captured
WARM_UP_ROUNDS = 1


class InMemory:
    """One batch of uint8 images for every step, wherever it lies already."""

    has_one_size = True

    def __init__(self, images: Tensor) -> None:
        self.batch_size, self.batch = len(images), Batch(images)

    def at(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """The batch, whole."""
        if parts != 1:
            raise ValueError(f"this batch comes in one part, not in {parts}")
        return self.batch


def objective_of(recipe: Recipe, image_size: int, **changes: str) -> inpainting.Inpainting:
    """The recipe's inpainting task with weights drawn from seed 0; `changes` are text, as after --set pretext."""
    encoder, _ = build_encoder(recipe.encoder, recipe.encoder_settings, 0)
    chosen = config.override(inpainting.Config(), "pretext", {**recipe.pretext_settings, **changes})
    torch.manual_seed(0)
    return inpainting.build(chosen, encoder, TrainingFacts(image_size))


def first_losses(
    objective: inpainting.Inpainting, images: Tensor, train: FitConfig, runtime: Runtime
) -> Mapping[str, float]:
    """The losses of one step, which is made."""
    once = train.model_copy(update={"steps": 1, "batch_size": len(images), "log_every_steps": 1})
    return fit(objective, InMemory(images), once, seed=0, runtime=runtime).losses


def timed_beside(
    other: Callable[[], object],
    objective: inpainting.Inpainting,
    images: Tensor,
    train: FitConfig,
    runtime: Runtime,
    rounds: int,
    round_steps: int = 1,
) -> Compared:
    """Seconds of `round_steps` steps of ours, from callback to callback of `fit`, and of as many calls of `other`.

    The two take turns, after a warm-up of both.
    """
    here, there = list[float](), list[float]()
    first = -(-WARM_UP_STEPS // round_steps) + WARM_UP_ROUNDS
    began = time.perf_counter()

    def on_sample(step: int) -> None:
        nonlocal began
        finish(runtime.device)
        took = time.perf_counter() - began
        turn = step // round_steps
        if turn > first:
            here.append(took)
        if turn >= first:
            seconds = seconds_of(lambda: [other() for _ in range(round_steps)], runtime.device)
            there.append(seconds)
        finish(runtime.device)
        began = time.perf_counter()

    steps = (first + rounds) * round_steps
    changes = {"steps": steps, "batch_size": len(images), "sample_every_steps": round_steps}
    timed = train.model_copy(update={**changes, "checkpoint_every_steps": steps})
    fit(objective, InMemory(images), timed, seed=0, runtime=runtime, on_sample=on_sample)
    return Compared(tuple(here), tuple(there[1:]))
