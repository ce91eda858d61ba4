"""Detectors on an encoder: regions pooled where they lie, what is trained on, and boxes in pixels of the file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from ssl_inpaint.core import Batch, Detections, Encoder, Objects, Stage, TransferFacts, Truth
from ssl_inpaint.encoders.alexnet import AlexNet
from ssl_inpaint.encoders.alexnet import Config as AlexNetConfig
from ssl_inpaint.errors import UsageError
from ssl_inpaint.transfer import det
from ssl_inpaint.transfer.regions import Anchors, RegionPool

CLASSES = ("boat", "bus")


def tiny_encoder() -> Encoder:
    torch.manual_seed(0)
    return AlexNet(AlexNetConfig(channels=(4, 6, 8, 8, 6), stem="7x7/2", normalization="batch", initial_deviation=None))


def task(is_frozen: bool = False, encoder: Encoder | None = None, **settings: object) -> det.Detection:
    values = {"hidden": (32,), "grid": 3, "dropout": 0.0, "largest_stride": 8, "anchor_sides": (16, 32), **settings}
    torch.manual_seed(0)
    return det.build(det.Config(**values), encoder or tiny_encoder(), TransferFacts(64, CLASSES, True, is_frozen))


def truth(
    boxes: list[list[float]], labels: list[int], proposals: list[list[float]], difficult: list[bool] | None = None
) -> Truth:
    return Truth(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(difficult or [False] * len(labels), dtype=torch.bool),
        torch.tensor(proposals, dtype=torch.float32).reshape(-1, 4),
    )


def batch_of(objective: det.Detection, pixels: Tensor, truths: list[Truth], has_features: bool = False) -> Batch:
    sizes = torch.tensor([list(pixels.shape[-2:])] * len(pixels))
    features = objective.features(pixels) if has_features else None
    return Batch(pixels, None, features, sizes, tuple(truths))


def the_loss(objective: det.Detection, batch: Batch) -> Tensor:
    ((name, loss),) = objective.losses(batch, torch.Generator())
    assert name == "detector"
    return loss


@pytest.mark.parametrize("first", [4.0, 0.5, 9.5])
def test_a_region_is_pooled_where_the_cells_look(first: float) -> None:
    """A map that holds each cell's own place gives back the centres of a region's bins."""
    stage = Stage(2, 8, first)
    places = first + 8 * torch.arange(16.0)
    maps = torch.stack([places[None, :].expand(16, 16), places[:, None].expand(16, 16)])[None]
    box = torch.tensor([[30.0, 40.0, 78.0, 100.0]])
    pooled = RegionPool("conv5", stage, 3, is_maximum=False)({"conv5": maps}, [box], [(128, 128)])
    torch.testing.assert_close(pooled[0, 0, 0], torch.tensor([38.0, 54.0, 70.0]))
    torch.testing.assert_close(pooled[0, 1, :, 0], torch.tensor([50.0, 70.0, 90.0]))


def test_pooling_by_maximum_takes_the_largest_cell_of_each_bin() -> None:
    stage = Stage(1, 8, 4.0)
    maps = torch.arange(256.0).reshape(1, 1, 16, 16)
    box = torch.tensor([[4.0, 4.0, 60.0, 60.0]])  # cells 0 to 7, both ends included as in Caffe
    pooled = RegionPool("conv5", stage, 2, is_maximum=True)({"conv5": maps}, [box], [(128, 128)])
    assert pooled[0, 0].tolist() == [[3 * 16 + 3, 3 * 16 + 7], [7 * 16 + 3, 7 * 16 + 7]]


def test_proposals_that_touch_no_object_are_not_trained_on() -> None:
    objective = task()
    near, far, faint = [12.0, 10, 40, 40], [44.0, 44, 60, 60], [36.0, 36, 60, 60]
    found = objective._trained_on(
        truth([[10, 10, 40, 40]], [0], [near, far, faint]), torch.tensor([[10.0, 10, 40, 40]])
    )
    assert found.tolist() == [near]  # the faint one's IoU is 16 / 1460, about 0.01
    kept = task(least_background_overlap=0.01)._trained_on(
        truth([[10, 10, 40, 40]], [0], [near, far, faint]), torch.tensor([[10.0, 10, 40, 40]])
    )
    assert kept.tolist() == [near, faint]


def test_difficult_objects_and_boxes_without_area_are_not_taught() -> None:
    target = det._target(truth([[1, 1, 9, 9], [2, 2, 8, 8], [5, 5, 5, 9]], [0, 1, 1], [], [False, True, False]))
    assert target["boxes"].tolist() == [[1, 1, 9, 9]] and target["labels"].tolist() == [1]


@pytest.mark.parametrize("detector", ["fast", "faster"])
@pytest.mark.parametrize("pyramid", [False, True])
def test_both_detectors_train_and_predict_on_one_map_and_on_a_pyramid(detector: str, pyramid: bool) -> None:
    objective = task(detector=detector, pyramid=pyramid)
    assert objective.stages == (["conv2", "conv5", "pool5"] if pyramid else ["conv5"])[::1]
    pixels = torch.rand(2, 3, 64, 80)
    truths = [truth([[8, 8, 40, 40]], [1], [[10, 10, 40, 40], [0, 0, 30, 30]]), truth([], [], [[5, 5, 20, 20]])]
    module = objective.players()["detector"].module.train()
    loss = the_loss(objective, batch_of(objective, pixels, truths))
    loss.backward()
    assert torch.isfinite(loss)
    without = [n for n, p in module.named_parameters() if p.grad is None]
    assert not [n for n in without if not n.startswith("encoder")]
    module.eval()
    found = objective.predict(batch_of(objective, pixels, truths, has_features=True), [(128, 160), (64, 80)])
    for one, (height, width) in zip(found, [(128, 160), (64, 80)], strict=True):
        assert one.boxes.shape == (len(one.labels), 4) and one.scores.shape == one.labels.shape
        assert (one.boxes >= 0).all() and (one.boxes <= [width, height, width, height]).all()
        assert np.isin(one.labels, [0, 1]).all() and (one.scores >= 0.05).all()


def test_an_image_without_proposals_is_looked_at_as_a_whole() -> None:
    objective = task(least_score=0.0)
    objective.players()["detector"].module.eval()
    pixels = torch.rand(1, 3, 64, 64)
    (none,) = objective.predict(batch_of(objective, pixels, [truth([], [], [])], True), [(64, 64)])
    (whole,) = objective.predict(batch_of(objective, pixels, [truth([], [], [[0, 0, 64, 64]])], True), [(64, 64)])
    assert len(none.scores) and np.array_equal(none.boxes, whole.boxes) and np.array_equal(none.scores, whole.scores)


@pytest.mark.parametrize("detector", ["fast", "faster"])
def test_images_without_anything_to_teach_still_give_a_loss(detector: str) -> None:
    objective = task(detector=detector)
    objective.players()["detector"].module.train()
    only_difficult = truth([[8, 8, 40, 40]], [0], [], [True])
    loss = the_loss(objective, batch_of(objective, torch.rand(2, 3, 64, 64), [only_difficult, truth([], [], [])]))
    assert torch.isfinite(loss)


def test_boxes_come_back_in_pixels_of_the_file() -> None:
    found = {"boxes": torch.tensor([[8.0, 16, 24, 32]]), "labels": torch.tensor([2]), "scores": torch.tensor([0.5])}
    one = det._in_original(found, (64, 80), (128, 320))
    assert one.boxes.tolist() == [[32, 32, 96, 64]] and one.labels.tolist() == [1]


def test_a_perfect_detector_scores_exactly_one() -> None:
    rng = np.random.default_rng(0)
    truths, detections = [], []
    for _ in range(5):
        corners = rng.uniform(0, 40, (3, 2)).astype(np.float32)
        boxes = np.concatenate([corners, corners + rng.uniform(5, 20, (3, 2)).astype(np.float32)], axis=1)
        labels, is_difficult = rng.integers(2, size=3), np.array([False, False, True])
        truths.append(Objects(boxes, labels, is_difficult))
        detections.append(Detections(boxes, labels, rng.uniform(0.1, 1, 3).astype(np.float32)))
    scores = task().score(zip(detections, truths, strict=True))
    assert scores == dict.fromkeys(scores, 1.0)
    assert list(scores)[:2] == ["mAP (11-point)", "mAP (area)"]


@pytest.mark.parametrize("detector", ["fast", "faster"])
def test_a_small_network_learns_an_image_by_heart(detector: str) -> None:
    objective = task(detector=detector, standardize=True)
    pixels = torch.zeros(2, 3, 64, 64)
    pixels[0, 0, 16:48, 8:40] = 1.0
    pixels[1, 2, 8:36, 24:56] = 1.0
    proposals = [
        [12.0, 20, 40, 48],
        [6, 12, 36, 44],
        [20, 8, 56, 36],
        [28, 10, 58, 40],
        [0, 0, 30, 30],
        [40, 40, 64, 64],
    ]
    truths = [truth([[8, 16, 40, 48]], [0], proposals), truth([[24, 8, 56, 36]], [1], proposals)]
    module = objective.players()["detector"].module.train()
    optimizer = torch.optim.Adam(module.parameters(), 5e-3)
    for _ in range(120):
        optimizer.zero_grad()
        the_loss(objective, batch_of(objective, pixels, truths)).backward()
        optimizer.step()
    module.eval()
    found = objective.predict(batch_of(objective, pixels, truths, has_features=True), [(64, 64)] * 2)
    objects = [Objects(t.boxes.numpy(), t.labels.numpy(), t.is_difficult.numpy()) for t in truths]
    assert objective.score(zip(found, objects, strict=True))["mAP (area)"] == 1.0


def test_scores_of_the_whole_image_are_what_rescaling_starts_from() -> None:
    assert task().top(torch.rand(2, 3, 64, 80)).shape == (2, 3)


@pytest.mark.parametrize("detector", ["fast", "faster"])
def test_a_step_under_bfloat16_is_close_to_one_in_float32(detector: str) -> None:
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    truths = [truth([[8, 8, 40, 40]], [1], [[10, 10, 40, 40], [0, 0, 30, 30]])] * 2
    found = []
    for is_bf16 in (False, True):
        objective = task(detector=detector)
        objective.players()["detector"].module.train()
        torch.manual_seed(1)  # which regions are sampled
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            loss = the_loss(objective, batch_of(objective, pixels, truths))
        loss.backward()
        found.append(loss.item())
    assert found[0] == pytest.approx(found[1], rel=0.05)


def test_anchors_lie_where_the_cells_look_one_stride_apart() -> None:
    stages = [Stage(8, 8, 6.5), Stage(8, 16, 14.5)]
    maps = [torch.zeros(2, 8, 9, 11), torch.zeros(2, 8, 5, 6)]
    found = Anchors([(16,), (32,)], stages)(ImageList(maps[0], [(70, 84)] * 2), maps)
    centres = (found[0][:, :2] + found[0][:, 2:]) / 2
    expected = [
        (stage.offset + stage.stride * x, stage.offset + stage.stride * y)
        for stage, (rows, columns) in zip(stages, ((9, 11), (5, 6)), strict=True)
        for y in range(rows)
        for x in range(columns)
        for _ in range(3)
    ]
    torch.testing.assert_close(centres, torch.tensor(expected))
    assert len(found) == 2 and torch.equal(found[0], found[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pyramid": True, "stage": "conv5"}, "head.stage = conv5: a pyramid reads all stages"),
        ({"pyramid": True, "detector": "faster", "anchor_sides": (8, 16, 32, 64)}, "so give 3 or fewer"),
        ({"stage": "conv6"}, "There is no stage 'conv6'.*Did you mean"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        task(**settings)


def test_batch_norm_of_what_is_fixed_keeps_its_statistics() -> None:
    objective = task(fixed=("conv1.", "norms.0."))
    before = [norm.running_mean.clone() for norm in objective.encoder.norms[:2]]
    objective.players()["detector"].module.train()
    pixels = torch.rand(2, 3, 64, 64)
    the_loss(objective, batch_of(objective, pixels, [truth([[8, 8, 40, 40]], [1], [[10, 10, 40, 40]])] * 2))
    after = [norm.running_mean for norm in objective.encoder.norms[:2]]
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])
