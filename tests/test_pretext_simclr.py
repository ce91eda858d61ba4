import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import functional as vision

from ssl_inpaint.core import Batch, TrainingFacts
from ssl_inpaint.encoders.alexnet import AlexNet
from ssl_inpaint.encoders.alexnet import Config as AlexNetConfig
from ssl_inpaint.pretext import augmentations, simclr

PLAIN = {"jitter_probability": 0.0, "grey_probability": 0.0, "blur_probability": 0.0}  # crops and mirrors only


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, size: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=seeded(seed))


def task(channels: tuple[int, ...] = (4, 6, 8, 8, 6), **settings: object) -> simclr.SimCLR:
    torch.manual_seed(0)
    config = AlexNetConfig(channels=channels, stem="7x7/2", normalization="batch", initial_deviation=None)
    return simclr.build(simclr.Config(**settings), AlexNet(config), TrainingFacts(32))


# Crops


def test_a_whole_crop_is_the_image_and_a_mirrored_one_its_mirror() -> None:
    pixels = images(2, 7)
    whole, middle = torch.ones(2, 2), torch.zeros(2, 2)
    found = augmentations.crops(pixels, whole, middle, torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(found[0], pixels[0], rtol=0, atol=1e-5)  # places are rounded
    torch.testing.assert_close(found[1], pixels[1].flip(2), rtol=0, atol=1e-5)


def test_a_crop_is_its_window_made_larger() -> None:
    pixels = images(1, 32)
    sides, centres = torch.tensor([[0.5, 0.25]]), torch.tensor([[-0.5, 0.75]])  # columns 0 to 16, rows 24 to 32
    found = augmentations.crops(pixels, sides, centres, torch.ones(1))
    window = nn.functional.interpolate(pixels[..., 24:, :16], size=32, mode="bilinear")
    inner = (..., slice(4, -4), slice(2, -2))  # at its edges a crop blends with what lies beyond
    torch.testing.assert_close(found[inner], window[inner], rtol=0, atol=1e-5)


def test_crops_stay_inside_and_have_the_areas_and_aspects_of_the_paper() -> None:
    """Of an image whose red is its column and whose green is its row, the corners of a crop tell its window."""
    size, count = 64, 3000
    line = (torch.arange(size) + 0.5) / size
    ramp = torch.stack([line.expand(size, -1), line.expand(size, -1).T, torch.zeros(size, size)])
    found = augmentations.random_resized_crops(ramp.expand(count, -1, -1, -1), seeded(), 0.08)
    step = size / (size - 1)
    width = (found[:, 0, 32, -1] - found[:, 0, 32, 0]) * step
    height = (found[:, 1, -1, 32] - found[:, 1, 0, 32]) * step
    is_inner = (found[:, 0].amin(dim=(1, 2)) > 0.02) & (found[:, 0].amax(dim=(1, 2)) < 0.98)
    is_inner &= (found[:, 1].amin(dim=(1, 2)) > 0.02) & (found[:, 1].amax(dim=(1, 2)) < 0.98)
    area, aspect = (width.abs() * height)[is_inner], (width.abs() / height)[is_inner]
    assert 0.07 < area.min() < 0.1
    assert 0.74 < aspect.min() < 0.8
    assert 1.25 < aspect.max() < 1.35
    assert float((width < 0).float().mean()) == pytest.approx(0.5, abs=0.05)  # mirrored
    assert found.min() >= 0
    assert found.max() <= 1


# Colours


@pytest.mark.parametrize(
    ("own", "reference"),
    [
        (augmentations.scale_brightness, vision.adjust_brightness),
        (augmentations.scale_contrast, vision.adjust_contrast),
        (augmentations.scale_saturation, vision.adjust_saturation),
    ],
)
def test_colours_are_scaled_as_in_torchvision(own: object, reference: object) -> None:
    pixels, factors = images(5), torch.tensor([0.0, 0.4, 1.0, 1.3, 1.8])
    expected = torch.stack([reference(image, float(f)) for image, f in zip(pixels, factors, strict=True)])
    torch.testing.assert_close(own(pixels, factors), expected, rtol=0, atol=3e-4)  # its weight of red is 0.2989


def test_hue_turns_as_in_torchvision_and_a_third_of_a_turn_moves_channels_on() -> None:
    pixels, turns = images(5), torch.tensor([-0.5, -0.2, 0.0, 0.1, 0.33])
    expected = torch.stack([vision.adjust_hue(image, float(t)) for image, t in zip(pixels, turns, strict=True)])
    torch.testing.assert_close(augmentations.turn_hue(pixels, turns), expected, rtol=0, atol=1e-5)
    turned = augmentations.turn_hue(pixels, torch.full((5,), 1 / 3))
    torch.testing.assert_close(turned, pixels.roll(1, dims=1), rtol=0, atol=1e-5)


def test_grey_has_no_hue_to_turn() -> None:
    grey = torch.rand(2, 1, 8, 8, generator=seeded()).expand(-1, 3, -1, -1)
    torch.testing.assert_close(augmentations.turn_hue(grey, torch.tensor([0.1, 0.4])), grey)


def test_blur_is_torchvisions_inside_and_keeps_the_sum() -> None:
    pixels, deviations = images(4, 20), torch.tensor([0.1, 0.7, 1.3, 2.0])
    found = augmentations.blur(pixels, deviations, 3)
    expected = [vision.gaussian_blur(p, [7, 7], [float(d)] * 2) for p, d in zip(pixels, deviations, strict=True)]
    inner = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(found[inner], torch.stack(expected)[inner], rtol=0, atol=1e-5)
    flat = torch.full((1, 3, 9, 9), 0.3)
    torch.testing.assert_close(augmentations.blur(flat, torch.tensor([2.0]), 4), flat)
    assert torch.equal(augmentations.blur(flat, torch.tensor([2.0]), 0), flat)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_each_image_is_changed_or_not_by_a_draw_of_its_own(probability: float) -> None:
    pixels, count = images(1, 20).expand(600, -1, -1, -1), 600
    for found in (
        augmentations.random_colours(pixels, seeded(), 1.0, probability),
        augmentations.random_grey(pixels, seeded(), probability),
        augmentations.random_blur(pixels, seeded(), probability),
    ):
        is_changed = (found - pixels).abs().amax(dim=(1, 2, 3)) > 1e-4
        assert float(is_changed.float().mean()) == pytest.approx(probability, abs=0.2 * probability)
        assert len(found) == count
    colours = augmentations.random_colours(pixels, seeded(), 1.0, 1.0)
    assert len(colours.mean(dim=(2, 3)).unique(dim=0)) == count


def test_strength_zero_leaves_colours_as_they_are() -> None:
    found = augmentations.random_colours(images(4), seeded(), 0.0, 1.0)
    torch.testing.assert_close(found, images(4), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("count", "size"), [(1, 16), (3, 33), (4, 64)])
def test_views_are_images_of_the_same_size_and_the_generators_alone(count: int, size: int) -> None:
    objective, pixels = task(), images(count, size)
    view, again, other = (objective.draw_view(pixels, seeded(seed)) for seed in (1, 1, 2))
    assert view.shape == pixels.shape
    assert view.min() >= 0
    assert view.max() <= 1
    assert torch.equal(view, again)
    assert not torch.equal(view, other)
    assert torch.equal(pixels, images(count, size))


# The loss


def test_nt_xent_of_two_images_is_as_by_hand() -> None:
    """Unit vectors at 0 and 90 degrees, and their partners at 60 and 90: cosines 0.5, 0, 1 and sin 60 between them."""
    degrees = torch.tensor([0.0, 90.0, 60.0, 90.0]).deg2rad()
    vectors = torch.stack([degrees.cos(), degrees.sin()], dim=1) * torch.tensor([[1.0], [2.0], [3.0], [0.5]])
    near, half, right = math.exp(1 / 0.5), math.exp(0.5 / 0.5), math.exp(math.sqrt(0.75) / 0.5)
    losses = [
        -math.log(half / (1 + half + 1)),  # of the view at 0: beside it at 90, 60 (its partner), 90
        -math.log(near / (1 + right + near)),  # 90: 0, 60, 90
        -math.log(half / (half + right + right)),  # 60: 0, 90, 90
        -math.log(near / (1 + near + right)),  # 90: 0, 90, 60
    ]
    found = simclr.contrast(simclr.similarities_of(vectors, 0.5))
    assert float(found) == pytest.approx(sum(losses) / 4, rel=1e-5)


def test_a_view_is_never_its_own_negative_nor_its_partner_one() -> None:
    similarities = simclr.similarities_of(torch.randn(10, 4, generator=seeded()), 0.1)
    assert torch.equal(similarities.isinf(), torch.eye(10, dtype=torch.bool))
    rows = torch.arange(10)
    partners = simclr.partners(5)
    assert (partners != rows).all()
    assert torch.equal(partners[partners], rows)
    negatives = torch.ones(10, 10, dtype=torch.bool)
    negatives[rows, rows] = negatives[rows, partners] = False
    assert negatives.sum(dim=1).tolist() == [8] * 10  # 2 B - 2
    expected = (similarities.exp() * negatives).sum(dim=1)
    own = similarities[rows, partners].exp()
    torch.testing.assert_close(simclr.contrast(similarities), -(own / (own + expected)).log().mean())


def test_the_loss_does_not_care_for_the_order_of_images_nor_for_which_view_came_first() -> None:
    first, second = torch.randn(2, 6, 5, generator=seeded())
    order = torch.randperm(6, generator=seeded(1))

    def loss(one: Tensor, other: Tensor) -> Tensor:
        return simclr.contrast(simclr.similarities_of(torch.cat([one, other]), 0.5))

    expected = loss(first, second)
    torch.testing.assert_close(loss(first[order], second[order]), expected)
    torch.testing.assert_close(loss(second, first), expected)
    assert abs(float(loss(first[order], second) - expected)) > 1e-3


def test_the_loss_is_float32_whatever_the_vectors_are() -> None:
    vectors = torch.randn(8, 16, generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        found = simclr.similarities_of(vectors, 0.1)
    assert found.dtype == torch.float32
    assert torch.equal(found, simclr.similarities_of(vectors, 0.1))
    assert simclr.similarities_of(vectors.bfloat16(), 0.1).dtype == torch.float32


def test_a_lone_image_has_nothing_to_be_told_from() -> None:
    objective = task()
    objective.network.eval()
    values = objective.validate(Batch(images(1)), seeded())
    assert {name: float(value) for name, value in values.items()} == {
        "nt_xent": 0.0,
        "retrieval_accuracy": 1.0,
        "retrieval_chance": 1.0,
    }


def test_a_network_that_tells_nothing_apart_is_at_chance() -> None:
    similarities = simclr.similarities_of(torch.ones(64, 8), 0.5)
    assert float(simclr.contrast(similarities)) == pytest.approx(math.log(63), rel=1e-5)
    is_found = similarities.argmax(dim=1) == simclr.partners(32)
    assert is_found.float().mean() <= 2 / 63  # ties do not flatter


# The task


def test_both_views_go_through_the_network_at_once() -> None:
    """So BatchNorm sees all views alike, and its statistics do not tell the first ones from the second ones."""
    objective, seen = task(), list[Tensor]()
    objective.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ((name, loss),) = objective.losses(Batch(images(3)), seeded(5))
    assert (name, list(objective.players())) == ("contrast", ["contrast"])
    generator = seeded(5)
    expected = torch.cat([objective.draw_view(images(3), generator) for _ in range(2)])
    assert len(seen) == 1
    assert torch.equal(seen[0], expected)
    assert not torch.equal(seen[0][:3], seen[0][3:])
    assert loss.requires_grad


@pytest.mark.parametrize(("width", "hidden"), [(None, 6), (10, 10)])
def test_the_head_is_two_layers_with_batchnorm_after_each(width: int | None, hidden: int) -> None:
    head = task(projection_width=width, projection_channels=12).network["head"]
    kinds = [type(layer) for layer in head]
    assert kinds[2:] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d]
    assert (head[2].in_features, head[2].out_features, head[5].out_features) == (6, hidden, 12)
    assert head[2].bias is None
    assert head[5].bias is None


def test_weights_decay_and_biases_and_norms_do_not() -> None:
    player = task().players()["contrast"]
    decaying, others = player.groups
    assert (decaying.weight_decay_ratio, others.weight_decay_ratio) == (1.0, 0.0)
    assert all(p.ndim > 1 for p in decaying.parameters)
    held = [id(p) for group in player.groups for p in group.parameters]
    assert sorted(held) == sorted(id(p) for p in player.module.parameters())


def test_a_preview_shows_the_images_and_two_views_of_them() -> None:
    columns = task().preview(Batch(images(3)), seeded())
    assert list(columns) == ["input", "view", "output"]
    assert torch.equal(columns["input"], images(3))
    assert not torch.equal(columns["view"], columns["output"])


def histogram(views: Tensor) -> Tensor:
    """B x 24: the share of pixels in each of eight bins of each channel."""
    bins = (views * 8).long().clamp(max=7)
    return nn.functional.one_hot(bins.flatten(2), 8).float().mean(dim=2).flatten(1)


def retrieval_by_colour(**settings: object) -> float:
    """How often the nearest histogram among 2 B - 1 is the partner's, for textures with a palette of their own each."""
    count, size = 64, 32
    palettes = torch.rand(count, 3, 4, generator=seeded(1))
    chosen = torch.randint(4, (count, 1, size * size), generator=seeded(2)).expand(-1, 3, -1)
    textures = palettes.gather(2, chosen).view(count, 3, size, size)
    objective, generator = task(**settings), seeded(3)
    views = torch.cat([objective.draw_view(textures, generator) for _ in range(2)])
    distances = torch.cdist(histogram(views), histogram(views)).fill_diagonal_(torch.inf)
    return float((distances.argmin(dim=1) == simclr.partners(count)).float().mean())


def test_colours_alone_find_the_partner_without_jitter_and_rarely_with_it() -> None:
    assert retrieval_by_colour(**PLAIN) > 0.9
    assert retrieval_by_colour() < 0.3


def stripes(seed: int) -> Batch:
    """Stripes of eight angles and two widths, an image each, newly shifted by each seed."""
    place = torch.arange(32.0)
    angles = (torch.arange(16) // 2 * math.pi / 14).view(-1, 1, 1)  # a quarter turn: views are mirrored
    lengths = torch.tensor([3.5, 10.0]).repeat(8).view(-1, 1, 1)
    shifts = math.tau * torch.rand(16, 1, 1, generator=seeded(seed))
    waves = (math.tau / lengths * (angles.cos() * place + angles.sin() * place.view(-1, 1)) + shifts).sin()
    return Batch((0.5 + 0.4 * waves).unsqueeze(1).expand(-1, 3, -1, -1).contiguous())


def test_training_finds_partners_far_above_chance() -> None:
    """Chance is 1 in 31, and the bounds are eight times that and three quarters of its loss (seen: 15 times, 0.4)."""
    objective = task((8, 16, 16, 16, 16), smallest_area=0.5, jitter_strength=0.5, blur_probability=0, temperature=0.2)
    optimizer = torch.optim.Adam(objective.network.parameters(), 3e-3)
    for step in range(45):
        ((_, loss),) = objective.losses(stripes(step), seeded(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    objective.network.eval()
    values = objective.validate(stripes(1000), seeded())
    assert float(values["retrieval_chance"]) == pytest.approx(1 / 31)
    assert values["retrieval_accuracy"] > 8 * values["retrieval_chance"]
    assert values["nt_xent"] < 0.75 * math.log(31)
