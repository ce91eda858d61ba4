"""sRGB to CIE Lab and back, and the grey image of the same lightness: on batches, pixel by pixel.

Constants are those of scikit-image: the sRGB primaries and the white of D65.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Rows: X, Y, Z of linear R, G, B. The middle row is the luminance, and adds up to one.
_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)
_KNEE = 6 / 29  # of Lab's cube root, below which it goes on as a straight line


def to_lab(images: Tensor) -> Tensor:
    """B x 3 x H x W in [0, 1] to L in 0 ... 100, a and b (about -86 ... 98 and -108 ... 94) in the three channels."""
    linear = _decoded(images.float())
    x, y, z = (_root(_dot(linear, row) / white) for row, white in zip(_XYZ, _WHITE, strict=True))
    return torch.cat([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def from_lab(lab: Tensor) -> Tensor:
    """L, a, b in the three channels to B x 3 x H x W in [0, 1]; what no screen shows is clamped, channel by channel."""
    lightness, a, b = lab.float().split(1, dim=1)
    y = (lightness + 16) / 116
    roots = (y + a / 500, y, y - b / 200)
    xyz = torch.cat([white * _cube(root) for root, white in zip(roots, _WHITE, strict=True)], dim=1)
    inverse = torch.linalg.inv(torch.tensor(_XYZ, dtype=torch.float64)).tolist()
    return _encoded(torch.cat([_dot(xyz, row) for row in inverse], dim=1).clamp(0, 1))


def grey(images: Tensor) -> Tensor:
    """B x 3 x H x W in [0, 1] to the grey image of the same Lab lightness, the same in all three channels.

    A grey image comes back as it is, but for rounding.
    """
    return _encoded(_dot(_decoded(images.float()), _XYZ[1])).expand(-1, 3, -1, -1)


def _dot(channels: Tensor, weights: tuple[float, ...] | list[float]) -> Tensor:
    """Sums by hand: a matrix product would be rounded to bfloat16 where a forward pass is."""
    return sum((weight * channels[:, i : i + 1] for i, weight in enumerate(weights)), torch.zeros_like(channels[:, :1]))


def _decoded(values: Tensor) -> Tensor:
    return torch.where(values > 0.04045, ((values.clamp(min=0) + 0.055) / 1.055) ** 2.4, values / 12.92)


def _encoded(values: Tensor) -> Tensor:
    return torch.where(values > 0.0031308, 1.055 * values.clamp(min=0) ** (1 / 2.4) - 0.055, 12.92 * values)


def _root(values: Tensor) -> Tensor:
    return torch.where(values > _KNEE**3, values.clamp(min=0) ** (1 / 3), values / (3 * _KNEE**2) + 4 / 29)


def _cube(roots: Tensor) -> Tensor:
    return torch.where(roots > _KNEE, roots**3, 3 * _KNEE**2 * (roots - 4 / 29))
