import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from ssl_inpaint import retrieval


def vectors(count: int, seed: int, size: int = 6) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def naive(queries: torch.Tensor, gallery: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorts (-similarity, index) pairs, one query at a time."""
    q, g = queries.double().numpy(), gallery.double().numpy()
    indices, similarities = [], []
    for query in q:
        cosine = [float(np.float32(query @ row / (np.linalg.norm(query) * np.linalg.norm(row) or 1))) for row in g]
        best = sorted(range(len(g)), key=lambda i: (-cosine[i], i))[:k]
        indices.append(best)
        similarities.append([cosine[i] for i in best])
    return np.array(indices), np.array(similarities)


@pytest.mark.parametrize("k", [1, 2, 16, 17])
@pytest.mark.parametrize("chunk", [1, 5, 16, 17, 100])
def test_neighbours_agree_with_sorting_everything(k: int, chunk: int) -> None:
    queries, gallery = vectors(7, 0), vectors(17, 1)
    indices, similarities = retrieval.top_k(queries, gallery, k, chunk)
    expected_indices, expected_similarities = naive(queries, gallery, k)
    assert indices.dtype == torch.int64
    assert similarities.dtype == torch.float32
    np.testing.assert_array_equal(indices.numpy(), expected_indices)
    np.testing.assert_allclose(similarities.numpy(), expected_similarities, atol=1e-7)  # one float32 rounding


@pytest.mark.parametrize("chunk", [1, 3, 4, 7, 50])
def test_equal_vectors_come_in_order_of_index(chunk: int) -> None:
    # Every vector four times, some of them scaled: a cosine tells none of the four from the others.
    base = vectors(5, 2, size=33)
    gallery = torch.cat((base, base, 4 * base, base))
    indices, similarities = retrieval.top_k(base, gallery, 6, chunk)
    for own in range(5):
        assert indices[own, :4].tolist() == [own, own + 5, own + 10, own + 15]
    assert torch.equal(similarities[:, :1].expand(5, 4), similarities[:, :4])
    np.testing.assert_array_equal(indices.numpy(), naive(base, gallery, 6)[0])


def test_all_tied_gives_the_first_k() -> None:
    indices, _ = retrieval.top_k(vectors(3, 0), torch.ones(40, 6), 7, chunk=9)
    assert indices.tolist() == [list(range(7))] * 3


def test_zero_vectors_are_similar_to_nothing() -> None:
    gallery = torch.tensor([[0.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    indices, similarities = retrieval.top_k(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), gallery, 3)
    assert indices.tolist() == [[2, 0, 1], [0, 1, 2]]
    assert similarities.tolist() == [[1, 0, -1], [0, 0, 0]]


def test_length_does_not_matter_even_where_its_square_overflows() -> None:
    queries, gallery = vectors(4, 3), vectors(9, 4)
    expected, _ = retrieval.top_k(queries, gallery, 9)
    for scale in (1e-30, 1e30):
        assert torch.equal(retrieval.top_k(queries * scale, gallery * scale, 9)[0], expected)
    tiny = gallery.double() * 1e-300
    assert torch.equal(retrieval.top_k(queries.double(), tiny, 9)[0], expected)


def test_a_rotation_of_the_space_changes_no_neighbour() -> None:
    queries, gallery = vectors(6, 5).double(), vectors(20, 6).double()
    rotation, _ = torch.linalg.qr(vectors(6, 7).double())
    first, second = (retrieval.top_k(queries @ r, gallery @ r, 20, 8) for r in (torch.eye(6).double(), rotation))
    assert torch.equal(first[0], second[0])
    torch.testing.assert_close(first[1], second[1], atol=1e-7, rtol=0)


def test_a_query_in_the_gallery_finds_itself() -> None:
    gallery = vectors(30, 8)
    indices, similarities = retrieval.top_k(gallery, gallery, 1, chunk=11)
    assert indices[:, 0].tolist() == list(range(30))
    torch.testing.assert_close(similarities, torch.ones(30, 1))


@pytest.mark.parametrize("k", [0, 5])
def test_more_neighbours_than_there_are_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="from 1 to the number of gallery vectors, 4"):
        retrieval.top_k(vectors(2, 0), vectors(4, 1), k)


def test_wrong_vectors_are_refused() -> None:
    good = vectors(4, 0)
    bad = good.clone()
    bad[2, 1] = math.nan
    with pytest.raises(ValueError, match="gallery have values that are not finite"):
        retrieval.top_k(good, bad, 1)
    with pytest.raises(ValueError, match="queries have values that are not finite"):
        retrieval.top_k(bad, good, 1)
    with pytest.raises(ValueError, match="Q x D and N x D"):
        retrieval.top_k(good, good[:, :3], 1)
    with pytest.raises(ValueError, match="0 queries"):
        retrieval.top_k(good[:0], good, 1)
    with pytest.raises(ValueError, match="chunk is 0"):
        retrieval.top_k(good, good, 1, chunk=0)
    with pytest.raises(ValueError, match="3 labels for 4 queries"):
        retrieval.retrieval_map(good, good, torch.zeros(3), torch.zeros(4))


@pytest.mark.parametrize("chunk", [1, 4, 5, 64])
def test_retrieval_map_agrees_with_scikit_learn_and_leaves_out_lonely_queries(chunk: int) -> None:
    queries, gallery = vectors(9, 10), vectors(40, 11)
    query_labels, gallery_labels = torch.arange(9) % 5, torch.arange(40) % 4  # no gallery vector has label 4
    mean, count = retrieval.retrieval_map(queries, gallery, query_labels, gallery_labels, chunk)
    unit = [v / v.norm(dim=1, keepdim=True) for v in (queries, gallery)]
    expected = [
        average_precision_score((gallery_labels == label).numpy(), (unit[1] @ query).numpy())
        for query, label in zip(unit[0], query_labels, strict=True)
        if label < 4
    ]
    assert count == len(expected) == 8
    assert mean == pytest.approx(float(np.mean(expected)))


def test_retrieval_map_of_separate_classes_is_one() -> None:
    axes = torch.eye(3)
    labels = torch.arange(3)
    assert retrieval.retrieval_map(axes, axes.repeat(5, 1), labels, labels.repeat(5)) == (1.0, 3)


def test_retrieval_map_with_nothing_relevant_is_no_number() -> None:
    mean, count = retrieval.retrieval_map(vectors(2, 0), vectors(3, 1), torch.zeros(2), torch.ones(3))
    assert math.isnan(mean)
    assert count == 0
