"""Exact nearest neighbours by cosine similarity, and how well they agree with the labels (paper, section 5.1).

Similarities are computed in float64 and rounded to float32, so that equal vectors tie exactly and the ranking depends
neither on the chunk nor on the machine. A zero vector has similarity 0 with everything, and so have orthogonal ones.
Labels are int64, one each. A gallery may be an array on disk (`numpy.memmap`) or lie on another device: it is read a
chunk at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from ssl_inpaint import candidates
from ssl_inpaint.candidates import Vectors

ZERO = 2.0**-40  # a cosine below it is 0: nothing is left there but the rounding of float64
RANKED = 2**25  # similarities that are sorted at once where the whole gallery is ranked


def top_k(queries: Tensor, gallery: Vectors, k: int, chunk: int | None = None) -> tuple[Tensor, Tensor]:
    """The k most similar of N gallery vectors for each of Q queries: indices Q x k int64, similarities Q x k float32.

    Most similar first; of equal similarities the lower index. A query that is itself in the gallery finds itself.
    Memory beside the vectors and the result is bounded by a few times `chunk` rows of either side, `chunk` x `chunk`
    and `chunk` x k, on the device of the queries; None: what suits that. ValueError for k outside 1 ... N, or vectors
    that are not finite.
    """
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k is {k}: it must be from 1 to the number of gallery vectors, {len(gallery)}.")
    chunk = _check(queries, gallery, chunk)
    found = [_best(candidates.unit(rows), gallery, k, chunk) for rows in queries.split(chunk)]
    return torch.cat([indices for indices, _ in found]), torch.cat([similarities for _, similarities in found])


def retrieval_map(
    queries: Tensor, gallery: Vectors, query_labels: Tensor, gallery_labels: Tensor, chunk: int | None = None
) -> tuple[float, int]:
    """Mean average precision of the whole gallery ranked for each query, and how many queries it is a mean of.

    A gallery vector is relevant where it has the query's label; the ranking is that of `top_k` with k = N. A query
    with nothing relevant in the gallery is left out; nan, 0 where that leaves none. Memory as in `average_precisions`.
    """
    each = average_precisions(queries, gallery, query_labels, gallery_labels, chunk)
    known = each[~each.isnan()]
    return (float(known.mean()) if len(known) else float("nan")), len(known)


def average_precisions(
    queries: Tensor, gallery: Vectors, query_labels: Tensor, gallery_labels: Tensor, chunk: int | None = None
) -> Tensor:
    """What `retrieval_map` is the mean of: Q float64, nan for a query with nothing relevant in the gallery.

    Memory is bounded by the larger of one query's ranking, a few times N, and `RANKED` of them.
    """
    chunk = _check(queries, gallery, chunk)
    if len(query_labels) != len(queries) or len(gallery_labels) != len(gallery):
        raise ValueError(
            f"{len(query_labels)} labels for {len(queries)} queries and {len(gallery_labels)} for {len(gallery)} "
            "gallery vectors: there must be one for each."
        )
    found = []
    rows_at_once = max(1, min(chunk, RANKED // len(gallery)))
    for rows, labels in zip(queries.split(rows_at_once), query_labels.split(rows_at_once), strict=True):
        is_relevant = _ranked(candidates.unit(rows), gallery, labels, gallery_labels, chunk)
        found.append(_average_precisions(is_relevant))
    return torch.cat(found)


def _best(queries: Tensor, gallery: Vectors, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    """As `top_k`, for Q x D float64 of length 1: by candidates, and where these may not be all, by every similarity."""
    if candidates.pool_size(k) * 4 >= len(gallery):
        return _exhaustive(queries, gallery, k, chunk)
    proposed, is_complete = candidates.propose(queries, gallery, k, chunk)
    indices, similarities = _rescored(queries, gallery, proposed, k, chunk)
    left = (~is_complete).nonzero()[:, 0]
    if len(left):
        indices[left], similarities[left] = _exhaustive(queries[left], gallery, k, chunk)
    return indices, similarities


def _rescored(queries: Tensor, gallery: Vectors, proposed: Tensor, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    """The k best of the gallery vectors that are `proposed` for each query, Q x P."""
    at_once, found = max(1, 4 * chunk // proposed.shape[1]), []
    for rows, places in zip(queries.split(at_once), proposed.split(at_once), strict=True):
        vectors = candidates.unit(candidates.taken(gallery, places.flatten(), queries.device))
        products = (rows[:, None] * vectors.view(*places.shape, -1)).sum(dim=2)
        found.append(_decoded(_keys(_rounded(products), places).topk(k, dim=1).values))
    return torch.cat([indices for indices, _ in found]), torch.cat([similarities for _, similarities in found])


def _exhaustive(queries: Tensor, gallery: Vectors, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    pending, width = list[Tensor](), 0
    for places, similarities in _similarities(queries, gallery, chunk):
        pending.append(_keys(similarities, places))
        width += len(places)
        if width >= 2 * k + chunk:
            pending, width = [torch.cat(pending, dim=1).topk(k, dim=1, sorted=False).values], k
    return _decoded(torch.cat(pending, dim=1).topk(k, dim=1).values)


def _ranked(queries: Tensor, gallery: Vectors, query_labels: Tensor, gallery_labels: Tensor, chunk: int) -> Tensor:
    """Q x N bool: whether the gallery vectors are relevant, the most similar first."""
    keys = torch.empty(len(queries), len(gallery), dtype=torch.int64, device=queries.device)
    wanted, labels = query_labels.to(queries.device)[:, None], gallery_labels.to(queries.device)
    for places, similarities in _similarities(queries, gallery, chunk):
        # The lowest bit carries what is asked for through the sort, and decides nothing: no two places are equal.
        keys[:, places] = _keys(similarities, 2 * places) ^ (labels[places] != wanted)
    if keys.device.type == "cpu":
        keys.numpy().sort(axis=1)  # NumPy sorts whole numbers several times faster than torch
    else:
        keys = keys.sort(dim=1).values
    return (keys.flip(1) & 1).bool()


def _similarities(queries: Tensor, gallery: Vectors, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One chunk of the gallery after another: its places, and the cosine of each query with it, Q x chunk float32."""
    for start, rows in candidates.chunks(gallery, chunk, queries.device):
        places = torch.arange(start, start + len(rows), device=queries.device)
        yield places, _rounded(queries @ candidates.unit(rows).T)


def _rounded(cosines: Tensor) -> Tensor:
    return functional.hardshrink(cosines, ZERO).float()


def _keys(similarities: Tensor, places: Tensor) -> Tensor:
    """Whole numbers that are in order as the similarities are, and where these are equal, by place: the lowest highest.

    All are different, so that it cannot matter how a sort treats equal ones. Places are below 2^32.
    """
    bits = (similarities + 0.0).view(torch.int32)  # + 0.0: there is a negative zero, whose bits are others
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # floats below zero are ordered by their bits backwards
    return (ordered.long() << 32) | (0xFFFFFFFF - places)


def _decoded(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The places and similarities that `_keys` were made of."""
    ordered = (keys >> 32).int()
    return 0xFFFFFFFF - (keys & 0xFFFFFFFF), (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)


def _average_precisions(is_relevant: Tensor) -> Tensor:
    """Of rankings Q x N bool, the average precision of each; nan where nothing is relevant."""
    ranked = is_relevant.double()
    places = torch.arange(1, ranked.shape[1] + 1, device=ranked.device)
    return (ranked * ranked.cumsum(dim=1) / places).sum(dim=1) / ranked.sum(dim=1)


def _check(queries: Tensor, gallery: Vectors, chunk: int | None) -> int:
    """The rows of a chunk."""
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1] or queries.shape[1] == 0:
        raise ValueError(f"Queries {tuple(queries.shape)} and gallery {tuple(gallery.shape)} must be Q x D and N x D.")
    if len(queries) == 0 or len(gallery) == 0:
        raise ValueError(f"{len(queries)} queries and {len(gallery)} gallery vectors: there must be some of each.")
    if chunk is not None and chunk < 1:
        raise ValueError(f"The chunk is {chunk} rows: it must be 1 or more.")
    if not torch.isfinite(queries).all():
        raise ValueError("The queries have values that are not finite.")
    return chunk or candidates.CHUNK_ROWS[queries.device.type == "cpu"]
