"""What the heads of all transfer tasks share: the re-initialised fc6, fc7 of paper section 5.2, stages and rates."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Encoder, ParameterGroup, Player
from ssl_inpaint.errors import UsageError, unknown_name


class HeadConfig(Settings):
    """The layers on the encoder, and how fast they and the encoder learn."""

    stage: str = ""  # which map the head reads; empty: the task's own choice
    hidden: tuple[PositiveInt, ...] = (4096, 4096)  # units of fc6, fc7; none: one linear layer
    dropout: float = Field(0.5, ge=0, lt=1)  # after each hidden layer
    # BatchNorm without affine before the head, so that features of any scale (a deviation above 0.003) train alike.
    standardize: bool = False
    initial_deviation: float | None = None  # of the head's Gaussian weights (bias 0.1); None: torch's default
    encoder_learning_rate_ratio: float = Field(1.0, gt=0)  # when fine-tuning
    bias_learning_rate_ratio: float = Field(1.0, gt=0)  # of biases and of BatchNorm's scales; they never decay


class WholeImageConfig(HeadConfig):
    """What detection and segmentation add: which map they read, and what of the encoder stays as it is."""

    largest_stride: int = Field(16, ge=1)  # pixels; without `stage` the deepest map whose stride is not above it
    # Fine-tuning leaves parameters whose names begin so as they are; none: all learn. Fast R-CNN's published settings
    # fix conv1, which suits ImageNet weights and not random ones.
    fixed: tuple[str, ...] = ()
    # BatchNorm of a fine-tuned encoder goes on with the statistics it came with: batches are few large images.
    has_fixed_statistics: bool = False


def chosen_stage(encoder: Encoder, stage: str, largest_stride: int | None = None) -> str:
    """`stage` if the encoder has it; where it is empty the deepest, of those with at most that stride if one is given.

    UsageError for a stage that does not exist, or where no stride is that small.
    """
    if stage:
        if stage not in encoder.stages:
            raise unknown_name("stage", stage, encoder.stages)
        return stage
    found = [name for name, s in encoder.stages.items() if largest_stride is None or s.stride <= largest_stride]
    if not found:
        strides = ", ".join(f"{name} {s.stride}" for name, s in encoder.stages.items())
        raise UsageError(f"head.largest_stride = {largest_stride}: the encoder's strides are {strides}; raise it.")
    return found[-1]


def fully_connected(width: int, config: HeadConfig) -> tuple[list[nn.Module], int]:
    """fc6, fc7, ... with ReLU and dropout on vectors of that width, and the width that comes out."""
    layers: list[nn.Module] = []
    for hidden in config.hidden:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(config.dropout)]
        width = hidden
    return layers, width


def initialise(head: nn.Module, deviation: float | None) -> None:
    """Gaussian weights of that deviation and biases of 0.1 (voc-classification); nothing where it is None."""
    for layer in head.modules():
        if deviation is not None and isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.normal_(layer.weight, std=deviation)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0.1)


def player(
    encoder: Encoder, head: nn.Module, config: HeadConfig, is_frozen: bool, fixed: tuple[str, ...] = ()
) -> Player:
    """The head alone on a frozen encoder, head and encoder together when fine-tuning, all but what is `fixed`."""
    bias_ratio = config.bias_learning_rate_ratio
    groups = _groups(dict(head.named_parameters()), 1.0, bias_ratio)
    if is_frozen:
        return Player(head, groups)
    learning = {}
    for name, parameter in encoder.named_parameters():
        is_fixed = name.startswith(fixed)
        parameter.requires_grad_(not is_fixed)
        if not is_fixed:
            learning[name] = parameter
    groups += _groups(learning, config.encoder_learning_rate_ratio, bias_ratio)
    return Player(nn.ModuleDict({"encoder": encoder, "head": head}), groups)


def refuse_unknown_parameters(encoder: Encoder, fixed: Sequence[str]) -> None:
    """UsageError for a beginning that no parameter's name has."""
    names = [name for name, _ in encoder.named_parameters()]
    for beginning in fixed:
        if not any(name.startswith(beginning) for name in names):
            raise unknown_name("parameter of the encoder", beginning, {name.rpartition(".")[0] for name in names})


def fix_statistics(encoder: Encoder, config: WholeImageConfig) -> None:
    """Puts BatchNorm layers in eval mode whose statistics are to stay: all, or those among what is fixed.

    Training mode undoes it, so it is called in every step.
    """
    for name, module in encoder.named_modules():
        is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if is_norm and (config.has_fixed_statistics or f"{name}.".startswith(config.fixed)):
            module.eval()


def _groups(parameters: dict[str, nn.Parameter], ratio: float, bias_ratio: float) -> list[ParameterGroup]:
    weights = [p for p in parameters.values() if p.ndim > 1]
    biases = [p for p in parameters.values() if p.ndim <= 1]
    found = [ParameterGroup(weights, ratio)] if weights else []
    if biases:
        found.append(ParameterGroup(biases, ratio * bias_ratio, weight_decay_ratio=0.0))
    return found


def standardizer(channels: int, is_wanted: bool) -> nn.Module:
    """BatchNorm of maps without affine, or nothing."""
    return nn.BatchNorm2d(channels, affine=False) if is_wanted else nn.Identity()


def features_of(encoder: Encoder, images: Tensor, stages: Sequence[str]) -> dict[str, Tensor]:
    """The encoder's maps at those stages."""
    maps = encoder(images)
    return {name: maps[name] for name in stages}
