"""Relative position and jigsaw: where patches are cut, what answers mean, and that the known shortcuts are closed."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint.core import Batch, Encoder, Pretext, Stage, TrainingFacts
from ssl_inpaint.errors import UsageError
from ssl_inpaint.images import IMAGENET_DEVIATION, IMAGENET_MEAN
from ssl_inpaint.pretext import jigsaw, patches, relative_position

OPEN = {"is_normalised": False}  # no guard but those that a test names
SEED = 3


class TinyEncoder(Encoder):
    stages = {"conv1": Stage(16, 2), "conv2": Stage(16, 4)}

    def __init__(self, smallest_input: int = 4) -> None:
        super().__init__()
        self.smallest_input = smallest_input
        self.conv1 = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        shallow = self.conv1(images - 0.5)
        return {"conv1": shallow, "conv2": self.conv2(shallow)}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=seeded(seed))


def neighbours(size: int = 64, smallest_input: int = 4, **settings: object) -> relative_position.RelativePosition:
    torch.manual_seed(0)
    config = relative_position.Config(**{"pairs": "one", "units": 32, "fused_units": 32, **settings})
    return relative_position.build(config, TinyEncoder(smallest_input), TrainingFacts(size))


def puzzle(size: int = 63, smallest_input: int = 4, **settings: object) -> jigsaw.Jigsaw:
    torch.manual_seed(0)
    config = jigsaw.Config(**{"orders": 10, "units": 16, "fused_units": 32, **settings})
    return jigsaw.build(config, TinyEncoder(smallest_input), TrainingFacts(size))


# Cutting, enlarging, laying out


def test_patches_are_cut_where_their_corners_say() -> None:
    pixels = torch.arange(2 * 3 * 4 * 5).float().view(2, 3, 4, 5)
    corners = torch.tensor([[[0, 0], [2, 3]], [[1, 2], [0, 3]]])
    found = patches.cut(pixels, corners[:, :, None], 2)
    assert found.shape == (2, 2, 3, 2, 2)
    for sample, number in itertools.product(range(2), range(2)):
        row, column = corners[sample, number].tolist()
        assert torch.equal(found[sample, number], pixels[sample, :, row : row + 2, column : column + 2])


def test_each_channel_may_have_a_corner_of_its_own() -> None:
    pixels = images(1, 6)
    corners = torch.tensor([[0, 1], [2, 2], [3, 0]]).view(1, 1, 3, 2)
    expected = torch.stack([pixels[0, 0, 0:3, 1:4], pixels[0, 1, 2:5, 2:5], pixels[0, 2, 3:6, 0:3]])
    assert torch.equal(patches.cut(pixels, corners, 3)[0, 0], expected)


def test_only_patches_that_are_too_small_are_enlarged() -> None:
    small = images(6, 4).view(2, 3, 3, 4, 4)
    assert patches.enlarged(small, 4) is small
    assert patches.enlarged(small, 3) is small
    larger = patches.enlarged(small, 7)
    assert larger.shape == (2, 3, 3, 7, 7)
    torch.testing.assert_close(patches.enlarged(torch.full_like(small, 0.3), 7), torch.full_like(larger, 0.3))


@pytest.mark.parametrize("make", [neighbours, puzzle])
@pytest.mark.parametrize(("smallest_input", "side"), [(4, None), (32, 32)])
def test_the_encoder_is_shown_its_smallest_input_at_least(make: type, smallest_input: int, side: int | None) -> None:
    objective = make(64, smallest_input=smallest_input)
    seen, _ = objective.draw(images(2, 64), seeded())
    assert seen.shape[-1] == (side or objective.side)
    assert objective.network(seen).shape[0] == 2


def test_a_board_is_in_reading_order_on_grey() -> None:
    tiles = torch.linspace(0.1, 0.9, 9).view(1, 9, 1, 1, 1).expand(1, 9, 3, 4, 4)
    found = patches.board(tiles)
    assert found.shape == (1, 3, 18, 18)
    torch.testing.assert_close(found[0, 0, 3::6, 3::6].flatten(), torch.linspace(0.1, 0.9, 9))
    assert (found[..., ::6, :] == 0.5).all()


# Normalisation and colours


def test_normalised_patches_have_the_usual_mean_and_deviation() -> None:
    seen = patches.normalised(images(8, 6).view(2, 4, 3, 6, 6))
    mean, deviation = (torch.tensor(values) for values in (IMAGENET_MEAN, IMAGENET_DEVIATION))
    torch.testing.assert_close(seen.mean(dim=(-2, -1)), mean.expand(2, 4, 3))
    scaled = (seen - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    torch.testing.assert_close(scaled.square().mean(dim=(-3, -2, -1)), torch.ones(2, 4))


def test_brightness_tint_and_contrast_of_a_patch_leave_no_trace() -> None:
    plain, tint = images(4, 6).view(2, 2, 3, 6, 6), torch.tensor([0.1, -0.3, 0.2]).view(3, 1, 1)
    torch.testing.assert_close(patches.normalised(0.4 * plain + tint), patches.normalised(plain))


def test_a_flat_patch_is_normalised_to_one_colour() -> None:
    seen = patches.normalised(torch.full((1, 1, 3, 4, 4), 0.2))
    torch.testing.assert_close(seen, torch.tensor(IMAGENET_MEAN).view(3, 1, 1).expand(1, 1, 3, 4, 4))


def test_dropping_colours_keeps_one_channel_and_makes_faint_noise_of_the_others() -> None:
    pairs = images(200, 8).view(100, 2, 3, 8, 8)
    found = relative_position.drop_colours(pairs, seeded())
    is_kept = (found == pairs).flatten(3).all(dim=-1)
    assert (is_kept.sum(dim=-1) == 1).all()
    assert set(is_kept.int().argmax(dim=-1).flatten().tolist()) == {0, 1, 2}
    assert (is_kept[:, 0] != is_kept[:, 1]).any()  # each patch has its own
    kept = found[is_kept]
    deviation, mean = torch.std_mean(kept, dim=(1, 2), correction=0)
    noise = found[~is_kept].view(200, 2, 64)
    torch.testing.assert_close(noise.mean(dim=(1, 2)), mean, rtol=0, atol=0.002)  # 0.0003 expected
    ratio = ((noise - mean.view(-1, 1, 1)).square().mean(dim=(1, 2)).sqrt() / deviation).mean()
    assert float(ratio) == pytest.approx(0.01, rel=0.02)


def test_projection_takes_green_magenta_away_and_nothing_else() -> None:
    colours = torch.tensor([[0.4, 0.4, 0.4], [0, 1, 0], [0.5, 0.3, 0.1], [1, 0, 1]]).view(1, 4, 3, 1, 1)
    expected = torch.tensor([[0.4, 0.4, 0.4], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.3, 0.1], [2 / 3, 2 / 3, 2 / 3]])
    torch.testing.assert_close(relative_position.without_green_magenta(colours).view(4, 3), expected)


def test_grey_is_the_luminance() -> None:
    found = jigsaw.grey(torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1))
    torch.testing.assert_close(found, torch.full((1, 3, 1, 1), 0.5925))


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_grey_images_have_grey_tiles(probability: float) -> None:
    tiles, _ = puzzle(64, grey_probability=probability, **OPEN).draw(images(100, 64), seeded())
    is_grey = (tiles == tiles[:, :, :1]).flatten(1).all(dim=1)
    assert float(is_grey.float().mean()) == pytest.approx(probability, abs=0.2 if probability == 0.5 else 0)


# Relative position: geometry and answers

DIRECTIONS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


@pytest.mark.parametrize("size", [17, 33, 64, 96, 227])
def test_neighbours_lie_where_their_label_says_and_inside_the_image(size: int) -> None:
    objective = neighbours(size)
    labels = torch.arange(8).repeat(100)
    corners = objective.corners(labels[:, None], seeded())
    assert corners.min() >= 0
    assert corners.max() + objective.side <= size
    step, pitch = corners[:, 1] - corners[:, 0], objective.side + objective.gap
    assert (step - torch.tensor(DIRECTIONS).repeat(100, 1) * pitch).abs().max() <= 2 * objective.jitter < pitch / 2
    assert (step.abs().amax(dim=1) - objective.side).min() >= objective.gap - 2 * objective.jitter > 0


def test_the_sizes_of_a_96_pixel_crop_are_these() -> None:
    objective = neighbours(96)
    assert (objective.side, objective.gap, objective.jitter, objective.room) == (22, 11, 2, 4)
    smaller = neighbours(96, grid_fraction=0.5)
    assert (smaller.side, smaller.gap, smaller.jitter, smaller.room) == (11, 5, 1, 51)


def test_the_place_of_the_first_patch_does_not_depend_on_the_answer() -> None:
    objective = neighbours(64)
    first, second = (objective.corners(torch.full((50, 1), label), seeded(1)) for label in (0, 7))
    assert torch.equal(first[:, 0], second[:, 0])
    assert len(first[:, 0].unique(dim=0)) > 10


def test_labels_are_cells_without_the_centre() -> None:
    assert relative_position.cell_of(torch.arange(8)).tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


def test_pairs_are_the_patches_at_their_corners() -> None:
    objective, pixels = neighbours(64, colour="keep", **OPEN), images(5, 64)
    pairs, labels = objective.draw(pixels, seeded(SEED))
    generator = seeded(SEED)
    torch.randint(8, (5, 1), generator=generator)
    corners, side = objective.corners(labels[:, None], generator), objective.side
    for pair, pixel, places in zip(pairs, pixels, corners.tolist(), strict=True):
        for patch, (row, column) in zip(pair, places, strict=True):
            assert torch.equal(patch, pixel[:, row : row + side, column : column + side])


def test_all_pairs_are_the_patch_with_each_neighbour_in_order() -> None:
    objective, pixels = neighbours(64, pairs="all", colour="keep", **OPEN), images(3, 64)
    seen, labels = objective.draw(pixels, seeded(SEED))
    assert labels.tolist() == list(range(8)) * 3
    corners = objective.corners(labels.view(3, 8), seeded(SEED))
    assert torch.equal(seen, patches.cut(pixels, corners[:, :, None], objective.side))
    step = (corners[:, 1:] - corners[:, :1]).float() / (objective.side + objective.gap)
    assert torch.equal(step.round(), torch.tensor(DIRECTIONS).float().expand(3, 8, 2))


def test_each_of_all_pairs_is_judged_by_its_two_patches_only() -> None:
    objective, single = neighbours(64, pairs="all"), neighbours(64)  # the same weights
    for network in (objective.network, single.network):
        network.eval()
    seen, _ = objective.draw(images(3, 64), seeded())
    logits = objective.network(seen).view(3, 8, 8)
    for neighbour in range(8):
        torch.testing.assert_close(logits[:, neighbour], single.network(seen[:, [0, 1 + neighbour]]))


# Jigsaw: orders, geometry and answers


@pytest.mark.parametrize(("count", "tiles"), [(1, 3), (6, 3), (8, 4), (24, 4), (10, 5)])
def test_each_order_is_the_farthest_from_those_before_it(count: int, tiles: int) -> None:
    """By the sum of distances, and of equals by the least of them, spelled out over all permutations."""
    everything = list(itertools.permutations(range(tiles)))
    chosen = [tuple(order) for order in jigsaw.far_orders(count, tiles).tolist()]
    assert chosen[0] == everything[0]
    for position in range(1, count):
        before = chosen[:position]

        def rank(order: tuple[int, ...], before: list[tuple[int, ...]] = before) -> tuple[int, int]:
            distances = [sum(a != b for a, b in zip(order, other, strict=True)) for other in before]
            return sum(distances), min(distances)

        assert chosen[position] not in before
        assert rank(chosen[position]) == max(rank(order) for order in everything if order not in before)


def test_a_hundred_orders_of_nine_tiles_are_far_apart() -> None:
    """The mean distance of the paper's set of 100 is 8.08 (recalled), of a random one 8.0."""
    orders = jigsaw.far_orders(100)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(9).expand(100, 9))
    distances = (orders[:, None] != orders).sum(dim=-1)[~torch.eye(100, dtype=torch.bool)]
    assert float(distances.float().mean()) == pytest.approx(8.08, abs=0.005)
    assert distances.min() >= 4
    assert jigsaw.far_orders(100) is orders
    assert torch.equal(jigsaw.far_orders(9), orders[:9])
    assert (distances.view(100, 99)[:9, :8] == 9).all()  # the first nine differ everywhere


@pytest.mark.parametrize("size", [24, 63, 64, 65, 227])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_every_channel_of_every_tile_lies_in_its_cell(size: int, shift: int) -> None:
    objective = puzzle(size, channel_shift_fraction=shift / size)
    corners = objective.corners(200, seeded())
    start = (size - 3 * objective.cell) // 2
    for tile in range(9):
        own = corners[:, tile] - start - torch.tensor([tile // 3, tile % 3]) * objective.cell
        assert own.min() >= 0
        assert own.max() + objective.side <= objective.cell
        assert (own.amax(dim=1) - own.amin(dim=1)).max() <= 2 * shift
    assert corners.max() + objective.side <= size


def test_the_sizes_of_tiles_are_the_released_ones_in_proportion() -> None:
    assert (puzzle(255).cell, puzzle(255).side) == (85, 64)
    assert (puzzle(96).cell, puzzle(96).side) == (32, 24)
    assert [puzzle(size).shift for size in (64, 96, 127, 128, 255)] == [1, 1, 1, 2, 2]
    whole = {"tile_fraction": 1.0}
    assert (puzzle(96, **whole).side, puzzle(96, **whole, channel_shift_fraction=0.0).side) == (30, 32)


def numbered(size: int) -> Tensor:
    """One image whose cells hold their own number over ten."""
    cells = (torch.arange(9).float() / 10).view(1, 1, 3, 3).repeat(1, 3, 1, 1)
    return functional.interpolate(cells, size=size, mode="nearest")


def test_tiles_are_shown_in_the_order_of_their_label() -> None:
    objective = puzzle(63, **OPEN)
    tiles, labels = objective.draw(numbered(63).repeat(100, 1, 1, 1), seeded())
    assert torch.equal((tiles.mean(dim=(2, 3, 4)) * 10).round().long(), objective.orders[labels])
    assert set(labels.tolist()) == set(range(10))


def test_the_preview_puts_the_tiles_back() -> None:
    objective = puzzle(63, **OPEN)
    objective.network.eval()
    columns = objective.preview(Batch(numbered(63).repeat(20, 1, 1, 1)), seeded())
    assert list(columns) == ["input", "output", "truth"]
    pitch = columns["truth"].shape[-1] // 3
    numbers = {t: (maps[:, 0, pitch // 2 :: pitch, pitch // 2 :: pitch] * 10).flatten(1) for t, maps in columns.items()}
    torch.testing.assert_close(numbers["truth"], torch.arange(9.0).expand(20, 9))
    tiles, labels = objective.draw(numbered(63).repeat(20, 1, 1, 1), seeded())
    torch.testing.assert_close(numbers["input"], objective.orders[labels].float())
    is_right = objective.network(tiles).argmax(dim=1) == labels
    assert torch.equal((numbers["output"] - numbers["truth"]).abs().amax(dim=1) < 0.01, is_right)


@pytest.mark.parametrize("pairs", ["one", "all"])
def test_the_preview_of_neighbours_shows_where_they_belong(pairs: str) -> None:
    objective = neighbours(63, pairs=pairs, colour="keep", gap_fraction=0.1, jitter_fraction=0.0, **OPEN)
    objective.network.eval()
    columns = objective.preview(Batch(numbered(63).repeat(20, 1, 1, 1) + 0.05), seeded())
    pitch = columns["truth"].shape[-1] // 3
    shown = {title: maps[:, 0, pitch // 2 :: pitch, pitch // 2 :: pitch].flatten(1) for title, maps in columns.items()}
    is_filled = {title: values != 0.5 for title, values in shown.items()}
    assert torch.equal(is_filled["input"], (torch.arange(9) == 4).expand(20, 9))
    cells = torch.arange(9).expand(20, 9) / 10 + 0.05
    torch.testing.assert_close(shown["truth"][is_filled["truth"]], cells[is_filled["truth"]])
    for title in ("output", "truth"):
        assert is_filled[title][:, 4].all()
        assert (is_filled[title].sum(dim=1) == 2).all()
    output, truth = (shown[title].sort(dim=1).values for title in ("output", "truth"))
    assert torch.equal(output, truth)  # the same neighbour, wherever it is put


# Shortcuts: a rule or a linear probe that reads one of them only, with its guard and without


def probe_accuracy(features: Tensor, labels: Tensor, classes: int) -> float:
    """Of a linear least-squares probe: fitted on the first half, measured on the second."""
    rows = torch.cat([features, torch.ones(len(features), 1)], dim=1).double()
    half = len(rows) // 2
    weights = torch.linalg.pinv(rows[:half]) @ functional.one_hot(labels[:half], classes).double()
    return float(((rows[half:] @ weights).argmax(dim=1) == labels[half:]).double().mean())


def smooth(count: int, size: int, seed: int = 0) -> Tensor:
    """Noise that continues over a border and is forgotten three pixels on."""
    return functional.avg_pool2d(images(count, size + 2, seed), 3, 1)


def facing(first: Tensor, second: Tensor, is_below: bool) -> Tensor:
    """How much the facing borders of two patches differ, the second to the right of the first or below it."""
    edges = (first[..., -1, :], second[..., 0, :]) if is_below else (first[..., -1], second[..., 0])
    return (edges[0] - edges[1]).square().mean(dim=(-2, -1))


def accuracy_from_borders_of_pairs(**guards: float) -> float:
    """Of the four neighbours that share a border, the one is taken whose border fits best."""
    objective = neighbours(48, colour="keep", **OPEN, **guards)
    pairs, labels = objective.draw(smooth(600, 48), seeded(SEED))
    centre, other = pairs[:, 0], pairs[:, 1]
    misfit = [facing(other, centre, True), facing(other, centre, False), facing(centre, other, False)]
    misfit.append(facing(centre, other, True))
    straight = torch.tensor([1, 3, 4, 6])
    is_straight = torch.isin(labels, straight)
    found = straight[torch.stack(misfit, dim=1).argmin(dim=1)]
    return float((found == labels)[is_straight].float().mean())


def test_lines_that_continue_over_the_border_do_not_place_a_neighbour() -> None:
    assert accuracy_from_borders_of_pairs(gap_fraction=0.0, jitter_fraction=0.0) > 0.95
    assert accuracy_from_borders_of_pairs() < 0.33  # chance 0.25, about 300 guesses


def accuracy_from_borders_of_tiles(**guards: float) -> float:
    """The order is taken in which all borders together fit best."""
    objective = puzzle(96, grey_probability=0.0, **OPEN, **guards)
    tiles, labels = objective.draw(smooth(300, 96), seeded(SEED))
    misfits = []
    for order in objective.orders:
        board = tiles[:, order.argsort()].unflatten(1, (3, 3))
        right, below = facing(board[:, :, :2], board[:, :, 1:], False), facing(board[:, :2], board[:, 1:], True)
        misfits.append(right.sum(dim=(1, 2)) + below.sum(dim=(1, 2)))
    return float((torch.stack(misfits, dim=1).argmin(dim=1) == labels).float().mean())


def test_lines_that_continue_over_the_border_do_not_order_tiles() -> None:
    assert accuracy_from_borders_of_tiles(tile_fraction=1.0, channel_shift_fraction=0.0) > 0.95
    assert accuracy_from_borders_of_tiles() < 0.2  # chance 0.1


def aberrated(count: int, size: int) -> Tensor:
    """Grey noise whose green channel is larger than red and blue, by half a pixel at the border, as through a lens."""
    plain = smooth(count, size)[:, :1]
    scale = torch.tensor([[0.99, 0.0, 0.0], [0.0, 0.99, 0.0]]).expand(count, 2, 3)
    grid = functional.affine_grid(scale, list(plain.shape), align_corners=False)
    larger = functional.grid_sample(plain, grid, align_corners=False)
    return torch.cat([plain, larger, plain], dim=1)


def green_shifts(seen: Tensor) -> Tensor:
    """B x N x 3 x s x s to B x N x 2: how green lies against red, down and to the right, up to a factor."""
    red, green = seen[..., 0, :, :], seen[..., 1, :, :]
    red = red - red.mean(dim=(-2, -1), keepdim=True)
    down = (red[..., 1:-1, :] * (green[..., 2:, :] - green[..., :-2, :])).mean(dim=(-2, -1))
    right = (red[..., 1:-1] * (green[..., 2:] - green[..., :-2])).mean(dim=(-2, -1))
    power = red.square().mean(dim=(-2, -1)).clamp(min=1e-12)
    return torch.stack([down, right], dim=-1) / power[..., None]


def accuracy_from_aberration_of_pairs(colour: str) -> float:
    objective = neighbours(96, colour=colour, **OPEN)
    pairs, labels = objective.draw(aberrated(400, 96), seeded(SEED))
    shifts = green_shifts(pairs).flatten(1)
    products = shifts[:, :, None] * shifts[:, None]
    return probe_accuracy(torch.cat([shifts, products.flatten(1)], dim=1), labels, 8)


def test_chromatic_aberration_does_not_place_a_neighbour() -> None:
    assert accuracy_from_aberration_of_pairs("keep") > 0.8
    for colour in ("drop", "project"):
        assert accuracy_from_aberration_of_pairs(colour) < 0.22  # chance 0.125, 200 guesses: four standard errors


def accuracy_from_aberration_of_tiles(**guards: float) -> float:
    objective = puzzle(96, **OPEN, **guards)
    tiles, labels = objective.draw(aberrated(400, 96), seeded(SEED))
    return probe_accuracy(green_shifts(tiles).flatten(1), labels, 10)


def test_chromatic_aberration_does_not_order_tiles() -> None:
    assert accuracy_from_aberration_of_tiles(channel_shift_fraction=0.0, grey_probability=0.0) > 0.95
    assert accuracy_from_aberration_of_tiles() < 0.19  # chance 0.1, 200 guesses: four standard errors


def lit(count: int, size: int) -> Tensor:
    """Noise that is brighter to the right and has more contrast further down."""
    slope = torch.linspace(0, 1, size)
    return 0.3 * slope + (0.1 + 0.3 * slope[:, None]) * images(count, size)


def low_level(seen: Tensor) -> Tensor:
    """Mean and deviation of each patch, and their products with one another."""
    deviation, mean = torch.std_mean(seen, dim=(-3, -2, -1))
    values = torch.cat([mean, deviation], dim=1)
    values = values - values.mean(dim=0)
    return torch.cat([values, (values[:, :, None] * values[:, None]).flatten(1)], dim=1)


@pytest.mark.parametrize("colour", ["keep", "project", "drop"])
def test_brightness_and_contrast_do_not_place_a_neighbour(colour: str) -> None:
    accuracies = {}
    for is_normalised in (False, True):
        objective = neighbours(96, colour=colour, is_normalised=is_normalised)
        pairs, labels = objective.draw(lit(600, 96), seeded(SEED))
        accuracies[is_normalised] = probe_accuracy(low_level(pairs).round(decimals=4), labels, 8)
    assert accuracies[False] > 0.8
    assert accuracies[True] < 0.21  # chance 0.125, 300 guesses


def test_brightness_and_contrast_do_not_order_tiles() -> None:
    accuracies = {}
    for is_normalised in (False, True):
        objective = puzzle(96, is_normalised=is_normalised)
        tiles, labels = objective.draw(lit(300, 96), seeded(SEED))
        accuracies[is_normalised] = probe_accuracy(low_level(tiles)[:, :18].round(decimals=4), labels, 10)
    assert accuracies[False] > 0.95
    assert accuracies[True] < 0.2  # chance 0.1, 150 guesses


# The objectives


@pytest.mark.parametrize("make", [neighbours, puzzle])
def test_draws_depend_on_the_generator_only(make: type) -> None:
    objective, pixels = make(64), images(6, 64)
    torch.manual_seed(1)
    seen, labels = objective.draw(pixels, seeded(5))
    torch.manual_seed(2)
    again, same = objective.draw(pixels, seeded(5))
    assert torch.equal(seen, again)
    assert torch.equal(labels, same)
    assert not torch.equal(objective.draw(pixels, seeded(6))[0], seen)


def all_neighbours(size: int) -> relative_position.RelativePosition:
    return neighbours(size, pairs="all")


@pytest.mark.parametrize("make", [neighbours, all_neighbours, puzzle])
@pytest.mark.parametrize("count", [1, 3])
def test_validation_is_the_loss_and_the_share_of_right_answers(make: type, count: int) -> None:
    objective, batch = make(64), Batch(images(count, 64))
    objective.network.eval()
    values = objective.validate(batch, seeded(5))
    ((name, loss),) = objective.losses(batch, seeded(5))
    torch.testing.assert_close(values["cross_entropy"], loss)
    seen, labels = objective.draw(batch.images, seeded(5))
    assert float(values["accuracy"]) == pytest.approx(
        float((objective.network(seen).argmax(1) == labels).float().mean())
    )
    assert list(objective.players()) == [name]


@pytest.mark.parametrize("make", [neighbours, puzzle])
def test_every_patch_passes_the_encoder_alone(make: type) -> None:
    """Context-free: up to the concatenation, what one patch holds changes nothing about the others."""
    objective = make(64)
    network = objective.network.eval()
    seen, _ = objective.draw(images(2, 64), seeded())
    changed = seen.clone()
    changed[:, 1] = 0
    features = [
        network.each(network.encoder(p.flatten(0, 1))["conv2"]).unflatten(0, p.shape[:2]) for p in (seen, changed)
    ]
    assert torch.equal(features[0][:, 0], features[1][:, 0])
    assert torch.equal(features[0][:, 2:], features[1][:, 2:])
    assert not torch.equal(features[0][:, 1], features[1][:, 1])


@pytest.mark.parametrize(("make", "size"), [(neighbours, 16), (puzzle, 11)])
def test_crops_that_are_too_small_are_refused(make: type, size: int) -> None:
    with pytest.raises(UsageError, match=f"crops.size = {size}: .* larger crops"):
        make(size)


def train(objective: Pretext, scenes: list[Tensor], steps: int) -> None:
    """Takes each step on the same scene under another noise."""
    player = objective.players()["classifier"].module
    optimizer = torch.optim.Adam(player.parameters(), 3e-3)
    for step in range(steps):
        ((_, loss),) = objective.losses(Batch(scenes[step % len(scenes)]), seeded(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    player.eval()


def scenes(count: int, batches: int, size: int) -> list[Tensor]:
    """Batches of one view under fresh noise: a patch can be told from its place once the view is known."""
    coarse = torch.rand(1, 1, 9, 9, generator=seeded(7)).expand(1, 3, 9, 9)
    view = functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    return [0.8 * view + 0.2 * images(count, size, seed) for seed in range(batches)]


@pytest.mark.parametrize(("pairs", "count"), [("one", 64), ("all", 16)])
def test_it_learns_where_neighbours_lie(pairs: str, count: int) -> None:
    """Chance is 1/8; half is asked of held-out images."""
    objective = neighbours(48, pairs=pairs)
    *seen, held_out = scenes(count, 5, 48)
    train(objective, seen, 60)
    values = objective.validate(Batch(held_out), seeded())
    assert values["accuracy"] > 0.5


def test_it_learns_to_order_tiles() -> None:
    """Chance is 1/10; half is asked of held-out images."""
    objective = puzzle(48)
    *seen, held_out = scenes(32, 5, 48)
    train(objective, seen, 40)
    values = objective.validate(Batch(held_out), seeded())
    assert values["accuracy"] > 0.5
