from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_inpaint import catalog, checkpoint, colours
from ssl_inpaint.core import Encoder
from ssl_inpaint.encoders import alexnet, grey
from ssl_inpaint.errors import UsageError

SMALL = {"channels": [2, 4, 4, 4, 2]}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=seeded(seed))


def small(name: str = "compact_alexnet") -> Encoder:
    torch.manual_seed(0)
    return grey.build(grey.Config(argument=name, settings=SMALL)).eval()


def recoloured(pixels: Tensor) -> Tensor:
    """Other colours at the same lightness, all of which a screen can show."""
    lab = colours.to_lab(pixels * 0.2 + 0.4)
    lab[:, 1:] = lab[:, 1:].roll(1, 0) * torch.tensor([-1.0, 0.5]).view(1, 2, 1, 1)
    return colours.from_lab(lab)


# Colours


def test_lab_is_that_of_scikit_image() -> None:
    color = pytest.importorskip("skimage.color")
    ends = torch.tensor([[r, g, b] for r in (0.0, 1.0) for g in (0.0, 1.0) for b in (0.0, 1.0)]).T.view(1, 3, 2, 4)
    for pixels in (images(3, 8), 0.05 * images(3, 8, seed=1), ends):  # dark ones are on the straight parts
        found = colours.to_lab(pixels).permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(found, color.rgb2lab(pixels.permute(0, 2, 3, 1).numpy()), atol=2e-3)


def test_lab_comes_back_as_the_same_pixels() -> None:
    for pixels in (images(3, 8), 0.05 * images(3, 8, seed=1)):
        torch.testing.assert_close(colours.from_lab(colours.to_lab(pixels)), pixels, rtol=0, atol=1e-5)


def test_what_no_screen_shows_is_clamped() -> None:
    lab = torch.tensor([50.0, 200.0, -200.0]).view(1, 3, 1, 1)
    found = colours.from_lab(lab)
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((0, 0, 0), 0.0),
        ((1, 1, 1), 1.0),
        ((0.5, 0.5, 0.5), 0.5),
        # sRGB's curve of the luminance: 1.055 * 0.715160 ** (1 / 2.4) - 0.055 and so on
        ((0, 1, 0), 0.8624),
        ((1, 0, 0), 0.4985),
        ((0, 0, 1), 0.2979),
    ],
)
def test_a_colour_has_the_grey_of_its_luminance(colour: tuple[float, float, float], expected: float) -> None:
    found = colours.grey(torch.tensor(colour).float().view(1, 3, 1, 1))
    assert found.flatten().tolist() == pytest.approx([expected] * 3, abs=1e-4)


def test_grey_keeps_lightness_and_nothing_else_and_is_grey_already_the_second_time() -> None:
    pixels = images(4, 8)
    found = colours.grey(pixels)
    assert found.shape == pixels.shape
    before, after = colours.to_lab(pixels), colours.to_lab(found)
    torch.testing.assert_close(after[:, :1], before[:, :1], rtol=0, atol=1e-3)
    assert after[:, 1:].abs().max() < 0.01  # grey of sRGB is off the white of D65 by so much
    torch.testing.assert_close(colours.grey(found), found, rtol=0, atol=1e-6)


@pytest.mark.parametrize("convert", [colours.to_lab, colours.from_lab, colours.grey])
def test_colours_are_no_matter_of_autocast(convert: object) -> None:
    assert callable(convert)
    pixels = images(2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(convert(pixels), convert(pixels.clone()))
        inside = convert(pixels)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, convert(pixels))


# The encoder


def test_the_encoder_inside_sees_grey_images_only() -> None:
    encoder = small()
    assert isinstance(encoder, grey.GreyEncoder)
    pixels, seen = images(2, 64), []
    encoder.inner.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        maps = encoder(pixels)
        expected = encoder.inner(colours.grey(pixels))
    assert torch.equal(seen[0], colours.grey(pixels))
    assert all(torch.equal(maps[name], expected[name]) for name in encoder.stages)


def test_colours_of_the_same_lightness_are_the_same_to_it() -> None:
    encoder, inner, pixels = small(), small().inner, images(3, 64)
    first, second = pixels * 0.2 + 0.4, recoloured(pixels)
    assert (first - second).abs().mean() > 0.02
    with torch.no_grad():
        for name, maps in encoder(first).items():
            torch.testing.assert_close(encoder(second)[name], maps, rtol=1e-3, atol=1e-4 * float(maps.std()))
        deep, other = inner(first)["conv1"], inner(second)["conv1"]
    assert (deep - other).abs().mean() > 0.01 * deep.std()  # which are not to the one inside


@pytest.mark.parametrize("name", ["compact_alexnet", "dcgan", "timm:resnet18", "timm:swin_tiny_patch4_window7_224"])
def test_it_has_the_stages_of_the_encoder_inside(name: str) -> None:
    encoder, card = checkpoint.build_encoder(f"grey:{name}", {}, seed=0)
    inside, _ = checkpoint.build_encoder(name, {}, seed=0)
    assert card.encoder == f"grey:{name}"
    assert encoder.stages == inside.stages
    assert encoder.smallest_input == inside.smallest_input
    assert getattr(encoder, "is_fixed", False) == getattr(inside, "is_fixed", False)
    assert checkpoint.weights_sha256(encoder.inner) == checkpoint.weights_sha256(inside)  # and its random weights


def test_settings_reach_the_encoder_inside_and_come_back_with_the_file(tmp_path: Path) -> None:
    settings = {"settings": '{"channels": [2, 4, 4, 4, 2]}'}
    encoder, card = checkpoint.build_encoder("grey:compact_alexnet", settings, seed=0)
    assert [stage.channels for stage in encoder.stages.values()] == [2, 2, 4, 4, 4, 4, 2, 2]
    checkpoint.save_weights(tmp_path / checkpoint.ENCODER_FILE, encoder, card)
    again, found = checkpoint.open_encoder(str(tmp_path), {}, seed=9)
    assert found == card
    assert checkpoint.weights_sha256(again) == checkpoint.weights_sha256(encoder)


@pytest.mark.parametrize(
    ("spec", "settings", "message"),
    [
        ("grey:alexnt", {}, "no encoder 'alexnt'.*Did you mean 'alexnet'"),
        ("grey:alexnet", {"settings": '{"chanels": 3}'}, "encoder.settings.chanels"),
        ("grey:alexnet", {"channels": "1,2,3,4,5"}, "no encoder setting 'channels'"),
        ("grey:alexnet:11", {}, "encoder.settings.argument"),
        ("grey:timm:resnte18", {}, "no timm model 'resnte18'"),
        ("grey:torchvision_alexnet", {"settings": '{"pretrained": true}'}, "made with colour"),
    ],
)
def test_what_cannot_be_built_is_refused(spec: str, settings: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        checkpoint.build_encoder(spec, settings, seed=0)


def test_weights_of_the_encoder_inside_are_taken_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(3)
    inside = alexnet.build(alexnet.Config(channels=(2, 4, 4, 4, 2)))
    torch.save(inside.state_dict(), tmp_path / "weights.pt")
    settings = {"settings": '{"channels": [2, 4, 4, 4, 2]}'}
    found, _ = checkpoint.open_encoder(f"grey:alexnet={tmp_path / 'weights.pt'}", settings, seed=0)
    assert checkpoint.weights_sha256(found.inner) == checkpoint.weights_sha256(inside)


def test_weights_of_a_timm_model_are_taken_from_a_file_of_timms(tmp_path: Path) -> None:
    import timm

    model = timm.create_model("test_resnet")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    found, _ = checkpoint.open_encoder(f"grey:timm:test_resnet={tmp_path / 'weights.pt'}", {}, seed=0)
    assert torch.equal(found.inner.state_dict()["model.conv1.0.weight"], model.state_dict()["conv1.0.weight"])


def test_it_is_listed_as_an_encoder() -> None:
    assert "grey:ENCODER" in catalog.parts("encoders")["grey"]
