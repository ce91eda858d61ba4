"""Which of N gallery vectors can be among the k most similar to a query: found in float32, with a bound that is proven.

Products of float32 vectors of length 1 differ from the exact cosine by no more than `_error`. So whatever lies more
than twice that below the k-th highest product cannot be among the k most similar, and only the rest needs exact work.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

CHUNK_ROWS = {True: 2048, False: 8192}  # on a CPU, and elsewhere, where every step costs a launch
CACHED_ROWS = 512  # gallery rows that a CPU multiplies at once: as many as stay in a cache
PEAK_ROWS = 16  # gallery rows of which only the highest product is looked at first
MARGIN = 32  # candidates that are kept beside k, for those that float32 cannot tell from the k-th
SAFE_LENGTHS = (1e-12, 1e12)  # whose squares, and those of what is added up to them, stay in float32's range
FLOAT32_OR_LESS = (torch.float32, torch.float16, torch.bfloat16)  # what float32 holds as it is

Vectors = Tensor | np.ndarray


def pool_size(k: int) -> int:
    """How many vectors are kept for each query while the gallery goes by."""
    return k + max(MARGIN, k // 4)


def propose(queries: Tensor, gallery: Vectors, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    """Places in the gallery Q x P int64, P at least k, and Q bool: True where the k most similar must be among them.

    `queries` are Q x D float64 of length 1 (or zero). At least `pool_size` gallery vectors; ValueError where they are
    not finite.
    """
    rough, size = queries.float(), pool_size(k)
    values = torch.full((len(queries), size), -torch.inf, device=queries.device)
    places = torch.zeros((len(queries), size), dtype=torch.int64, device=queries.device)
    # Few queries take more of the gallery at once: there are at most as many products as of a full chunk.
    rows_at_once = max(chunk, min(4 * chunk, chunk**2 // len(queries)))
    rows_at_once += -rows_at_once % PEAK_ROWS
    products = torch.empty(len(queries), rows_at_once, device=queries.device)  # once: new memory is slow to touch
    with torch.autocast(queries.device.type, enabled=False):
        for start, rows in chunks(gallery, rows_at_once, queries.device):
            _multiply(rough, rows, products)
            values, places = _merged(values, places, products.unflatten(1, (PEAK_ROWS, -1)), start)
    lowest = values[:, k - 1 : k] - 2 * _error(queries.shape[1])
    width = max(k, int((values >= lowest).sum(dim=1).amax()))
    return places[:, :width], values[:, -1] < lowest[:, 0]


def chunks(gallery: Vectors, count: int, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Where each chunk of `count` rows begins, and its rows on the device."""
    for start in range(0, len(gallery), count):
        yield start, _tensor(gallery[start : start + count], device)


def taken(gallery: Vectors, places: Tensor, device: torch.device) -> Tensor:
    """The rows of the gallery at N places, on the device."""
    if isinstance(gallery, Tensor):
        return gallery[places.to(gallery.device)].to(device)
    return _tensor(gallery[places.cpu().numpy()], device)


def unit(vectors: Tensor) -> Tensor:
    """N x D float64 of length 1, zero where a vector is; ValueError where one is not finite."""
    exact = vectors.double()
    largest = exact.abs().amax(dim=1, keepdim=True)  # taken out first: squares of tiny or huge values leave the range
    if not torch.isfinite(largest).all():
        raise ValueError("The gallery have values that are not finite.")
    scaled = exact / torch.where(largest > 0, largest, 1.0)
    return scaled / scaled.norm(dim=1, keepdim=True).clamp(min=1.0)  # at least 1, but for zero vectors


def _rough_unit(vectors: Tensor) -> Tensor:
    """As `unit`, to float32 and in fewer passes where lengths are ordinary."""
    if vectors.dtype in FLOAT32_OR_LESS:
        single = vectors.float()
        lengths = torch.linalg.vector_norm(single, dim=1, keepdim=True)
        if bool(((lengths > SAFE_LENGTHS[0]) & (lengths < SAFE_LENGTHS[1])).all()):
            return single / lengths
    return unit(vectors).float()


def _multiply(queries: Tensor, rows: Tensor, products: Tensor) -> None:
    """Writes the products of Q queries and N rows to the first N columns, and minus infinity to those that are left."""
    width = CACHED_ROWS if rows.device.type == "cpu" else len(rows)
    for piece, part in zip(rows.split(width), products[:, : len(rows)].split(width, dim=1), strict=True):
        torch.mm(queries, _rough_unit(piece).T, out=part)
    products[:, len(rows) :] = -torch.inf


def _merged(values: Tensor, places: Tensor, groups: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """The P highest seen so far, Q x P in order, once the products of rows from `start` on are seen, Q x rows x G."""
    size, rows, count = values.shape[1], *groups.shape[1:]
    peaks = groups.amax(dim=1)  # a group lies across the memory, not along it: so the processor compares many at once
    promising = int((peaks > values[:, -1:]).sum(dim=1).amax())  # groups of the query that has most of them
    if not promising:
        return values, places
    promising = min(promising, size)  # the P highest of all lie in the P groups with the highest peaks
    chosen = peaks.topk(promising, dim=1, sorted=False).indices
    fresh = groups.gather(2, chosen[:, None].expand(-1, rows, -1)).flatten(1)
    best = torch.cat((values, fresh), dim=1).topk(size, dim=1)
    nth = (best.indices - size).clamp(min=0)  # of the fresh ones, which come row by row
    names = start + nth.div(promising, rounding_mode="floor") * count + chosen.gather(1, nth % promising)
    known = places.gather(1, best.indices.clamp(max=size - 1))
    return best.values, torch.where(best.indices < size, known, names)


def _error(width: int) -> float:
    """How far a product of two `_rough_unit` of that many entries is from the exact cosine rounded to float32, at most.

    Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: D products add up to within D roundings, in
    any order; to that D / 2 for the length of a vector and a few for its square root, divisions and conversions. Where
    torch was told to multiply float32 less exactly, each entry may also lose all but bfloat16's eight bits.
    """
    return (2 * width + 16) * 2.0**-24 + (0.0 if _is_exact() else 2 * 2.0**-8 + 2.0**-16)


def _is_exact() -> bool:
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set by the newer of torch's two interfaces, which the older refuses to put into words
        return False


def _tensor(rows: Vectors, device: torch.device) -> Tensor:
    # A copy: what is on disk is often mapped for reading only, which torch has no notion of.
    return (torch.from_numpy(np.array(rows)) if isinstance(rows, np.ndarray) else rows).to(device)
