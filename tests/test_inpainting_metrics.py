from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ssl_inpaint import inpainting_metrics
from ssl_inpaint.inpainting_metrics import HIGHER_IS_BETTER, HiddenPixelScores

SIZE = 40


def photos(count: int, seed: int = 0, size: int = SIZE) -> Tensor:
    noise = torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(noise, (size, size), mode="bicubic", align_corners=True).clamp(0, 1)


def some_holes(count: int, size: int = SIZE) -> Tensor:
    """Of another size in each, and at least 5 pixels from the border."""
    holes = torch.zeros(count, 1, size, size, dtype=torch.bool)
    for number in range(count):
        holes[number, :, 8 + number : 26, 9 : 20 + 2 * number] = True
    return holes


def scores(filled: Tensor, truth: Tensor, holes: Tensor) -> dict[str, float]:
    found = HiddenPixelScores()
    found.update(filled, truth, holes)
    return found.compute()


def by_numpy(filled: Tensor, truth: Tensor, holes: Tensor) -> dict[str, float]:
    """A second implementation, with scikit-image's SSIM; the two differ only within 5 pixels of the border."""
    from skimage.metrics import structural_similarity

    rows = []
    for ours, theirs, hole in zip(filled.double().numpy(), truth.double().numpy(), holes[:, 0].numpy(), strict=True):
        ours = np.where(hole, ours, theirs)
        errors = (ours - theirs)[:, hole]
        _, similarity = structural_similarity(
            ours, theirs, channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, full=True,
        )  # fmt: skip
        squared = np.mean(errors**2)
        rows.append((np.abs(errors).mean(), squared, -10 * np.log10(squared), similarity[:, hole].mean()))
    return dict(zip(("mean L1", "mean L2", "PSNR (dB)", "SSIM"), np.mean(rows, axis=0).tolist(), strict=True))


def test_agrees_with_numpy_and_scikit_image() -> None:
    filled, truth, holes = photos(4, seed=1), photos(4), some_holes(4)
    expected = by_numpy(filled, truth, holes)
    found = scores(filled, truth, holes)
    assert found.keys() == expected.keys()
    # The map is computed in float32, as the difference of two sums near 1.
    assert {n: v for n, v in found.items() if n != "SSIM"} == pytest.approx(
        {n: v for n, v in expected.items() if n != "SSIM"}, rel=1e-12
    )
    assert found["SSIM"] == pytest.approx(expected["SSIM"], abs=1e-5)


def test_a_hand_worked_case() -> None:
    # A tenth wrong in one image, everything wrong by 1 in the other: 20 dB and 0 dB.
    truth = torch.zeros(2, 3, SIZE, SIZE)
    filled = torch.stack([torch.full_like(truth[0], 0.1), torch.ones_like(truth[0])])
    found = scores(filled, truth, some_holes(2))
    assert found["mean L1"] == pytest.approx(0.55)
    assert found["mean L2"] == pytest.approx(0.505)
    assert found["PSNR (dB)"] == pytest.approx(10.0, abs=1e-5)


def test_an_image_counts_once_however_large_its_hole() -> None:
    truth, holes = torch.zeros(2, 3, SIZE, SIZE), torch.zeros(2, 1, SIZE, SIZE, dtype=torch.bool)
    holes[0, :, :30], holes[1, :, 7, 7] = True, True
    filled = torch.stack([torch.zeros(3, SIZE, SIZE), torch.ones(3, SIZE, SIZE)])
    assert scores(filled, truth, holes)["mean L1"] == 0.5


def test_the_mean_psnr_is_not_below_that_of_the_mean() -> None:
    found = scores(photos(5, seed=1) * torch.linspace(0.2, 1, 5).view(5, 1, 1, 1), photos(5), some_holes(5))
    assert found["PSNR (dB)"] > -10 * np.log10(found["mean L2"])


def test_a_perfect_fill_has_100_decibels() -> None:
    found = scores(photos(2), photos(2), some_holes(2))
    assert found == pytest.approx({"mean L1": 0, "mean L2": 0, "PSNR (dB)": 100, "SSIM": 1})
    nearly = photos(2).double()
    nearly[:, :, 10, 10] = (nearly[:, :, 10, 10] - 1e-6).abs()
    assert scores(nearly, photos(2), some_holes(2))["PSNR (dB)"] == 100


def test_only_hidden_pixels_count() -> None:
    filled, truth, holes = photos(3, seed=1), photos(3), some_holes(3)
    for elsewhere in (torch.rand(truth.shape, generator=torch.Generator().manual_seed(2)), torch.tensor(float("nan"))):
        assert scores(torch.where(holes, filled, elsewhere), truth, holes) == scores(filled, truth, holes)


@pytest.mark.parametrize("sizes", [(6,), (1,) * 6, (4, 2), (0, 5, 1)])
def test_batches_do_not_matter(sizes: tuple[int, ...]) -> None:
    whole = photos(6, seed=1), photos(6), some_holes(6)
    found = HiddenPixelScores()
    for parts in zip(*(tensor.split(list(sizes)) for tensor in whole), strict=True):
        found.update(*parts)
    assert found.images == 6
    assert found.compute() == scores(*whole)


@pytest.mark.parametrize("place", [(20, 20), (0, 0), (39, 39), (3, 37)])
def test_the_similarity_map_lies_on_the_image(place: tuple[int, int]) -> None:
    # One wrong pixel lowers the similarity of the 11 x 11 around it, and most at itself.
    truth = torch.full((1, 3, SIZE, SIZE), 0.5)
    filled = truth.clone()
    filled[0, :, place[0], place[1]] = 1
    lowered = 1 - inpainting_metrics._ssim_map(filled, truth)[0, 0]
    assert lowered.shape == (SIZE, SIZE)
    assert divmod(int(lowered.argmax()), SIZE) == place
    rows, columns = (lowered > 1e-6).nonzero().unbind(dim=1)
    for found, middle in ((rows, place[0]), (columns, place[1])):
        assert int(found.min()) == max(0, middle - 5) and int(found.max()) == min(SIZE - 1, middle + 5)


def test_directions_are_known_for_every_score() -> None:
    found = scores(photos(1, seed=1), photos(1), some_holes(1))
    assert list(HIGHER_IS_BETTER) == [*found, "LPIPS (whole square)"]
    better = scores((photos(1, seed=1) + photos(1)) / 2, photos(1), some_holes(1))
    for name, is_higher in HIGHER_IS_BETTER.items():
        assert name not in found or (better[name] > found[name]) == is_higher


def test_images_with_nothing_hidden_are_named() -> None:
    found = HiddenPixelScores()
    found.update(photos(2), photos(2), some_holes(2))
    holes = some_holes(3)
    holes[[0, 2]] = False
    with pytest.raises(ValueError, match="numbers 2, 4 have nothing hidden"):
        found.update(photos(3), photos(3), holes)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -0.5, 1.5])
def test_values_that_are_no_colours_are_refused(wrong: float) -> None:
    images, holes = photos(2), some_holes(2)
    images[1, 2, 15, 15] = wrong
    with pytest.raises(ValueError, match="numbers 1 have filled pixels that are not finite or outside"):
        scores(images, photos(2), holes)
    with pytest.raises(ValueError, match="numbers 1 have true pixels that are not finite or outside"):
        scores(photos(2), images, holes)


def test_shapes_that_do_not_fit_are_refused() -> None:
    images, holes = photos(2), some_holes(2)
    for wrong in (
        (images[:1], images, holes),
        (images, images, holes.float()),
        (images, images, holes[:, 0]),
        (images[:, :1], images[:, :1], holes),
    ):
        with pytest.raises(ValueError, match="they must be B x 3 x H x W"):
            scores(*wrong)


@pytest.mark.parametrize(("size", "is_enough"), [(10, False), (11, True)])
def test_images_must_hold_the_window(size: int, is_enough: bool) -> None:
    holes = torch.ones(1, 1, size, size, dtype=torch.bool)
    if is_enough:
        assert scores(photos(1, size=size), photos(1, size=size), holes)["SSIM"] == pytest.approx(1)
        return
    with pytest.raises(ValueError, match="10 x 10 pixels: the scores need 11 a side"):
        scores(photos(1, size=size), photos(1, size=size), holes)


def test_no_images_have_no_mean() -> None:
    with pytest.raises(ValueError, match="No image was scored"):
        HiddenPixelScores().compute()


@pytest.fixture(scope="module")
def folder_with_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torch hub folder whose AlexNet is random; of its fully-connected layers LPIPS reads nothing."""
    from torchvision.models import alexnet

    home = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setenv("TORCH_HOME", str(home))
        torch.manual_seed(0)
        inpainting_metrics.lpips_file().parent.mkdir(parents=True)
        torch.save(alexnet().state_dict(), inpainting_metrics.lpips_file())
    return home


def test_without_weights_there_is_no_lpips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert inpainting_metrics.lpips_file().parent == tmp_path / "hub" / "checkpoints"
    assert inpainting_metrics.open_lpips(torch.device("cpu")) is None
    assert not any(tmp_path.iterdir())


def test_lpips_of_composites(folder_with_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(folder_with_weights))
    perceptual = inpainting_metrics.open_lpips(torch.device("cpu"))
    assert perceptual is not None
    filled, truth, holes = photos(3, seed=1), photos(3), some_holes(3)
    found = HiddenPixelScores(perceptual)
    for parts in zip(filled.split(2), truth.split(2), holes.split(2), strict=True):
        found.update(*parts)
    alone = [float(perceptual(torch.where(holes, filled, truth)[[n]], truth[[n]])) for n in range(3)]
    assert all(distance > 0 for distance in alone)
    assert found.compute()["LPIPS (whole square)"] == pytest.approx(np.mean(alone), rel=1e-4)  # float32, in batches
    assert list(found.compute()) == list(HIGHER_IS_BETTER)
    assert perceptual(truth, truth).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="31 x 31 pixels: the scores need 32 a side"):
        found.update(photos(1, size=31), photos(1, size=31), some_holes(1, 31))
    found.update(photos(1, size=32), photos(1, size=32), some_holes(1, 32))
