import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint.core import Batch, Encoder, Stage, TrainingFacts
from ssl_inpaint.pretext import rotation


class TinyEncoder(Encoder):
    smallest_input = 4
    stages = {"conv1": Stage(8, 2), "conv2": Stage(16, 4)}

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        shallow = self.conv1(images - 0.5)
        return {"conv1": shallow, "conv2": self.conv2(shallow)}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=seeded(seed))


def task(size: int = 16, **settings: object) -> rotation.Rotation:
    torch.manual_seed(0)
    return rotation.build(rotation.Config(units=(16,), **settings), TinyEncoder(), TrainingFacts(size))


# The turns


@pytest.mark.parametrize(
    ("quarters", "expected"),
    [(0, [[1, 2], [3, 4]]), (1, [[2, 4], [1, 3]]), (2, [[4, 3], [2, 1]]), (3, [[3, 1], [4, 2]])],
)
def test_quarter_turns_go_counter_clockwise(quarters: int, expected: list[list[int]]) -> None:
    pixels = torch.tensor([[1.0, 2], [3, 4]]).expand(1, 3, 2, 2)
    found = rotation.turned(pixels, torch.tensor([quarters]))
    assert torch.equal(found, torch.tensor(expected).float().expand(1, 3, 2, 2))
    assert np.array_equal(found[0, 0].numpy(), np.rot90(pixels[0, 0].numpy(), quarters))


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_each_image_of_a_batch_is_turned_by_its_own_number(size: int) -> None:
    pixels, quarters = images(6, size), torch.tensor([3, 0, 1, 2, 2, 1])
    found = rotation.turned(pixels, quarters)
    for image, turned, quarter in zip(pixels, found, quarters.tolist(), strict=True):
        assert torch.equal(turned, image.rot90(quarter, (1, 2)))
    assert torch.equal(rotation.turned(found, -quarters % 4), pixels)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_turned_images_lie_in_memory_as_before(layout: torch.memory_format) -> None:
    pixels = images(4, 8).contiguous(memory_format=layout)
    assert rotation.turned(pixels, torch.arange(4)).is_contiguous(memory_format=layout)


def test_no_image_can_be_turned_too() -> None:
    assert rotation.turned(images(0, 8), torch.zeros(0, dtype=torch.int64)).shape == (0, 3, 8, 8)


# The shortcut: what a turn leaves behind


@pytest.mark.parametrize("size", [8, 9])
def test_every_turn_has_the_very_pixels_of_the_image(size: int) -> None:
    seen, _ = task(size).draw(images(3, size), seeded())
    pixels = seen.view(3, 4, 3, -1).sort(dim=-1).values
    assert torch.equal(pixels, pixels[:, :1].expand_as(pixels))


def interpolated(pixels: Tensor, labels: Tensor) -> Tensor:
    """Turns about the pixel in the middle instead of the point in the middle: a common slip, with zeros beyond."""
    size = pixels.shape[-1]
    cosine, sine = (torch.tensor(values).float()[labels] for values in ([1, 0, -1, 0], [0, 1, 0, -1]))
    slip = torch.full_like(cosine, 1 / size)
    rows = [
        torch.stack([cosine, -sine, slip - cosine * slip + sine * slip], dim=1),
        torch.stack([sine, cosine, slip - sine * slip - cosine * slip], dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, align_corners=False)


def probe_accuracy(features: Tensor, labels: Tensor, classes: int) -> float:
    """Of a linear least-squares probe: fitted on the first half, measured on the second."""
    rows = torch.cat([features, torch.ones(len(features), 1)], dim=1).double()
    half = len(rows) // 2
    weights = torch.linalg.pinv(rows[:half]) @ functional.one_hot(labels[:half], classes).double()
    return float(((rows[half:] @ weights).argmax(dim=1) == labels[half:]).double().mean())


def border_features(pixels: Tensor) -> Tensor:
    sides = [pixels[..., 0, :], pixels[..., -1, :], pixels[..., 0], pixels[..., -1]]
    return torch.stack([side.mean(dim=(1, 2)) for side in sides] + [pixels.var(dim=(1, 2, 3))], dim=1)


def test_borders_and_interpolation_give_no_turn_away() -> None:
    noise = images(800, 8)  # no way is up: whoever tells the turn has read it from how the turn was made
    labels = torch.randint(4, (800,), generator=seeded(1))
    assert probe_accuracy(border_features(interpolated(noise, labels)), labels, 4) > 0.95
    seen = rotation.turned(noise, labels)
    for features in (border_features(seen), seen.flatten(1)):
        assert abs(probe_accuracy(features, labels, 4) - 0.25) < 0.07  # four standard errors of 400 guesses


# The objective


def test_all_turns_come_one_after_another_and_draw_nothing() -> None:
    pixels, generator = images(2, 8), seeded(3)
    before = generator.get_state()
    seen, labels = task(8).draw(pixels, generator)
    assert torch.equal(generator.get_state(), before)
    assert labels.tolist() == [0, 1, 2, 3] * 2
    assert torch.equal(seen, torch.stack([image.rot90(k, (1, 2)) for image in pixels for k in range(4)]))


def test_one_turn_is_drawn_for_each_image_from_the_generator_alone() -> None:
    objective, pixels = task(8, turns="one"), images(40, 8)
    torch.manual_seed(1)
    seen, labels = objective.draw(pixels, seeded(5))
    torch.manual_seed(2)
    again, same = objective.draw(pixels, seeded(5))
    assert torch.equal(seen, again)
    assert torch.equal(labels, same)
    assert set(labels.tolist()) == {0, 1, 2, 3}
    assert not torch.equal(objective.draw(pixels, seeded(6))[1], labels)
    assert torch.equal(seen, rotation.turned(pixels, labels))


@pytest.mark.parametrize("turns", ["all", "one"])
@pytest.mark.parametrize("pooling", ["none", "average"])
def test_the_loss_is_the_cross_entropy_of_the_turns(turns: str, pooling: str) -> None:
    objective, pixels = task(turns=turns, pooling=pooling), images(3, 16)
    objective.network.eval()
    ((name, loss),) = objective.losses(Batch(pixels), seeded(5))
    seen, labels = objective.draw(pixels, seeded(5))
    maps = objective.encoder(seen)["conv2"]
    flat = maps.mean(dim=(2, 3)) if pooling == "average" else maps.flatten(1)
    logits = objective.network["head"][-4:](flat)
    torch.testing.assert_close(loss, -logits.log_softmax(dim=1)[torch.arange(len(labels)), labels].mean())
    assert list(objective.players()) == [name]


def test_the_classifier_may_be_linear() -> None:
    objective = rotation.build(rotation.Config(units=()), TinyEncoder(), TrainingFacts(16))
    ((_, loss),) = objective.losses(Batch(images(1, 16)), seeded())
    assert loss.isfinite()
    assert objective.network["head"][-1].in_features == 16 * 4 * 4


def upright(count: int, seed: int) -> Tensor:
    """Noise that is a little brighter at the top."""
    slope = torch.linspace(0.15, -0.15, 16).view(1, 1, 16, 1)
    return (0.5 * images(count, 16, seed) + 0.25 + slope).clamp(0, 1)


@pytest.mark.parametrize("turns", ["all", "one"])
def test_it_learns_which_way_is_up(turns: str) -> None:
    """Chance is 0.25; four times that, less a tenth, is asked of held-out images."""
    objective, held_out = task(turns=turns), Batch(upright(64, seed=99))
    optimizer = torch.optim.Adam(objective.network.parameters(), 1e-2)
    for step in range(40):
        ((_, loss),) = objective.losses(Batch(upright(16, seed=step)), seeded(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    objective.network.eval()
    values = objective.validate(held_out, seeded())
    assert values["accuracy"] > 0.9
    assert values["cross_entropy"] < 0.5
    columns = objective.preview(held_out, seeded())
    is_back = (columns["output"] == columns["truth"]).flatten(1).all(dim=1)
    assert torch.equal(columns["truth"], held_out.images)
    assert is_back.float().mean() > 0.8
    assert (columns["input"] != columns["truth"]).flatten(1).any(dim=1).float().mean() > 0.5


def test_validation_measures_all_turns_and_draws_nothing() -> None:
    pixels = images(5, 16)
    objective, same = task(turns="one"), task(turns="all")
    for network in (objective.network, same.network):
        network.eval()
    generator = seeded(7)
    before = generator.get_state()
    found, expected = objective.validate(Batch(pixels), generator), same.validate(Batch(pixels), seeded(8))
    assert torch.equal(generator.get_state(), before)
    assert found == expected
    assert float(found["accuracy"]) * 20 == pytest.approx(round(float(found["accuracy"]) * 20))
