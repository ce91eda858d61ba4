"""Exact nearest neighbours by cosine similarity, and how well they agree with the labels (paper, section 5.1).

Similarities are computed in float64 and rounded to float32, so that equal vectors tie exactly and the ranking depends
neither on the chunk nor on the machine. A zero vector has similarity 0 with everything. Labels are int64, one each.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_ROWS = 1024


def top_k(queries: Tensor, gallery: Tensor, k: int, chunk: int = CHUNK_ROWS) -> tuple[Tensor, Tensor]:
    """The k most similar of N gallery vectors for each of Q queries: indices Q x k int64, similarities Q x k float32.

    Most similar first; of equal similarities the lower index. A query that is itself in the gallery finds itself.
    Memory is bounded by `chunk` rows of either side. ValueError for k outside 1 ... N, or vectors that are not finite.
    """
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k is {k}: it must be from 1 to the number of gallery vectors, {len(gallery)}.")
    _check(queries, gallery, chunk)
    found = [_best_of_gallery(rows, gallery, k, chunk) for rows in queries.split(chunk)]
    return torch.cat([indices for indices, _ in found]), torch.cat([similarities for _, similarities in found])


def precision_at_k(neighbour_labels: Tensor, query_labels: Tensor) -> float:
    """The share of each query's k neighbours that have its label (Q x k against Q), averaged over the queries."""
    if neighbour_labels.ndim != 2 or len(neighbour_labels) != len(query_labels) or neighbour_labels.numel() == 0:
        raise ValueError(f"Neighbours {tuple(neighbour_labels.shape)} of {len(query_labels)} queries must be Q x k.")
    return float((neighbour_labels == query_labels[:, None]).double().mean())


def retrieval_map(
    queries: Tensor, gallery: Tensor, query_labels: Tensor, gallery_labels: Tensor, chunk: int = CHUNK_ROWS
) -> tuple[float, int]:
    """Mean average precision of the whole gallery ranked for each query, and how many queries it is a mean of.

    A gallery vector is relevant where it has the query's label; the ranking is that of `top_k` with k = N. A query
    with nothing relevant in the gallery is left out; nan, 0 where that leaves none. Memory is bounded by `chunk` x N.
    """
    _check(queries, gallery, chunk)
    if len(query_labels) != len(queries) or len(gallery_labels) != len(gallery):
        raise ValueError(
            f"{len(query_labels)} labels for {len(queries)} queries and {len(gallery_labels)} for {len(gallery)} "
            "gallery vectors: there must be one for each."
        )
    total, count = 0.0, 0
    for rows, labels in zip(queries.split(chunk), query_labels.split(chunk), strict=True):
        similarities = torch.cat(list(_similarities(rows, gallery, chunk)), dim=1)
        order = similarities.argsort(dim=1, descending=True, stable=True)
        precisions = _average_precisions(gallery_labels[order] == labels[:, None])
        total += float(precisions.sum())
        count += len(precisions)
    return (total / count if count else float("nan")), count


def _best_of_gallery(queries: Tensor, gallery: Tensor, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    best = torch.empty(len(queries), 0, device=queries.device)
    indices = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    seen = 0
    for similarities in _similarities(queries, gallery, chunk):
        fresh = torch.arange(seen, seen + similarities.shape[1], device=queries.device).expand(similarities.shape)
        seen += similarities.shape[1]
        candidates, names = torch.cat((best, similarities), dim=1), torch.cat((indices, fresh), dim=1)
        chosen = _first_highest(candidates, min(k, seen))
        best, indices = candidates.gather(1, chosen), names.gather(1, chosen)
    return indices, best


def _first_highest(values: Tensor, k: int) -> Tensor:
    """Positions Q x k of the k highest in each row, highest first, the earlier position first where they tie.

    `torch.topk` leaves open which of several equal values it takes, so only its k-th value is used.
    """
    last = values.topk(k, dim=1).values[:, -1:]
    above, level = values > last, values == last
    room = k - above.sum(dim=1, keepdim=True)
    kept = above | (level & (level.cumsum(dim=1) <= room))
    positions = kept.nonzero()[:, 1].view(len(values), k)
    order = values.gather(1, positions).argsort(dim=1, descending=True, stable=True)
    return positions.gather(1, order)


def _similarities(queries: Tensor, gallery: Tensor, chunk: int) -> Iterator[Tensor]:
    """Cosine similarities of the queries with one chunk of the gallery after another, each Q x chunk float32."""
    normal = _unit(queries)
    for rows in gallery.split(chunk):
        yield (normal @ _unit(rows).T).float()


def _unit(vectors: Tensor) -> Tensor:
    exact = vectors.double()
    largest = exact.abs().amax(dim=1, keepdim=True)  # taken out first: squares of tiny or huge values leave the range
    scaled = exact / torch.where(largest > 0, largest, 1.0)
    return scaled / scaled.norm(dim=1, keepdim=True).clamp(min=1.0)  # at least 1, but for zero vectors


def _average_precisions(is_relevant: Tensor) -> Tensor:
    """Of rankings Q x N bool, the average precision of each that has anything relevant."""
    ranked = is_relevant[is_relevant.any(dim=1)].double()
    places = torch.arange(1, ranked.shape[1] + 1, device=ranked.device)
    return (ranked * ranked.cumsum(dim=1) / places).sum(dim=1) / ranked.sum(dim=1)


def _check(queries: Tensor, gallery: Tensor, chunk: int) -> None:
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1] or queries.shape[1] == 0:
        raise ValueError(f"Queries {tuple(queries.shape)} and gallery {tuple(gallery.shape)} must be Q x D and N x D.")
    if len(queries) == 0 or len(gallery) == 0:
        raise ValueError(f"{len(queries)} queries and {len(gallery)} gallery vectors: there must be some of each.")
    if chunk < 1:
        raise ValueError(f"The chunk is {chunk} rows: it must be 1 or more.")
    for name, vectors in (("queries", queries), ("gallery", gallery)):
        if not torch.isfinite(vectors).all():
            raise ValueError(f"The {name} have values that are not finite.")
