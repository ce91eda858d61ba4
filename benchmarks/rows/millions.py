"""Exact cosine neighbours among ten million vectors in a file that need not fit memory: time, memory and results.

10,000,000 x 512 float16, 10 GB in the folder for temporary files (`TMPDIR` names another), searched as `numpy.memmap`.
Of each query ten copies are planted, each noisier than the one before: these it has to find, in this order. Vectors a
second of the processor's time are compared with those of the file's first tenth: 1 where cost grows linearly.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from costs import Spent, peak_mebibytes, spent_by
from measuring import Measured
from torch import Tensor

from ssl_inpaint import retrieval
from ssl_inpaint.errors import UsageError
from ssl_inpaint.progress import bar
from ssl_inpaint.runtime import Runtime

NAME = "millions"
IS_OPTIONAL = True  # minutes, and 10 GB of disk
COUNT, WIDTH, QUERIES, K = 10_000_000, 512, 100, 10
TENTH = 10
ROWS = 100_000  # written at once
NOISES = np.linspace(0.02, 0.2, K, dtype=np.float32)[:, None]  # of planted copies, as a share of the query's length
REACH = 0.9  # of the speed in a tenth of the file


def measure(device: torch.device, rounds: int, is_small: bool) -> Iterator[Measured]:
    """One line, of each search once; UsageError where the disk has no room."""
    count = COUNT // 1000 if is_small else COUNT
    queries = torch.randn(QUERIES, WIDTH, generator=torch.Generator().manual_seed(1))
    with tempfile.TemporaryDirectory() as temporary:
        needed, free = 2 * count * WIDTH, shutil.disk_usage(temporary).free
        if needed > free:
            raise UsageError(f"{temporary} has {free:,} bytes left and {needed:,} are written: set TMPDIR to a disk.")
        planted = write_vectors(Path(temporary) / "vectors.npy", queries.numpy(), count)
        gallery = np.load(Path(temporary) / "vectors.npy", mmap_mode="r")
        yield _line(queries.to(device), gallery, planted)


def write_vectors(file: Path, queries: np.ndarray, count: int) -> np.ndarray:
    """Writes count x D float16, and returns where the copies of each query are, Q x K, the most similar first.

    All else is uniform noise.
    """
    generator = np.random.default_rng(0)
    planted = generator.choice(count, (len(queries), K), replace=False)
    vectors = np.lib.format.open_memmap(file, "w+", np.float16, (count, queries.shape[1]))
    with bar("Writing vectors", count) as shown:
        for start in range(0, count, ROWS):
            part = vectors[start : start + ROWS]
            part[:] = generator.integers(-127, 128, part.shape, np.int8)
            shown.advance(len(part))
    for query, places in zip(queries, planted, strict=True):
        aside = generator.standard_normal((K, len(query)), np.float32)
        aside *= NOISES * np.linalg.norm(query) / np.linalg.norm(aside, axis=1, keepdims=True)
        vectors[places] = query + aside
    vectors.flush()
    return planted


def _line(queries: Tensor, gallery: np.ndarray, planted: np.ndarray) -> Measured:
    tenth = gallery[: len(gallery) // TENTH]
    other, ours = (_searched(queries, one, planted) for one in (tenth, gallery))
    speeds = [len(one) / spent.cpu_seconds for one, (spent, _) in ((gallery, ours), (tenth, other))]
    ratio = speeds[0] / speeds[1]
    return Measured(
        what=f"exact {K} nearest neighbours by cosine, float16 in a memory-mapped file",
        size=f"{len(queries)} queries x {len(gallery):,} x {gallery.shape[1]}",
        compared_with=f"the same of {len(tenth):,}, a vector",
        ours=speeds[0],
        other=speeds[1],
        unit="vectors/s of a core",
        ratio=ratio,
        lowest=ratio,
        highest=ratio,
        reach=REACH,
        agreement=f"all {planted.size:,} planted neighbours found in order; {ours[0].seconds:.3g} s in all; "
        f"{ours[1]:.0f} MiB of own memory beside {other[1]:.0f} MiB",
        device=Runtime(queries.device, is_bf16=False).describe(),
        rounds=1,
    )


def _searched(queries: Tensor, gallery: np.ndarray, planted: np.ndarray) -> tuple[Spent, float]:
    """What a search took and the memory it held at most; ValueError where a planted neighbour is not found."""
    found, spent = list[Tensor](), list[Spent]()

    def search() -> None:
        found.append(retrieval.top_k(queries, gallery, K)[0].cpu())

    held = peak_mebibytes(lambda: spent.append(spent_by(search)), queries.device)
    for own, wanted in zip(found[0].tolist(), planted.tolist(), strict=True):
        there = [place for place in wanted if place < len(gallery)]
        if own[: len(there)] != there:
            raise ValueError(f"planted at {there}, found {own[: len(there)]}")
    return spent[0], held
