"""The fast search is the exhaustive one, on whatever vectors: the second implementation multiplies all in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_inpaint import candidates, retrieval

Vectors = tuple[Tensor, Tensor]


def everything(queries: Tensor, gallery: Tensor, k: int) -> Vectors:
    """Every similarity in float64, 0 where it is only rounding, in float32 and sorted, of equal ones the first."""

    def unit(vectors: Tensor) -> Tensor:
        exact = vectors.double()
        largest = exact.abs().amax(dim=1, keepdim=True)
        scaled = exact / torch.where(largest > 0, largest, 1.0)
        return scaled / scaled.norm(dim=1, keepdim=True).clamp(min=1.0)

    exact = unit(queries) @ unit(gallery).T
    similarities = torch.where(exact.abs() < 1e-12, 0.0, exact).float()
    order = similarities.argsort(dim=1, descending=True, stable=True)[:, :k]
    return order, similarities.gather(1, order)


def normal(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def whole_numbers() -> Vectors:
    """Cosines of very few values."""
    vectors = torch.randint(-1, 2, (909, 5), generator=torch.Generator().manual_seed(0)).float()
    return vectors[:9], vectors[9:]


def duplicates() -> Vectors:
    """Of each vector between one and a hundred copies, of lengths that are powers of two."""
    copies = normal(40, 24, 1).repeat_interleave(torch.arange(1, 41) * 5 // 2, dim=0)
    scales = 2.0 ** (torch.arange(len(copies)) % 7)
    return normal(40, 24, 1)[::5], (copies * scales[:, None])[
        torch.randperm(len(copies), generator=torch.Generator().manual_seed(0))
    ]


def near_duplicates() -> Vectors:
    """Differences below what float32 products can tell apart, and above what float32 similarities can."""
    base = normal(1, 300, 2).double()
    return normal(4, 300, 3).double(), base + 1e-5 * normal(800, 300, 4).double()


def zeros() -> Vectors:
    gallery = normal(700, 16, 5)
    gallery[100:650] = 0
    return torch.cat((-gallery[:3], torch.zeros(2, 16))), gallery


def huge_and_tiny() -> Vectors:
    gallery = normal(600, 16, 6) * 10.0 ** torch.linspace(-40, 37, 600)[:, None]  # the first of them are subnormal
    return normal(5, 16, 7) * torch.tensor([1e-38, 1e-20, 1.0, 1e20, 1e38])[:, None], gallery


def beyond_float32() -> Vectors:
    return normal(5, 16, 8).double() * 1e-300, normal(600, 16, 9).double() * 1e200


def rising() -> Vectors:
    """Every chunk is better than all before it."""
    angles = torch.linspace(3.0, 0.0, 1000)
    return torch.tensor([[1.0, 0.0]]), torch.stack((angles.cos(), angles.sin()), dim=1)


def positive() -> Vectors:
    """As after a ReLU: everything is much alike."""
    return normal(6, 64, 10).abs() + 3, normal(2000, 64, 11).abs() + 3


def one_vector() -> Vectors:
    return normal(3, 8, 12), torch.ones(500, 8)


HARD = (whole_numbers, duplicates, near_duplicates, zeros, huge_and_tiny, beyond_float32, rising, positive, one_vector)


@pytest.mark.parametrize("made", HARD)
@pytest.mark.parametrize(("k", "chunk"), [(1, 64), (3, 2048), (10, 100), (40, 37)])
def test_the_neighbours_are_those_of_multiplying_everything(made: Callable[[], Vectors], k: int, chunk: int) -> None:
    queries, gallery = made()
    found, expected = retrieval.top_k(queries, gallery, k, chunk), everything(queries, gallery, k)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("made", HARD)
def test_the_whole_ranking_is_that_of_multiplying_everything(made: Callable[[], Vectors]) -> None:
    queries, gallery = made()
    expected = everything(queries, gallery, len(gallery))
    for chunk in (50, 5000):
        found = retrieval.top_k(queries, gallery, len(gallery), chunk)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("count", [147, 148, 149, 168, 169, 2047, 2048, 2049, 8193])
def test_any_number_of_vectors_is_searched(count: int) -> None:
    # 4 x 37 = 148 is the last that is searched exhaustively for k = 5; the others are about a chunk or a few.
    queries, gallery = normal(3, 8, 0), normal(count, 8, 1)
    assert candidates.pool_size(5) == 37
    for found, expected in zip(retrieval.top_k(queries, gallery, 5), everything(queries, gallery, 5), strict=True):
        assert torch.equal(found, expected)


def test_what_is_proposed_is_complete_where_it_says_so() -> None:
    queries, gallery = normal(20, 32, 0), normal(3000, 32, 1)
    gallery[500:600] = gallery[500]  # a hundred that tie: more than are kept
    queries[7] = gallery[500]
    places, is_complete = candidates.propose(candidates.unit(queries), gallery, 10, 256)
    assert is_complete.tolist() == [place != 7 for place in range(20)]
    expected, _ = everything(queries, gallery, 10)
    for own, wanted, whole in zip(places, expected, is_complete, strict=True):
        assert not whole or set(wanted.tolist()) <= set(own.tolist())


@pytest.mark.parametrize("width", [3, 100, 2048])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_no_product_is_further_from_the_cosine_than_the_bound(width: int, dtype: torch.dtype) -> None:
    for scale in (1.0, 1e-30, 1e30) if dtype == torch.float32 else (1.0, 1e-4):
        queries, gallery = normal(50, width, 0).abs() + 1, ((normal(400, width, 1).abs() + 1) * scale).to(dtype)
        exact = (candidates.unit(queries) @ candidates.unit(gallery).T).float()
        rough = candidates.unit(queries).float() @ candidates._rough_unit(gallery).T
        assert float((rough.double() - exact.double()).abs().max()) <= candidates._error(width)


def test_products_in_bfloat16_change_no_neighbour() -> None:
    queries, gallery = positive()
    expected = everything(queries, gallery, 10)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(retrieval.top_k(queries, gallery, 10)[0], expected[0])
    exact = candidates._error(64)
    torch.set_float32_matmul_precision("medium")
    try:
        assert candidates._error(64) > 2**-7 > 100 * exact
        assert torch.equal(retrieval.top_k(queries, gallery, 10)[0], expected[0])
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64"])
def test_a_gallery_on_disk_is_as_good(dtype: str, tmp_path: Path) -> None:
    queries, gallery = normal(5, 12, 0), (10 * normal(700, 12, 1)).numpy().astype(dtype)
    np.save(tmp_path / "gallery.npy", gallery)
    on_disk = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    expected = everything(queries, torch.from_numpy(gallery), 9)
    labels = torch.arange(5) % 3, torch.arange(700) % 3
    for one in (on_disk, torch.from_numpy(gallery), gallery):
        for found, wanted in zip(retrieval.top_k(queries, one, 9, chunk=64), expected, strict=True):
            assert torch.equal(found, wanted)
        mean, _ = retrieval.retrieval_map(queries, one, *labels, chunk=64)
        assert mean == retrieval.retrieval_map(queries, torch.from_numpy(gallery), *labels)[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("made", [whole_numbers, duplicates, zeros, positive])
def test_short_floats_are_searched_as_they_are(made: Callable[[], Vectors], dtype: torch.dtype) -> None:
    queries, gallery = made()
    gallery = gallery.to(dtype)
    for found, expected in zip(retrieval.top_k(queries, gallery, 10), everything(queries, gallery, 10), strict=True):
        assert torch.equal(found, expected)


def test_orthogonal_vectors_tie_whatever_the_rounding_of_their_lengths() -> None:
    # 1 / sqrt(3) and the like: in float64 the terms of a product of 0 do not cancel to the last bit.
    gallery = torch.tensor([[1.0, 1, -2], [2, -1, -1], [-3, 1, 2], [1, -3, 2], [7, -2, -5]]).repeat(80, 1)
    indices, similarities = retrieval.top_k(torch.ones(1, 3), gallery, 7, chunk=33)
    assert indices.tolist() == [list(range(7))]
    assert not similarities.any()


def test_equal_similarities_below_above_and_at_zero_are_ordered_by_place() -> None:
    similarities = torch.tensor([[0.0, -0.0, 0.5, -0.5, 0.5, -0.5, 1.0, -1.0, 0.0]])
    keys = retrieval._keys(similarities, torch.arange(9))
    assert keys.argsort(dim=1, descending=True).tolist() == [[6, 2, 4, 0, 1, 8, 3, 5, 7]]
    places, decoded = retrieval._decoded(keys)
    assert places.tolist() == [list(range(9))]
    assert torch.equal(decoded, similarities)


def test_a_vector_that_is_not_finite_is_refused_wherever_it_lies() -> None:
    for bad in (torch.nan, torch.inf, -torch.inf):
        gallery = normal(900, 8, 0)
        gallery[777, 3] = bad
        with pytest.raises(ValueError, match="gallery have values that are not finite"):
            retrieval.top_k(normal(2, 8, 1), gallery, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("made", HARD)
def test_a_graphics_card_finds_the_same(made: Callable[[], Vectors]) -> None:
    queries, gallery = made()
    expected = everything(queries, gallery, 10)
    for there in (gallery, gallery.cuda()):  # a gallery in the computer's memory is read a chunk at a time
        found = retrieval.top_k(queries.cuda(), there, 10, chunk=100)
        assert torch.equal(found[0].cpu(), expected[0])
        assert torch.equal(found[1].cpu(), expected[1])
