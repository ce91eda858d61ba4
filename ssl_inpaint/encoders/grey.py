"""Any other encoder, shown the lightness of images and no colour, as `grey:ENCODER`.

For what was pretrained on grey images, as by colorization: transfer then sees what pretraining saw. `grey:ENCODER=FILE`
takes weights of the encoder inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from pydantic import Field, field_validator
from torch import Tensor, nn

from ssl_inpaint import catalog, colours, config
from ssl_inpaint.config import Settings
from ssl_inpaint.core import Encoder


class Config(Settings):
    """Which encoder is inside; its own settings travel as one: encoder.settings={"channels":[48,128,192,192,128]}."""

    argument: str = Field("compact_alexnet", min_length=1)  # the encoder, with its argument if any: timm:resnet18
    settings: dict[str, object] = {}  # field to value, of the Config of the encoder inside

    @field_validator("settings")
    @classmethod
    def _is_untrained(cls, settings: dict[str, object]) -> dict[str, object]:
        if settings.get("pretrained"):
            raise ValueError("a library's weights were made with colour and would pass for random ones: leave them out")
        return settings


def build(config: Config, weights: Mapping[str, Tensor] | None = None) -> Encoder:
    """The encoder with random weights, drawn from torch's current random state, or with `weights` of the `whole`.

    UsageError where there is no such encoder or it has no such settings.
    """
    part, chosen = _inside(config)
    if weights is None:
        return GreyEncoder(part.build(chosen))
    if hasattr(part, "whole"):
        return GreyEncoder(part.build(chosen, weights))
    inner: Encoder = part.build(chosen)
    inner.load_state_dict(weights)
    return GreyEncoder(inner)


def whole(config: Config) -> nn.Module:
    """The encoder inside, or the library's model it comes from: what a weights file from elsewhere is for."""
    part, chosen = _inside(config)
    model: nn.Module = part.whole(chosen) if hasattr(part, "whole") else part.build(chosen)
    return model


class GreyEncoder(Encoder):
    """Stages, smallest input and maps of the encoder inside, on the grey image of the same lightness."""

    def __init__(self, inner: Encoder) -> None:
        super().__init__()
        self.inner = inner
        self.stages, self.smallest_input = inner.stages, inner.smallest_input
        self.is_fixed = bool(getattr(inner, "is_fixed", False))  # as timm's models of one size only
        self.natural_size = int(getattr(inner, "natural_size", 0))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """B x 3 x H x W in [0, 1] to the stages of the encoder inside, which sees three equal channels."""
        maps: dict[str, Tensor] = self.inner(colours.grey(images))
        return maps


def _inside(chosen: Config) -> tuple[ModuleType, Settings]:
    """The part inside and its Config."""
    name, argument = catalog.split_argument(chosen.argument)
    part = catalog.load("encoders", name)
    values = {**chosen.settings, "argument": argument} if argument else chosen.settings
    return part, config.check(part.Config, "encoder.settings", values)
