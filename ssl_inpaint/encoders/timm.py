"""Any timm model with feature stages, as `timm:NAME`, random or with timm's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Encoder, Stage
from ssl_inpaint.errors import UsageError, unknown_name


class Config(Settings):
    """Which model and which weights."""

    argument: str = "resnet18"  # timm's name, with its tag after a dot if wanted: resnet50.a1_in1k
    pretrained: bool = False  # timm's weights, downloaded where its cache does not have them


def build(config: Config) -> Encoder:
    """The encoder, random or pretrained; UsageError where timm has no such model or it has no feature stages."""
    import timm

    architecture = config.argument.split(".")[0]
    if not timm.is_model(architecture):
        raise unknown_name("timm model", config.argument, timm.list_models())
    try:
        model = timm.create_model(config.argument, pretrained=config.pretrained, features_only=True)
    except (AttributeError, NotImplementedError) as error:
        raise UsageError(f"timm model '{config.argument}' has no feature stages ({error}): choose another.") from None
    return TimmEncoder(model)


class TimmEncoder(Encoder):
    """stage1..stageN as timm's `features_only` gives them, normalised with the weights' own mean and deviation."""

    smallest_input = 32
    mean: Tensor
    deviation: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        info = model.feature_info
        pairs = zip(info.channels(), info.reduction(), strict=True)
        self.stages = {f"stage{i}": Stage(c, int(r)) for i, (c, r) in enumerate(pairs, start=1)}
        settings = model.pretrained_cfg
        if settings.get("fixed_input_size"):
            self.smallest_input = settings["input_size"][-1]
        self.register_buffer("mean", torch.tensor(settings["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(settings["std"]).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """B x 3 x H x W in [0, 1] to the model's stages, B x C x h x w each."""
        maps = self.model((images - self.mean) / self.deviation)
        return dict(zip(self.stages, maps, strict=True))
