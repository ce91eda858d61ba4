"""Folders of JPEG files made on the spot: smooth noise with a little grain, about as heavy as photographs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

DISTINCT = 500  # pictures drawn; larger folders repeat their bytes under other names
QUALITY = 85


def write_jpegs(folder: Path, count: int, width: int, height: int) -> list[str]:
    """Writes `count` files in folders of 1,000, as data sets come, and returns their relative paths in order."""
    drawn = [_picture(seed, width, height) for seed in range(min(count, DISTINCT))]
    names = []
    for number in range(count):
        name = f"{number // 1000:04d}/{number:07d}.jpg"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn[number % len(drawn)])
        names.append(name)
    return names


def _picture(seed: int, width: int, height: int) -> bytes:
    generator = np.random.default_rng(seed)
    # Light varies and colour little, as in photographs: JPEG files keep half the resolution of colour.
    shades = 0.8 * generator.uniform(0, 255, (9, 12, 1)) + 0.2 * generator.uniform(0, 255, (9, 12, 3))
    coarse = Image.fromarray(shades.astype(np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    pixels = np.clip(smooth + generator.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()
