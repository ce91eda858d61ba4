import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from ssl_inpaint.descriptors import hog
from ssl_inpaint.errors import UsageError


def smooth_patches(count: int, size: int, seed: int = 0, cells: int = 10) -> torch.Tensor:
    noise = torch.rand(count, 3, cells, cells, generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(noise, (size, size), mode="bicubic", align_corners=True).clamp(0.05, 0.9)


def square_hole(size: int, start: int, stop: int) -> torch.Tensor:
    hole = torch.zeros(size, size, dtype=torch.bool)
    hole[start:stop, start:stop] = True
    return hole


def describe(patches: torch.Tensor, hole: torch.Tensor | None = None) -> np.ndarray:
    return hog.build(hog.Config()).describe(patches, hole)


def dalal_triggs(pixels: np.ndarray) -> np.ndarray:
    """A 64 x 64 x 3 patch of 0 ... 255 to 7 x 7 blocks (rows first) x 2 x 2 cells x 9 bins, pixel by pixel."""
    mirrored = np.pad(pixels.astype(float), ((1, 1), (1, 1), (0, 0)), mode="reflect")
    dx, dy = mirrored[1:-1, 2:] - mirrored[1:-1, :-2], mirrored[2:, 1:-1] - mirrored[:-2, 1:-1]
    strongest = np.hypot(dx, dy).argmax(axis=2)[..., None]
    dx, dy = (np.take_along_axis(d, strongest, axis=2)[..., 0] for d in (dx, dy))
    place = np.arctan2(dy, dx) % np.pi * 9 / np.pi - 0.5
    votes = np.zeros((64, 64, 9))
    for neighbour in (0, 1):
        share = np.abs(1 - neighbour - (place - np.floor(place)))
        bins = (np.floor(place).astype(int) + neighbour) % 9
        np.put_along_axis(votes, bins[..., None], (np.hypot(dx, dy) * share)[..., None], axis=2)
    ticks = np.arange(16)
    to_cell = np.clip(1 - np.abs((ticks + 0.5) / 8 - 0.5 - np.arange(2)[:, None]), 0, 1)  # 2 cells x 16 pixels
    window = np.exp(-((ticks - 8) ** 2) / (2 * 4**2))
    blocks = np.empty((7, 7, 2, 2, 9))
    for row, column in np.ndindex(7, 7):
        part = votes[8 * row : 8 * row + 16, 8 * column : 8 * column + 16]
        cells = np.einsum("ai,bj,i,j,ijk->abk", to_cell, to_cell, window, window, part)
        clipped = np.minimum(cells / (np.linalg.norm(cells) + 3.6), 0.2)
        blocks[row, column] = clipped / (np.linalg.norm(clipped) + 1e-3)
    return blocks


def rows_first(described: np.ndarray) -> np.ndarray:
    """OpenCV's order, column by column of blocks and of cells, turned to rows first."""
    return described.reshape(-1, 7, 7, 2, 2, 9).transpose(0, 2, 1, 4, 3, 5)


def as_pixels(patch: torch.Tensor) -> np.ndarray:
    return (patch * 255).round().byte().permute(1, 2, 0).numpy()


def test_agrees_with_the_definition() -> None:
    # OpenCV computes in float32 with an approximate arc tangent; the difference seen is 1.5e-4.
    patches = smooth_patches(3, 64)
    for ours, patch in zip(rows_first(describe(patches)), patches, strict=True):
        np.testing.assert_allclose(ours, dalal_triggs(as_pixels(patch)), atol=1e-3)


def test_agrees_roughly_with_scikit_image() -> None:
    # scikit-image neither shares a gradient among neighbouring cells and bins nor weights the block by a Gaussian:
    # without the Gaussian the correlation on these patches would be 0.93, with it 0.84.
    from skimage.feature import hog as reference

    patches = smooth_patches(4, 64, cells=4)
    theirs = [
        reference(as_pixels(p), 9, (8, 8), (2, 2), "L2-Hys", channel_axis=-1, feature_vector=False) for p in patches
    ]
    assert np.corrcoef(rows_first(describe(patches)).ravel(), np.ravel(theirs))[0, 1] > 0.8


@pytest.mark.parametrize("size", [48, 64, 96, 128])
def test_a_whole_patch_has_49_blocks_of_36(size: int) -> None:
    described = describe(smooth_patches(2, size))
    assert described.shape == (2, 1764)
    assert described.dtype == np.float32


def test_no_patches_give_no_vectors() -> None:
    assert describe(torch.zeros(0, 3, 64, 64)).shape == (0, 1764)


def test_brightness_does_not_matter() -> None:
    patches = (smooth_patches(2, 64) * 200).round() / 255
    np.testing.assert_allclose(describe(patches + 20 / 255), describe(patches), atol=1e-6)


def test_a_flat_patch_has_no_gradient() -> None:
    assert not describe(torch.full((1, 3, 64, 64), 0.3)).any()


def test_a_quarter_turn_moves_the_orientations() -> None:
    stripes = (torch.arange(64) // 4 % 2).float().expand(1, 3, 64, 64)
    upright, level = describe(stripes), describe(stripes.transpose(2, 3))
    assert float((upright * level).sum()) < 0.05 * float((upright * upright).sum())


@pytest.mark.parametrize("size", [48, 64, 96, 128])
def test_hidden_pixels_are_never_read(size: int) -> None:
    patches, hole = smooth_patches(3, size), square_hole(size, size // 4, 3 * size // 4)
    expected = describe(patches, hole)
    noise = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    for poison in (noise, torch.tensor(float("nan")), torch.tensor(float("inf")), torch.tensor(0.0)):
        np.testing.assert_array_equal(describe(torch.where(hole, poison, patches), hole), expected)


@pytest.mark.parametrize("size", [48, 64, 96, 128])
def test_the_central_quarter_leaves_the_outer_ring_of_blocks(size: int) -> None:
    assert describe(smooth_patches(1, size), square_hole(size, size // 4, 3 * size // 4)).shape == (1, 24 * 36)


@pytest.mark.parametrize("size", [64, 96, 128])
def test_the_edge_of_the_fill_does_not_enter(size: int) -> None:
    # A flat patch stays flat around the hole, whatever the constant that first fills it (0.6 is 153 / 255).
    flat = torch.full((1, 3, size, size), 0.6)
    assert not describe(flat, square_hole(size, size // 4, 3 * size // 4)).any()


def test_the_blocks_kept_are_those_of_the_whole_patch() -> None:
    # The hole covers the right third: the left columns of blocks, first in OpenCV's order, are as without a hole.
    hole = torch.zeros(64, 64, dtype=torch.bool)
    hole[:, 42:] = True
    patches = smooth_patches(2, 64)
    kept = describe(patches, hole)
    assert kept.shape == (2, 4 * 7 * 36)  # blocks that begin at 0, 8, 16, 24
    np.testing.assert_array_equal(kept, describe(patches)[:, : kept.shape[1]])
    bottom = describe(patches, hole.T).reshape(2, 7, 4, 36)
    np.testing.assert_array_equal(bottom, describe(patches).reshape(2, 7, 7, 36)[:, :, :4])


def test_an_empty_hole_is_no_hole() -> None:
    for size in (64, 96):
        patches = smooth_patches(2, size)
        np.testing.assert_array_equal(
            describe(patches, torch.zeros(size, size, dtype=torch.bool)), describe(patches, None)
        )


def test_a_hole_that_touches_every_block_is_refused() -> None:
    with pytest.raises(UsageError, match="none of the 49 HOG blocks"):
        describe(smooth_patches(1, 64), square_hole(64, 15, 49))


@pytest.mark.parametrize("changes", [{"cell_pixels": 5}, {"stride_pixels": 9}, {"block_pixels": 128}, {"bins": 1}])
def test_a_geometry_that_does_not_fit_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        hog.Config(**changes)
