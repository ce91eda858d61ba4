import pytest
import torch

from ssl_inpaint import images


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_bytes_become_floats_from_zero_to_one() -> None:
    found = images.to_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert found.dtype == torch.float32
    assert found.tolist() == [0.0, pytest.approx(0.2), 1.0]


def test_hidden_pixels_become_the_mean_in_rgb_order_and_others_stay() -> None:
    pixels = torch.rand(2, 3, 4, 4, generator=seeded())
    hole = torch.rand(2, 1, 4, 4, generator=seeded(1)) < 0.5
    filled = images.fill_mean(pixels, hole)
    for channel, mean in enumerate((123.675, 116.28, 103.53)):  # red is the largest
        torch.testing.assert_close(
            255 * filled[:, channel][hole[:, 0]], torch.full((int(hole.sum()),), mean), rtol=1e-5, atol=0
        )
    visible = ~hole.expand_as(pixels)
    assert torch.equal(filled[visible], pixels[visible])


def test_what_is_hidden_is_never_read() -> None:
    pixels = torch.rand(2, 3, 4, 4, generator=seeded())
    hole = torch.rand(2, 1, 4, 4, generator=seeded(1)) < 0.5
    poisoned = torch.where(hole, torch.nan, pixels)
    assert torch.equal(images.fill_mean(poisoned, hole), images.fill_mean(pixels, hole))


@pytest.mark.parametrize("shares", [(0.3, 1.0), (1.0, 1.0), (0.001, 0.01)])
def test_random_windows_are_squares_inside_the_image(shares: tuple[float, float]) -> None:
    heights, widths = torch.randint(5, 300, (2, 4000), generator=seeded())
    x, y, width, height = images.random_windows(heights, widths, shares, seeded(1)).T
    short = torch.minimum(heights, widths)
    assert torch.equal(width, height)
    assert (width >= 1).all()
    assert (width >= (shares[0] * short - 0.5)).all()
    assert (width <= (shares[1] * short + 0.5).clamp(min=1)).all()
    assert ((x >= 0) & (y >= 0) & (x + width <= widths) & (y + height <= heights)).all()
    for values in (x, y, width):
        assert torch.equal(values, values.round())


def test_random_windows_reach_every_place_equally_often() -> None:
    heights, widths = torch.full((4000,), 8), torch.full((4000,), 10)
    x, y, _, _ = images.random_windows(heights, widths, (0.75, 0.75), seeded()).T  # 6 x 6 in 10 x 8
    assert x.unique(return_counts=True)[0].tolist() == [0, 1, 2, 3, 4]
    assert y.unique().tolist() == [0, 1, 2]
    counts = x.unique(return_counts=True)[1].double()
    assert ((counts - 800).abs() < 5 * 800**0.5).all()  # five standard deviations


@pytest.mark.parametrize(
    ("place", "corner"),
    [((0.5, 0.5), (2, 1)), ((0.0, 0.0), (0, 0)), ((1.0, 0.0), (4, 0)), ((0.0, 1.0), (0, 2)), ((1.0, 1.0), (4, 2))],
)
def test_fixed_windows_lie_where_they_are_named(place: tuple[float, float], corner: tuple[int, int]) -> None:
    found = images.fixed_windows(torch.tensor([8]), torch.tensor([10]), 0.75, place)
    assert found.tolist() == [[*corner, 6, 6]]


def test_a_window_is_never_empty() -> None:
    one = torch.tensor([1])
    assert images.fixed_windows(one, one, 0.1, (0.5, 0.5)).tolist() == [[0, 0, 1, 1]]
    assert images.random_windows(one, one, (0.1, 0.2), seeded()).tolist() == [[0, 0, 1, 1]]


def test_half_of_the_images_are_mirrored() -> None:
    flips = images.random_flips(4000, seeded())
    assert flips.dtype == torch.bool
    assert abs(int(flips.sum()) - 2000) < 5 * 1000**0.5  # five standard deviations
    assert torch.equal(flips, images.random_flips(4000, seeded()))
