"""What all probes of frozen layers share: which maps they read, and how those become vectors of about one size."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Encoder
from ssl_inpaint.transfer import heads


class PoolingConfig(Settings):
    """Layers are compared at about the same number of features, whatever their channels and cells."""

    stages: tuple[str, ...] = ()  # which maps are read; none named: the task's own choice
    features: int = Field(9000, ge=1)  # about so many are left of a map: 10, 6, 5, 5, 6 cells a side for AlexNet's five
    pooling: Literal["bilinear", "average", "max"] = "bilinear"  # how a map gets smaller


def chosen_stages(encoder: Encoder, config: PoolingConfig, has_all: bool = False) -> tuple[str, ...]:
    """The stages named, each once; where none is, the deepest one or all. UsageError for one that does not exist."""
    named = tuple(encoder.stages) if has_all and not config.stages else config.stages or ("",)
    return tuple(dict.fromkeys(heads.chosen_stage(encoder, stage) for stage in named))


def pooled(maps: Tensor, config: PoolingConfig) -> Tensor:
    """B x C x h x w to B x C x s x s, where C s^2 is about `features` and s at most h and w.

    Source: Zhang et al. 2017 (Split-Brain autoencoders), whose sizes for AlexNet it gives; they resize bilinearly.
    """
    height, width = (min(_side(maps.shape[1], config.features), extent) for extent in maps.shape[-2:])
    if (height, width) == maps.shape[-2:]:
        return maps
    if config.pooling == "bilinear":
        return functional.interpolate(maps, (height, width), mode="bilinear")
    pool = functional.adaptive_avg_pool2d if config.pooling == "average" else functional.adaptive_max_pool2d
    found: Tensor = pool(maps, (height, width))
    return found


def described(encoder: Encoder, images: Tensor, stages: tuple[str, ...], config: PoolingConfig) -> dict[str, Tensor]:
    """The pooled maps at those stages, which nothing can be learned through."""
    with torch.no_grad():
        return {name: pooled(maps, config) for name, maps in heads.features_of(encoder, images, stages).items()}


def _side(channels: int, features: int) -> int:
    return max(1, round(math.sqrt(features / channels)))
