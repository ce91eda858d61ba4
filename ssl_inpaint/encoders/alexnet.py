"""CaffeNet, the paper's AlexNet: five convolutions, grouped, with pooling and local response normalisation."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Encoder, Stage
from ssl_inpaint.images import IMAGENET_MEAN


class Config(Settings):
    """The defaults are CaffeNet's; `compact_alexnet` is the variant for small images."""

    later: ClassVar[frozenset[str]] = frozenset({"pooling"})
    channels: tuple[int, int, int, int, int] = (96, 256, 384, 384, 256)  # conv1..conv5
    groups: Literal[1, 2] = 2  # of conv2, conv4 and conv5, as on the two GPUs of 2012
    stem: Literal["11x11/4", "7x7/2"] = "11x11/4"  # conv1's kernel / stride
    normalization: Literal["lrn", "batch", "none"] = "lrn"
    pooling: Literal["max", "convolution"] = "max"  # the paper's pool-free variant convolves at the same stride
    initial_deviation: float | None = 0.01  # of the Gaussian weights; None: Kaiming's, by fan-in


def build(config: Config) -> Encoder:
    """The encoder with random weights, drawn from torch's current random state."""
    return AlexNet(config)


class AlexNet(Encoder):
    """conv1, pool1, conv2, pool2, conv3, conv4, conv5, pool5: each map after its ReLU (and BatchNorm, if any).

    At 227 x 227: 55, 27, 27, 13, 13, 13, 13, 6 pixels a side. As in Caffe, conv1 is not padded, pooling rounds up, and
    response normalisation follows pooling. Source: BVLC's CaffeNet (Krizhevsky et al. 2012); paper section 3.1.
    Deviation: channels are R, G, B, where Caffe's are B, G, R; with random weights it makes no difference.
    """

    smallest_input = 64
    mean: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = config.channels
        kernel, stride, padding = (11, 4, 0) if config.stem == "11x11/4" else (7, 2, 3)
        bias = config.normalization != "batch"
        g = config.groups
        self.conv1 = nn.Conv2d(3, c1, kernel, stride, padding, bias=bias)
        self.conv2 = nn.Conv2d(c1, c2, 5, padding=2, groups=g, bias=bias)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1, bias=bias)
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1, groups=g, bias=bias)
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1, groups=g, bias=bias)
        # Deviation: BatchNorm, where chosen, follows each convolution; the paper's network has none.
        norms = [nn.BatchNorm2d(c) if config.normalization == "batch" else nn.Identity() for c in config.channels]
        self.norms = nn.ModuleList(norms)
        widths = (c1, c2, c5)
        is_free = config.pooling == "convolution"
        self.pools = nn.ModuleList(
            StridedConvolution(c) if is_free else nn.MaxPool2d(3, 2, ceil_mode=True) for c in widths
        )
        self.response = ResponseNorm() if config.normalization == "lrn" else nn.Identity()
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.stages = alexnet_stages((c1, c2, c3, c4, c5), stride, kernel / 2 - padding)
        initialise(self, config.initial_deviation)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """B x 3 x H x W in [0, 1] to the eight stages."""
        # Caffe's input scale, 0 to 255 less the mean: the constants of response normalisation are made for it.
        conv1 = self._convolve(images * 255 - self.mean, 0)
        pool1 = self.pools[0](conv1)
        conv2 = self._convolve(self.response(pool1), 1)
        pool2 = self.pools[1](conv2)
        conv3 = self._convolve(self.response(pool2), 2)
        conv4 = self._convolve(conv3, 3)
        conv5 = self._convolve(conv4, 4)
        maps = (conv1, pool1, conv2, pool2, conv3, conv4, conv5, self.pools[2](conv5))
        return dict(zip(self.stages, maps, strict=True))

    def _convolve(self, maps: Tensor, index: int) -> Tensor:
        convolution = (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5)[index]
        return torch.relu(self.norms[index](convolution(maps)))


class ResponseNorm(nn.Module):
    """x / (1 + 1e-4 / 5 s)^0.75, where s sums the squares of five neighbouring channels (Krizhevsky et al. 2012).

    As torch's LocalResponseNorm, whose pooling over a fifth dimension turns maps that lie channels last around, so that
    every layer behind it turns them back. The sum is a 1 x 1 convolution by a band of ones.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """B x C x H x W to the same shape and memory format."""
        places = torch.arange(maps.shape[1], device=maps.device)
        band = ((places[:, None] - places).abs() <= 2).to(maps.dtype)[:, :, None, None]
        sums = nn.functional.conv2d(maps.square(), band).float()
        return maps * (1 + 2e-5 * sums).pow(-0.75)


class StridedConvolution(nn.Module):
    """A 3 x 3 convolution at stride 2 with ReLU, in the place of max pooling: maps of the same size.

    Source: the paper's pool-free AlexNet, which fills finer and which it does not use for transfer.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, 2)

    def forward(self, maps: Tensor) -> Tensor:
        """B x C x H x W to about half of H and W, rounded up as pooling does: what is missing at the edge is zero."""
        height, width = maps.shape[-2:]
        missing = (0, (width - 3) % 2, 0, (height - 3) % 2)
        return torch.relu(self.convolution(nn.functional.pad(maps, missing)))


def alexnet_stages(channels: tuple[int, int, int, int, int], stride: int, first: float) -> dict[str, Stage]:
    """The eight stages of an AlexNet whose conv1 has that stride and looks at `first` with its first cell.

    Pooling is 3 x 3 / 2 without padding: the first cell of its map looks where the second cell before it looked.
    """
    found = {}
    for name, width in zip(
        ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5"), (0, 0, 1, 1, 2, 3, 4, 4), strict=True
    ):
        if name.startswith("pool"):
            first, stride = first + stride, 2 * stride
        found[name] = Stage(channels[width], stride, first)
    return found


def initialise(network: nn.Module, deviation: float | None) -> None:
    """Gaussian convolution weights of that standard deviation (None: Kaiming's for ReLU), zero biases.

    Source: CaffeNet's weights, Table 2's "Random Gaussian".
    Deviation: the biases of CaffeNet's conv2, conv4 and conv5 begin above zero.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            if deviation is None:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                nn.init.normal_(module.weight, std=deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
