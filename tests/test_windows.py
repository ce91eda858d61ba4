from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ssl_inpaint import holes as hole_kinds
from ssl_inpaint import seams, windows
from ssl_inpaint.core import Frame

SIZE = 32
ANYWHERE, CENTRAL = Frame(SIZE, 0.5, is_central=False), Frame(SIZE, 0.5, is_central=True)
FRAMES = (None, ANYWHERE, CENTRAL)


@dataclass
class Recorder:
    """Fills with a blur of what is visible, and keeps what it was shown."""

    frame: Frame | None
    name: str = "recorder"
    shown: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def fill(self, images: Tensor, holes: Tensor) -> Tensor:
        self.shown.append((images.clone(), holes.clone()))
        seen = (~holes).float()
        blurred = [functional.avg_pool2d(layer, 9, 1, 4) for layer in (images * seen, seen)]
        mean = (images * seen).sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True)
        return torch.where(holes, torch.where(blurred[1] > 0, blurred[0] / blurred[1], mean), images)


@dataclass
class Ramp:
    """Knows that images are linear: fits a plane to what is visible."""

    frame: Frame | None
    name: str = "ramp"

    def fill(self, images: Tensor, holes: Tensor) -> Tensor:
        ticks = [torch.arange(side, dtype=torch.float64) for side in images.shape[2:]]
        y, x = torch.meshgrid(*ticks, indexing="ij")
        design = torch.stack((y, x, torch.ones_like(y)), dim=-1)
        result = images.clone()
        for image, hole, out in zip(images, holes[:, 0], result, strict=True):
            plane = torch.linalg.lstsq(design[~hole], image[:, ~hole].double().T).solution
            out[:, hole] = (design[hole] @ plane).T.to(images)
        return result


def _image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def _ramp(height: int, width: int) -> Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack((0.2 + 0.5 * y, 0.8 - 0.6 * x, 0.1 + 0.3 * x + 0.4 * y))


def _box(height: int, width: int, *boxes: tuple[int, int, int, int]) -> Tensor:
    """True in the boxes: y1 x1 y2 x2."""
    hole = torch.zeros(height, width, dtype=torch.bool)
    for y1, x1, y2, x2 in boxes:
        hole[y1:y2, x1:x2] = True
    return hole


def _specks(height: int, width: int, count: int) -> Tensor:
    hole = torch.zeros(height * width, dtype=torch.bool)
    hole[torch.randperm(height * width, generator=torch.Generator().manual_seed(1))[:count]] = True
    return hole.view(height, width)


def _rim(height: int, width: int) -> Tensor:
    return ~_box(height, width, (8, 8, height - 8, width - 8))


def _lattice(height: int, width: int) -> Tensor:
    hole = torch.zeros(height, width, dtype=torch.bool)
    hole[::5] = hole[:, ::5] = True
    return hole


CASES: dict[str, Tensor] = {
    "small box": _box(90, 120, (40, 50, 50, 60)),
    "large box": _box(90, 120, (20, 20, 80, 100)),
    "odd sides": _box(91, 121, (20, 31, 57, 52)),
    "corner": _box(90, 120, (70, 100, 90, 120)),
    "left border": _box(90, 120, (0, 0, 90, 40)),
    "all borders": _rim(90, 120),
    "all but a strip": ~_box(90, 120, (0, 3, 90, 5)),
    "all but a pixel": ~_box(90, 120, (89, 0, 90, 1)),
    "several": _box(90, 120, (3, 3, 9, 20), (30, 30, 70, 70), (72, 72, 73, 73), (5, 100, 80, 104)),
    "specks": _specks(90, 120, 300),
    "lattice": _lattice(90, 120),
    "wide": _box(40, 500, (0, 200, 40, 300), (10, 3, 20, 13)),
    "tall strip": _box(500, 40, (0, 0, 500, 7)),
    "tiny": _box(7, 5, (2, 2, 4, 4)),
    "one row": _box(1, 60, (0, 10, 1, 40)),
    "two pixels": _box(1, 2, (0, 0, 1, 1)),
    "smaller than the frame": _box(20, 50, (0, 20, 20, 30)),
}


@pytest.mark.parametrize("frame", FRAMES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_hidden_pixels_are_never_read_and_visible_ones_never_change(case: str, frame: Frame | None) -> None:
    hole = CASES[case]
    image = _image(*hole.shape)
    plain, poisoned = Recorder(frame), Recorder(frame)
    filled = windows.fill(plain, image, hole)
    again = windows.fill(poisoned, torch.where(hole, torch.nan, image), hole)
    assert torch.equal(filled, again) and torch.equal(filled[:, ~hole], image[:, ~hole])
    assert bool(((filled >= 0) & (filled <= 1)).all())
    for (images, holes), (others, other_holes) in zip(plain.shown, poisoned.shown, strict=True):
        assert torch.equal(images, others) and torch.equal(holes, other_holes)
        assert bool((~holes).flatten(1).any(dim=1).all())  # there is always something to go by


@pytest.mark.parametrize("frame", [ANYWHERE, CENTRAL], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_every_hidden_pixel_is_filled_by_one_window_that_holds_it(case: str, frame: Frame) -> None:
    hole = CASES[case].numpy()
    plan, owner = windows.plan(hole, frame)
    assert ((owner >= 0) == hole).all() and set(owner[hole].tolist()) == set(range(len(plan)))
    for number, window in enumerate(plan):
        y, x = (owner == number).nonzero()
        for places, box, begin, length in ((y, window.rows, window.top, 0), (x, window.columns, window.left, 1)):
            assert begin <= box.start <= places.min() and places.max() < box.stop <= begin + window.side
            if not frame.is_central:
                space = hole.shape[length] - window.side
                assert min(0, space) <= begin <= max(0, space)
        assert window.side >= frame.size


@pytest.mark.parametrize("case", CASES)
def test_a_central_frame_is_shown_the_central_hole_only_and_pieces_lie_in_it(case: str) -> None:
    recorder, hole = Recorder(CENTRAL), CASES[case]
    windows.fill(recorder, _image(*hole.shape), hole)
    centre = hole_kinds.draw("centre", 1, SIZE, torch.Generator(), 0.25)
    for images, holes in recorder.shown:
        assert torch.equal(holes, centre.expand_as(holes))
        assert bool((images[holes.expand_as(images)] == 0).all())
    for window in windows.plan(hole.numpy(), CENTRAL)[0]:
        scale = window.side / SIZE
        for box, begin in ((window.rows, window.top), (window.columns, window.left)):
            assert begin + 8 * scale <= box.start + 0.5 and box.stop - 0.5 <= begin + 24 * scale


def test_whatever_is_hidden_in_a_window_is_marked_hidden() -> None:
    image, hole = _image(100, 100), _box(100, 100, (40, 40, 50, 50), (52, 30, 53, 70), (0, 0, 3, 3))
    recorder = Recorder(ANYWHERE)
    windows.fill(recorder, torch.where(hole, 7.0, image), hole)
    for (images, holes), window in zip(_each(recorder), windows.plan(hole.numpy(), ANYWHERE)[0], strict=True):
        assert window.side == SIZE  # so that windows are plain cut-outs
        place = (slice(window.top, window.top + SIZE), slice(window.left, window.left + SIZE))
        assert torch.equal(holes[0], hole[place])
        assert torch.equal(images, torch.where(hole, 0.0, image)[:, place[0], place[1]])


def _each(recorder: Recorder) -> list[tuple[Tensor, Tensor]]:
    return [pair for images, holes in recorder.shown for pair in zip(images, holes, strict=True)]


@pytest.mark.parametrize("frame", [ANYWHERE, CENTRAL], ids=str)
def test_a_square_of_the_working_size_passes_through_bit_for_bit(frame: Frame) -> None:
    image, hole = _image(SIZE, SIZE), hole_kinds.draw("centre", 1, SIZE, torch.Generator(), 0.25)
    direct = Recorder(frame).fill(image[None], hole)
    assert torch.equal(windows.fill(Recorder(frame), image, hole[0, 0]), direct[0])
    assert torch.equal(windows.fill_squares(Recorder(frame), image[None], hole), direct)


@pytest.mark.parametrize("kind", ["blocks", "region", "noise"])
def test_holes_of_training_pass_through_whole_at_the_working_size(kind: str) -> None:
    hole = hole_kinds.draw(kind, 1, SIZE, torch.Generator().manual_seed(3), 0.25)
    recorder, image = Recorder(ANYWHERE), _image(SIZE, SIZE)
    assert torch.equal(windows.fill(recorder, image, hole[0, 0]), Recorder(None).fill(image[None], hole)[0])
    assert len(_each(recorder)) == 1


@pytest.mark.parametrize("case", ["small box", "large box", "odd sides", "several", "specks", "wide"])
def test_ramps_filled_by_who_knows_them_come_back(case: str) -> None:
    hole = CASES[case]
    image = _ramp(*hole.shape)
    assert torch.allclose(windows.fill(Ramp(None), image, hole), image, atol=1e-4)
    # Windows that reach beyond the image see it mirrored, where it is no ramp any more.
    if case not in ("large box", "wide"):
        assert torch.allclose(windows.fill(Ramp(ANYWHERE), image, hole), image, atol=1e-3)


def test_a_ramp_comes_back_from_a_central_window_too() -> None:
    image, hole = _ramp(200, 220), _box(200, 220, (70, 80, 121, 140))
    assert torch.allclose(windows.fill(Ramp(CENTRAL), image, hole), image, atol=2e-3)


def test_a_constant_image_comes_back_whatever_the_hole() -> None:
    for hole in CASES.values():
        image = torch.full((3, *hole.shape), 0.6)
        for frame in FRAMES:
            assert torch.allclose(windows.fill(Recorder(frame), image, hole), image, atol=1e-5)


def test_thousands_of_specks_need_few_passes() -> None:
    hole = _specks(500, 500, 4000)
    for frame in (ANYWHERE, CENTRAL):
        recorder = Recorder(frame)
        windows.fill(recorder, _image(500, 500), hole)
        # 500 / 16 squared is 977: what a grid of inner squares would take.
        assert len(_each(recorder)) < 1200 and len(recorder.shown) <= 1200 // windows.WINDOWS_AT_ONCE + 1


def test_a_scratch_is_filled_at_full_size_and_a_blob_in_one_piece() -> None:
    scratch = torch.eye(400, dtype=torch.bool)
    assert all(window.side == SIZE for window in windows.plan(scratch.numpy(), ANYWHERE)[0])
    blob = _box(400, 400, (100, 100, 200, 200))
    assert [window.side for window in windows.plan(blob.numpy(), ANYWHERE)[0]] == [200]


def test_nothing_hidden_is_the_image_and_everything_hidden_is_refused() -> None:
    image, hole = _image(20, 30), torch.zeros(20, 30, dtype=torch.bool)
    recorder = Recorder(ANYWHERE)
    assert torch.equal(windows.fill(recorder, image, hole), image) and not recorder.shown
    assert torch.equal(seams.blend(image, image, hole), image)
    refused: list[Callable[[], Tensor]] = [
        lambda: windows.fill(recorder, image, ~hole),
        lambda: seams.blend(image, image, ~hole),
        lambda: windows.fill_squares(recorder, image[None, :, :, :20], ~hole[None, None, :, :20]),
    ]
    for call in refused:
        with pytest.raises(ValueError, match="hidden"):
            call()


@pytest.mark.parametrize("size", [16, 31, 40, 64, 100])
def test_squares_are_antialiased_like_torch_and_visible_pixels_see_visible_ones_only(size: int) -> None:
    images, hole = _image(64, 64)[None], _box(64, 64, (10, 20, 30, 41), (50, 50, 51, 51))[None, None]
    nothing = torch.zeros_like(hole)
    resized = functional.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    assert torch.allclose(windows.squares(images, nothing, size)[0], resized, atol=1e-5)
    small, small_hole = windows.squares(torch.where(hole, torch.nan, images), hole, size)
    touched = functional.interpolate(hole.float(), size=(size, size), mode="bilinear", antialias=True) > 0
    assert torch.equal(small_hole, touched)
    assert torch.allclose(small[:, :, ~small_hole[0, 0]], resized[:, :, ~small_hole[0, 0]], atol=1e-5)
    assert bool((small[:, :, small_hole[0, 0]] == 0).all())


def test_a_hole_everywhere_still_leaves_something_visible() -> None:
    images, hole = _image(64, 64)[None], ~_box(64, 64, (13, 14, 14, 15))[None, None]
    small, small_hole = windows.squares(torch.where(hole, 9.0, images), hole, 16)
    assert 1 <= int((~small_hole).sum()) <= 4
    assert torch.allclose(small[:, :, ~small_hole[0, 0]], images[:, :, 13, 14, None], atol=1e-6)


@pytest.mark.parametrize("frame", FRAMES, ids=str)
@pytest.mark.parametrize("size", [24, SIZE, 50, 96])
def test_squares_of_any_size_are_filled_without_reading_what_is_hidden(size: int, frame: Frame | None) -> None:
    images = torch.stack([_image(size, size), _ramp(size, size)])
    holes = hole_kinds.draw("centre", 2, size, torch.Generator(), 0.25)
    filled = windows.fill_squares(Recorder(frame), images, holes)
    assert torch.equal(filled, windows.fill_squares(Recorder(frame), torch.where(holes, torch.nan, images), holes))
    assert torch.equal(torch.where(holes, 0, filled), torch.where(holes, 0, images))
    known = windows.fill_squares(Ramp(frame), images, holes)[1]
    assert torch.allclose(known, images[1], atol=1e-2)  # a resized ramp is bent at its edges


def test_a_central_inpainter_refuses_holes_elsewhere_that_it_would_leave_unfilled() -> None:
    images, holes = _image(64, 64)[None], _box(64, 64, (2, 2, 20, 20))[None, None]
    with pytest.raises(ValueError, match=r"outside the centre: recorder fills only a square of 0\.5"):
        windows.fill_squares(Recorder(CENTRAL), images, holes)


@pytest.mark.parametrize("case", CASES)
def test_blending_changes_hidden_pixels_only_and_never_reads_them(case: str) -> None:
    hole = CASES[case]
    image = _image(*hole.shape)
    filled = torch.where(hole, 0.3 + 0.2 * _image(*hole.shape, seed=5), image)
    blended = seams.blend(image, filled, hole)
    assert torch.equal(blended[:, ~hole], image[:, ~hole])
    assert torch.equal(blended, seams.blend(torch.where(hole, torch.nan, image), filled, hole))
    assert bool(blended.isfinite().all())


@pytest.mark.parametrize("case", CASES)
def test_blending_removes_a_constant_offset(case: str) -> None:
    hole = CASES[case]
    image = torch.full((3, *hole.shape), 0.7)
    blended = seams.blend(image, torch.where(hole, torch.tensor([0.2, 0.5, 0.9])[:, None, None], image), hole)
    assert torch.allclose(blended, image, atol=1e-6)


def test_each_component_gets_its_own_offset_removed() -> None:
    hole, image = _box(40, 60, (5, 5, 20, 25), (20, 30, 40, 60)), torch.full((3, 40, 60), 0.5)
    filled = image.clone()
    filled[:, 5:20, 5:25] = 0.1
    filled[:, 20:40, 30:60] = 0.8
    assert torch.allclose(seams.blend(image, filled, hole), image, atol=1e-6)


def test_blending_keeps_the_gradients_of_the_fill() -> None:
    image, hole = _ramp(60, 60), _box(60, 60, (20, 20, 40, 45))
    detail = 0.05 * torch.sin(torch.arange(60.0))[None, None]
    blended = seams.blend(image, torch.where(hole, image + detail - 0.2, image), hole)
    expected = image + detail * hole
    # The step across the rim is taken for 0, so that a ramp is off by one step at most, and the wave by itself.
    assert (blended - expected)[:, 28:32, 30:35].abs().max() < 0.02


def test_large_holes_are_solved_like_small_ones_by_elimination(monkeypatch: pytest.MonkeyPatch) -> None:
    hole = _rim(90, 120)
    image = _image(90, 120)
    filled = torch.where(hole, 0.4 + 0.1 * _image(90, 120, seed=2), image)
    iterated = seams.blend(image, filled, hole)
    monkeypatch.setattr(seams, "DIRECT_PIXELS", 10**6)
    assert torch.allclose(iterated, seams.blend(image, filled, hole), atol=1e-5)
