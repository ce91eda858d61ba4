"""Fills whose seams are not seen: the gradients of the fill, from the colours that are visible around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from scipy.sparse import csr_array

DIRECT_PIXELS = 2000  # systems of at most so many are solved by elimination
TOLERANCE = 1e-7  # of the residual, relative to the right-hand side


def blend(image: Tensor, filled: Tensor, hole: Tensor) -> Tensor:
    """The fill, 3 x H x W, shifted so smoothly that it meets the visible pixels of the image without a seam.

    Inside the hole, H x W bool, it keeps its gradients, and across the rim there is none: the shift is the membrane
    through the differences at the rim. A million hidden pixels take seconds. ValueError where everything is hidden.

    Source: Perez, Gangnet and Blake, "Poisson image editing", SIGGRAPH 2003, equation 7. Deviation: the gradient across
    the rim is 0, since a fill says nothing about visible pixels.
    """
    if bool(hole.all()):
        raise ValueError("Everything is hidden: there is no rim to blend a fill into.")
    if not bool(hole.any()):
        return image.clone()
    there, fill_there = (pixels.detach().double().cpu().numpy() for pixels in (image, filled))
    shifts = _solved(*_poisson(there, fill_there, hole.cpu().numpy()))
    shift = torch.from_numpy(np.ascontiguousarray(shifts.T)).to(image)
    result = image.clone()
    result[:, hole] = (filled[:, hole] + shift).clamp(0, 1)
    return result


def _poisson(
    image: np.ndarray, filled: np.ndarray, hole: np.ndarray
) -> tuple[csr_array, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The equations of the shift of N hidden pixels: N x N, N x 3, and the row and column of each pixel."""
    from scipy.sparse import coo_array, diags_array

    rows, columns = np.nonzero(hole)
    number = np.full(hole.shape, -1)
    number[rows, columns] = np.arange(len(rows))
    degree, right, pairs = np.zeros(len(rows)), np.zeros((len(rows), 3)), []
    for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        y, x = rows + down, columns + across
        own = np.flatnonzero((y >= 0) & (y < hole.shape[0]) & (x >= 0) & (x < hole.shape[1]))
        other = number[y[own], x[own]]
        degree[own] += 1
        pairs.append(np.stack((own[other >= 0], other[other >= 0])))
        rim = own[other < 0]
        right[rim] += (image[:, y[rim], x[rim]] - filled[:, rows[rim], columns[rim]]).T
    links = np.concatenate(pairs, axis=1)
    links_matrix = coo_array((np.ones(links.shape[1]), tuple(links)), shape=(len(rows), len(rows)))
    return (diags_array(degree) - links_matrix).tocsr(), right, (rows, columns)


def _solved(matrix: csr_array, right: np.ndarray, places: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The solution by conjugate gradients, preconditioned by smoothed aggregation (Vanek, Mandel, Brezina 1996)."""
    from scipy.sparse.linalg import LinearOperator, cg

    cycle = _cycle(matrix, *places)
    if matrix.shape[0] <= DIRECT_PIXELS:
        return cycle(right)
    preconditioner = LinearOperator(matrix.shape, matvec=cycle)
    return np.stack([cg(matrix, side, rtol=TOLERANCE, M=preconditioner)[0] for side in right.T], axis=1)


def _cycle(matrix: csr_array, rows: np.ndarray, columns: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Nearly the inverse of a Poisson matrix: a multigrid V-cycle over blocks of 3 x 3; exact if small."""
    from scipy.sparse import csr_array, diags_array
    from scipy.sparse.linalg import splu

    if matrix.shape[0] <= DIRECT_PIXELS:
        return splu(matrix.tocsc()).solve
    width = int(columns.max()) // 3 + 1
    blocks, members = np.unique(rows // 3 * width + columns // 3, return_inverse=True)
    constant = csr_array((np.ones(len(rows)), (np.arange(len(rows)), members)), shape=(len(rows), len(blocks)))
    step = (2 / 3) / matrix.diagonal()  # damped Jacobi
    enlarge = (constant - diags_array(step) @ (matrix @ constant)).tocsr()
    shrink = enlarge.T.tocsr()
    coarse = _cycle((shrink @ matrix @ enlarge).tocsr(), blocks // width, blocks % width)

    def cycle(residual: np.ndarray) -> np.ndarray:
        found = step * residual
        found = found + enlarge @ coarse(shrink @ (residual - matrix @ found))
        return found + step * (residual - matrix @ found)

    return cycle
