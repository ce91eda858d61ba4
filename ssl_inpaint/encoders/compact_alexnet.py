"""AlexNet for small images and machines: a 7x7 stride-2 first convolution and BatchNorm, else as `alexnet`."""

from __future__ import annotations

from typing import Literal

from ssl_inpaint.core import Encoder
from ssl_inpaint.encoders import alexnet


class Config(alexnet.Config):
    """Deviation: stride 2 keeps a 6 x 6 map at 96 pixels (the paper has it at 227); BatchNorm trains in minutes."""

    stem: Literal["11x11/4", "7x7/2"] = "7x7/2"
    normalization: Literal["lrn", "batch", "none"] = "batch"
    initial_deviation: float | None = None


def build(config: Config) -> Encoder:
    """The encoder with random weights, drawn from torch's current random state."""
    return alexnet.AlexNet(config)
