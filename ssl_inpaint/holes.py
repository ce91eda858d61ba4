"""Holes: which pixels of each image are hidden, drawn anew for every sample (paper, section 3.2 "Region masks").

Everything runs in batches on the generator's device. A hole is B x 1 x H x W bool, True where pixels are missing.
The kinds: "centre", a central square; "blocks", several squares that may overlap; "region", deformed silhouettes of
objects, which the paper used for all its feature experiments; "noise", the random pattern of the released code.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from ssl_inpaint.errors import unknown_name
from ssl_inpaint.resampling import catmull_rom

KINDS = ("centre", "blocks", "region", "noise")

NOISE_CELLS_PER_PIXEL = 0.06  # the released code's `res`
MOST_SQUARES = (
    96  # of a hole of blocks, on a GPU; of 2,000 the most were 13 for a quarter of the image, 46 for nine tenths
)
DEFAULT_BANK = (96, 64)  # silhouettes, and pixels a side

# An animal-like body as ellipses: x, y of the centre, half length, half width (frame is [-1, 1]), angle in radians.
CREATURE = (
    (0.00, 0.00, 0.52, 0.26, 0.0),  # body
    (0.50, -0.25, 0.30, 0.15, -0.9),  # neck
    (0.66, -0.48, 0.22, 0.16, 0.3),  # head
    (-0.62, -0.12, 0.26, 0.06, 0.6),  # tail
    (-0.38, 0.34, 0.36, 0.13, 1.4),  # legs
    (-0.20, 0.34, 0.36, 0.12, 1.7),
    (0.20, 0.34, 0.36, 0.12, 1.4),
    (0.38, 0.34, 0.36, 0.13, 1.7),
)


def draw(
    kind: str,
    count: int,
    size: int,
    generator: torch.Generator,
    fraction: float = 0.25,
    silhouettes: Tensor | None = None,
) -> Tensor:
    """Holes of one kind, count x 1 x size x size bool, each covering about `fraction` of its image.

    The area is exact for "region" and "noise" (but for values that tie, a pixel or two), to half a pixel of the side
    for "centre", and within 0.95 to 1.03 of `fraction` for "blocks". Only "region" reads `silhouettes`: distance fields
    K x s x s as `signed_distance` makes them (once, not at every step), or bool shapes, whose fields are then computed
    in each call; None is a fixed set of procedural shapes. UsageError for an unknown kind; ValueError for a fraction
    outside (0, 0.9] or a size below 8.
    """
    if kind not in KINDS:
        raise unknown_name("kind of hole", kind, KINDS)
    if not 0 < fraction <= 0.9:
        raise ValueError(f"The fraction of a hole is {fraction}: it must be above 0 and at most 0.9.")
    if size < 8:
        raise ValueError(f"Holes for images of {size} pixels a side: 8 is the least.")
    if kind == "centre":
        return _centre(count, size, generator.device, fraction)
    if kind == "blocks":
        return _blocks(count, size, generator, fraction)
    if kind == "region":
        return _regions(count, size, generator, fraction, _fields(silhouettes, generator.device))
    return _noise(count, size, generator, fraction)


def band(hole: Tensor, width_pixels: int) -> Tensor:
    """The visible pixels at most `width_pixels` from the hole, diagonals counting as one; nothing where it is 0."""
    rows, columns = (torch.arange(side, device=hole.device) for side in hole.shape[-2:])
    above, beside = (((t[:, None] - t).abs() <= width_pixels).float() for t in (rows, columns))
    return (above @ hole.float() @ beside > 0) & ~hole  # a separable count of hidden neighbours


def signed_distance(silhouettes: Tensor) -> Tensor:
    """Distance to the outline, K x s x s float32 in pixels: positive inside the bool shapes, negative outside.

    What lies beyond the frame counts as outside. ValueError where a silhouette is empty.
    """
    import numpy as np
    from scipy.ndimage import distance_transform_edt

    shapes = np.pad(silhouettes.cpu().numpy().astype(bool), ((0, 0), (1, 1), (1, 1)))
    if not shapes.any(axis=(1, 2)).all():
        raise ValueError(f"Silhouettes {np.flatnonzero(~shapes.any(axis=(1, 2))).tolist()} are empty: leave them out.")
    fields = [distance_transform_edt(shape) - distance_transform_edt(~shape) for shape in shapes]
    inner = np.array(fields, dtype=np.float32).reshape(shapes.shape)[:, 1:-1, 1:-1]
    return torch.from_numpy(inner.copy()).to(silhouettes.device)


def procedural_silhouettes(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Shapes drawn at random, count x size x size bool: wavy blobs, animal-like bodies with limbs, and polygons.

    Deviation: they stand in for the paper's PASCAL VOC 2012 segments where no such data set is at hand.
    """
    y, x = torch.meshgrid(_ticks(size, generator.device), _ticks(size, generator.device), indexing="ij")
    polygons, blobs = count // 4, count // 3
    creatures = count - polygons - blobs
    families = ((_blobs, blobs), (_creatures, creatures), (_polygons, polygons))
    return torch.cat([family(number, x, y, generator) for family, number in families])


def _centre(count: int, size: int, device: torch.device, fraction: float) -> Tensor:
    side = max(1, round(size * math.sqrt(fraction)))
    start = (size - side) // 2
    hole = torch.zeros(count, 1, size, size, dtype=torch.bool, device=device)
    hole[:, :, start : start + side, start : start + side] = True
    return hole


def _blocks(count: int, size: int, generator: torch.Generator, fraction: float) -> Tensor:
    # A square is never larger than what is still free, so each is accepted and only the smallest sides are cut.
    pixels = _pixels(size, fraction)
    enough, most = int(0.95 * pixels), max(pixels, int(1.03 * pixels))
    smallest, largest = 0.25 * math.sqrt(pixels), 0.6 * math.sqrt(pixels)
    device = generator.device
    ticks = torch.arange(size, device=device)
    hole = torch.zeros(count, size, size, dtype=torch.bool, device=device)
    area = torch.zeros(count, device=device)
    for _ in range(MOST_SQUARES):
        # A GPU would be waited for here, so there all rounds are gone through: an image that has enough gets no more.
        if device.type != "cuda" and not bool((area < enough).any()):
            break
        uniform = torch.rand(3, count, 1, generator=generator, device=device)
        free = (most - area)[:, None].sqrt()
        side = torch.minimum(smallest + uniform[0] * (largest - smallest), free).floor().clamp(min=1)
        side = side * (area < enough)[:, None]
        top, left = (uniform[1:] * size - side / 2).round()  # the centres are uniform over the image
        rows = (ticks >= top) & (ticks < top + side)
        columns = (ticks >= left) & (ticks < left + side)
        hole |= rows[:, :, None] & columns[:, None, :]
        area = hole.sum(dim=(1, 2))
    return hole[:, None]


def _noise(count: int, size: int, generator: torch.Generator, fraction: float) -> Tensor:
    # Deviation: cut at the sample's own quantile, for the exact area. The released code cuts at the density itself,
    # which hides 16.7 % after bicubic up-sampling, and then accepts windows from 20 to 30 %.
    # Deviation: one pattern for each sample. The released code shares one in a batch.
    field = _smooth_noise(count, size, NOISE_CELLS_PER_PIXEL * size, generator)
    return _lowest(field, _pixels(size, fraction))[:, None]


def _regions(count: int, size: int, generator: torch.Generator, fraction: float, fields: Tensor) -> Tensor:
    """Level sets of warped distance fields: the silhouette, grown or shrunk until its area is right."""
    chosen = fields[torch.randint(len(fields), (count,), generator=generator, device=fields.device)]
    linear, origin = _placements(chosen, generator, fraction)
    x_term, y_term = (linear[..., None] * _ticks(size, fields.device)).unbind(dim=2)  # each B x 2 x size
    bend = _smooth_noise(2 * count, size, 3.0, generator).view(count, 2, size, size) - 0.5
    points = (x_term + origin[..., None])[:, :, None, :] + y_term[..., None] + 0.5 * bend
    inside = points.clamp(-1, 1)
    beyond = (points - inside).square().sum(dim=1).sqrt() * fields.shape[-1] / 2  # falls on outside the frame
    grid = inside.permute(0, 2, 3, 1)
    depth = functional.grid_sample(chosen[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    return _lowest(beyond - depth + bend[:, 0], _pixels(size, fraction))[:, None]


def _placements(fields: Tensor, generator: torch.Generator, fraction: float) -> tuple[Tensor, Tensor]:
    """Random affine maps from the image to the frames of `fields`, both [-1, 1]: B x 2 x 2, and the offset B x 2.

    Rotation, stretch, shear and flip together keep areas; the scale gives the silhouette about `fraction` of them.
    """
    count, size, device = len(fields), fields.shape[-1], fields.device
    inside = (fields > 0).float()
    area = inside.mean(dim=(1, 2)).clamp(min=1 / size**2)
    middle = torch.stack([inside.mean(dim=d) @ _ticks(size, device) / size / area for d in (1, 2)], dim=1)
    angle, flip, stretch, shear, growth, *place = torch.rand(7, count, generator=generator, device=device)
    cosine, sine = torch.cos(2 * math.pi * angle), torch.sin(2 * math.pi * angle)
    rotation = torch.stack((cosine, -sine, sine, cosine), dim=1).view(count, 2, 2)
    wide = torch.exp(0.8 * (stretch - 0.5))
    mirror = torch.where(flip < 0.5, -1.0, 1.0)
    skew = torch.stack((mirror * wide, 0.8 * (shear - 0.5), torch.zeros_like(wide), 1 / wide), dim=1).view(count, 2, 2)
    scale = (area / fraction / (0.8 + 0.5 * growth)).sqrt()
    linear = scale[:, None, None] * (skew @ rotation)
    centre = 1.8 * (torch.stack(place, dim=1) - 0.5)  # nearly anywhere in the image
    return linear, middle - (linear @ centre[:, :, None])[:, :, 0]


def _ticks(size: int, device: torch.device) -> Tensor:
    """The middles of `size` pixels on [-1, 1]."""
    return (torch.arange(size, device=device) + 0.5) * 2 / size - 1


def _smooth_noise(count: int, size: int, cells: float, generator: torch.Generator) -> Tensor:
    """Uniform noise, `cells` to a side, bicubic to count x size x size, each sample at its own sub-cell offset."""
    device = generator.device
    grid = math.ceil(cells) + 4  # one cell before the image, two after it, one for the offset
    noise = torch.rand(count, grid, grid, generator=generator, device=device)
    start = 1 + torch.rand(2, count, 1, 1, generator=generator, device=device)
    pixels = start + torch.arange(size, device=device)[:, None] * (cells / size)
    rows, columns = catmull_rom((pixels - torch.arange(grid, device=device)).abs())
    return rows @ noise @ columns.transpose(1, 2)


def _lowest(field: Tensor, pixels: int) -> Tensor:
    """True at the `pixels` lowest values of each of B x H x W."""
    return field <= field.flatten(1).kthvalue(pixels).values[:, None, None]


def _pixels(size: int, fraction: float) -> int:
    return max(1, round(fraction * size * size))


def _fields(silhouettes: Tensor | None, device: torch.device) -> Tensor:
    if silhouettes is None:
        return _default_fields(device)
    return (silhouettes if silhouettes.is_floating_point() else signed_distance(silhouettes)).to(device)


@cache
def _default_fields(device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return signed_distance(procedural_silhouettes(*DEFAULT_BANK, generator)).to(device)


def _blobs(count: int, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Closed curves whose radius is a short random Fourier series of the angle."""
    orders = torch.arange(1, 8, device=x.device)[:, None, None]
    size, phase = torch.rand(2, count, 7, 1, 1, generator=generator, device=x.device)
    waves = (0.7 * size / orders**0.7 * torch.cos(orders * torch.atan2(y, x) + 2 * math.pi * phase)).sum(dim=1)
    return torch.hypot(x, y) < (0.55 * (1 + waves)).clamp(0.15, 0.95)


def _creatures(count: int, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Unions of jittered ellipses: a body, a neck, a head, a tail and legs."""
    base = torch.tensor(CREATURE, device=x.device)
    jitter = torch.rand(count, *base.shape, generator=generator, device=x.device) - 0.5
    spread = torch.tensor((0.15, 0.15, 0.25, 0.16, 0.9), device=x.device)
    across, down, length, width, angle = (base + spread * jitter)[..., None, None].unbind(dim=2)
    right, below = x - across, y - down
    along = right * torch.cos(angle) + below * torch.sin(angle)
    aside = below * torch.cos(angle) - right * torch.sin(angle)
    return ((along / length) ** 2 + (aside / width.clamp(min=0.05)) ** 2 < 1).any(dim=1)


def _polygons(count: int, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Polygons of eight corners in order of angle, filled by the even-odd rule."""
    turn, reach = torch.rand(2, count, 8, generator=generator, device=x.device)
    angle, radius = 2 * math.pi * turn.sort(dim=1).values, 0.3 + 0.65 * reach
    first = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)))[..., None, None]
    (x1, y1), (x2, y2) = first, first.roll(-1, dims=2)
    crosses = ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return crosses.sum(dim=1) % 2 == 1
