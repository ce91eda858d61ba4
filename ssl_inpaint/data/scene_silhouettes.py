"""Outlines of the objects in `shapes`: star, gear, ring, leaf, flower, fish, butterfly, shell, vase and pinwheel.

Coordinates are x right and y down, about one unit from the centre. Each call draws one individual of its class from a
generator; the outlines are mostly symmetric, so that a hidden part can be told from what is seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FRACTION_BITS = 4  # binary digits after the point in the coordinates that cv2 fills
AREA_GRID_PIXELS = 128  # side of the raster on which an outline's area is measured
AREA_REACH = 1.4  # units from the centre to its edge; no outline reaches further


@dataclass(frozen=True)
class Silhouette:
    """An object's outline: the union of `parts` less the `holes`, each P x 2 points."""

    parts: tuple[np.ndarray, ...]
    holes: tuple[np.ndarray, ...] = ()


def coverage(silhouette: Silhouette, matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    """H x W float32: 1 inside, 0 outside, between on the edge. `matrix` is 2 x 3, from units to pixels."""
    import cv2

    canvas = np.zeros((height, width), np.uint8)
    for polygons, tone in ((silhouette.parts, 255), (silhouette.holes, 0)):
        for polygon in polygons:
            pixels = polygon @ matrix[:, :2].T + matrix[:, 2] - 0.5  # cv2 puts whole numbers at pixel centres
            points = np.rint(pixels * 2**FRACTION_BITS).astype(np.int32)
            cv2.fillPoly(canvas, [points], (tone,), cv2.LINE_AA, FRACTION_BITS)
    return canvas.astype(np.float32) / 255


def area(silhouette: Silhouette) -> float:
    """The area of an outline in square units."""
    scale = AREA_GRID_PIXELS / (2 * AREA_REACH)
    matrix = np.array([[scale, 0, AREA_GRID_PIXELS / 2], [0, scale, AREA_GRID_PIXELS / 2]])
    return float(coverage(silhouette, matrix, AREA_GRID_PIXELS, AREA_GRID_PIXELS).sum()) / scale**2


def star(random: np.random.Generator) -> Silhouette:
    """Five points."""
    inner = random.uniform(0.4, 0.52)
    return Silhouette((_polar(np.tile([1.0, inner], 5)),))


def gear(random: np.random.Generator) -> Silhouette:
    """A toothed wheel with a round hole."""
    teeth, depth = int(random.integers(8, 12)), random.uniform(0.72, 0.8)
    steps = np.array([depth, depth, 1.0, 1.0])
    angles = (np.arange(teeth)[:, None] + [0.0, 0.38, 0.52, 0.86]).ravel() * 2 * np.pi / teeth
    outline = np.tile(steps, teeth)[:, None] * np.stack([np.sin(angles), -np.cos(angles)], axis=1)
    return Silhouette((outline,), (_circle(random.uniform(0.22, 0.32)),))


def ring(random: np.random.Generator) -> Silhouette:
    """An annulus."""
    return Silhouette((_circle(1.0),), (_circle(random.uniform(0.42, 0.55)),))


def leaf(random: np.random.Generator) -> Silhouette:
    """A pointed blade, symmetric about its rib, on a short stem."""
    down = np.linspace(0, 1, 40)
    blade = random.uniform(0.5, 0.65) * np.sin(np.pi * down ** random.uniform(0.75, 1.1)) ** 0.9
    stem = np.array([[-0.04, 0.9], [0.04, 0.9], [0.05, 1.3], [-0.05, 1.3]])
    return Silhouette((_mirrored(blade, 2 * down - 1), stem))


def flower(random: np.random.Generator) -> Silhouette:
    """Round petals about a centre."""
    petals, base = int(random.integers(5, 8)), random.uniform(0.45, 0.6)
    angles = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    return Silhouette((_polar(base + (1 - base) * np.abs(np.cos(petals * angles / 2)) ** 0.7),))


def fish(random: np.random.Generator) -> Silhouette:
    """An oval body with a forked tail and two fins."""
    depth, fork = random.uniform(0.42, 0.55), random.uniform(0.4, 0.55)
    body = _circle(1.0) * [0.78, depth] - [0.2, 0.0]
    tail = np.array([[0.4, 0.0], [1.0, -fork], [0.84, 0.0], [1.0, fork]])
    fin = np.array([[-0.35, -0.8 * depth], [0.1, -depth - 0.25], [0.25, -0.7 * depth]])
    return Silhouette((body, tail, fin, fin * [1, -1]))


def butterfly(random: np.random.Generator) -> Silhouette:
    """Four wings, alike left and right, and a thin body."""
    upper = _turned(_circle(1.0) * [0.56, random.uniform(0.34, 0.42)], -0.6) + np.array([0.48, -0.34])
    lower = _turned(_circle(1.0) * [0.44, random.uniform(0.27, 0.34)], 0.7) + np.array([0.38, 0.38])
    return Silhouette((upper, lower, upper * [-1, 1], lower * [-1, 1], _circle(1.0) * [0.09, 0.75]))


def shell(random: np.random.Generator) -> Silhouette:
    """A fan with a scalloped rim above a hinge."""
    half, lobes = random.uniform(1.05, 1.25), int(random.integers(6, 9))
    angles = np.linspace(-half, half, 120)
    radius = 1.45 + 0.12 * np.abs(np.cos(lobes * np.pi * angles / (2 * half)))
    rim = radius[:, None] * np.stack([np.sin(angles) * 0.85, -np.cos(angles)], axis=1) + [0, 0.75]
    hinge = np.array([[-0.15, 0.5], [0.15, 0.5], [0.38, 0.95], [-0.38, 0.95]])
    return Silhouette((np.concatenate([rim, [[0.0, 0.8]]]), hinge))


def vase(random: np.random.Generator) -> Silhouette:
    """A lip, a neck, a belly and a foot, turned on a wheel."""
    heights = np.linspace(-1, 1, 60)
    belly, neck = random.uniform(0.55, 0.72), random.uniform(0.18, 0.28)
    knots = [neck + 0.17, neck, neck + 0.02, belly, 0.8 * belly, 0.3, 0.36]
    smooth = np.interp(heights, [-1.0, -0.75, -0.55, 0.05, 0.4, 0.85, 1.0], knots)
    padded = np.pad(smooth, 3, mode="edge")
    return Silhouette((_mirrored(np.convolve(padded, np.ones(7) / 7, mode="valid"), heights),))


def pinwheel(random: np.random.Generator) -> Silhouette:
    """Blades swept one way about the centre."""
    blades, inner = int(random.integers(5, 8)), random.uniform(0.5, 0.6)
    turns = np.linspace(0, 1, 24 * blades, endpoint=False)
    return Silhouette((_polar(inner + (1 - inner) * (turns * blades % 1.0)),))


def _polar(radii: np.ndarray) -> np.ndarray:
    """The closed curve with these radii at equal angles, clockwise from the top."""
    angles = np.arange(len(radii)) * 2 * np.pi / len(radii)
    return np.asarray(radii)[:, None] * np.stack([np.sin(angles), -np.cos(angles)], axis=1)


def _circle(radius: float) -> np.ndarray:
    return _polar(np.full(64, radius))


def _mirrored(half_widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """The outline with these half widths at these heights, alike left and right."""
    right = np.stack([half_widths, heights], axis=1)
    return np.concatenate([right, right[::-1] * [-1, 1]])


def _turned(points: np.ndarray, angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return points @ np.array([[cosine, sine], [-sine, cosine]])
