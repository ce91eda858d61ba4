"""HOG of patches, beside scikit-image's of the same geometry."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from measuring import Measured, side_by_side
from torch import Tensor
from torch.nn import functional

from ssl_inpaint import retrieval
from ssl_inpaint.descriptors import hog
from ssl_inpaint.progress import say
from ssl_inpaint.runtime import Runtime

NAME = "hog"
PATCHES = 100_000
DISTINCT = 5_000  # of them, described over and over: all would take 5 GB
TIMED = 1_000  # patches of a round of the slower one, whose time is the same for each
LEAST_CORRELATION = 0.8  # of entries; without OpenCV's window and its sharing among cells it would be 1
COMPARED = 500  # patches whose neighbours are compared


def measure(device: torch.device, rounds: int, is_small: bool) -> Iterator[Measured]:
    """One line, on the CPU: neither uses a GPU."""
    try:
        from skimage.feature import hog as reference
    except ImportError:
        say("Left out: HOG beside scikit-image's, which is not installed: pip install scikit-image.")
        return
    count, timed = (200, 20) if is_small else (PATCHES, TIMED)
    patches = _smooth_patches(min(count, DISTINCT))
    descriptor = hog.build(hog.Config())

    def theirs(some: int) -> np.ndarray:
        pixels = (patches[:some] * 255).round().byte().permute(0, 2, 3, 1).numpy()
        return np.stack([reference(one, 9, (8, 8), (2, 2), "L2-Hys", channel_axis=-1) for one in pixels])

    agreement = _agreement(descriptor.describe(patches[:COMPARED], None), theirs(COMPARED))

    def ours() -> None:
        for _ in range(count // len(patches)):
            descriptor.describe(patches, None)

    found = side_by_side(ours, lambda: theirs(timed), rounds)
    cpu = Runtime(torch.device("cpu"), is_bf16=False).describe()
    scaled = type(found)(found.ours, tuple(seconds * count / timed for seconds in found.other))
    yield scaled.measured(
        what="HOG of patches",
        size=f"{count:,} patches of 64 px, 7 x 7 blocks of 2 x 2 cells of 9 bins",
        compared_with=f"scikit-image's hog, patch by patch, on {timed:,} of them, scaled to as many",
        count=count,
        unit="patches/s",
        reach=15.0,
        agreement=agreement,
        device=cpu,
    )


def _smooth_patches(count: int) -> Tensor:
    """Bicubic patches of 4 x 4 random colours."""
    noise = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return functional.interpolate(noise, (64, 64), mode="bicubic", align_corners=True).clamp(0, 1)


def _agreement(ours: np.ndarray, theirs: np.ndarray) -> str:
    """ValueError below the least correlation.

    The two are not one definition: OpenCV shares each gradient among neighbouring cells and bins and weights a block by
    a Gaussian, scikit-image does neither. They can only be alike.
    """
    turned = ours.reshape(-1, 7, 7, 2, 2, 9).transpose(0, 2, 1, 4, 3, 5).reshape(len(ours), -1)  # rows first, as theirs
    correlation = float(np.corrcoef(turned.ravel(), theirs.ravel())[0, 1])
    if correlation < LEAST_CORRELATION:
        raise ValueError(f"entries correlate by {correlation:.3f}: at least {LEAST_CORRELATION} was expected")
    shared = _shared_neighbours(turned, theirs)
    return (
        f"another definition (no Gaussian, no interpolation): entries correlate by {correlation:.3f} (at least "
        f"{LEAST_CORRELATION}), {shared:.0%} of nearest neighbours the same"
    )


def _shared_neighbours(first: np.ndarray, second: np.ndarray) -> float:
    """The share of patches whose nearest other patch is the same by both."""
    nearest = [
        retrieval.top_k(vectors, vectors, 2)[0][:, 1]
        for vectors in (torch.from_numpy(np.asarray(one, np.float32)) for one in (first, second))
    ]
    return float((nearest[0] == nearest[1]).double().mean())
