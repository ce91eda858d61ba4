import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint import checkpoint, colours
from ssl_inpaint.core import Batch, Encoder, Stage, TrainingFacts
from ssl_inpaint.pretext import colorization
from ssl_inpaint.pretext.colorization import Colorization, colour_bins


class TinyEncoder(Encoder):
    smallest_input = 4
    stages = {"conv1": Stage(16, 2), "conv2": Stage(32, 4)}

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, 16, 5, 2, 2), nn.BatchNorm2d(16), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        shallow = self.conv1(images - 0.5)
        return {"conv1": shallow, "conv2": self.conv2(shallow)}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=seeded(seed))


def task(**settings: object) -> Colorization:
    torch.manual_seed(0)
    config = colorization.Config(**{"decoder_channels": (16,), **settings})
    return colorization.build(config, TinyEncoder(), TrainingFacts(16))


def bin_of(a: int, b: int) -> int:
    return colour_bins().index((a, b))


# The bins


def test_bins_are_the_cells_of_the_grid_that_hold_a_colour() -> None:
    bins = colour_bins()
    assert len(bins) == len(set(bins)) == 261
    assert {value % 10 for pair in bins for value in pair} == {0}
    for inside in ((0, 0), (-80, 80), (80, 70), (80, -60), (100, -60)):  # grey, and near green, red and magenta
        assert inside in bins
    for outside in ((-80, -80), (0, 100), (110, 0), (-100, 0)):
        assert outside not in bins


def test_no_colour_is_farther_from_its_bin_than_a_cell_is_wide() -> None:
    ab = colours.to_lab(images(50, 32))[:, 1:].permute(0, 2, 3, 1).reshape(-1, 2)
    cells = {(int(a), int(b)) for a, b in ((ab / 10).round() * 10).tolist()}
    assert cells <= set(colour_bins())


# Dividing colours among bins


def test_a_colour_in_the_middle_of_a_bin_is_divided_with_its_four_neighbours() -> None:
    shares = task().network.encode(torch.tensor([20.0, -10.0]).view(1, 2, 1, 1))[0, :, 0, 0]
    near = math.exp(-(10**2) / (2 * 5**2))
    expected = torch.zeros(261)
    expected[bin_of(20, -10)] = 1 / (1 + 4 * near)
    for neighbour in ((10, -10), (30, -10), (20, 0), (20, -20)):
        expected[bin_of(*neighbour)] = near / (1 + 4 * near)
    torch.testing.assert_close(shares, expected)


def test_shares_are_gaussians_of_the_distance_to_the_nearest_bins() -> None:
    """Against a loop over places with plain sorting."""
    objective = task(neighbours=3, spread=8.0)
    ab = colours.to_lab(images(2, 4))[:, 1:]
    found = objective.network.encode(ab)
    assert found.shape == (2, 261, 4, 4)
    for sample, y, x in ((0, 0, 0), (0, 3, 1), (1, 2, 2)):
        a, b = ab[sample, :, y, x].tolist()
        distances = [(a - p) ** 2 + (b - q) ** 2 for p, q in colour_bins()]
        nearest = sorted(range(261), key=distances.__getitem__)[:3]
        kernel = {i: math.exp(-distances[i] / (2 * 8**2)) for i in nearest}
        expected = torch.tensor([kernel.get(i, 0.0) / sum(kernel.values()) for i in range(261)])
        torch.testing.assert_close(found[sample, :, y, x], expected, rtol=1e-4, atol=1e-5)


def test_one_neighbour_is_the_nearest_bin_alone() -> None:
    shares = task(neighbours=1).network.encode(torch.tensor([3.0, -4.0]).view(1, 2, 1, 1))
    assert shares.flatten().nonzero().tolist() == [[bin_of(0, 0)]]
    assert float(shares.max()) == 1


# Rare colours


def test_weights_are_one_over_the_mixed_distribution_and_one_on_average() -> None:
    network = task(uniform_share=0.5).network
    network.distribution.zero_()
    network.distribution[:2] = torch.tensor([0.75, 0.25])
    found = network.weights()
    plain = [1 / (0.5 * p + 0.5 / 261) for p in (0.75, 0.25, 0)]
    mean = 0.75 * plain[0] + 0.25 * plain[1]
    assert found[:3].tolist() == pytest.approx([value / mean for value in plain], rel=1e-4)
    assert float((network.distribution * found).sum()) == pytest.approx(1)


def test_with_nothing_but_the_uniform_share_all_colours_weigh_the_same() -> None:
    network = task(uniform_share=1.0).network
    network.distribution.copy_(torch.rand(261, generator=seeded()).softmax(dim=0))
    torch.testing.assert_close(network.weights(), torch.ones(261))


def test_the_distribution_is_the_mean_over_the_training_batches_and_no_others() -> None:
    objective = task()
    batches = [images(3, 16, seed) for seed in range(3)]
    for pixels in batches:
        next(iter(objective.losses(Batch(pixels), seeded())))
    shares = [objective._targets(pixels, (8, 8))[0].mean(dim=(0, 2, 3)) for pixels in batches]
    torch.testing.assert_close(objective.network.distribution, torch.stack(shares).mean(dim=0))
    before = objective.network.distribution.clone()
    objective.network.eval()
    objective.validate(Batch(images(3, 16, seed=9)), seeded())
    next(iter(objective.losses(Batch(images(3, 16, seed=9)), seeded())))
    assert torch.equal(objective.network.distribution, before)


def test_a_resumed_run_knows_the_distribution() -> None:
    objective, again = task(), task()
    next(iter(objective.losses(Batch(images(3, 16)), seeded())))
    again.network.load_state_dict(objective.network.state_dict())
    assert torch.equal(again.network.weights(), objective.network.weights())
    assert int(again.network.steps) == 1


# What the network sees


def test_colour_is_never_seen() -> None:
    """The shortcut of this task: the answer is in the images that batches hold."""
    objective, pixels, seen = task(), images(4, 16), []
    objective.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    next(iter(objective.losses(Batch(pixels), seeded())))
    objective.validate(Batch(pixels), seeded())
    objective.preview(Batch(pixels), seeded())
    assert len(seen) == 3
    for shown in seen:
        assert torch.equal(shown[:, 0], shown[:, 1])
        assert torch.equal(shown[:, 0], shown[:, 2])
        torch.testing.assert_close(colours.to_lab(shown)[:, 0], colours.to_lab(pixels)[:, 0], rtol=0, atol=1e-3)


def test_images_that_differ_in_colour_only_get_the_same_answer() -> None:
    objective = task()
    objective.network.eval()
    first = colours.to_lab(0.2 * images(2, 16) + 0.4)
    second = torch.cat([first[:, :1], -first[:, 1:]], dim=1)
    with torch.no_grad():
        answers = [objective.network(colours.from_lab(lab)) for lab in (first, second)]
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-3, atol=1e-4)


def test_with_a_grey_encoder_all_is_the_same() -> None:
    """So transfer with grey:compact_alexnet sees what pretraining saw."""
    settings = {"settings": '{"channels": [2, 4, 4, 4, 2]}'}
    encoder, _ = checkpoint.build_encoder("grey:compact_alexnet", settings, seed=0)
    losses = []
    for used in (encoder, encoder.inner):
        torch.manual_seed(0)
        objective = colorization.build(colorization.Config(decoder_channels=(4,)), used, TrainingFacts(64))
        objective.network.eval()
        losses.append(next(iter(objective.losses(Batch(images(2, 64)), seeded())))[1])
    torch.testing.assert_close(losses[0], losses[1])


def test_grey_images_count_for_nothing() -> None:
    objective = task()
    coloured, grey = images(2, 16), colours.grey(images(2, 16, seed=1))
    ((_, loss),) = objective.losses(Batch(torch.cat([coloured, grey])), seeded())
    (gradient,) = torch.autograd.grad(loss, objective.network.decoder[-1].bias)
    assert gradient.abs().max() > 0
    before = objective.network.distribution.clone()
    ((_, loss),) = objective.losses(Batch(grey), seeded())
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(objective.network.distribution, before)
    assert not any(p.grad.abs().max() for p in objective.network.parameters() if p.grad is not None)
    objective.network.eval()
    assert all(value == 0 for value in objective.validate(Batch(grey), seeded()).values())


# The loss and the scores


def test_the_loss_is_the_weighted_cross_entropy_with_divided_colours() -> None:
    objective, pixels = task(), images(3, 16)
    next(iter(objective.losses(Batch(images(4, 16, seed=5)), seeded())))  # some distribution
    objective.network.eval()
    ((name, loss),) = objective.losses(Batch(pixels), seeded())
    ab = functional.avg_pool2d(colours.to_lab(pixels)[:, 1:], 2)  # 16 pixels to the 8 of conv2, doubled once
    shares = objective.network.encode(ab)
    logits = objective.network(pixels)
    assert logits.shape == (3, 261, 8, 8)
    total, weights = 0.0, objective.network.weights()
    for sample in range(3):
        for place in range(64):
            share = shares[sample].flatten(1)[:, place]
            entropy = -(share * logits[sample].flatten(1)[:, place].detach().log_softmax(dim=0)).sum()
            total += float(weights[int(share.argmax())] * entropy)
    assert float(loss.detach()) == pytest.approx(total / (3 * 64), rel=1e-4)
    assert list(objective.players()) == [name]


def test_the_constant_answer_is_the_best_without_looking() -> None:
    objective, pixels = task(), images(6, 16)
    next(iter(objective.losses(Batch(pixels), seeded())))
    objective.network.eval()
    values = objective.validate(Batch(pixels), seeded())
    shares, is_coloured = objective._targets(pixels, (8, 8))
    weights = objective._weights(shares, is_coloured).flatten()
    truth = shares.argmax(dim=1).flatten()
    by_bin = torch.zeros(261).index_add(0, truth, weights) / weights.sum()
    assert 0 < values["constant_accuracy"] <= by_bin.max() + 1e-6
    flat = -(shares.mean(dim=(0, 2, 3)) * torch.full((261,), 1 / 261).log()).sum()
    assert values["constant_cross_entropy"] < flat


@pytest.mark.parametrize("size", [4, 15, 17])
@pytest.mark.parametrize("count", [1, 3])
def test_any_size_will_do(size: int, count: int) -> None:
    objective = task()
    objective.network.eval()
    ((_, loss),) = objective.losses(Batch(images(count, size)), seeded())
    assert loss.isfinite()
    assert all(value.isfinite() for value in objective.validate(Batch(images(count, size)), seeded()).values())
    assert {v.shape for v in objective.preview(Batch(images(count, size)), seeded()).values()} == {
        (count, 3, size, size)
    }


def striped(count: int, seed: int) -> Tensor:
    """Stripes of any phase: upright ones are orange, lying ones blue. Both are about as light."""
    draws = torch.rand(count, 2, generator=seeded(seed))
    waves = 0.5 + 0.3 * torch.sin(torch.arange(16) * 1.3 + 6.3 * draws[:, :1])
    is_upright = (draws[:, 1] < 0.5)[:, None, None]
    pattern = torch.where(is_upright, waves[:, None, :].expand(-1, 16, -1), waves[:, :, None].expand(-1, -1, 16))
    orange, blue = torch.tensor([1.0, 0.5, 0.3]), torch.tensor([0.3, 0.6, 1.0])
    return pattern[:, None] * torch.where(is_upright[:, 0], orange, blue)[:, :, None, None]


def test_it_learns_colours_from_patterns() -> None:
    """Four times as many bins found as by the best constant answer, on held-out images."""
    objective = task()
    optimizer = torch.optim.Adam(objective.network.parameters(), 1e-2)
    for step in range(30):
        ((_, loss),) = objective.losses(Batch(striped(32, seed=step)), seeded(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    objective.network.eval()
    held_out = Batch(striped(64, seed=99))
    values = objective.validate(held_out, seeded())
    assert values["accuracy"] > 4 * values["constant_accuracy"]
    assert values["cross_entropy"] < values["constant_cross_entropy"] - 0.5
    columns = objective.preview(held_out, seeded())
    assert list(columns) == ["input", "output", "truth"]
    found, truth, plain = (colours.to_lab(columns[name])[:, 1:] for name in ("output", "truth", "input"))
    assert (found - truth).abs().mean() < 0.6 * (plain - truth).abs().mean()
    torch.testing.assert_close(colours.grey(columns["output"]), columns["input"], rtol=0, atol=0.05)
