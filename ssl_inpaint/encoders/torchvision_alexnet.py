"""torchvision's AlexNet (one tower, no normalisation layers), random or with its ImageNet weights."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Encoder
from ssl_inpaint.encoders.alexnet import alexnet_stages
from ssl_inpaint.images import IMAGENET_DEVIATION, IMAGENET_MEAN

# Position of each stage's last layer in torchvision's `features`; the layers that work in place are these themselves.
_LAST_LAYER = {"conv1": 1, "pool1": 2, "conv2": 4, "pool2": 5, "conv3": 7, "conv4": 9, "conv5": 11, "pool5": 12}


class Config(Settings):
    """Which weights."""

    pretrained: bool = False  # torchvision's IMAGENET1K_V1, downloaded where torch.hub does not have them


def build(config: Config) -> Encoder:
    """The encoder, with random weights from torch's current random state or pretrained; OSError if no download."""
    return TorchvisionAlexNet(config)


class TorchvisionAlexNet(Encoder):
    """The same eight stage names as `alexnet`; conv1..conv5 have 64, 192, 384, 256, 256 channels.

    Source: Krizhevsky 2014, as torchvision has it.
    """

    smallest_input = 64
    mean: Tensor
    deviation: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        from torchvision.models import alexnet

        self.features = alexnet(weights="IMAGENET1K_V1" if config.pretrained else None).features
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION).view(1, 3, 1, 1), persistent=False)
        self.stages = alexnet_stages((64, 192, 384, 256, 256), 4, 11 / 2 - 2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """B x 3 x H x W in [0, 1] to the eight stages."""
        maps, at = (images - self.mean) / self.deviation, {}
        for position, layer in enumerate(self.features):
            maps = layer(maps)
            at[position] = maps
        return {name: at[position] for name, position in _LAST_LAYER.items()}
