import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint.core import Batch, Encoder, Stage, TrainingFacts
from ssl_inpaint.pretext import egomotion, tracking, views
from ssl_inpaint.pretext.views import Views


class TinyEncoder(Encoder):
    smallest_input = 16
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


def smooth(count: int, size: int, seed: int = 0, cell: int = 6) -> Tensor:
    """Clouds of colour, without what would alias."""
    coarse = torch.rand(count, 3, size // cell + 3, size // cell + 3, generator=seeded(seed))
    return functional.interpolate(coarse, scale_factor=cell, mode="bicubic").clamp(0, 1)[..., :size, :size]


def egomotion_task(size: int = 48, **settings: object) -> egomotion.Egomotion:
    torch.manual_seed(0)
    config = egomotion.Config(**{"channels": 8, "units": 32, **settings})
    return egomotion.build(config, TinyEncoder(), TrainingFacts(size))


def tracking_task(size: int = 48, **settings: object) -> tracking.Tracking:
    torch.manual_seed(0)
    return tracking.build(tracking.Config(**{"units": (32, 16), **settings}), TinyEncoder(), TrainingFacts(size))


def ramp(size: int) -> Tensor:
    """1 x 3 x size x size whose channels say where: x and y of each pixel's centre, in pixels; and 1."""
    at = torch.arange(size) + 0.5
    return torch.stack([at.expand(size, size), at[:, None].expand(size, size), torch.ones(size, size)])[None]


def view(x: float, y: float, side: float, degrees: float = 0.0, zoom: float = 0.0) -> Views:
    frames = views.turned(
        views.squares(torch.tensor([side])), torch.tensor([zoom]), torch.tensor([math.radians(degrees)])
    )
    return Views(torch.tensor([[x, y]]), frames)


# Views


@pytest.mark.parametrize(("x", "y", "size"), [(8.0, 8.0, 16), (5.0, 9.0, 6), (3.0, 13.0, 4)])
def test_a_view_on_whole_pixels_is_a_crop(x: float, y: float, size: int) -> None:
    pixels = images(1, 16)
    found = views.cut(pixels, view(x, y, size), size)
    left, top = int(x - size / 2), int(y - size / 2)
    torch.testing.assert_close(found, pixels[..., top : top + size, left : left + size])


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_turn_of_the_view_turns_what_is_seen_the_other_way(turns: int) -> None:
    pixels = images(1, 9)
    torch.testing.assert_close(views.cut(pixels, view(4.5, 4.5, 9, 90 * turns), 9), pixels.rot90(turns, (2, 3)))


def test_a_view_shows_the_places_that_its_frame_says() -> None:
    found = views.cut(ramp(32), view(14, 17, 8, degrees=30, zoom=0.5), 4)
    side = 8 * 2**0.5
    for row in range(4):
        for column in range(4):
            u, v = (column + 0.5) / 4 * side - side / 2, (row + 0.5) / 4 * side - side / 2
            cosine, sine = math.cos(math.radians(30)), math.sin(math.radians(30))
            expected = (14 + cosine * u - sine * v, 17 + sine * u + cosine * v, 1.0)
            assert found[0, :, row, column].tolist() == pytest.approx(expected, abs=1e-4)


def test_the_reach_is_that_of_the_corners() -> None:
    frames = torch.randn(20, 2, 2, generator=seeded())
    corners = torch.stack([a * frames[..., 0] + b * frames[..., 1] for a in (-1, 1) for b in (-1, 1)])
    torch.testing.assert_close(Views(torch.zeros(20, 2), frames).reach(), corners.amax(dim=0))


def test_placed_views_stay_together_and_inside_and_anywhere() -> None:
    first = Views(torch.zeros(500, 2), views.squares(torch.full((500,), 10.0)))
    second = Views(torch.tensor([4.0, -2.0]).expand(500, 2), views.squares(torch.full((500,), 6.0)))
    placed = views.place([first, second], 32, seeded())
    torch.testing.assert_close(placed[1].centres - placed[0].centres, second.centres)
    # x: from -5 to 7, 12 wide; y: from -5 to 5, 10 wide
    low, high = placed[0].centres.amin(dim=0), placed[0].centres.amax(dim=0)
    assert low.tolist() == pytest.approx([5.5, 5.5], abs=0.2)
    assert high.tolist() == pytest.approx([31.5 - 7, 31.5 - 5], abs=0.2)
    assert len(placed[0].centres.unique(dim=0)) == 500


def test_views_that_do_not_fit_are_the_callers_fault() -> None:
    square = Views(torch.zeros(1, 2), views.squares(torch.tensor([31.5])))
    with pytest.raises(ValueError, match=r"31.5 pixels do not fit into 31"):
        views.place([square], 32, seeded())


def test_autocast_moves_no_view() -> None:
    objective, pixels = egomotion_task(), images(2, 48)
    expected = objective._pair(pixels, seeded())[2]
    with torch.autocast("cpu", torch.bfloat16):
        found = objective._pair(pixels, seeded())[2]
    assert all(map(torch.equal, found, expected))


def test_evening_blurs_by_the_growth_of_the_view() -> None:
    spike = torch.zeros(2, 3, 15, 15)
    spike[..., 7, 7] = 1
    square = views.squares(torch.tensor([10.0, 20.0]))
    passes = views.evening_passes(2)
    assert passes == 2  # of half a square pixel each, for 0.72
    found = views.evened(spike, Views(torch.zeros(2, 2), square), 10, passes)
    assert torch.equal(found[0], spike[0])
    at = torch.arange(15) - 7.0
    spread = found[1, 0].sum(dim=0)
    assert float(spread.sum()) == pytest.approx(1)
    assert float((spread * at**2).sum()) == pytest.approx(views.BLUR * (2**2 - 1), rel=1e-4)
    assert (found >= 0).all()


# What no motion may show


TASKS = [egomotion_task, tracking_task]
WIDE = {"largest_shift": 0.5, "largest_zoom": 1.0, "largest_turn": 60.0}


def motionless(name: str, pixels: Tensor, seed: int, **settings: object) -> tuple[Tensor, Tensor]:
    """The pairs that a task shows, in the light they had."""
    if name == "egomotion":
        first, second = egomotion_task(pixels.shape[-1], **settings)._pair(pixels, seeded(seed))[2]
        return first, second
    light = {"brightness": 0.0, "contrast": 0.0, "colour": 0.0}
    return tracking_task(pixels.shape[-1], **light, **settings).pair(pixels, seeded(seed))


@pytest.mark.parametrize("name", ["egomotion", "tracking"])
@pytest.mark.parametrize("size", [32, 48, 97])
@pytest.mark.parametrize("settings", [{}, WIDE, {"fill": 1.0}])
def test_no_view_sees_beyond_the_border(name: str, size: int, settings: dict[str, float]) -> None:
    """The places that views show, by an image of its own coordinates: where a border is repeated they stand still."""
    pairs = motionless(name, ramp(size).expand(200, -1, -1, -1) / size, 3, **settings)
    for seen in pairs:
        places = seen[:, :2] * size
        assert places.min() >= 0.5 - 1e-3
        assert places.max() <= size - 0.5 + 1e-3
        across = (places[..., 1:] - places[..., :-1]).norm(dim=1)
        along = (places[..., 1:, :] - places[..., :-1, :]).norm(dim=1)
        for steps in (across, along):  # as wide everywhere as in the middle: the frame is not bent
            middle = steps[:, steps.shape[1] // 2, steps.shape[2] // 2, None, None]
            torch.testing.assert_close(steps, middle.expand_as(steps), rtol=0.03, atol=2e-3)


def sharpness(seen: Tensor) -> Tensor:
    """The logarithm of the mean squared step between neighbours, of each image."""
    return (seen[..., 1:] - seen[..., :-1]).square().mean(dim=(1, 2, 3)).log()


@pytest.mark.parametrize("name", ["egomotion", "tracking"])
def test_interpolation_does_not_tell_which_view_moved(name: str) -> None:
    """Noise is blurred most by interpolation: both views of a pair are, and by as much on average."""
    first, second = map(sharpness, motionless(name, images(400, 48), 1))
    untouched = sharpness(images(400, 48))
    assert (first < untouched.mean() - 3 * untouched.std()).all()  # no view is a plain crop
    assert (second < untouched.mean() - 3 * untouched.std()).all()
    difference = first - second
    assert difference.mean().abs() < 3 * difference.std() / 400**0.5
    assert float(first.std() / second.std()) == pytest.approx(1, abs=0.2)


def correlation(first: Tensor, second: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first, second]))[0, 1])


def test_one_view_alone_tells_nothing_of_shift_and_turn() -> None:
    objective, pixels = egomotion_task(), images(600, 48)
    _, motion, pair = objective._pair(pixels, seeded())
    for seen in pair:
        for component in (0, 1, 3):
            assert abs(correlation(sharpness(seen), motion[:, component])) < 0.15


def scale_free(count: int, size: int) -> Tensor:
    """Noise of 1 / f, which looks alike at any zoom, but for its pixels."""
    frequencies = torch.fft.fftfreq(size)
    radius = (frequencies[:, None].square() + frequencies.square()).sqrt()
    radius[0, 0] = math.inf
    noise = torch.randn(count, 3, size, size, generator=seeded())
    found = torch.fft.ifft2(torch.fft.fft2(noise) / radius).real
    return 0.5 + 0.15 * found / found.std(dim=(1, 2, 3), keepdim=True)


def test_sharpness_does_not_tell_the_zoom(monkeypatch: pytest.MonkeyPatch) -> None:
    """By how much sharper the second view is for each doubling: a shortcut if nothing were done about it."""
    slopes = []
    for blur in (views.BLUR, 0.0):
        monkeypatch.setattr(views, "BLUR", blur)
        _, motion, (first, second) = egomotion_task(64)._pair(scale_free(200, 64), seeded())
        change, zoom = sharpness(second) - sharpness(first), motion[:, 2]
        slopes.append(float((change * zoom).mean() / zoom.square().mean()))
    assert slopes[1] > 0.7
    assert abs(slopes[0]) < 0.3


# Egomotion


def test_the_bins_of_a_motion_are_even_and_come_back() -> None:
    objective = egomotion_task(bins=4, largest_shift=0.2, largest_zoom=0.4, largest_turn=20.0)
    motion = torch.tensor([[-0.2, -0.11, 0.21, math.radians(19.9)], [-0.09, 0.2, -0.19, math.radians(-0.1)]])
    labels = objective.labels(motion)
    assert labels.tolist() == [[0, 0, 3, 3], [1, 3, 1, 1]]
    middles = objective.motions(labels)
    assert middles[0].tolist() == pytest.approx([-0.15, -0.15, 0.3, math.radians(15)])
    assert torch.equal(objective.labels(middles), labels)


def test_every_bin_is_as_likely() -> None:
    objective = egomotion_task(bins=5)
    labels = objective.labels(objective.draw_motion(5000, seeded()))
    for component in range(4):
        counts = torch.bincount(labels[:, component], minlength=5)
        assert (counts - 1000).abs().max() < 130  # four and a half deviations of a binomial


def test_a_motion_leads_from_the_first_view_to_the_second() -> None:
    """Worked by hand: the shift is in sides of the view halfway, along its axes."""
    start = view(10, 20, 8)
    found = egomotion.moved(start, torch.tensor([[0.5, 0.0, 0.0, math.pi / 2]]))
    root = math.sqrt(0.5)
    assert found.centres[0].tolist() == pytest.approx([10 + 4 * root, 20 + 4 * root])  # halfway it is turned by 45°
    assert found.frames[0].flatten().tolist() == pytest.approx([0, -4, 4, 0], abs=1e-5)
    found = egomotion.moved(start, torch.tensor([[0.0, 0.25, 2.0, 0.0]]))
    assert found.centres[0].tolist() == pytest.approx([10, 24])  # a quarter of twice eight
    assert found.frames[0].flatten().tolist() == pytest.approx([16, 0, 0, 16])


def test_the_way_back_is_the_motion_reversed() -> None:
    motion = egomotion_task().draw_motion(50, seeded())
    start = Views(torch.zeros(50, 2), views.squares(torch.full((50,), 8.0)))
    back = egomotion.moved(egomotion.moved(start, motion), -motion)
    torch.testing.assert_close(back.centres, start.centres, rtol=0, atol=1e-5)
    torch.testing.assert_close(back.frames, start.frames, rtol=0, atol=1e-5)


def test_what_is_seen_is_what_the_labels_say() -> None:
    """The motion, found again from the coordinates that both views show."""
    objective = egomotion_task()
    placed, motion, pair = objective._pair(ramp(48).expand(20, -1, -1, -1), seeded())
    for shown, placement in zip(pair, placed, strict=True):
        torch.testing.assert_close(shown[:, :2].mean(dim=(2, 3)), placement.centres, rtol=0, atol=0.05)
    edges = [shown[:, :2, :, 1:].mean(dim=(2, 3)) - shown[:, :2, :, :-1].mean(dim=(2, 3)) for shown in pair]
    angles = [torch.atan2(edge[:, 1], edge[:, 0]) for edge in edges]
    torch.testing.assert_close(angles[1] - angles[0], motion[:, 3], rtol=0, atol=1e-2)
    zoom = (edges[1].norm(dim=1) / edges[0].norm(dim=1)).log2()
    torch.testing.assert_close(zoom, motion[:, 2], rtol=0, atol=1e-2)
    halfway = (angles[0] + angles[1]) / 2
    way = placed[1].centres - placed[0].centres
    side = objective.view_size * (edges[0].norm(dim=1) * edges[1].norm(dim=1)).sqrt()
    right = (way[:, 0] * halfway.cos() + way[:, 1] * halfway.sin()) / side
    torch.testing.assert_close(right, motion[:, 0], rtol=0, atol=1e-2)


def test_the_egomotion_loss_is_the_mean_cross_entropy_of_all_components() -> None:
    objective, pixels = egomotion_task(bins=3), images(4, 48)
    objective.network.eval()
    ((name, loss),) = objective.losses(Batch(pixels), seeded(5))
    _, motion, pair = objective._pair(pixels, seeded(5))
    logits, labels = objective.network(*pair).log_softmax(dim=2), objective.labels(motion)
    expected = [-logits[i, j, labels[i, j]] for i in range(4) for j in range(4)]
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    assert list(objective.players()) == [name]
    torch.testing.assert_close(objective.validate(Batch(pixels), seeded(5))["cross_entropy"], loss.detach())


def test_the_preview_of_a_right_answer_is_the_second_view() -> None:
    objective, pixels = egomotion_task(bins=500), smooth(3, 48)
    _, motion, pair = objective._pair(pixels, seeded(5))
    answer = functional.one_hot(objective.labels(motion), 500).float()
    objective.network.top = nn.Sequential(nn.Flatten(), FixedAnswer(answer.flatten(1)))
    columns = objective.preview(Batch(pixels), seeded(5))
    assert torch.equal(columns["input"], pair[0])
    assert torch.equal(columns["truth"], pair[1])
    # the bins are narrow, and the second view is evened
    torch.testing.assert_close(columns["output"], columns["truth"], rtol=0, atol=0.03)


class FixedAnswer(nn.Module):
    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, maps: Tensor) -> Tensor:
        return self.answer


def train(objective: egomotion.Egomotion | tracking.Tracking, steps: int, size: int) -> dict[str, float]:
    """Scores on held-out clouds."""
    network = next(iter(objective.players().values())).module
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    network.train()
    for step in range(steps):
        ((_, loss),) = objective.losses(Batch(smooth(32, size, seed=step)), seeded(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    values = objective.validate(Batch(smooth(128, size, seed=999)), seeded(7))
    return {name: float(value) for name, value in values.items()}


def test_it_learns_which_way_the_camera_went() -> None:
    """Two bins of each component, chance 0.5; 0.65 is asked of the shifts, which are learnt first; held-out images."""
    found = train(egomotion_task(32, bins=2, largest_shift=0.4, units=64, channels=32), 80, 32)
    assert found["shift_accuracy"] > 0.65
    assert found["accuracy"] > 0.55


# Tracking


def test_the_ranking_loss_is_that_of_the_paper() -> None:
    near, others = torch.tensor([0.9, 0.2]), torch.tensor([[0.1, 0.6], [0.5, -1.0]])
    # 1 - 0.9 - (1 - 0.1) + 0.5 < 0; 0.1 - 0.4 + 0.5; 0.8 - 0.5 + 0.5; 0.8 - 2 + 0.5 < 0
    assert float(tracking.ranking_loss(near, others, 0.5)) == pytest.approx((0 + 0.2 + 0.8 + 0) / 4)
    assert float(tracking.ranking_loss(near, others[:, :0], 0.5)) == 0


def test_negatives_are_patches_of_other_images() -> None:
    objective, pixels = tracking_task(), images(5, 48)
    objective.network.eval()
    patch, tracked = objective.pair(pixels, seeded())
    with torch.no_grad():
        near, others = objective._similarities(patch, tracked)
        first, second = objective.network(patch), objective.network(tracked)
    for i in range(5):
        assert float(near[i]) == pytest.approx(float(first[i] @ second[i]), abs=1e-5)
        for j in range(5):
            for column, feature in ((j, first[j]), (5 + j, second[j])):
                expected = -math.inf if i == j else float(first[i] @ feature)
                assert float(others[i, column]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("steps", "is_hard"), [(0, False), (2, False), (3, True), (9, True)])
def test_negatives_are_random_and_then_the_hardest(steps: int, is_hard: bool) -> None:
    objective, pixels = tracking_task(random_steps=3, negatives=2), images(6, 48)
    objective.network.eval()
    objective.network.steps.fill_(steps)
    ((_, loss),) = objective.losses(Batch(pixels), seeded(5))
    near, others = objective._similarities(*objective.pair(pixels, seeded(5)))
    hardest = others.sort(dim=1, descending=True).values[:, :2]
    expected = tracking.ranking_loss(near, hardest, 0.5)
    assert bool(torch.isclose(loss, expected)) == is_hard
    assert loss <= expected + 1e-6


def test_steps_are_counted_in_training_only_and_kept_in_the_checkpoint() -> None:
    objective = tracking_task()
    for _ in range(3):
        next(iter(objective.losses(Batch(images(3, 48)), seeded())))
    objective.network.eval()
    next(iter(objective.losses(Batch(images(3, 48)), seeded())))
    objective.validate(Batch(images(3, 48)), seeded())
    assert int(objective.network.state_dict()["steps"]) == 3


def test_random_negatives_are_drawn_without_the_images_own_and_without_repeats() -> None:
    objective, pixels = tracking_task(negatives=100), images(3, 48)
    objective.network.eval()
    ((_, loss),) = objective.losses(Batch(pixels), seeded(5))
    near, others = objective._similarities(*objective.pair(pixels, seeded(5)))
    every = others[others > -math.inf].view(3, 4)  # of fewer than asked for, all
    torch.testing.assert_close(loss, tracking.ranking_loss(near, every, 0.5))


def test_an_image_alone_counts_for_nothing() -> None:
    objective = tracking_task()
    objective.network.eval()
    ((_, loss),) = objective.losses(Batch(images(1, 48)), seeded())
    loss.backward()
    assert float(loss.detach()) == 0
    values = objective.validate(Batch(images(1, 48)), seeded())
    assert {name: float(value) for name, value in values.items()} == {
        "accuracy": 1,
        "nearest_accuracy": 1,
        "ranking_loss": 0,
    }


def test_accuracies_count_other_images_patches() -> None:
    objective, pixels = tracking_task(), images(6, 48)
    objective.network.eval()
    values = objective.validate(Batch(pixels), seeded(5))
    with torch.no_grad():
        near, others = objective._similarities(*objective.pair(pixels, seeded(5)))
    every = others[others > -math.inf].view(6, 10)
    assert float(values["accuracy"]) == pytest.approx(float((near[:, None] > every).float().mean()))
    assert float(values["nearest_accuracy"]) == pytest.approx(float((near > every.amax(dim=1)).float().mean()))


def triplets_right(first: Tensor, second: Tensor) -> float:
    """How often the tracked patch has the nearest vector: of N x D each, by squared distance."""
    distances = (first[:, None] - second).square().sum(dim=2)
    is_right = distances.diagonal()[:, None] < distances
    return float(is_right.float().sum() / (len(first) * (len(first) - 1)))


def test_the_mean_colour_is_no_safe_sign() -> None:
    """Plain colours, not far from one another: without the change of light the mean colour always tells."""
    pixels = (0.4 + 0.2 * torch.rand(100, 3, 1, 1, generator=seeded())).expand(-1, -1, 48, 48)
    for light, low, high in (({"brightness": 0.0, "contrast": 0.0, "colour": 0.0}, 0.99, 1.0), ({}, 0.4, 0.65)):
        patch, tracked = tracking_task(**light).pair(pixels, seeded(1))
        assert low <= triplets_right(patch.mean(dim=(2, 3)), tracked.mean(dim=(2, 3))) <= high


def test_light_keeps_images_in_range_and_is_each_patchs_own() -> None:
    objective, pixels = tracking_task(), images(1, 48).expand(8, -1, -1, -1)
    patch, tracked = objective.pair(pixels, seeded())
    assert min(float(p.min()) for p in (patch, tracked)) >= 0
    assert max(float(p.max()) for p in (patch, tracked)) <= 1
    means = torch.cat([patch, tracked]).mean(dim=(2, 3))
    assert len(means.unique(dim=0)) == 16


def test_features_have_length_one() -> None:
    found = tracking_task().network.eval()(images(3, 24))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


def test_the_nearest_patch_is_shown() -> None:
    objective, pixels = tracking_task(), smooth(5, 48)
    objective.network.eval()
    columns = objective.preview(Batch(pixels), seeded(5))
    patch, tracked = objective.pair(pixels, seeded(5))
    assert torch.equal(columns["input"], patch)
    assert torch.equal(columns["truth"], tracked)
    with torch.no_grad():
        first, second = objective.network(patch), objective.network(tracked)
    for i in range(5):
        candidates = [(float(first[i] @ second[j]), tracked[j]) for j in range(5)]
        candidates += [(float(first[i] @ first[j]), patch[j]) for j in range(5) if j != i]
        assert torch.equal(columns["output"][i], max(candidates, key=lambda pair: pair[0])[1])


def test_it_learns_to_know_patches_again() -> None:
    """Chance is 0.5; 0.85 is asked, and more than the 0.75 or so of random weights, on held-out images."""
    untrained = train(tracking_task(32), 0, 32)
    found = train(tracking_task(32, units=(64, 32)), 80, 32)
    assert found["accuracy"] > max(0.85, untrained["accuracy"] + 0.05)
    assert found["nearest_accuracy"] > 1.5 * untrained["nearest_accuracy"]


# Both


@pytest.mark.parametrize("task", TASKS)
def test_the_draws_are_the_generators_alone(task: object) -> None:
    assert callable(task)
    objective, pixels = task(), images(3, 48)
    next(iter(objective.players().values())).module.eval()
    found = []
    for seed, state in ((1, 0), (1, 5), (2, 0)):
        torch.manual_seed(state)  # the global state has no say
        found.append(next(iter(objective.losses(Batch(pixels), seeded(seed))))[1].item())
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("size", "shown"), [(16, 16), (48, None), (200, None)])
def test_views_are_shown_as_they_are_or_as_small_as_the_encoder_takes(task: object, size: int, shown: int) -> None:
    assert callable(task)
    objective = task(size)
    columns = objective.preview(Batch(images(2, size)), seeded())
    expected = shown or round(objective.side)
    assert {maps.shape for maps in columns.values()} == {(2, 3, expected, expected)}


def test_an_encoder_of_one_size_is_shown_that_size() -> None:
    encoder = TinyEncoder()
    encoder.is_fixed = True
    assert views.shown_size(encoder, 50) == 16
    assert views.shown_size(TinyEncoder(), 50.4) == 50


def test_the_rows_say_that_motion_is_synthetic() -> None:
    for part in (egomotion, tracking):
        assert part.method_name(part.Config()).endswith("(synthetic)")
        assert "synthetic" in (part.__doc__ or "")
