"""Rows of pixels at another size, as matrices: which pixel goes into which, and by how much."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def weights_between(outputs: int, inputs: int, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """outputs x inputs float64: what each pixel of a resized row is made of, antialiased; rows add up to 1."""
    scale = inputs / outputs
    middles = (torch.arange(outputs, dtype=torch.float64)[:, None] + 0.5) * scale
    distance = (torch.arange(inputs, dtype=torch.float64) + 0.5 - middles).abs() / max(scale, 1.0)
    weights = kernel(distance)
    return weights / weights.sum(dim=1, keepdim=True)


def triangle(distance: Tensor) -> Tensor:
    """The bilinear kernel at these distances, in pixels."""
    return (1 - distance).clamp(min=0)


def catmull_rom(distance: Tensor) -> Tensor:
    """The bicubic kernel of Keys (1981) with a = -0.5, at these distances in pixels."""
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
