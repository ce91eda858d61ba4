"""Data-dependent rescaling: weights scaled before fine-tuning so that all layers learn at about the same rate.

"within" gives each channel of layers drawn anew deviation 1 and mean 0.1 over images; "between" scales whole layers,
trained ones too, until random gradients are the same share of the weights in each. No labels are read. In a chain of
layers with ReLU and pooling "between" changes the outputs by one factor only; with local response normalisation, or
where branches are added, that is approximate. Of several outputs give it one: layers that `top` skips stay as they are.

Source: Krähenbühl, Doersch, Donahue, Darrell, "Data-dependent Initializations of Convolutional Neural Networks", ICLR
2016, Algorithms 1 ("within") and 2 ("between"), as their published code (philkr/magic_init) computes them.
Deviation: the network is in eval mode, since dropout would be measured with the layers; theirs is in training mode.
Deviation: transposed convolutions and what has no scale (constant channels, no weights, no gradient) stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from ssl_inpaint.errors import Failure, UsageError
from ssl_inpaint.plans import Rescaling

Layer = nn.Conv2d | nn.Linear
Top = Callable[[Tensor], Tensor]

BATCHES, BATCH_SIZE = 10, 16  # that the reference looks at; for the caller
CHANNEL_MEAN = 0.1  # beta of Algorithm 1; the reference's default
ROUNDS, TOLERANCE = 10, 0.01  # of "between": at most, or until each layer's log-ratio is that close to the target
CONSTANT = 1e-5  # a channel that deviates by a smaller share of its mean is constant but for rounding
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def rescale(
    network: nn.Module,
    top: Top,
    batches: Sequence[Tensor],
    kind: Rescaling,
    generator: torch.Generator,
    *,
    untrained: nn.Module,
    name: str,
) -> None:
    """Rescales the layers of `network` that `top` calls, in place; "both" is within, then between.

    `top` takes a batch, B x 3 x H x W in [0, 1] on the network's device, to what the last layer gives, B x K x ... .
    `untrained` is the part of `network` with random weights, perhaps all: "within" would break what others learned.
    UsageError, with `name` for the network, where it has BatchNorm or the like; Failure where outputs are not finite.
    """
    if kind == "none":
        return
    refuse_normalization(network, name)
    with torch.autocast(batches[0].device.type, enabled=False), _measurable(network):
        layers = layers_in_order(network, top, batches[0])
        if kind != "between":
            drawn = set(untrained.modules())
            _rescale_within([layer for layer in layers if layer in drawn], top, batches)
        if kind != "within":
            _rescale_between(layers, top, batches, generator)


def refuse_normalization(network: nn.Module, name: str) -> None:
    """UsageError where a part of the network normalises by its own inputs, as it would undo any scale."""
    for path, module in network.named_modules():
        if isinstance(module, NORMS):
            raise UsageError(
                f"Rescaling is for networks without {type(module).__name__} and '{name}' has it ({path}), which would "
                "undo it: use --set protocol.rescale=none or an encoder such as alexnet."
            )


def layers_in_order(network: nn.Module, top: Top, images: Tensor) -> list[Layer]:
    """The convolutions and linear layers that `top` calls, in the order of their first call."""
    found: dict[Layer, None] = {}
    with ExitStack() as hooks, torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, Layer):
                hooks.enter_context(layer.register_forward_pre_hook(lambda called, _: found.setdefault(called)))
        top(images)
    return list(found)


@contextmanager
def _measurable(network: nn.Module) -> Iterator[None]:
    """Eval mode and gradients for all parameters inside; modes and flags as they were outside."""
    modes = {module: module.training for module in network.modules()}
    flags = {parameter: parameter.requires_grad for parameter in network.parameters()}
    try:
        network.eval().requires_grad_(True)
        yield
    finally:
        for module, is_training in modes.items():
            module.training = is_training  # not train(), which would set the children too
        for parameter, is_wanted in flags.items():
            parameter.requires_grad_(is_wanted)


@torch.no_grad()
def _rescale_within(layers: Sequence[Layer], top: Top, batches: Sequence[Tensor]) -> None:
    """Algorithm 1 on weights already drawn: W / sigma and, as the outputs count b, (b - mu) / sigma + beta."""
    for layer in layers:
        moments, axis = _Moments(), -1 if isinstance(layer, nn.Linear) else 1
        # Added while the hook runs: the next layer may be a ReLU that works in place.
        with layer.register_forward_hook(lambda _, __, outputs, m=moments, a=axis: m.add(outputs, a)):
            for images in batches:
                top(images)
        mean, deviation = (found.to(layer.weight) for found in moments.mean_and_deviation())
        scale = torch.where(deviation > 0, 1 / deviation, 1)
        layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.ndim - 1)))
        if layer.bias is not None:
            layer.bias.copy_(torch.where(deviation > 0, (layer.bias - mean) * scale + CHANNEL_MEAN, layer.bias))


def _rescale_between(layers: Sequence[Layer], top: Top, batches: Sequence[Tensor], generator: torch.Generator) -> None:
    """Algorithm 2: in each round all layers are scaled towards the geometric mean of the ratios."""
    draws, magnitudes = generator.get_state(), dict[Layer, float]()
    _scale(dict.fromkeys(layers, 1.0), magnitudes, top, batches[0])  # changes nothing: notes the magnitudes
    for _ in range(ROUNDS):
        # Deviation: every round has the same gradients, or few outputs would never settle to 1 %; theirs are new ones.
        generator.set_state(draws)
        ratios, deviation = _gradient_ratios(layers, top, batches, generator)
        logs = {layer: math.log(ratio) for layer, ratio in ratios.items() if 0 < ratio < math.inf}
        # The geometric mean times deviation^(1 / layers): the outputs go to deviation 1, also where LRN resists.
        total = sum(logs.values()) + (math.log(deviation) if deviation else 0.0)
        away = {layer: log - total / len(logs) for layer, log in logs.items()}
        # Deviation: theirs compares the logarithms as such, so their tolerance depends on the gradients' unit.
        if all(abs(distance) < TOLERANCE for distance in away.values()):
            break
        _scale({layer: math.exp(away.get(layer, 0.0) / 2) for layer in layers}, magnitudes, top, batches[0])


def _gradient_ratios(
    layers: Sequence[Layer], top: Top, batches: Sequence[Tensor], generator: torch.Generator
) -> tuple[dict[Layer, float], float]:
    """By layer sqrt(mean dW^2 / mean W^2) for N(0, 1) gradients at the top, and the outputs' mean deviation.

    Deviation: averaged over all batches, for a steadier estimate; the reference takes a single one.
    """
    weights = [layer.weight for layer in layers]
    moments, squares = _Moments(), torch.zeros(len(layers), dtype=torch.float64)
    for images in batches:
        with torch.enable_grad():
            outputs = top(images)
        moments.add(outputs)
        draw = torch.randn(outputs.shape, generator=generator, device=generator.device).to(outputs)
        # Returned, so that the parameters' .grad stays as it is; zeros where a weight has no part in the outputs.
        squares += _mean_squares(torch.autograd.grad(outputs, weights, draw, materialize_grads=True))
    ratios = (squares / len(batches) / _mean_squares(weights)).sqrt().tolist()
    return dict(zip(layers, ratios, strict=True)), moments.mean_and_deviation()[1].mean().item()


def _mean_squares(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.detach().double().square().mean().cpu() for tensor in tensors])


@torch.no_grad()
def _scale(factors: Mapping[Layer, float], magnitudes: dict[Layer, float], top: Top, images: Tensor) -> None:
    """Multiplies weights and biases by their layer's factor, biases also by how much the layer's inputs have grown.

    In one pass, each layer just before its call: the growth is the product of the factors below, measured as in the
    reference. `magnitudes` are the inputs' mean absolute values, those of the pass before and then of this one.
    """
    pending = dict(factors)

    def scale(layer: Layer, inputs: tuple[Tensor, ...]) -> None:
        if layer in pending:  # not at a second call in one pass
            factor, magnitude = pending.pop(layer), inputs[0].abs().mean().item()
            before, magnitudes[layer] = magnitudes.get(layer, magnitude), magnitude
            layer.weight.mul_(factor)
            if layer.bias is not None:
                layer.bias.mul_(factor * (magnitude / before if before else 1.0))

    with ExitStack() as hooks:
        for layer in factors:
            hooks.enter_context(layer.register_forward_pre_hook(scale))
        top(images)


class _Moments:
    """Mean and deviation by channel of values that come in parts; a constant channel deviates by exactly 0."""

    def __init__(self) -> None:
        self.count, self.sums, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, values: Tensor, axis: int = 1) -> None:
        flat = values.detach().movedim(axis, 0).flatten(1)
        variance, mean = (found.double().cpu() for found in torch.var_mean(flat, dim=1, correction=0))
        count = flat.shape[1]
        self.count, self.sums = self.count + count, self.sums + count * mean
        self.squares = self.squares + count * (variance + mean**2)

    def mean_and_deviation(self) -> tuple[Tensor, Tensor]:
        mean = self.sums / self.count
        deviation = (self.squares / self.count - mean**2).clamp(min=0).sqrt()
        if not deviation.isfinite().all():
            raise Failure("Rescaling stopped as a layer's outputs are not finite: look at the encoder's weights.")
        return mean, deviation.masked_fill(deviation <= CONSTANT * mean.abs(), 0)
