"""Exact cosine neighbours and whole rankings, beside faiss's exact index and scikit-learn's average precision.

Ours is told nothing beforehand: it divides by lengths and searches in one call. faiss is timed both ways, from raw
vectors and with its index already made. A last line shows that time grows with the gallery and memory does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from costs import peak_mebibytes
from measuring import Measured, seconds_of, side_by_side
from torch import Tensor
from torch.nn import functional

from ssl_inpaint import retrieval
from ssl_inpaint.progress import say
from ssl_inpaint.runtime import Runtime

NAME = "retrieval"
K = 10
WIDTH = 512
GROWING = (1_000, 10_000, 100_000)
TOLERANCE = 1e-5  # of similarities: faiss adds up float32


def measure(device: torch.device, rounds: int, is_small: bool) -> Iterator[Measured]:
    """Search beside faiss (on a CPU), the whole ranking beside scikit-learn, and growth with the gallery."""
    sizes = tuple(size // 100 for size in GROWING) if is_small else GROWING
    queries, gallery = _vectors(50 if is_small else 500, 1), _vectors(sizes[-1], 2)
    if device.type == "cpu":
        yield from _beside_faiss(queries, gallery, rounds)
    else:
        yield _beside_float64(queries.to(device), gallery.to(device), rounds)
    yield _beside_scikit_learn(queries[:20].to(device), gallery.to(device), rounds)
    yield _growing(queries.to(device), sizes, rounds)


def _beside_faiss(queries: Tensor, gallery: Tensor, rounds: int) -> Iterator[Measured]:
    try:
        import faiss
    except ImportError:
        say("Left out: search beside faiss, which is not installed: pip install faiss-cpu.")
        return
    faiss.omp_set_num_threads(torch.get_num_threads())
    unit = functional.normalize(queries).numpy()
    ready = _index(faiss, gallery)
    agreement = _agreement(queries, gallery, *ready.search(unit, K)[::-1])
    others = {
        "faiss IndexFlatIP, its index made beforehand": lambda: ready.search(unit, K),
        "faiss IndexFlatIP from the same raw vectors: normalize_L2, add, search": lambda: _index(faiss, gallery).search(
            unit, K
        ),
    }
    for words, other in others.items():
        found = side_by_side(lambda: retrieval.top_k(queries, gallery, K), other, rounds)
        yield found.measured(
            what=f"exact {K} nearest neighbours by cosine",
            size=_size(queries, gallery) + ("" if "raw" in words else ", against search alone"),
            compared_with=words,
            count=len(queries),
            unit="queries/s",
            reach=1.0,
            agreement=agreement,
            device=_described(queries),
        )


def _index(faiss: Any, gallery: Tensor) -> Any:
    vectors = gallery.numpy().copy()
    faiss.normalize_L2(vectors)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def _agreement(queries: Tensor, gallery: Tensor, indices: np.ndarray, similarities: np.ndarray) -> str:
    ours = retrieval.top_k(queries, gallery, K)
    share = float((ours[0].cpu().numpy() == indices).mean())
    worst = float(np.abs(ours[1].cpu().numpy() - similarities).max())
    if worst > TOLERANCE:
        raise ValueError(f"similarities differ by {worst:.1e}: at most {TOLERANCE:g} was expected")
    return f"{share:.2%} of neighbours the same, similarities to {worst:.1e} (tolerance {TOLERANCE:g})"


def _beside_float64(queries: Tensor, gallery: Tensor, rounds: int) -> Measured:
    """On a GPU, where faiss is another package: the same answer by multiplying everything in float64."""

    def everything() -> tuple[Tensor, Tensor]:
        exact = [functional.normalize(vectors.double()) for vectors in (queries, gallery)]
        return torch.topk((exact[0] @ exact[1].T).float(), K)

    similarities, indices = everything()
    agreement = _agreement(queries, gallery, indices.cpu().numpy(), similarities.cpu().numpy())
    found = side_by_side(lambda: retrieval.top_k(queries, gallery, K), everything, rounds, device=queries.device)
    return found.measured(
        what=f"exact {K} nearest neighbours by cosine",
        size=_size(queries, gallery),
        compared_with="one product in float64 and torch.topk",
        count=len(queries),
        unit="queries/s",
        reach=None,
        agreement=agreement,
        device=_described(queries),
    )


def _beside_scikit_learn(queries: Tensor, gallery: Tensor, rounds: int) -> Measured:
    from sklearn.metrics import average_precision_score

    labels = torch.arange(len(queries)) % 20, torch.arange(len(gallery)) % 20

    def ours() -> float:
        return retrieval.retrieval_map(queries, gallery, *labels)[0]

    def plain() -> float:
        exact = [functional.normalize(vectors.double().cpu()) for vectors in (queries, gallery)]
        similarities = (exact[0] @ exact[1].T).numpy()
        pairs = zip(labels[0], similarities, strict=True)
        return float(np.mean([average_precision_score((labels[1] == label).numpy(), row) for label, row in pairs]))

    difference = abs(ours() - plain())
    if difference > 1e-9:  # both add up float64; ties, of which theirs makes one step, do not occur
        raise ValueError(f"mean average precisions differ by {difference:.1e}: at most 1e-9 was expected")
    found = side_by_side(ours, plain, rounds, warm_up=0, device=queries.device)
    return found.measured(
        what="mean average precision of the whole gallery ranked",
        size=_size(queries, gallery),
        compared_with="one product in float64 and scikit-learn's average_precision_score",
        count=len(queries),
        unit="queries/s",
        reach=None,
        agreement=f"equal to {difference:.1e} (tolerance 1e-9)",
        device=_described(queries),
    )


def _growing(queries: Tensor, sizes: tuple[int, ...], rounds: int) -> Measured:
    """The largest gallery, on disk, beside the smallest repeated as often: a ratio of 1 is linear growth."""
    with TemporaryDirectory() as folder:
        galleries = [_on_disk(Path(folder) / f"{size}.npy", size) for size in sizes]
        memory = [peak_mebibytes(lambda g=one: retrieval.top_k(queries, g, K), queries.device) for one in galleries]
        seconds = [seconds_of(lambda g=one: retrieval.top_k(queries, g, K), queries.device) for one in galleries]
        repeated = sizes[-1] // sizes[-2]
        found = side_by_side(
            lambda: retrieval.top_k(queries, galleries[-1], K),
            lambda: [retrieval.top_k(queries, galleries[-2], K) for _ in range(repeated)],
            rounds,
            device=queries.device,
        )
    shown = "; ".join(f"{n:,}: {s:.3g} s, {m:.0f} MiB" for n, s, m in zip(sizes, seconds, memory, strict=True))
    return found.measured(
        what=f"exact {K} nearest neighbours by cosine, gallery in a memory-mapped file",
        size=f"{len(queries)} queries x {sizes[-1]:,} x {WIDTH}",
        compared_with=f"{repeated} searches of {sizes[-2]:,} vectors (from 1: time grows no faster than vectors)",
        count=len(queries),
        unit="queries/s",
        reach=None,
        agreement=f"Time and memory beyond the vectors: {shown}",
        device=_described(queries),
    )


def _on_disk(path: Path, count: int) -> np.ndarray:
    np.save(path, _vectors(count, 2).numpy())
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped


def _vectors(count: int, seed: int) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def _size(queries: Tensor, gallery: Tensor) -> str:
    return f"{len(queries)} queries x {len(gallery):,} x {gallery.shape[1]}"


def _described(queries: Tensor) -> str:
    return Runtime(queries.device, is_bf16=False).describe()
