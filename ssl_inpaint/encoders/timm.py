"""Any timm model with feature stages, as `timm:NAME`, random or with timm's weights."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Encoder, Stage
from ssl_inpaint.errors import UsageError


class Config(Settings):
    """Which model and which weights."""

    argument: str = "resnet18"  # timm's name, with its tag after a dot if wanted: resnet50.a1_in1k
    pretrained: bool = False  # timm's weights, downloaded where its cache does not have them


def build(config: Config, weights: Mapping[str, Tensor] | None = None) -> Encoder:
    """The encoder: random from torch's current random state, pretrained, or with `weights` of the `whole` model.

    UsageError where timm has no such model or it has no feature stages; OSError where a download fails; ValueError
    where `weights` do not cover the encoder (timm itself would leave the rest random and say nothing).
    """
    _refuse_unknown(config.argument)
    import timm

    try:
        model = timm.create_model(
            config.argument,
            pretrained=config.pretrained or weights is not None,
            pretrained_cfg_overlay=None if weights is None else {"state_dict": dict(weights)},
            features_only=True,
        )
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        raise UsageError(
            f"timm cannot make '{config.argument}' with feature stages ({error}): choose another."
        ) from None
    if weights is not None:
        given = {_fingerprint(tensor) for tensor in weights.values()}
        left_out = [name for name, tensor in model.state_dict().items() if _fingerprint(tensor) not in given]
        if left_out:
            raise ValueError(f"{len(left_out)} tensors of '{config.argument}' are not among the weights: {left_out[0]}")
    return TimmEncoder(config.argument, model)


def whole(config: Config) -> nn.Module:
    """The timm model with its classifier: what a weights file from elsewhere is for."""
    _refuse_unknown(config.argument)
    import timm

    model: nn.Module = timm.create_model(config.argument)
    return model


class TimmEncoder(Encoder):
    """stage1..stageN as timm's `features_only` gives them, normalised with the weights' own mean and deviation.

    Channels and strides are timm's word. Every map is taken to look half a stride in with its first cell, which is
    right for networks of patches (ConvNeXt, Swin); ResNet's padding has it look half a pixel in: heads learn the rest.
    `smallest_input` is 32, or the model's own size where it takes no other; some (the Inception family) need more than
    32, and then timm's own error says so.
    """

    smallest_input = 32
    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str, model: Any) -> None:
        super().__init__()
        self.name, self.model = name, model
        info = model.feature_info
        pairs = zip(info.channels(), info.reduction(), strict=True)
        self.stages = {f"stage{i}": Stage(c, int(r)) for i, (c, r) in enumerate(pairs, start=1)}
        settings = model.pretrained_cfg
        self.is_fixed = bool(settings.get("fixed_input_size"))
        if self.is_fixed:
            self.smallest_input = settings["input_size"][-1]
        self.has_channels_last = getattr(model, "output_fmt", None) == "NHWC"  # as Swin's maps
        self.register_buffer("mean", torch.tensor(settings["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(settings["std"]).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """B x 3 x H x W in [0, 1] to the model's stages, B x C x h x w each; UsageError for a size it cannot take."""
        if self.is_fixed and images.shape[-1] != self.smallest_input:
            raise UsageError(
                f"timm model '{self.name}' takes images of {self.smallest_input} pixels a side only and was given "
                f"{images.shape[-1]}: set crops.size (retrieval.patch_size) to {self.smallest_input}."
            )
        maps = self.model((images - self.mean) / self.deviation)
        if self.has_channels_last:
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        return dict(zip(self.stages, maps, strict=True))


def _fingerprint(tensor: Tensor) -> tuple[torch.Size, float]:
    return tensor.shape, float(tensor.double().sum())


def _refuse_unknown(argument: str) -> None:
    import timm

    architecture = argument.split(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"There is no timm model '{argument}': timm.list_models() names them all.{hint}")
