import math

import pytest
import torch

from ssl_inpaint import holes
from ssl_inpaint.errors import UsageError
from ssl_inpaint.resampling import catmull_rom

RANDOM_KINDS = ("blocks", "region", "noise")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", holes.KINDS)
@pytest.mark.parametrize("size", [8, 64, 96, 128, 227])
@pytest.mark.parametrize("fraction", [0.1, 0.25])
def test_every_hole_has_the_area_asked_for(kind: str, size: int, fraction: float) -> None:
    count = 16 if size < 200 else 6
    hole = holes.draw(kind, count, size, seeded(), fraction)
    assert hole.shape == (count, 1, size, size)
    assert hole.dtype == torch.bool
    area = hole.sum(dim=(1, 2, 3)).double()
    wanted = fraction * size**2
    if kind == "centre":
        assert (area == round(size * math.sqrt(fraction)) ** 2).all()
    elif kind == "blocks":
        assert (area >= 0.95 * wanted - 1.5).all()  # whole pixels: matters at 8 x 8 only
        assert (area <= 1.03 * wanted + 0.5).all()
    else:  # half a pixel of rounding, and a little room for values that tie
        assert ((area - wanted).abs() <= 2.5).all()


@pytest.mark.parametrize("kind", RANDOM_KINDS)
@pytest.mark.parametrize("fraction", [0.01, 0.9])
def test_extreme_fractions_are_kept_too(kind: str, fraction: float) -> None:
    area = holes.draw(kind, 8, 64, seeded(), fraction).float().mean(dim=(1, 2, 3))
    assert ((area > 0.9 * fraction) & (area < 1.04 * fraction)).all()


@pytest.mark.parametrize("kind", RANDOM_KINDS)
def test_no_two_samples_of_a_batch_share_a_hole(kind: str) -> None:
    hole = holes.draw(kind, 32, 64, seeded())
    assert len(hole.flatten(1).unique(dim=0)) == 32


def test_centre_is_one_centred_square() -> None:
    hole = holes.draw("centre", 2, 8, seeded())
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[2:6, 2:6] = True
    assert torch.equal(hole, expected.expand(2, 1, 8, 8))


@pytest.mark.parametrize("kind", holes.KINDS)
def test_the_seed_decides_the_holes(kind: str) -> None:
    first = holes.draw(kind, 4, 48, seeded(3))
    assert torch.equal(first, holes.draw(kind, 4, 48, seeded(3)))
    assert torch.equal(first, holes.draw(kind, 4, 48, seeded(4))) == (kind == "centre")


@pytest.mark.parametrize("kind", holes.KINDS)
def test_global_randomness_is_neither_read_nor_moved(kind: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = holes.draw(kind, 2, 32, seeded())
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, holes.draw(kind, 2, 32, seeded()))


@pytest.mark.parametrize("kind", RANDOM_KINDS)
def test_holes_are_spread_over_the_whole_image(kind: str) -> None:
    # Of 1000 holes 250 hide a pixel on average; fewer near a corner, where the border cuts the shape off.
    frequency = holes.draw(kind, 1000, 32, seeded()).float().mean(dim=(0, 1))
    assert frequency.min() > 0.03
    assert frequency.max() < 0.45
    halves = torch.stack((frequency[:16].mean(), frequency[16:].mean(), frequency[:, :16].mean()))
    assert ((halves - frequency.mean()).abs() < 0.03).all()


def test_a_region_is_mostly_one_piece() -> None:
    from scipy.ndimage import label

    shares = []
    for hole in holes.draw("region", 64, 64, seeded())[:, 0].numpy():
        pieces, _ = label(hole)
        shares.append((pieces == torch.bincount(torch.from_numpy(pieces[hole])).argmax().item()).sum() / hole.sum())
    assert sum(share > 0.95 for share in shares) >= 48


def test_a_region_is_a_level_set_of_the_silhouette_given() -> None:
    # A disc stretched by at most exp(0.4) and bent a little stays round; a bar 16 times as long as wide does not.
    ticks = torch.arange(32) - 15.5
    disc = (ticks[:, None] ** 2 + ticks**2 < 12**2)[None]
    bar = torch.zeros(1, 32, 32, dtype=torch.bool)
    bar[:, 15:17] = True

    def elongation(shape: torch.Tensor) -> float:
        ratios = []
        for hole in holes.draw("region", 64, 64, seeded(), 0.05, holes.signed_distance(shape)):
            points = hole[0].nonzero().double()
            spread = torch.linalg.eigvalsh(torch.cov(points.T))
            ratios.append(float((spread[1] / spread[0]).sqrt()))
        return sorted(ratios)[32]

    assert elongation(disc) < 2.5
    assert elongation(bar) > 4


def test_shapes_and_their_distance_fields_give_the_same_regions() -> None:
    shapes = holes.procedural_silhouettes(5, 24, seeded())
    from_shapes = holes.draw("region", 6, 32, seeded(1), silhouettes=shapes)
    from_fields = holes.draw("region", 6, 32, seeded(1), silhouettes=holes.signed_distance(shapes))
    assert torch.equal(from_shapes, from_fields)


def test_signed_distance_of_one_pixel_by_hand() -> None:
    shape = torch.zeros(1, 3, 4, dtype=torch.bool)
    shape[0, 1, 1] = True
    root = math.sqrt(2)
    far = math.sqrt(5)
    expected = torch.tensor([[[-root, -1, -root, -far], [-1, 1, -1, -2], [-root, -1, -root, -far]]])
    torch.testing.assert_close(holes.signed_distance(shape), expected)


def test_a_silhouette_that_fills_its_frame_ends_at_the_frame() -> None:
    field = holes.signed_distance(torch.ones(1, 3, 3, dtype=torch.bool))
    assert field.tolist() == [[[1, 1, 1], [1, 2, 1], [1, 1, 1]]]


def test_an_empty_silhouette_is_refused() -> None:
    shapes = torch.ones(3, 8, 8, dtype=torch.bool)
    shapes[1] = False
    with pytest.raises(ValueError, match=r"\[1\] are empty"):
        holes.signed_distance(shapes)


def test_procedural_silhouettes_vary_and_leave_a_margin() -> None:
    shapes = holes.procedural_silhouettes(32, 48, seeded())
    assert shapes.shape == (32, 48, 48)
    assert len(shapes.flatten(1).unique(dim=0)) == 32
    area = shapes.float().mean(dim=(1, 2))
    assert area.min() > 0.03
    assert area.max() < 0.7


def test_noise_hides_every_place_alike() -> None:
    # The field is stationary; one pixel's share has a deviation of 0.019 over 500 draws, and the quantile of one
    # sample favours the border a little (0.02).
    frequency = holes.draw("noise", 500, 64, seeded()).float().mean(dim=(0, 1))
    assert ((frequency - 0.25).abs() < 0.1).all()


def test_smooth_noise_agrees_with_catmull_rom_by_hand() -> None:
    # Between four cells 0 0 1 0, half way: the weights are -1/16, 9/16, 9/16, -1/16.
    weights = catmull_rom(torch.tensor([1.5, 0.5, 0.5, 1.5, 0.0, 1.0, 2.0, 3.0]))
    torch.testing.assert_close(weights, torch.tensor([-1 / 16, 9 / 16, 9 / 16, -1 / 16, 1.0, 0.0, 0.0, 0.0]))


def test_band_by_hand() -> None:
    hole = torch.zeros(1, 1, 5, 6, dtype=torch.bool)
    hole[0, 0, 0:2, 1:3] = True
    expected = torch.tensor(
        [[1, 0, 0, 1, 0, 0], [1, 0, 0, 1, 0, 0], [1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]
    ).bool()
    assert torch.equal(holes.band(hole, 1)[0, 0], expected)
    assert not holes.band(hole, 0).any()
    assert torch.equal(holes.band(hole, 6), ~hole)


@pytest.mark.parametrize("width_pixels", [1, 4, 7])
def test_band_agrees_with_a_pooled_dilation(width_pixels: int) -> None:
    hole = holes.draw("noise", 3, 40, seeded())
    grown = torch.nn.functional.max_pool2d(hole.float(), 2 * width_pixels + 1, stride=1, padding=width_pixels) > 0
    assert torch.equal(holes.band(hole, width_pixels), grown & ~hole)


def test_band_of_nothing_is_nothing() -> None:
    assert not holes.band(torch.zeros(2, 1, 8, 8, dtype=torch.bool), 3).any()


@pytest.mark.parametrize("kind", holes.KINDS)
def test_no_holes_for_an_empty_batch(kind: str) -> None:
    assert holes.draw(kind, 0, 16, seeded()).shape == (0, 1, 16, 16)


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'region'"):
        holes.draw("regions", 1, 16, seeded())


@pytest.mark.parametrize(("size", "fraction"), [(16, 0.0), (16, 0.91), (16, -0.1), (7, 0.25)])
def test_impossible_holes_are_refused(size: int, fraction: float) -> None:
    with pytest.raises(ValueError, match=r"must be above 0|8 is the least"):
        holes.draw("blocks", 1, size, seeded(), fraction)
