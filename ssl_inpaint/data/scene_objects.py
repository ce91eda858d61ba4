"""One object or occluder of a `shapes` scene: posed, coloured, lit and painted onto a canvas.

A canvas is H x W x 3 float32 in [0, 1]. Area, pose and colours are drawn alike for every class, so that only outline
and texture tell the classes apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ssl_inpaint.data import scene_silhouettes as outline
from ssl_inpaint.data import scene_surfaces as surface
from ssl_inpaint.data.scene_backgrounds import colour
from ssl_inpaint.data.scene_silhouettes import Silhouette

Texture = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]

KINDS: dict[str, tuple[Callable[[np.random.Generator], Silhouette], Texture]] = {
    "butterfly": (outline.butterfly, surface.spots),
    "fish": (outline.fish, surface.scales),
    "flower": (outline.flower, surface.bands),
    "gear": (outline.gear, surface.dots),
    "leaf": (outline.leaf, surface.veins),
    "pinwheel": (outline.pinwheel, surface.spirals),
    "ring": (outline.ring, surface.checks),
    "shell": (outline.shell, surface.ribs),
    "star": (outline.star, surface.stripes),
    "vase": (outline.vase, surface.zigzags),
}
CLASSES = tuple(KINDS)

SUPERSAMPLING = 2  # samples a pixel along each axis, averaged, so that edges are smooth
LEAST_CONTRAST = 0.25  # between the mean of the light and of the dark colour of an object, before it fades
FADED = (0.5, 1.0)  # what is left of the difference of the two colours
LIGHT_SHARE = (0.4, 0.6)  # of an object's surface


@dataclass(frozen=True)
class Light:
    """Where the light goes (x, y of a unit vector, right and down), and how deep its shadows are, in [0, 1]."""

    direction: tuple[float, float]
    shadow: float


@dataclass(frozen=True)
class Pose:
    """Where an object is: its centre (x, y), the side of the square of its area, in pixels, and its 2 x 2 turn."""

    centre: np.ndarray
    side_pixels: float
    turn: np.ndarray


def random_turn(random: np.random.Generator, most_degrees: float) -> np.ndarray:
    """2 x 2, of determinant 1 or -1: turned, foreshortened along some direction, and mirrored half of the time."""
    squeeze = random.uniform(0.78, 1.0) ** 0.5
    axis = _rotation(random.uniform(0, np.pi))
    tilt = axis @ np.diag([squeeze, 1 / squeeze]) @ axis.T
    mirror = np.diag([random.choice([-1.0, 1.0]), 1.0])
    return tilt @ _rotation(np.radians(random.uniform(-most_degrees, most_degrees))) @ mirror


def paint_object(
    canvas: np.ndarray, silhouette: Silhouette, texture: Texture, pose: Pose, light: Light, random: np.random.Generator
) -> np.ndarray:
    """Paints one object and its shadow onto `canvas`; returns where it is, H x W float32 coverage in [0, 1]."""
    height, width = canvas.shape[:2]
    scale = pose.side_pixels / outline.area(silhouette) ** 0.5
    matrix = np.column_stack([pose.turn * scale, pose.centre])
    rows, columns = _window(silhouette, matrix, height, width)
    matrix[:, 2] -= [columns.start, rows.start]
    part, tone = _drawn(silhouette, texture, matrix, rows.stop - rows.start, columns.stop - columns.start, random)
    dark, bright = _two_colours(random)
    cover = np.zeros((height, width), np.float32)
    cover[rows, columns] = part
    cast_shadow(canvas, cover, light, pose.side_pixels)
    fill = dark + tone[..., None] * (bright - dark)
    fill = fill * _relief(part, light, pose.side_pixels)[..., None]
    canvas[rows, columns] += part[..., None] * (fill - canvas[rows, columns])
    return cover


def paint_occluder(
    canvas: np.ndarray, material: np.ndarray, pose: Pose, light: Light, random: np.random.Generator
) -> np.ndarray:
    """Paints a plank or a boulder of `material` (H x W x 3) and its shadow; returns its coverage, H x W float32."""
    silhouette = plank(random) if random.random() < 0.5 else boulder(random)
    cover = outline.coverage(
        silhouette, np.column_stack([pose.turn * pose.side_pixels, pose.centre]), *canvas.shape[:2]
    )
    cast_shadow(canvas, cover, light, pose.side_pixels)
    canvas += cover[..., None] * (material * _relief(cover, light, pose.side_pixels)[..., None] - canvas)
    return cover


def plank(random: np.random.Generator) -> Silhouette:
    """A long bar."""
    length, half = random.uniform(0.8, 3.0), random.uniform(0.12, 0.22)
    return Silhouette((np.array([[-length, -half], [length, -half], [length, half], [-length, half]]),))


def boulder(random: np.random.Generator) -> Silhouette:
    """A round lump of no regular form."""
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radii = np.full(72, 0.5)
    for waves in (2, 3, 4, 5):
        radii += random.normal(0, 0.16 / waves) * np.cos(waves * angles + random.uniform(0, 2 * np.pi))
    return Silhouette((np.maximum(radii, 0.2)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1),))


def cast_shadow(canvas: np.ndarray, cover: np.ndarray, light: Light, side_pixels: float) -> None:
    """Darkens `canvas` where the thing at `cover` keeps the light off it."""
    import cv2

    shift = np.array(light.direction) * side_pixels * 0.12
    moved = cv2.warpAffine(cover, np.column_stack([np.eye(2), shift]), cover.shape[::-1])
    moved = cv2.GaussianBlur(moved, (0, 0), max(side_pixels * 0.05, 0.8))
    canvas *= 1 - np.float32(light.shadow) * moved[..., None]


def _drawn(
    silhouette: Silhouette, texture: Texture, matrix: np.ndarray, height: int, width: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and share of the light tone of each pixel, both H x W float32; `matrix` is from units to pixels."""
    import cv2

    tall, wide = height * SUPERSAMPLING, width * SUPERSAMPLING
    cover = outline.coverage(silhouette, matrix * SUPERSAMPLING, tall, wide)
    inverse = np.linalg.inv(matrix[:, :2]).astype(np.float32)
    across = (np.arange(wide, dtype=np.float32) + np.float32(0.5)) / SUPERSAMPLING - np.float32(matrix[0, 2])
    down = (np.arange(tall, dtype=np.float32)[:, None] + np.float32(0.5)) / SUPERSAMPLING - np.float32(matrix[1, 2])
    field = texture(
        inverse[0, 0] * across + inverse[0, 1] * down, inverse[1, 0] * across + inverse[1, 1] * down, random
    )
    tone = surface.light_part(field, cover > 0.5, random.uniform(*LIGHT_SHARE)).astype(np.float32)
    size = (width, height)
    return cv2.resize(cover, size, interpolation=cv2.INTER_AREA), cv2.resize(tone, size, interpolation=cv2.INTER_AREA)


def _window(silhouette: Silhouette, matrix: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the canvas that an object may touch, at least one of each."""
    points = np.concatenate(silhouette.parts) @ matrix[:, :2].T + matrix[:, 2]
    low, high = np.floor(points.min(axis=0)).astype(int) - 2, np.ceil(points.max(axis=0)).astype(int) + 2
    left, top = np.clip(low, 0, [width - 1, height - 1])
    right, bottom = np.clip(high, [left + 1, top + 1], [width, height])
    return slice(int(top), int(bottom)), slice(int(left), int(right))


def _relief(cover: np.ndarray, light: Light, side_pixels: float) -> np.ndarray:
    """How bright a cushion of this outline is: above 1 on the slopes that face the light, below 1 on the others."""
    import cv2

    softness = max(side_pixels * 0.06, 1.0)
    height = cv2.GaussianBlur(cover, (0, 0), softness, borderType=cv2.BORDER_REPLICATE)
    slope_x, slope_y = (cv2.Sobel(height, cv2.CV_32F, dx, 1 - dx, scale=0.125) for dx in (1, 0))
    facing = slope_x * np.float32(light.direction[0]) + slope_y * np.float32(light.direction[1])
    return np.clip(0.98 + 1.3 * np.float32(softness) * facing, 0.45, 1.3)


def _two_colours(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A dark and a light colour with enough contrast, of any hues."""
    while True:
        dark, bright = colour(random, is_light=False), colour(random, is_light=True)
        if bright.mean() - dark.mean() >= LEAST_CONTRAST:
            lost = (bright - dark) * np.float32((1 - random.uniform(*FADED)) / 2)
            return dark + lost, bright - lost


def _rotation(angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]])
