from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint import catalog
from ssl_inpaint.core import Frame, Inpainter
from ssl_inpaint.descriptors import hog
from ssl_inpaint.errors import UsageError
from ssl_inpaint.images import IMAGENET_MEAN, fill_mean
from ssl_inpaint.inpainters import context_encoder, mean_colour, navier_stokes, nearest, shift_map, telea

SIZE = 48
CLASSICAL = ("telea", "navier_stokes", "shift_map")
# OpenCV's Telea drifts by up to a grey level every four pixels, 12 / 255 over this size; Lab and back costs 1.5e-3.
FLAT = {"telea": 0.06, "navier_stokes": 1e-6, "shift_map": 2e-3}


@dataclass
class TensorGallery:
    """Counts how often it is read as a whole."""

    images: Tensor
    size: int = SIZE
    readings: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    def chunks(self) -> Iterator[Tensor]:
        self.readings.append(len(self.images))
        yield from self.images.split(3)

    def cut(self, chosen: Tensor) -> Tensor:
        return self.images[chosen]


class Filler(nn.Module):
    """A network that would give itself away in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.Dropout(0.5), nn.Conv2d(4, 3, 5, padding=2))
        for number, parameter in enumerate(self.parameters()):
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(number))

    def forward(self, images: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(images))


def smooth(count: int, size: int = SIZE, seed: int = 0) -> Tensor:
    noise = torch.rand(count, 3, 7, 7, generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(noise, (size, size), mode="bicubic", align_corners=True).clamp(0, 1)


def square_holes(count: int, size: int = SIZE, start: int | None = None, stop: int | None = None) -> Tensor:
    holes = torch.zeros(count, 1, size, size, dtype=torch.bool)
    rows = slice(size // 4 if start is None else start, 3 * size // 4 if stop is None else stop)
    holes[:, :, rows, rows] = True
    return holes


def nearest_in(images: Tensor, size: int = SIZE) -> tuple[Inpainter, TensorGallery]:
    gallery = TensorGallery(images, size)
    return nearest.build(nearest.Config(), hog.build(hog.Config()), gallery, "NN-inpainting, HOG"), gallery


def build(name: str) -> Inpainter:
    if name == "nearest":
        return nearest_in(smooth(7, seed=9))[0]
    if name == "context_encoder":
        frame = Frame(SIZE, 0.5, is_central=True)
        return context_encoder.build(context_encoder.Config(batch_size=2), Filler(), "Filler", frame)
    part = catalog.load("inpainters", name)
    made: Inpainter = part.build(part.Config())
    return made


@pytest.fixture(params=catalog.parts("inpainters"))
def inpainter(request: pytest.FixtureRequest) -> Inpainter:
    return build(request.param)


def test_hidden_pixels_are_never_read_and_visible_ones_never_touched(inpainter: Inpainter) -> None:
    images = smooth(3)
    holes = square_holes(3)
    holes[1] = square_holes(1, start=2, stop=14)[0]
    filled = inpainter.fill(images, holes)
    assert filled.dtype == torch.float32 and filled.shape == images.shape
    assert filled.min() >= 0 and filled.max() <= 1
    assert torch.equal(torch.where(holes, 0.0, filled), torch.where(holes, 0.0, images))
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(1))
    for poison in (noise, torch.tensor(float("nan")), torch.tensor(float("inf"))):
        assert torch.equal(inpainter.fill(torch.where(holes, poison, images), holes), filled)


def test_a_new_inpainter_fills_alike(inpainter: Inpainter, request: pytest.FixtureRequest) -> None:
    again = build(request.node.callspec.params["inpainter"])
    assert torch.equal(inpainter.fill(smooth(2), square_holes(2)), again.fill(smooth(2), square_holes(2)))


def test_it_has_the_members_of_its_contract(inpainter: Inpainter) -> None:
    assert inpainter.name
    assert inpainter.frame is None or inpainter.frame == Frame(SIZE, 0.5, is_central=True)


def test_the_inputs_are_left_as_they_were(inpainter: Inpainter) -> None:
    images, holes = smooth(2), square_holes(2)
    inpainter.fill(images, holes).zero_()
    assert torch.equal(images, smooth(2)) and torch.equal(holes, square_holes(2))


def test_a_hole_of_nothing_leaves_the_image(inpainter: Inpainter) -> None:
    images, holes = smooth(2), square_holes(2)
    holes[0] = False
    assert torch.equal(inpainter.fill(images, holes)[0], images[0])
    filled = inpainter.fill(images, torch.zeros_like(holes))
    assert torch.equal(filled, images) and filled is not images


def test_an_image_with_nothing_visible_is_filled(inpainter: Inpainter) -> None:
    holes = torch.ones(1, 1, SIZE, SIZE, dtype=torch.bool)
    filled = inpainter.fill(torch.full((1, 3, SIZE, SIZE), float("nan")), holes)
    assert torch.isfinite(filled).all()
    if not isinstance(inpainter, context_encoder.GeneratorInpainter):
        assert torch.equal(filled, fill_mean(filled, holes))


def test_a_batch_of_none_comes_back(inpainter: Inpainter) -> None:
    assert inpainter.fill(smooth(0), square_holes(0)).shape == (0, 3, SIZE, SIZE)


def test_shapes_that_do_not_fit_are_refused(inpainter: Inpainter) -> None:
    images, holes = smooth(2), square_holes(2)
    for wrong_images, wrong_holes in (
        (images, holes.float()),
        (images, holes[:1]),
        (images, holes[:, 0]),
        (images, holes[:, :, 1:]),
        (images[:, :1], holes),
        (images[0], holes[0]),
        ((images * 255).byte(), holes),
    ):
        with pytest.raises(ValueError, match="must be"):
            inpainter.fill(wrong_images, wrong_holes)


@pytest.mark.parametrize("name", ["nearest", "context_encoder"])
def test_images_of_another_size_than_the_frame_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="64 x 64 pixels: this inpainter fills 48 x 48"):
        build(name).fill(smooth(1, 64), square_holes(1, 64))


@pytest.mark.parametrize("name", ["telea", "navier_stokes", "mean_colour"])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_smallest_images_are_filled(name: str, size: int) -> None:
    holes = torch.zeros(1, 1, size, size, dtype=torch.bool)
    holes[..., -1] = True
    filled = build(name).fill(smooth(1, size), holes)
    assert torch.isfinite(filled).all()
    assert torch.equal(filled[..., :-1], smooth(1, size)[..., :-1])


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize(
    "place",
    [(slice(0, 20), slice(None)), (slice(None), slice(30, 48)), (slice(0, 47), slice(0, 47)), (slice(28, 48),) * 2],
)
def test_holes_may_reach_the_border(name: str, place: tuple[slice, slice]) -> None:
    # A flat image must stay flat: no black, no noise. 0.4 is 102 / 255.
    images, holes = torch.full((1, 3, SIZE, SIZE), 0.4), torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    holes[0, 0][place] = True
    torch.testing.assert_close(build(name).fill(images, holes), images, atol=FLAT[name], rtol=0)


@pytest.mark.parametrize("name", CLASSICAL)
def test_images_need_not_be_square(name: str) -> None:
    images, holes = torch.full((1, 3, 40, 90), 0.4), torch.zeros(1, 1, 40, 90, dtype=torch.bool)
    holes[:, :, 10:20, 50:80] = True
    torch.testing.assert_close(build(name).fill(images, holes), images, atol=FLAT[name], rtol=0)


@pytest.mark.parametrize("part", [telea, navier_stokes])
def test_a_ramp_is_continued(part: type[telea] | type[navier_stokes]) -> None:
    ramp = torch.linspace(0.1, 0.9, SIZE).expand(1, 3, SIZE, SIZE)
    holes = square_holes(1, start=20, stop=28)
    filled = part.build(part.Config()).fill(ramp, holes)
    # Over eight of the 48 columns the ramp climbs by 0.14; the hole's mean is right, the slope nearly so.
    assert float((filled - ramp).abs().max()) < 0.05
    assert float((filled - ramp)[holes.expand_as(ramp)].mean().abs()) < 0.01


def test_a_radius_beyond_opencvs_is_refused() -> None:
    with pytest.raises(ValueError, match="less than or equal to 100"):
        telea.Config(radius_pixels=101)


def texture(height: int, width: int) -> Tensor:
    """Period 16 both ways, without a symmetry."""
    y, x = torch.arange(height)[:, None] % 16, torch.arange(width) % 16
    tile = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(3))
    tile = functional.interpolate(tile[None, :, ::4, ::4], 16, mode="bilinear")[0]
    return tile[:, y, x][None]


@pytest.mark.parametrize(
    ("place", "most"),
    # In a corner nothing holds the far ends of the copies, and a part of them is out of phase.
    [((slice(24, 72), slice(24, 72)), 0.005), ((slice(24, 72), slice(48, 96)), 0.005), ((slice(48, 96),) * 2, 0.04)],
)
def test_shift_map_continues_a_texture(place: tuple[slice, slice], most: float) -> None:
    images, holes = texture(96, 96), torch.zeros(1, 1, 96, 96, dtype=torch.bool)
    holes[0, 0][place] = True
    filled = build("shift_map").fill(images, holes)
    error = (filled - images).abs()[holes.expand_as(images)].mean()
    smear = (build("telea").fill(images, holes) - images).abs()[holes.expand_as(images)].mean()
    assert error < most < smear / 3


def test_shift_map_shrinks_what_is_larger_than_its_window() -> None:
    images, holes = texture(160, 160), square_holes(1, 160)
    images = images * 0.2 + torch.linspace(0, 0.6, 160)
    part = shift_map.build(shift_map.Config(window_pixels=80))
    filled = part.fill(images, holes)
    assert torch.equal(filled[~holes.expand_as(filled)], images[~holes.expand_as(filled)])
    assert float((filled - images).abs().mean()) < 0.06
    assert torch.equal(part.fill(torch.where(holes, torch.rand(()), images), holes), filled)


def test_shift_map_looks_no_further_than_its_window() -> None:
    images, holes = texture(128, 128), square_holes(1, 128, 12, 24)
    part = shift_map.build(shift_map.Config(least_context_pixels=40))
    changed = images.clone()
    changed[..., 64:] = 0.5  # 40 beyond the hole's last column
    assert torch.equal(part.fill(images, holes)[..., :64], part.fill(changed, holes)[..., :64])


def test_shift_map_refuses_images_without_room() -> None:
    with pytest.raises(UsageError, match="Images of 31 x 31 pixels"):
        build("shift_map").fill(smooth(1, 31), square_holes(1, 31))
    assert torch.equal(build("shift_map").fill(smooth(1, 8), square_holes(1, 8) & False), smooth(1, 8))


def test_mean_colours() -> None:
    images, holes = smooth(2), square_holes(2)
    holes[1, :, :7] = True
    filled = build("mean_colour").fill(images, holes)
    assert torch.equal(filled[0, :, 20, 20], torch.tensor(IMAGENET_MEAN))
    of_context = mean_colour.build(mean_colour.Config(colour="context"))
    filled = of_context.fill(images, holes)
    for image, hole, found in zip(images, holes, filled, strict=True):
        torch.testing.assert_close(found[:, 20, 20], image[:, ~hole[0]].mean(dim=1))
    assert of_context.name != build("mean_colour").name


def test_nearest_finds_the_twin_that_differs_in_the_hole_only() -> None:
    holes = square_holes(4)
    images = smooth(4)
    gallery = torch.where(holes, smooth(4, seed=5), images)[[2, 0, 3, 1]]
    filled = nearest_in(torch.cat([smooth(5, seed=6), gallery]))[0].fill(images, holes)
    assert torch.equal(filled, gallery[[1, 3, 0, 2]])


def test_nearest_takes_the_first_of_equals() -> None:
    images, holes = smooth(1), square_holes(1)
    gallery = torch.where(holes, smooth(2, seed=5), images)
    assert torch.equal(nearest_in(gallery)[0].fill(images, holes)[0], gallery[0])


def test_nearest_compares_contexts_only() -> None:
    # The first has the true pixels in its hole but another context; the second the context and nothing else.
    images, holes = smooth(1), square_holes(1)
    gallery = torch.cat([torch.where(holes, images, smooth(1, seed=5)), torch.where(holes, 0.3, images)])
    assert torch.equal(nearest_in(gallery)[0].fill(images, holes)[0], gallery[1])


def test_nearest_with_two_holes_is_two_times_nearest() -> None:
    part, _ = nearest_in(smooth(8, seed=6))
    images, holes = smooth(4), square_holes(4)
    holes[[1, 2]] = square_holes(2, start=3, stop=20)
    together = part.fill(images, holes)
    for one in range(4):
        assert torch.equal(part.fill(images[one : one + 1], holes[one : one + 1])[0], together[one])


def test_nearest_describes_its_gallery_once_for_a_hole() -> None:
    part, gallery = nearest_in(smooth(8, seed=6))
    assert gallery.readings == []
    for seed in range(3):
        part.fill(smooth(3, seed=seed), square_holes(3))
    part.fill(smooth(3), torch.zeros(3, 1, SIZE, SIZE, dtype=torch.bool))
    assert len(gallery.readings) == 1
    part.fill(smooth(3), square_holes(3, start=0, stop=10))
    part.fill(smooth(3), square_holes(3))
    assert len(gallery.readings) == 3  # only the latest hole is kept


def test_nearest_without_a_gallery_or_a_context_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="gallery is empty"):
        nearest_in(smooth(0))
    gallery = TensorGallery(smooth(2))
    with pytest.raises(UsageError, match="HOG blocks"):
        nearest.build(nearest.Config(hole_share=0.9), hog.build(hog.Config()), gallery, "NN")
    assert gallery.readings == []


def test_a_network_sees_the_mean_colour_and_is_left_in_its_mode() -> None:
    network, seen = Filler(), []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    part = context_encoder.build(context_encoder.Config(batch_size=2), network, "N", Frame(SIZE, 0.5, True))
    images, holes = smooth(3), square_holes(3)
    for is_training in (True, False):
        network.train(is_training)
        filled = part.fill(images, holes)
        assert network.training == is_training and network.layers[1].training == is_training
        expected = torch.where(holes, network.eval()(fill_mean(images, holes)), images)
        torch.testing.assert_close(filled, expected)
        assert not filled.requires_grad
    assert [len(some) for some in seen[:2]] == [2, 1]
    assert torch.equal(torch.cat(seen[:2]), fill_mean(images, holes))


def test_a_network_that_fails_is_left_in_its_mode() -> None:
    network = Filler()
    network.layers[2] = nn.Conv2d(5, 3, 1)
    part = context_encoder.build(context_encoder.Config(), network, "N", Frame(SIZE, 0.5, True))
    with pytest.raises(RuntimeError):
        part.fill(smooth(1), square_holes(1))
    assert network.training
