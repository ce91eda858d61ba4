"""Whole images as they are shown: boxes and masks move with the pixels, and batches depend on the step alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ssl_inpaint.core import Objects
from ssl_inpaint.data.sources import ArrayImages
from ssl_inpaint.data.store import open_store
from ssl_inpaint.images import IMAGENET_MEAN
from ssl_inpaint.scenes import (
    Annotated,
    SceneBatches,
    SceneFeatureBatches,
    Scenes,
    continued,
    groups_of_one_size,
    joined,
    padded,
    shown_size,
    view,
)

BOX = (8, 12, 24, 30)  # x1 y1 x2 y2 of the red rectangle in every image


class PlainMasks:
    """Masks held in memory."""

    def __init__(self, masks: list[np.ndarray]) -> None:
        self.masks = masks

    def __len__(self) -> int:
        return len(self.masks)

    def name(self, position: int) -> str:
        return str(position)

    def read(self, position: int) -> np.ndarray:
        return self.masks[position]


def rectangle(height: int, width: int) -> np.ndarray:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2], 0] = 255
    return pixels


def scenes_of(tmp_path: Path, sizes: list[tuple[int, int]], store_size: int = 40) -> Annotated:
    """Black images with one red rectangle, its box and its mask."""
    parts = []
    for number, size in enumerate(sizes):
        pixels = rectangle(*size)
        store = open_store(ArrayImages(pixels[None], [str(number)]), store_size, tmp_path / str(number))
        objects = Objects(np.array([BOX], np.float32), np.array([0]), np.array([False]))
        masks = PlainMasks([(pixels[..., 0] > 0).astype(np.uint8)])
        parts.append(Annotated(store, (objects,), (np.array([BOX, (0, 0, 4, 4)], np.float32),), ((masks, 0),)))
    return joined(parts)


@pytest.mark.parametrize(
    ("size", "side", "longest", "expected"),
    [
        ((40, 60), 40, 100, (40, 60)),
        ((40, 60), 80, 100, (67, 100)),  # 80 x 120 would be too long
        ((60, 40), 20, 100, (30, 20)),
        ((375, 500), 600, 1000, (600, 800)),  # a VOC image under Fast R-CNN's settings
        ((200, 1000), 600, 1000, (200, 1000)),
    ],
)
def test_the_short_side_is_as_asked_unless_the_long_one_is_too_long(
    size: tuple[int, int], side: int, longest: int, expected: tuple[int, int]
) -> None:
    assert shown_size(*size, side, longest) == expected


@pytest.mark.parametrize("is_mirrored", [False, True])
@pytest.mark.parametrize("side", [20, 40, 80])
def test_boxes_and_masks_move_with_the_pixels(tmp_path: Path, side: int, is_mirrored: bool) -> None:
    images = scenes_of(tmp_path, [(40, 60)])
    shown = view(images, 0, side, 1000, is_mirrored)
    assert shown.pixels is not None and shown.truth is not None and shown.mask is not None
    assert shown.pixels.shape[1:] == shown.size == shown.mask.shape
    ratio = side / 40
    expected = np.array(BOX) * ratio
    if is_mirrored:
        expected[[0, 2]] = 60 * ratio - expected[[2, 0]]
    torch.testing.assert_close(shown.truth.boxes[0], torch.from_numpy(expected).float())
    torch.testing.assert_close(shown.truth.proposals[0], torch.from_numpy(expected).float())
    x1, y1, x2, y2 = expected.astype(int)
    inside = torch.zeros(shown.size, dtype=torch.bool)
    inside[y1:y2, x1:x2] = True
    assert torch.equal(shown.mask == 1, inside)
    is_red = shown.pixels[0] > 127
    assert (is_red != inside).float().mean() < 0.02  # but for the blur of resizing along the edge


def test_masks_are_cut_as_the_store_cuts_long_images(tmp_path: Path) -> None:
    images = scenes_of(tmp_path, [(40, 200)])  # the store keeps the middle 120 columns
    left, _, right, _ = images.store.kept_box(0)
    assert (left, right) == (40, 160)
    assert images.mask(0).shape == (40, 120) and not images.mask(0).any()
    assert view(images, 0, 40, 1000, False).size == (40, 120)


def test_batches_are_padded_with_the_mean_colour_and_pixels_that_do_not_count(tmp_path: Path) -> None:
    images = scenes_of(tmp_path, [(40, 60), (60, 40)])
    batch = SceneBatches(images, Scenes(store_size=40, sides=(40,), test_side=40, flip=False), 2, seed=0).at(0)
    assert batch.images.shape == (2, 3, 60, 60) and batch.labels is not None and batch.sizes is not None
    assert sorted(batch.sizes.tolist()) == [[40, 60], [60, 40]]
    for pixels, labels, (height, width) in zip(batch.images, batch.labels, batch.sizes.tolist(), strict=True):
        padding = torch.ones(60, 60, dtype=torch.bool)
        padding[:height, :width] = False
        assert (labels[padding] == 255).all() and (labels[~padding] != 255).all()
        colour = torch.tensor([round(255 * c) for c in IMAGENET_MEAN], dtype=torch.uint8)
        assert torch.equal(pixels[:, padding], colour[:, None].expand(-1, int(padding.sum())))


def test_batches_are_functions_of_the_step(tmp_path: Path) -> None:
    images = scenes_of(tmp_path, [(40, 60), (60, 40), (40, 40)])
    chosen = Scenes(store_size=40, sides=(32, 40), test_side=40)
    batches = SceneBatches(images, chosen, 2, seed=3)
    late = batches.at(5)
    for step in range(5):
        batches.at(step)
    assert torch.equal(batches.at(5).images, late.images)
    assert torch.equal(SceneBatches(images, chosen, 2, seed=3).at(5).images, late.images)
    others = [SceneBatches(images, chosen, 2, seed=seed).at(5) for seed in range(4, 10)]
    assert any(o.images.shape != late.images.shape or not torch.equal(o.images, late.images) for o in others)


def test_cached_features_come_with_the_annotation_of_their_own_view(tmp_path: Path) -> None:
    """The cache holds the red channel of each view itself, which must agree with the mask beside it."""
    images = scenes_of(tmp_path, [(40, 60), (40, 60), (60, 40)])
    chosen = Scenes(store_size=40, sides=(40, 20), test_side=40)

    def features(position: int, one: int) -> dict[str, torch.Tensor]:
        side, mirrored = chosen.views[one]
        pixels = view(images, position, side, 512, mirrored).pixels
        assert pixels is not None
        return {"red": (pixels[:1] > 127).half()}

    batches = SceneFeatureBatches(features, images, chosen, 3, seed=1)
    seen = set()
    for step in range(6):
        batch = batches.at(step)
        assert batch.features is not None and batch.labels is not None and batch.sizes is not None
        assert batch.images.shape == (3, 0)
        seen |= {tuple(size) for size in batch.sizes.tolist()}
        is_counted = batch.labels != 255
        differs = (batch.features["red"][:, 0] != batch.labels) & is_counted
        assert differs.float().mean() < 0.02
    assert len(seen) == 4  # both sides of both shapes


def test_every_image_is_in_one_group_of_its_size(tmp_path: Path) -> None:
    images = scenes_of(tmp_path, [(40, 60), (60, 40), (40, 60), (40, 60), (40, 40)])
    groups = list(groups_of_one_size(images, 40, 512, batch_size=2))
    assert sorted(p for positions, _ in groups for p in positions) == [0, 1, 2, 3, 4]
    assert all(len(positions) <= 2 for positions, _ in groups)
    for positions, size in groups:
        assert {view(images, p, 40, 512, False).size for p in positions} == {size}


def test_maps_are_padded_at_the_right_and_bottom() -> None:
    found = padded([torch.ones(1, 2, 3), torch.ones(1, 3, 1)], value=7)
    expected = torch.tensor([[[[1, 1, 1], [1, 1, 1], [7, 7, 7]]], [[[1, 7, 7], [1, 7, 7], [1, 7, 7]]]])
    assert torch.equal(found, expected.float())


def test_maps_are_continued_with_their_edge() -> None:
    first = torch.arange(4.0).reshape(1, 2, 2).half()
    found = continued([first, torch.zeros(1, 3, 4).half()])
    assert found.dtype == torch.float16
    assert found[0, 0].tolist() == [[0, 1, 1, 1], [2, 3, 3, 3], [2, 3, 3, 3]]


def test_masks_are_sampled_where_pixels_have_their_centres(tmp_path: Path) -> None:
    """Every third column of ninety is one: a shown pixel of three has its centre on the second."""
    pixels = np.zeros((90, 90, 3), np.uint8)
    mask = np.tile(np.arange(90) % 3, (90, 1)).astype(np.uint8)
    store = open_store(ArrayImages(pixels[None], ["0"]), 90, tmp_path)
    images = Annotated(store, masks=((PlainMasks([mask]), 0),))
    for is_mirrored in (False, True):
        shown = view(images, 0, 30, 512, is_mirrored).mask
        assert shown is not None and (shown == 1).all()


def test_sides_below_sixteen_pixels_are_refused() -> None:
    with pytest.raises(ValidationError, match="a side of 8 pixels is below 16"):
        Scenes(sides=(8, 64))


def test_an_image_without_objects_is_shown_without_boxes(tmp_path: Path) -> None:
    images = scenes_of(tmp_path, [(40, 60)])
    nothing = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
    shown = view(replace(images, objects=(nothing,), proposals=None), 0, 40, 512, True)
    assert shown.truth is not None
    assert shown.truth.boxes.shape == shown.truth.proposals.shape == (0, 4)
