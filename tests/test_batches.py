"""Batches are a function of the step, hold every example once an epoch, and keep labels with their images."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from ssl_inpaint.batches import Crops, EpochOrder, FeatureBatches, ImageBatches, fixed_views, random_views
from ssl_inpaint.data.sources import FileImages
from ssl_inpaint.data.store import ImageStore, open_store

SHAPES = [(40, 30), (30, 40), (20, 20), (1, 1), (300, 2), (2, 300), (17, 23), (64, 64)]  # width, height of the files
CROPS = Crops(size=16, store_size=20, smallest_share=0.4, largest_share=1.0)


def _store(root: Path, photos: list[np.ndarray], short_side: int) -> ImageStore:
    root.mkdir(exist_ok=True)
    for i, photo in enumerate(photos):
        Image.fromarray(photo).save(root / f"{i}.png")
    return open_store(FileImages(root, [f"{i}.png" for i in range(len(photos))]), short_side, root)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """Image i is of the one colour 10 * i, whatever is cut from it."""
    photos = [np.full((height, width, 3), 10 * i, np.uint8) for i, (width, height) in enumerate(SHAPES)]
    return _store(tmp_path_factory.mktemp("plain"), photos, 20)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """Red is the column, green the row: every crop tells where it is from."""
    photos = []
    for width, height in [(60, 40), (40, 60), (40, 40)]:
        columns, rows = np.meshgrid(np.arange(width), np.arange(height))
        photos.append(np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8))
    return _store(tmp_path_factory.mktemp("places"), photos, 40)


@pytest.mark.parametrize(("count", "batch_size"), [(10, 3), (10, 10), (7, 16), (1, 1), (1, 5), (12, 4)])
def test_every_epoch_holds_every_example_once(count: int, batch_size: int) -> None:
    order = EpochOrder(count, batch_size, seed=0)
    steps = -(-6 * count // batch_size)
    stream = torch.cat([order.at(step) for step in range(steps)])[: 6 * count]
    for epoch in stream.view(6, count):
        assert sorted(epoch.tolist()) == list(range(count))


def test_every_epoch_has_an_order_of_its_own() -> None:
    epochs = [tuple(EpochOrder(20, 20, seed).at(step).tolist()) for seed in (0, 1) for step in range(5)]
    assert len(set(epochs)) == 10


def test_the_order_does_not_depend_on_where_one_begins_or_on_the_batch_size() -> None:
    order = EpochOrder(7, 4, seed=2)
    forwards = [order.at(step).tolist() for step in range(10)]
    assert [order.at(step).tolist() for step in range(9, -1, -1)] == forwards[::-1]
    assert [EpochOrder(7, 4, seed=2).at(step).tolist() for step in range(10)] == forwards
    one_by_one = [EpochOrder(7, 1, seed=2).at(step).item() for step in range(40)]
    assert one_by_one == list(itertools.chain(*forwards))


def test_no_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        EpochOrder(0, 4, seed=0)


def test_labels_stay_with_their_images(plain: ImageStore) -> None:
    labels = torch.arange(len(plain)) * 10
    batches = ImageBatches(plain, labels, CROPS, 5, seed=1)
    for step in range(8):
        batch = batches.at(step)
        assert batch.images.shape == (5, 3, 16, 16) and batch.images.dtype == torch.uint8 and batch.labels is not None
        assert (batch.images == batch.labels.view(-1, 1, 1, 1)).all()


def test_only_members_are_drawn_and_with_their_own_labels(plain: ImageStore) -> None:
    members = torch.tensor([1, 4, 6])
    batches = ImageBatches(plain, torch.arange(len(plain)) * 10, CROPS, 2, seed=1, members=members)
    seen = []
    for step in range(6):
        batch = batches.at(step)
        assert batch.labels is not None and (batch.images == batch.labels.view(-1, 1, 1, 1)).all()
        seen += batch.labels.tolist()
    assert sorted(seen) == [10] * 4 + [40] * 4 + [60] * 4


def test_a_batch_larger_than_the_data_set_and_a_single_example_work(plain: ImageStore) -> None:
    labels = torch.arange(len(plain)) * 10
    batch = ImageBatches(plain, labels, CROPS, 50, seed=0).at(3)
    assert len(batch.images) == 50 and set(batch.labels.tolist()) == set(labels.tolist())  # type: ignore[union-attr]
    alone = ImageBatches(plain, labels, CROPS, 1, seed=0, members=torch.tensor([3])).at(9)
    assert alone.images.shape == (1, 3, 16, 16) and (alone.images == 30).all()


def test_a_step_is_the_same_whenever_and_by_whomever_it_is_made(places: ImageStore) -> None:
    one, other = (ImageBatches(places, None, CROPS, 4, seed=7) for _ in range(2))
    forwards = [one.at(step).images for step in range(5)]
    torch.manual_seed(0)
    for step in reversed(range(5)):
        assert torch.equal(other.at(step).images, forwards[step])
    assert not torch.equal(ImageBatches(places, None, CROPS, 4, seed=8).at(0).images, forwards[0])
    assert not torch.equal(forwards[0], forwards[1]) and one.at(0).labels is None


def test_crops_vary_in_place_and_size_and_are_mirrored_half_of_the_time(places: ImageStore) -> None:
    batch = ImageBatches(places, None, CROPS, 400, seed=0).at(0).images.float()
    red = batch[:, 0]
    is_mirrored = red[:, :, 0].mean(1) > red[:, :, -1].mean(1)
    assert 0.4 < is_mirrored.float().mean() < 0.6  # four standard deviations
    spans = batch[:, 1, -1].mean(1) - batch[:, 1, 0].mean(1)  # rows of the store between top and bottom
    assert spans.min() < 20 and spans.max() > 34 and len(spans.unique()) > 15
    upright = ImageBatches(places, None, CROPS.model_copy(update={"flip": False}), 400, seed=0).at(0).images.float()
    assert (upright[:, 0, :, 0].mean(1) < upright[:, 0, :, -1].mean(1)).all()


@pytest.mark.parametrize("short_side", [1, 2, 20])
def test_crops_lie_inside_strips_and_single_pixels(tmp_path: Path, short_side: int) -> None:
    photos = [np.full((height, width, 3), 10 * i, np.uint8) for i, (width, height) in enumerate(SHAPES)]
    store = _store(tmp_path, photos, short_side)
    assert min(*store.heights, *store.widths) == short_side
    for crops in (CROPS, CROPS.model_copy(update={"smallest_share": 0.001})):
        labels = torch.arange(len(store)) * 10
        for step in range(20):  # a window outside its image raises
            batch = ImageBatches(store, labels, crops, 16, seed=step).at(step)
            assert (batch.images == batch.labels.view(-1, 1, 1, 1)).all()  # type: ignore[union-attr]
        for positions, cut in fixed_views(store, crops, "ten", 3):
            assert all((view == 10 * positions.view(-1, 1, 1, 1)).all() for view in cut)


def _corner(view: Tensor) -> tuple[int, int]:
    """Column and row of the store at the top left of a crop of the store's own pixels."""
    return int(view[0, 0, 0]), int(view[1, 0, 0])


def test_fixed_views_are_centre_and_corners_each_followed_by_its_mirror(places: ImageStore) -> None:
    crops = Crops(size=20, store_size=40, smallest_share=0.2, largest_share=0.5)
    positions, cut = next(iter(fixed_views(places, crops, "ten", 2)))
    assert positions.tolist() == [0, 1] and len(cut) == 10
    wide = [_corner(view[0]) for view in cut[::2]]
    tall = [_corner(view[1]) for view in cut[::2]]
    assert wide == [(20, 10), (0, 0), (40, 0), (0, 20), (40, 20)]
    assert tall == [(10, 20), (0, 0), (20, 0), (0, 40), (20, 40)]
    for upright, mirrored in zip(cut[::2], cut[1::2], strict=True):
        assert torch.equal(mirrored, upright.flip(3)) and not torch.equal(mirrored, upright)


def test_fewer_fixed_views_are_the_first_of_the_ten(places: ImageStore) -> None:
    ten = next(iter(fixed_views(places, CROPS, "ten", 3)))[1]
    centre = next(iter(fixed_views(places, CROPS, "centre", 3)))[1]
    corners = next(iter(fixed_views(places, CROPS, "corners", 3)))[1]
    assert len(centre) == 1 and torch.equal(centre[0], ten[0])
    assert len(corners) == 5 and all(torch.equal(a, b) for a, b in zip(corners, ten[::2], strict=True))


def test_fixed_views_hold_every_image_or_member_once_in_order(plain: ImageStore) -> None:
    members = torch.tensor([6, 0, 3])
    for chosen, expected in ((None, list(range(8))), (members, [6, 0, 3])):
        found = list(fixed_views(plain, CROPS, "centre", 3, chosen))
        assert torch.cat([positions for positions, _ in found]).tolist() == expected
        assert all((cut[0] == 10 * positions.view(-1, 1, 1, 1)).all() for positions, cut in found)


def test_random_views_are_the_same_for_a_seed_and_differ_between_views(places: ImageStore) -> None:
    def views(seed: int) -> list[Tensor]:
        found = list(random_views(places, CROPS, 3, 2, seed))
        assert torch.cat([positions for positions, _ in found]).tolist() == [0, 1, 2]
        return [torch.cat(view) for view in zip(*(cut for _, cut in found), strict=True)]

    one, again, other = views(0), views(0), views(1)
    assert len(one) == 3 and all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], one[1]) and not torch.equal(one[0], other[0])


def test_features_keep_their_labels_and_every_view_is_drawn() -> None:
    features = torch.arange(6).view(6, 1, 1) * 10 + torch.arange(4).view(1, 4, 1)
    batches = FeatureBatches({"conv1": features, "conv2": -features}, torch.arange(6) * 10, 4, seed=0)
    seen = set()
    for step in range(40):
        batch = batches.at(step)
        assert batch.images.shape == (4, 0) and batch.labels is not None and batch.features is not None
        drawn = batch.features["conv1"]
        assert torch.equal(batch.features["conv2"], -drawn)  # the same view of every stage
        assert torch.equal(drawn[:, 0] // 10 * 10, batch.labels)
        seen |= set(drawn[:, 0].tolist())
        again = FeatureBatches({"conv1": features, "conv2": -features}, torch.arange(6) * 10, 4, seed=0).at(step)
        assert torch.equal(again.features["conv1"], drawn) and torch.equal(again.labels, batch.labels)  # type: ignore[arg-type]
    assert seen == set(features.flatten().tolist())


def test_shares_out_of_order_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"smallest_share 0\.9 is above largest_share 0\.5"):
        Crops(smallest_share=0.9, largest_share=0.5)
