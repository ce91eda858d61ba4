"""State dicts of networks built elsewhere, brought into the names and shapes of one of ours, layer by layer in order.

Written for the released inpainting generator, whose ports agree in their layers and in little else: one Sequential,
two, or blocks; prefixes of training wrappers; biases where BatchNorm needs none; a discriminator in the same file.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ssl_inpaint.errors import UsageError

# What a file with several networks calls the generator, behind the prefixes of training wrappers.
_GENERATOR = re.compile(r"(module\.|_orig_mod\.|model\.)*(netG|net_G|generator|gen|G)\.")
_TOLERATED = 0.1  # share of the file's tensors that may be of no use here
_KINDS: tuple[Literal["weights", "norm"], ...] = ("weights", "norm")


class Reshaped(NamedTuple):
    """A tensor of ours for which the file has one of another shape."""

    name: str
    here: tuple[int, ...]
    there: tuple[int, ...]


@dataclass(frozen=True)
class Match:
    """What of a file fits our network, tensor by tensor."""

    wanted: tuple[str, ...]  # our names
    found: tuple[str, ...]  # the file's names, less those left out
    left_out: tuple[str, ...]  # the file's: of another network than the generator
    state: dict[str, Tensor] = field(default_factory=dict)  # for load_state_dict: whole where `refuse_poor` is content
    used: set[str] = field(default_factory=set)  # the file's
    reshaped: list[Reshaped] = field(default_factory=list)
    flattened: list[str] = field(default_factory=list)  # ours: a convolution over the whole map, written as a matrix
    folded: list[str] = field(default_factory=list)  # the file's: biases now in the mean of the BatchNorm behind them
    zeroed: list[str] = field(default_factory=list)  # ours: biases and counters that the file does without
    faults: list[str] = field(default_factory=list)  # why the layers are not the same ones

    @property
    def matched(self) -> list[str]:
        """Ours that come from the file."""
        return [name for name in self.state if name not in self.zeroed]

    @property
    def missing(self) -> list[str]:
        """Ours for which the file has nothing."""
        reshaped = {entry.name for entry in self.reshaped}
        return [name for name in self.wanted if name not in self.state and name not in reshaped]

    @property
    def unexpected(self) -> list[str]:
        """The file's that are of no use here."""
        return [name for name in self.found if name not in self.used]

    def report(self) -> list[str]:
        """Lines for people: how much fits, what does not, and what was done to make it fit."""
        notes = {
            "convolutions written as matrices": self.flattened,
            "biases folded into the BatchNorm behind them": self.folded,
            "set to zero, as the file has none": self.zeroed,
            "left out, beside the generator": self.left_out,
        }
        done = [f"{what}: {_some(names)}" for what, names in notes.items() if names]
        return [f"{len(self.matched)} of {len(self.wanted)} tensors come from the file", *self.objections(), *done]

    def objections(self) -> list[str]:
        """What does not fit, one line each; empty where all does."""
        shapes = [f"{r.name}: {_by(r.there)} there, {_by(r.here)} here" for r in self.reshaped]
        kinds = {"missing": self.missing, "of another shape": shapes, "unexpected": self.unexpected}
        return [*self.faults, *(f"{what} {_some(names)}" for what, names in kinds.items() if names)]


def match(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Match:
    """What of `found` fits `wanted`, the state dict of our network, whose order is that of its layers.

    Layers are paired by name where the file has all of ours, under any prefix. Else in order, convolutions and matrices
    with their like, norms with theirs, and only where there are as many: in the file's order, or by name (main.2
    before main.10, a decoder last) if more fits so. Equal shapes in another order cannot be told apart.
    """
    inside = [name for name in found if _GENERATOR.match(name)] or list(found)
    left_out = tuple(name for name in found if name not in set(inside))
    attempts = []
    for names in (inside, sorted(inside, key=_natural)):
        attempts.append(Match(tuple(wanted), tuple(inside), left_out))
        _fill(attempts[-1], _layers({name: found[name] for name in names}), _layers(wanted))
    return min(attempts, key=lambda made: len(made.missing) + len(made.reshaped) + len(made.faults))


def refuse_poor(match: Match, path: Path) -> None:
    """UsageError, in one sentence, unless all of ours is there and nearly all of the file's was of use."""
    is_whole = not (match.missing or match.reshaped or match.faults)
    if is_whole and len(match.unexpected) <= _TOLERATED * len(match.found):
        return
    said = "; ".join((match.report()[0], *match.objections()))
    raise UsageError(
        f"{path} is of another network ({said}): give a generator's weights whose layers are ours, in our order, or "
        "set our sizes to its own, by --recipe, encoder.channels, pretext.bottleneck_units or crops.size."
    )


@dataclass(frozen=True)
class _Layer:
    path: str
    kind: Literal["weights", "norm"]  # a convolution or matrix; or what has running statistics
    tensors: Mapping[str, Tensor]  # by their own names: weight, bias, running_mean ...

    def key(self, part: str) -> str:
        return f"{self.path}.{part}" if self.path else part


class _Pair(NamedTuple):
    theirs: _Layer
    ours: _Layer


def _fill(match: Match, theirs: Sequence[_Layer], ours: Sequence[_Layer]) -> None:
    behind = {layer.path: after for layer, after in itertools.pairwise(theirs) if after.kind == "norm"}
    pairs = _paired_by_name(theirs, ours) or _paired_in_order(theirs, ours, match.faults)
    shifts = {}
    for pair in pairs:
        norm = behind.get(pair.theirs.path)
        if pair.theirs.kind == "weights" and "bias" in pair.theirs.tensors and "bias" not in pair.ours.tensors:
            shifts.update(_fold(match, pair.theirs, norm))
        _take(match, pair, norm)
    for there, here in pairs:
        name = here.key("running_mean")
        if there.path in shifts and name in match.state:
            match.state[name] = match.state[name] - shifts[there.path]  # not in place: the tensor is the file's


def _take(match: Match, pair: _Pair, norm: _Layer | None) -> None:
    """Puts the tensors of one layer of theirs into the state, or notes why not."""
    theirs, ours = pair
    for part, here in ours.tensors.items():
        name, there = ours.key(part), theirs.tensors.get(part)
        if there is None:
            if part == "num_batches_tracked" or (part == "bias" and ours.kind == "weights"):
                match.state[name] = torch.zeros_like(here)
                match.zeroed.append(name)
            continue
        match.used.add(theirs.key(part))
        fitting = _as_matrix(there, here.shape, norm) if here.dim() == 2 and there.dim() == 4 else there
        if fitting.shape != here.shape:
            match.reshaped.append(Reshaped(name, tuple(here.shape), tuple(there.shape)))
            continue
        match.state[name] = fitting.to(here.dtype)
        if fitting is not there:
            match.flattened.append(name)


def _fold(match: Match, layer: _Layer, norm: _Layer | None) -> dict[str, Tensor]:
    """A bias before a BatchNorm as a shift of its running mean: (x + b) - mean = x - (mean - b). By the norm's path."""
    bias, name = layer.tensors["bias"], layer.key("bias")
    match.used.add(name)
    if not bias.any():
        return {}
    if norm is None or norm.tensors["running_mean"].shape != bias.shape:
        match.faults.append(f"{name} is not zero, has no BatchNorm behind it and has no place here")
        return {}
    match.folded.append(name)
    return {norm.path: bias}


def _as_matrix(weight: Tensor, shape: Sequence[int], norm: _Layer | None) -> Tensor:
    """A convolution over a whole map as the matrix on the flattened map; unchanged where neither kind gives `shape`.

    A convolution's weight is O x I x h x w and gives O x Ihw. An up-convolution's, from one position, is I x O x h x w
    and gives Ohw x I. Where both would do, the norm behind it has O channels.
    """
    rows = weight.flatten(1)
    readings = [(outputs, m) for outputs, m in zip(weight.shape[:2], (rows, rows.T), strict=True) if m.shape == shape]
    if len(readings) > 1 and norm is not None:
        readings = [reading for reading in readings if reading[0] == len(norm.tensors["running_mean"])] or readings
    return readings[0][1] if readings else weight


def _layers(state: Mapping[str, Tensor]) -> list[_Layer]:
    """The modules with running statistics or a weight of two axes and more, in the order of their first tensors."""
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        path, _, part = name.rpartition(".")
        modules.setdefault(path, {})[part] = tensor
    found = []
    for path, tensors in modules.items():
        if "running_mean" in tensors:
            found.append(_Layer(path, "norm", tensors))
        elif "weight" in tensors and tensors["weight"].dim() >= 2:
            found.append(_Layer(path, "weights", tensors))
    return found


def _paired_by_name(theirs: Sequence[_Layer], ours: Sequence[_Layer]) -> list[_Pair]:
    """Every layer of ours with its namesake under one prefix; empty unless all have one."""
    named = {layer.path: layer for layer in theirs}
    first = ours[0].path if ours else ""
    for prefix in (path.removesuffix(first) for path in named if f".{path}".endswith(f".{first}")):
        pairs = [_Pair(named[prefix + o.path], o) for o in ours if prefix + o.path in named]
        if len(pairs) == len(ours):
            return pairs
    return []


def _paired_in_order(theirs: Sequence[_Layer], ours: Sequence[_Layer], faults: list[str]) -> list[_Pair]:
    """Each kind in its order, none of a kind whose numbers differ, which is a fault."""
    pairs = []
    for kind, what in zip(_KINDS, ("convolutions and matrices", "BatchNorms"), strict=True):
        there, here = ([layer for layer in layers if layer.kind == kind] for layers in (theirs, ours))
        if len(there) == len(here):
            pairs += [_Pair(*layers) for layers in zip(there, here, strict=True)]
        else:
            faults.append(f"{len(there)} {what} there, {len(here)} here")
    return pairs


def _natural(name: str) -> list[tuple[bool, list[str | int]]]:
    """Sorts main.2 before main.10, and an encoder before a decoder."""
    parts = name.split(".")
    return [("dec" in part.lower(), [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", part)]) for part in parts]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return f"{len(listed)} ({', '.join(listed[:3])}{', ...' if len(listed) > 3 else ''})"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
