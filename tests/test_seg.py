"""FCN heads: interpolation where cells look, pixels that do not count, and scores over the whole data set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ssl_inpaint.core import Batch, Encoder, Stage, TransferFacts
from ssl_inpaint.encoders.alexnet import AlexNet
from ssl_inpaint.encoders.alexnet import Config as AlexNetConfig
from ssl_inpaint.errors import UsageError
from ssl_inpaint.transfer import seg

CLASSES = ("background", "boat", "bus")


def tiny_encoder(normalization: str = "batch") -> Encoder:
    torch.manual_seed(0)
    settings = {"channels": (4, 6, 8, 8, 6), "stem": "7x7/2", "initial_deviation": None}
    return AlexNet(AlexNetConfig(normalization=normalization, **settings))


def task(is_frozen: bool = False, encoder: Encoder | None = None, **settings: object) -> seg.Segmentation:
    values = {"hidden": (16,), "kernel": 3, "dropout": 0.0, **settings}
    facts = TransferFacts(64, CLASSES, False, is_frozen)
    return seg.build(seg.Config(**values), encoder or tiny_encoder(), facts)


def images(count: int = 2, height: int = 64, width: int = 80) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def masks(count: int = 2, height: int = 64, width: int = 80) -> Tensor:
    return torch.randint(3, (count, height, width), generator=torch.Generator().manual_seed(2))


def the_loss(objective: seg.Segmentation, batch: Batch) -> Tensor:
    ((name, loss),) = objective.losses(batch, torch.Generator())
    assert name == "segmenter"
    return loss


@pytest.mark.parametrize("size", [(24, 40), (48, 80), (31, 17)])
def test_interpolation_is_torchs_where_the_first_cell_looks_half_a_stride_in(size: tuple[int, int]) -> None:
    maps = torch.rand(2, 3, 6, 10, generator=torch.Generator().manual_seed(0))
    ours = seg._at_pixels((maps, Stage(3, 8)), (48, 80), size)
    theirs = functional.interpolate(maps, size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(ours, theirs)


def test_a_plane_comes_back_as_a_plane_wherever_cells_look() -> None:
    stage = Stage(1, 8, first=11.5)
    places = 11.5 + 8 * torch.arange(5.0)
    maps = (places[:, None] + 2 * places[None, :])[None, None]
    found = seg._at_pixels((maps, stage), (64, 64), (64, 64))[0, 0]
    pixels = torch.arange(64) + 0.5
    inside = (pixels >= places[0]) & (pixels <= places[-1])
    expected = pixels[:, None] + 2 * pixels[None, :]
    torch.testing.assert_close(found[inside][:, inside], expected[inside][:, inside])


@pytest.mark.parametrize("spec", ["11x11/4", "7x7/2"])
def test_cells_look_where_their_stage_says(spec: str) -> None:
    """The gradient of one cell of an all-positive network is centred where `Stage.offset` puts the cell."""
    encoder = AlexNet(AlexNetConfig(channels=(1,) * 5, groups=1, stem=spec, normalization="none")).eval()
    for parameter in encoder.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    pixels = torch.rand(1, 3, 259, 259, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.7
    for name in ("conv1", "conv2", "conv3"):
        stage, pool = encoder.stages[name], encoder.pools
        encoder.pools = torch.nn.ModuleList(
            3 * [torch.nn.AvgPool2d(3, 2, ceil_mode=True)]
        )  # all cells count alike, so that the centre is exact
        given = pixels.clone().requires_grad_()
        maps = encoder(given)[name]
        middle = maps.shape[-1] // 2
        maps[0, 0, middle, middle].backward()
        encoder.pools = pool
        assert given.grad is not None
        weight = given.grad[0].sum(0)
        centre = (weight.sum(0) * (torch.arange(259) + 0.5)).sum() / weight.sum()
        assert float(centre) == pytest.approx(stage.offset + stage.stride * middle, abs=0.01), name


def test_the_loss_is_the_mean_over_counted_pixels() -> None:
    objective = task()
    objective.head.eval()
    labels = masks()
    labels[0, :10] = 255
    batch = Batch(images(), labels)
    maps, stage = objective.head(objective.features(batch.images))
    logits = seg._at_pixels((maps, stage), (64, 80), (64, 80))
    torch.testing.assert_close(
        the_loss(objective, batch), functional.cross_entropy(logits, labels, ignore_index=255, reduction="mean")
    )


def test_a_batch_with_nothing_to_count_costs_nothing() -> None:
    loss = the_loss(task(), Batch(images(), torch.full((2, 64, 80), 255)))
    assert loss.item() == 0.0
    loss.backward()


@pytest.mark.parametrize(
    ("skips", "expected"), [(0, ["pool5"]), (1, ["pool5", "conv5"]), (2, ["pool5", "conv5", "conv2"])]
)
def test_skips_read_the_deepest_map_of_each_finer_stride(skips: int, expected: list[str]) -> None:
    assert task(skips=skips).stages == expected


def test_skips_begin_without_a_say_and_learn() -> None:
    plain, skipping = task(), task(skips=2)
    skipping.head.coarse.load_state_dict(plain.head.coarse.state_dict())
    for objective in (plain, skipping):
        objective.head.eval()
    pixels = images()
    coarse = plain.head(plain.features(pixels))
    finest, stage = skipping.head(skipping.features(pixels))
    assert stage.stride == 4 and finest.shape[-2:] == (16, 20)
    centres = [stage.offset + stage.stride * np.arange(n) for n in (16, 20)]
    torch.testing.assert_close(finest, seg._resampled(*coarse, *centres))
    the_loss(skipping, Batch(pixels, masks())).backward()
    assert all(c.weight.grad.abs().sum() > 0 for c in skipping.head.finer.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stage": "conv9"}, "There is no stage 'conv9'.*Did you mean"),
        ({"skips": 4}, "head.skips = 4: the encoder has 3 finer stages; lower it"),
        ({"largest_stride": 1}, "head.largest_stride = 1: the encoder's strides are conv1 2, .*; raise it"),
        ({"fixed": ("konv1",)}, "There is no parameter of the encoder 'konv1'.*Did you mean 'conv1'"),
    ],
)
def test_what_the_encoder_does_not_have_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        task(**settings)


@pytest.mark.parametrize(("kernel", "offset"), [(1, 14.5), (2, 22.5), (3, 14.5), (6, 22.5)])
def test_scores_lie_in_the_middle_of_what_fc6_reads(kernel: int, offset: float) -> None:
    """pool5 of the tiny encoder looks 14.5 pixels in, 16 apart; an even kernel reads half a cell further on."""
    assert task(kernel=kernel).head.scored.offset == offset


@pytest.mark.parametrize("kernel", [1, 2, 3, 6])
def test_fc6_of_any_kernel_keeps_the_size_of_its_map(kernel: int) -> None:
    objective = task(kernel=kernel)
    features = objective.features(images())
    assert objective.head(features)[0].shape[-2:] == features["pool5"].shape[-2:]


def test_predictions_are_the_surest_class_at_the_size_of_the_file() -> None:
    objective = task(is_frozen=True)
    objective.head.eval()
    pixels = images(2, 64, 80)
    batch = Batch(torch.empty(2, 0), None, objective.features(pixels), torch.tensor([[64, 80], [64, 80]]))
    found = objective.predict(batch, [(64, 80), (128, 160)])
    assert [(f.shape, f.dtype) for f in found] == [((64, 80), np.uint8), ((128, 160), np.uint8)]
    logits = seg._at_pixels(objective.head(objective.features(pixels)), (64, 80), (64, 80))
    assert np.array_equal(found[0], logits[0].argmax(0).numpy())
    assert (found[1][::2, ::2] == logits[1].argmax(0).numpy()).mean() > 0.9  # the same picture, twice as large


def test_an_image_is_predicted_alike_alone_and_beside_others() -> None:
    objective = task(is_frozen=True)
    objective.head.eval()
    pixels = images(3)
    sizes = torch.tensor([[64, 80]] * 3)
    together = objective.predict(Batch(torch.empty(3, 0), None, objective.features(pixels), sizes), [(64, 80)] * 3)
    alone = objective.predict(Batch(torch.empty(1, 0), None, objective.features(pixels[1:2]), sizes[:1]), [(64, 80)])
    assert np.array_equal(together[1], alone[0])


def test_a_perfect_prediction_scores_exactly_one() -> None:
    truths = [m.numpy().astype(np.uint8) for m in masks(3)]
    predictions = [t.copy() for t in truths]
    truths[0][:20] = 255
    predictions[0][:20] = 1  # where nothing is counted, anything goes
    scores = task().score(zip(predictions, truths, strict=True))
    assert scores == dict.fromkeys(scores, 1.0)
    assert list(scores) == ["mIoU", "pixel accuracy", "mean class accuracy", *(f"IoU: {c}" for c in CLASSES)]


def test_a_frozen_head_learns_alone_and_fixed_parameters_stay() -> None:
    frozen = task(is_frozen=True).players()["segmenter"]
    assert not any(name.startswith("encoder") for name, _ in frozen.module.named_parameters())
    tuned = task(fixed=("conv1",), encoder=tiny_encoder("none"))
    groups = tuned.players()["segmenter"].groups
    learning = {id(p) for group in groups for p in group.parameters}
    for name, parameter in tuned.encoder.named_parameters():
        assert (id(parameter) in learning) == parameter.requires_grad == (not name.startswith("conv1")), name


@pytest.mark.parametrize("is_fixed", [True, False])
def test_batch_norm_keeps_its_statistics_where_asked(is_fixed: bool) -> None:
    objective = task(has_fixed_statistics=is_fixed)
    before = objective.encoder.norms[0].running_mean.clone()
    objective.players()["segmenter"].module.train()
    the_loss(objective, Batch(images(), masks()))
    assert torch.equal(objective.encoder.norms[0].running_mean, before) == is_fixed


def test_a_small_network_learns_a_picture_by_heart() -> None:
    objective = task(encoder=tiny_encoder(), largest_stride=4)
    pixels = torch.zeros(1, 3, 64, 64)
    pixels[:, 0, 16:48, 16:48] = 1.0
    labels = (pixels[:, 0] > 0).long()
    learn(objective, lambda: the_loss(objective, Batch(pixels, labels)), steps=60)
    batch = Batch(torch.empty(1, 0), None, objective.features(pixels), torch.tensor([[64, 64]]))
    scores = objective.score(zip(objective.predict(batch, [(64, 64)]), labels.numpy().astype(np.uint8), strict=True))
    assert scores["pixel accuracy"] > 0.95


def learn(objective: seg.Segmentation, loss_of: Callable[[], Tensor], steps: int) -> None:
    module = objective.players()["segmenter"].module.train()
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of().backward()
        optimizer.step()
    module.eval()
