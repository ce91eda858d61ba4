"""Filters from patches: their principal components, or the centroids of k-means among them once they are whitened.

Source: Krähenbühl, Doersch, Donahue, Darrell, "Data-dependent Initializations of Convolutional Neural Networks", ICLR
2016, as their published code (philkr/magic_init, `initializeWeight`) computes them.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_VARIANCE = 1e-10  # of a component, over that of the first; below it there is rounding alone
STEP_PATCHES = 10  # for each centroid, in a step of k-means; the reference's


def filters(kind: str, patches: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` x D filters from N x D patches, of any scale; `kind` is "kmeans" or "pca".

    Gaussian ones where there are fewer patches than filters, as in the reference.
    Deviation: filters beyond the components that there are ("pca") are Gaussian too; the reference divides their
    outputs, which are zero or rounding, by their deviation.
    """
    if len(patches) < count:
        return _gaussian(count, patches, generator)
    patches = patches.double()
    patches = patches - patches.mean(dim=0)
    components = whitening(patches, count)
    if kind == "kmeans" and len(components):
        return _centroids(patches @ components.T, count, generator) @ components
    return torch.cat([components, _gaussian(count - len(components), patches, generator)])


def whitening(patches: Tensor, count: int) -> Tensor:
    """k x D, k <= count: the directions in which centred patches vary most, each over its deviation; largest first.

    Fewer than `count` where patches vary in fewer directions. Signs are such that each one's largest value is positive.
    Deviation: components of the patches; the reference takes those of Gaussian projections of them, which its layers
    give at no cost and which are the same only on the average. What counts as no variance is relative, not absolute.
    """
    variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    variances, directions = variances.flip(0)[:count], directions.T.flip(0)[:count]
    is_kept = variances > SMALLEST_VARIANCE * variances[0].clamp(min=0)
    variances, directions = variances[is_kept], directions[is_kept]
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    return directions * largest.sign() / variances.sqrt()[:, None]


def _centroids(whitened: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` x k: of patches at length 1, so that k-means groups directions and not brightnesses."""
    from sklearn.cluster import MiniBatchKMeans

    rows = whitened / whitened.norm(dim=1, keepdim=True).clamp(min=1e-12)
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    means = MiniBatchKMeans(count, batch_size=STEP_PATCHES * count, random_state=seed, compute_labels=False)
    return torch.from_numpy(means.fit(rows.float().numpy()).cluster_centers_).double()


def _gaussian(count: int, patches: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(count, patches.shape[1], generator=generator, dtype=torch.float64)
