"""Random views of images for contrastive tasks: crops, colours, blur; each sample its own draws, all in batches.

Images are B x 3 x H x W float in [0, 1], in and out. Every random function draws from the passed generator only, which
lives where the images do. Source: Chen et al. 2020, section 3 and the released data_util.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

LUMINANCE = (0.299, 0.587, 0.114)  # of R, G, B (ITU-R BT.601)
WIDEST_ASPECT = 4 / 3  # of a crop, width to height or height to width
BLUR_DEVIATIONS = (0.1, 2.0)  # of the blur, in pixels
BLUR_SHARE = 0.1  # of the image's side, for the blur's window


def random_resized_crops(images: Tensor, generator: torch.Generator, smallest_area: float) -> Tensor:
    """One crop an image, from `smallest_area` of its area to all of it, mirrored or not, at the size of the image.

    A crop is never larger than what it becomes, so bilinear sampling skips no pixel and nothing aliases.
    Deviation: where the drawn aspect does not fit the image the longer side is cut to it; the released code draws
    again. Deviation: bilinear, not bicubic.
    """
    count = len(images)
    area = _uniform(count, smallest_area, 1.0, generator)
    aspect = _uniform(count, -math.log(WIDEST_ASPECT), math.log(WIDEST_ASPECT), generator).exp()
    sides = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], dim=1).clamp(max=1)  # width, height
    places = torch.rand(count, 2, generator=generator, device=generator.device)
    centres = (2 * places - 1) * (1 - sides)  # on [-1, 1], so that the window stays inside
    mirror = 1 - 2 * (_uniform(count, 0, 1, generator) < 0.5).float()
    return crops(images, sides, centres, mirror)


def crops(images: Tensor, sides: Tensor, centres: Tensor, mirror: Tensor) -> Tensor:
    """Windows of the images at the images' size, bilinear.

    `sides` are B x 2 shares of width and height, `centres` B x 2 as x, y on [-1, 1], `mirror` B of 1 or -1.
    """
    theta = torch.zeros(len(images), 2, 3, dtype=images.dtype, device=images.device)
    theta[:, 0, 0], theta[:, 1, 1] = sides[:, 0] * mirror, sides[:, 1]
    theta[:, :, 2] = centres
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def random_colours(images: Tensor, generator: torch.Generator, strength: float, probability: float) -> Tensor:
    """Brightness, contrast, saturation (each by up to 0.8 strength) and hue (0.2 strength), or all four left alone.

    Deviation: always in this order, which the released code draws anew for every image: one order is one pass.
    """
    count, most = len(images), 0.8 * strength
    factors = [_uniform(count, max(0.0, 1 - most), 1 + most, generator) for _ in range(3)]
    turns = _uniform(count, -0.2 * strength, 0.2 * strength, generator)
    is_left = _uniform(count, 0, 1, generator) >= probability
    found = scale_brightness(images, factors[0])
    found = scale_contrast(found, factors[1])
    found = scale_saturation(found, factors[2])
    return torch.where(_column(is_left), images, turn_hue(found, turns))


def random_grey(images: Tensor, generator: torch.Generator, probability: float) -> Tensor:
    """Some images without their colour."""
    is_grey = _uniform(len(images), 0, 1, generator) < probability
    return torch.where(_column(is_grey), luminance(images).expand_as(images), images)


def random_blur(images: Tensor, generator: torch.Generator, probability: float) -> Tensor:
    """Some images under a Gaussian of 0.1 to 2 pixels, in a window of a tenth of the image's side."""
    deviations = _uniform(len(images), *BLUR_DEVIATIONS, generator)
    is_blurred = _uniform(len(images), 0, 1, generator) < probability
    radius = int(BLUR_SHARE * images.shape[-1] / 2)
    return torch.where(_column(is_blurred), blur(images, deviations, radius), images)


def luminance(images: Tensor) -> Tensor:
    """B x 1 x H x W."""
    weights = torch.tensor(LUMINANCE, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def scale_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Every value times its image's factor, cut to [0, 1]."""
    return (images * _column(factors)).clamp(0, 1)


def scale_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Distances from the image's mean luminance times its factor, cut to [0, 1]."""
    mean = luminance(images).mean(dim=(2, 3), keepdim=True)
    return (mean + (images - mean) * _column(factors)).clamp(0, 1)


def scale_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Distances from the pixel's luminance times its image's factor, cut to [0, 1]."""
    grey = luminance(images)
    return (grey + (images - grey) * _column(factors)).clamp(0, 1)


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Hue of the HSV cone moved on by that share of a full turn; value and saturation stay."""
    value, place = images.max(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)
    # From the largest channel, in sixths of a turn: what the next channel has over the one after it.
    after, before = images.gather(1, (place + 1) % 3), images.gather(1, (place + 2) % 3)
    hue = 2 * place + (after - before) / chroma.clamp(min=1e-8) + 6 * _column(turns)
    sixths = torch.tensor([5.0, 3.0, 1.0], dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    distance = (sixths + hue) % 6
    return value - chroma * torch.minimum(distance, 4 - distance).clamp(0, 1)


def blur(images: Tensor, deviations: Tensor, radius: int) -> Tensor:
    """Each image under a Gaussian of its own, `radius` pixels to either side; edges are repeated outwards."""
    if radius < 1:
        return images
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    weights = (-(offsets**2) / (2 * deviations.unsqueeze(1) ** 2)).exp()
    weights = weights / weights.sum(dim=1, keepdim=True)
    for axis in (2, 3):
        size = images.shape[axis]
        padding = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        wide = functional.pad(images, padding, mode="replicate")
        images = sum(  # over taps: a convolution would need a group for every image
            (wide.narrow(axis, tap, size) * _column(weights[:, tap]) for tap in range(2 * radius + 1)),
            start=torch.zeros_like(images),
        )
    return images


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """B draws from [low, high)."""
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
