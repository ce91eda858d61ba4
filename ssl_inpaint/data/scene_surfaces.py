"""Two-tone textures of the objects in `shapes`: stripes, dots, checks, scales, zigzags and so on.

Each is a field over an object's own coordinates (x right, y down, about one unit from the centre; H x W float32). The
light tone lies where the field is above a quantile of itself, so the share of light is chosen apart from the class and
a colour histogram cannot tell the textures from each other.
"""

from __future__ import annotations

import numpy as np

TURN = np.float32(2 * np.pi)


def light_part(field: np.ndarray, inside: np.ndarray, share: float) -> np.ndarray:
    """H x W bool: the highest `share` of `field`, counted where `inside` (H x W bool) is True."""
    values = field[inside]
    if not values.size:
        return np.zeros(field.shape, bool)
    place = min(int((1 - share) * values.size), values.size - 1)
    return field > np.partition(values, place)[place]


def stripes(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Straight stripes across the object."""
    return np.sin(_count(random, 2.2, 3.0) * y + _phase(random))


def dots(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Round dots on a triangular lattice: the sum of three plane waves."""
    waves = _count(random, 2.4, 3.0)
    slant = np.float32(np.sqrt(0.75))
    return np.cos(waves * x) + np.cos(waves * (slant * y - x / 2)) + np.cos(waves * (slant * y + x / 2))


def checks(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A chequer bent round the centre."""
    squares = int(random.integers(6, 9))
    return np.sin(squares * np.arctan2(y, x) + _phase(random)) * np.sin(_count(random, 1.7, 2.1) * (1 - np.hypot(x, y)))


def veins(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Side veins that leave a straight rib at a slant, alike left and right."""
    away = np.abs(x)
    field = np.sin(_count(random, 2.4, 3.2) * (y + random.uniform(0.7, 1.1) * away) + _phase(random))
    field[away < 0.04] = -2.0
    return field


def bands(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Circles about the centre."""
    return np.cos(_count(random, 2.2, 2.9) * np.hypot(x, y) + _phase(random))


def scales(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Rows of round scales, each row half a scale on from the last and over the next."""
    count = np.float32(random.uniform(2.6, 3.4))
    along, row = count * x, np.floor(count * y)
    down = count * y - row
    across = along + row % 2 / 2
    across = np.abs(across - np.floor(across) - np.float32(0.5))
    own, next_row = np.hypot(2 * across, down), np.hypot(1 - 2 * across, 1 - down)
    return np.where(own <= 1, own, next_row)


def spots(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Four eyes of nested circles, alike left and right."""
    away = np.abs(x)
    distance = np.minimum(np.hypot(away - 0.55, y + 0.4), np.hypot(away - 0.42, y - 0.42))
    return np.cos(_count(random, 3.2, 4.2) * distance + random.choice([0.0, np.pi]))


def ribs(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Rays that fan out from a point at the foot."""
    return np.cos(random.uniform(9.0, 14.0) * np.arctan2(x, np.float32(1.0) - y) + _phase(random))


def zigzags(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Level zigzag bands."""
    teeth = np.float32(random.uniform(2.0, 2.8))
    saw = np.abs((teeth * x) % 1 - np.float32(0.5)) / teeth
    return np.sin(_count(random, 2.0, 2.7) * (y + random.uniform(1.2, 1.8) * saw) + _phase(random))


def spirals(x: np.ndarray, y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Arms that wind out from the centre."""
    arms = int(random.integers(4, 7))
    return np.sin(arms * np.arctan2(y, x) - random.uniform(5.0, 8.0) * np.hypot(x, y) + _phase(random))


def _count(random: np.random.Generator, low: float, high: float) -> np.float32:
    """Radians per unit of a wave with between `low` and `high` periods a unit."""
    return np.float32(random.uniform(low, high)) * TURN


def _phase(random: np.random.Generator) -> np.float32:
    return np.float32(random.uniform(0, 2 * np.pi))
