"""One step of every player: losses in turn, gradients summed over the parts of a batch and over processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_inpaint.core import Batch, Objective, Player
from ssl_inpaint.errors import Failure, UsageError
from ssl_inpaint.runtime import Runtime, seed_for

WARM_UP_STEPS = 4  # before a step is captured: libraries choose kernels, optimisers make their state


class NotFinite(Failure):
    """A loss or a weight became infinite or not a number; the message names the step and the player."""


class Stepper:
    """Updates the players of an objective in the order in which it yields their losses.

    A batch comes in parts, whose losses are averaged. All parts go through a loss before any goes on to the next one,
    for a player must have moved by then; where there are several losses, the graphs that reach from one into the next
    are alive for all parts at once. BatchNorm sees one part at a time, and its running statistics become the mean over
    parts of what each would have made of them.
    Deviation: gradients are summed by torch.distributed itself, not by its DistributedDataParallel, which wants one
    module with one forward pass, where tasks call parts of their networks in turn.
    """

    def __init__(
        self,
        objective: Objective,
        players: Mapping[str, Player],
        optimizers: Mapping[str, torch.optim.Optimizer],
        runtime: Runtime,
        seed: int,
        parts: int = 1,
        clip_norm: float | None = None,
    ) -> None:
        self.objective, self.optimizers, self.runtime = objective, optimizers, runtime
        self.seed, self.parts, self.clip_norm = seed, parts, clip_norm
        self.mine = runtime.group.share(parts)
        self.generators = [torch.Generator(runtime.device) for _ in self.mine]
        self.statistics = _Statistics(player.module for player in players.values()) if parts > 1 else None

    def seed_draws(self, step: int) -> None:
        """Sets every random state to what that step's draws begin with; steps are counted from 0."""
        if self.parts == 1:
            torch.manual_seed(seed_for(self.seed, "step", step))  # dropout: a function of the step alone
            self.generators[0].manual_seed(seed_for(self.seed, "draw", step))
            return
        for part, generator in zip(self.mine, self.generators, strict=True):
            generator.manual_seed(seed_for(self.seed, "draw", step, part))

    def step(self, parts: Sequence[Batch], step: int) -> dict[str, Tensor]:
        """One step on this process's parts of the batch; the mean losses by player, and the terms of them.

        NotFinite names `step`. On a GPU nothing is waited for, so there it is for the caller to look at the losses.
        """
        pending = [
            self.objective.losses(batch, generator) for batch, generator in zip(parts, self.generators, strict=True)
        ]
        terms: list[Mapping[str, Tensor]] = [{} for _ in pending]
        found: dict[str, Tensor] = {}
        while True:
            name, loss = self._backward(pending, terms, step, len(found))
            if loss is None:
                return found | self._mean_terms(terms)
            if loss.device.type == "cpu" and not torch.isfinite(loss):
                raise NotFinite(f"The loss of '{name}' is {loss.item()} in step {step}: lower train.learning_rate.")
            self._update(name)
            found[name] = loss

    def _backward(
        self, pending: Sequence[Iterator[tuple[str, Tensor]]], terms: list[Mapping[str, Tensor]], step: int, turn: int
    ) -> tuple[str, Tensor | None]:
        """Takes every part through its next loss and back: the player, and the mean loss or None at the end."""
        player, total = "", None
        if self.statistics is not None:
            self.statistics.begin()
        for place, losses in enumerate(pending):
            if self.statistics is not None:
                torch.manual_seed(seed_for(self.seed, "step", step - 1, self.mine[place], turn))
                self.statistics.restore()
            with self.runtime.autocast():  # entered anew for each loss, so that backward runs outside it
                pair = next(losses, None)
            if pair is None:
                continue
            player, loss = pair
            terms[place] = dict(getattr(self.objective, "terms", {}))  # of this part, until the next one takes its turn
            if total is None:
                self.optimizers[player].zero_grad(set_to_none=True)
            if self.parts > 1:
                loss = loss / self.parts
            loss.backward()
            total = loss.detach() if total is None else total + loss.detach()
            if self.statistics is not None:
                self.statistics.note(self.parts)
        if total is not None and self.parts > 1:
            total = total.clone()
            self.runtime.group.add_up([*self._gradients(player), total, *self._noted()])
            if self.statistics is not None:
                self.statistics.finish()
        return player, total

    def _noted(self) -> list[Tensor]:
        return [] if self.statistics is None else self.statistics.sums

    def _gradients(self, player: str) -> list[Tensor]:
        groups = self.optimizers[player].param_groups
        return [p.grad for group in groups for p in group["params"] if p.grad is not None]

    def _update(self, player: str) -> None:
        optimizer = self.optimizers[player]
        if self.clip_norm is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        optimizer.step()

    def _mean_terms(self, terms: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        if self.parts == 1:
            return dict(terms[0])
        means = {name: torch.stack([one[name] for one in terms]).sum(0) / self.parts for name in terms[0]}
        self.runtime.group.add_up(list(means.values()))
        return means


class Replayed:
    """A Stepper on one GPU whose step is captured as a CUDA graph once, and replayed on every batch of that shape."""

    def __init__(self, stepper: Stepper) -> None:
        self.stepper = stepper
        self.graph: torch.cuda.CUDAGraph | None = None
        self.shown: Batch | None = None
        self.losses: dict[str, Tensor] = {}
        self.eager_steps = 0
        self.stream = torch.cuda.Stream(stepper.runtime.device)

    def seed_draws(self, step: int) -> None:
        """As the stepper's: a graph takes the states that generators have when it is replayed."""
        self.stepper.seed_draws(step)

    def step(self, parts: Sequence[Batch], step: int) -> dict[str, Tensor]:
        """As the stepper's."""
        (batch,) = parts
        if self.eager_steps < WARM_UP_STEPS or (self.shown is not None and not _fits(batch, self.shown)):
            self.eager_steps += 1
            return self._beside(batch, step)
        if self.graph is None or self.shown is None:
            self._capture(batch, step)
        else:
            self.shown.images.copy_(batch.images)
            if batch.labels is not None and self.shown.labels is not None:
                self.shown.labels.copy_(batch.labels)
        if self.graph is None:
            raise ValueError("a step must be captured before it is replayed")
        self.graph.replay()
        return {name: loss.clone() for name, loss in self.losses.items()}

    def _beside(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The step on a stream of its own, as capturing wants of those before it."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            losses = self.stepper.step([batch], step)
        torch.cuda.current_stream().wait_stream(self.stream)
        return losses

    def _capture(self, batch: Batch, step: int) -> None:
        graph = torch.cuda.CUDAGraph()
        for generator in self.stepper.generators:
            graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.losses = self.stepper.step([batch], step)
        except RuntimeError as error:
            reason = (str(error).splitlines() or [""])[0]
            raise UsageError(
                f"This task's step cannot be captured as a CUDA graph ({reason}): leave out train.cuda_graph."
            ) from None
        self.graph, self.shown = graph, batch


class _Statistics:
    """The running statistics of all BatchNorm layers, kept apart for each part of a batch and averaged."""

    def __init__(self, modules: Iterator[nn.Module]) -> None:
        found = (layer for module in modules for layer in module.modules() if isinstance(layer, _BatchNorm))
        self.running = [
            tensor
            for layer in dict.fromkeys(found)  # once each, in the same order in every process
            for tensor in (layer.running_mean, layer.running_var, layer.num_batches_tracked)
            if tensor is not None
        ]
        self.before: list[Tensor] = []
        self.sums: list[Tensor] = []

    def begin(self) -> None:
        """Remembers them as they are."""
        self.before = [tensor.clone() for tensor in self.running]
        self.sums = [torch.zeros_like(tensor) for tensor in self.running if tensor.is_floating_point()]

    def restore(self) -> None:
        """Puts them back as they were."""
        for tensor, value in zip(self.running, self.before, strict=True):
            tensor.data.copy_(value)  # past autograd, which has kept them for graphs that never read them in training

    def note(self, parts: int) -> None:
        """Adds what this part has made of them to the mean over so many."""
        floating = (tensor for tensor in self.running if tensor.is_floating_point())
        for total, tensor in zip(self.sums, floating, strict=True):
            total.add_(tensor / parts)

    def finish(self) -> None:
        """Sets them to the mean."""
        floating = (tensor for tensor in self.running if tensor.is_floating_point())
        for tensor, total in zip(floating, self.sums, strict=True):
            tensor.data.copy_(total)


def _fits(batch: Batch, shown: Batch) -> bool:
    same = batch.images.shape == shown.images.shape and (batch.labels is None) == (shown.labels is None)
    return same and batch.features is None and batch.truths is None
