"""Backgrounds of `shapes`: pieces of two photographs, and drawn clouds, wood, bricks, pebbles and plain ground.

The photographs are china.jpg and flower.jpg, by danielbuechele and vultilion, which scikit-learn ships (CC BY 2.0; see
`sklearn.datasets.load_sample_images`).
Training and test scenes take disjoint parts of them.
"""

from __future__ import annotations

from functools import cache

import numpy as np

PHOTOGRAPHS = ("china.jpg", "flower.jpg")
SMALLEST_PIECE = 0.3  # of the largest that could be cut
TRAIN_COLUMNS = (0.0, 0.6)  # of the width of a photograph: where scenes of train and val are cut
TEST_COLUMNS = (0.6, 1.0)


def background(
    random: np.random.Generator, height: int, width: int, photograph_share: float, columns: tuple[float, float]
) -> np.ndarray:
    """H x W x 3 float32, about 0 to 1: cut from a photograph's `columns` with chance `photograph_share`, else drawn."""
    if random.random() < photograph_share:
        photograph = _photograph(PHOTOGRAPHS[random.integers(len(PHOTOGRAPHS))])
        return _jittered(random, piece(random, photograph, height, width, columns).astype(np.float32) / 255)
    painters = (clouds, wood, bricks, pebbles, ground)
    return painters[random.integers(len(painters))](random, height, width)


def piece(
    random: np.random.Generator, photograph: np.ndarray, height: int, width: int, columns: tuple[float, float]
) -> np.ndarray:
    """H x W x 3 uint8: a part of `photograph` (uint8), of random place and size, resized and perhaps mirrored.

    `columns` is where it may be cut: the first and last column, as fractions of the width of the photograph.
    """
    import cv2

    left, right = (round(column * photograph.shape[1]) for column in columns)
    allowed = photograph[:, left:right]
    scale = min(allowed.shape[0] / height, allowed.shape[1] / width) * random.uniform(SMALLEST_PIECE, 1.0)
    rows, across = max(int(height * scale), 1), max(int(width * scale), 1)
    top, start = random.integers(allowed.shape[0] - rows + 1), random.integers(allowed.shape[1] - across + 1)
    cut = np.ascontiguousarray(allowed[top : top + rows, start : start + across])
    resized = cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA)
    return resized[:, ::-1] if random.random() < 0.5 else resized


def colour(random: np.random.Generator, is_light: bool) -> np.ndarray:
    """One RGB colour of any hue, light or dark: 3 float32 in [0, 1]."""
    hue, saturation = random.uniform(0, 6), random.uniform(0.05, 0.75) if is_light else random.uniform(0.2, 0.95)
    value = random.uniform(0.68, 1.0) if is_light else random.uniform(0.1, 0.48)
    wheel = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return (value * (1 - saturation * (1 - wheel))).astype(np.float32)


def fractal(random: np.random.Generator, height: int, width: int, first: tuple[int, int], octaves: int) -> np.ndarray:
    """H x W float32 noise in [0, 1], with `first` rows and columns of blobs, then twice as many at half the weight."""
    import cv2

    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        rows, columns = (min(2 + n * 2**octave, 2 * side) for n, side in zip(first, (height, width), strict=True))
        grid = random.random((rows, columns), dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR) / 2**octave
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def clouds(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Soft patches of two colours."""
    return _blend(random, fractal(random, height, width, (2, 2), 5))


def wood(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Wavy grain along one direction."""
    along, across = _grid(random, height, width)
    grain = np.sin(across * random.uniform(3, 7) + 3 * fractal(random, height, width, (2, 2), 3) + along / 2)
    fine = fractal(random, height, width, (24, 3), 3)
    return _blend(random, 0.35 + 0.25 * grain + 0.4 * fine)


def bricks(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Courses of bricks with mortar between, each brick its own tone."""
    along, across = _grid(random, height, width)
    rows = random.uniform(0.6, 1.6)
    across, along = across * rows, along * rows / 2
    course = np.floor(across)
    along = along + course % 2 / 2
    brick = (np.floor(along).astype(np.int64) * 7 + course.astype(np.int64) * 13) % 64
    tone = 0.35 + 0.35 * random.random(64).astype(np.float32)[brick]
    is_mortar = (across - course < 0.12) | (along - np.floor(along) < 0.06)
    return _blend(random, np.where(is_mortar, 1.0, tone) + 0.25 * (fractal(random, height, width, (12, 12), 3) - 0.5))


def pebbles(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Rounded cells, each its own tone, darker at the seams."""
    import cv2

    seeds = np.full((height, width), 1, np.uint8)
    count = int(random.integers(25, 120))
    seeds[random.integers(height, size=count), random.integers(width, size=count)] = 0
    distance, cells = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    tones = random.random(count + 2).astype(np.float32)
    depth = distance * np.float32(np.sqrt(count / (height * width)))
    return _blend(
        random, 0.3 + 0.7 * tones[cells] - 0.6 * depth**2 + 0.15 * fractal(random, height, width, (16, 16), 2)
    )


def ground(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A plain shade, even or fading from one side to the other, with a fine grain."""
    along, _ = _grid(random, height, width)
    fade = along / 10 + 0.5
    return _blend(random, 0.8 * fade + 0.2 * fractal(random, height, width, (40, 40), 2))


@cache
def _photograph(name: str) -> np.ndarray:
    from sklearn.datasets import load_sample_image

    return np.asarray(load_sample_image(name))


def _jittered(random: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Colour balance, contrast and brightness moved a little, and sometimes the channels changed round."""
    if random.random() < 0.3:
        image = image[..., random.permutation(3)]
    gains = random.uniform(0.8, 1.25, 3).astype(np.float32) * np.float32(random.uniform(0.7, 1.1))
    return np.clip((image - 0.45) * np.float32(random.uniform(0.6, 1.1)) + 0.45, 0, 1) * gains


def _grid(random: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along and across a random direction, about -5 to 5 over the longer side."""
    angle = random.choice([0.0, np.pi / 2]) + random.normal(0, 0.15)
    unit = np.float32(10 / max(height, width))
    x = (np.arange(width, dtype=np.float32) - width / 2) * unit
    y = (np.arange(height, dtype=np.float32)[:, None] - height / 2) * unit
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cosine + y * sine, y * cosine - x * sine


def _blend(random: np.random.Generator, tone: np.ndarray) -> np.ndarray:
    """From one colour at tone 0 to another at tone 1, one of any lightness and one near it or far from it."""
    first = colour(random, is_light=random.random() < 0.5)
    second = colour(random, is_light=random.random() < 0.5)
    weight = np.clip(tone, 0, 1).astype(np.float32)[..., None]
    return first + weight * ((second - first) * np.float32(random.uniform(0.4, 1.0)))
