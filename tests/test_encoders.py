import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint import catalog, checkpoint
from ssl_inpaint.core import Encoder
from ssl_inpaint.encoders import alexnet, compact_alexnet, dcgan, timm
from ssl_inpaint.errors import UsageError

FIXED = "timm:swin_tiny_patch4_window7_224"
VIT = "timm:test_vit"
# Every encoder of the folder gets these contract tests; timm's by a convolutional network, a transformer, and one that
# takes images of one size only.
OF_ANY_SIZE = [name for name in catalog.parts("encoders") if name != "timm"] + ["timm:resnet18", VIT]
SPECS = [*OF_ANY_SIZE, FIXED]


@functools.cache
def encoder_of(spec: str) -> Encoder:
    return checkpoint.build_encoder(spec, {}, seed=0)[0].eval()


def images(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def seen_by_first_convolution(encoder: Encoder, pixels: Tensor) -> Tensor:
    first = next(m for m in encoder.modules() if isinstance(m, nn.Conv2d))
    seen: list[Tensor] = []
    handle = first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        with torch.no_grad():
            encoder(pixels)
    finally:
        handle.remove()
    return seen[0]


@pytest.mark.parametrize("spec", SPECS)
def test_the_maps_are_the_stages_in_order_with_their_channels(spec: str) -> None:
    encoder = encoder_of(spec)
    with torch.no_grad():
        maps = encoder(images(2, encoder.smallest_input))
    assert list(maps) == list(encoder.stages)
    for name, stage in encoder.stages.items():
        batch, channels, height, width = maps[name].shape
        assert (batch, channels) == (2, stage.channels)
        assert height == width >= 1


@pytest.mark.parametrize("spec", SPECS)
def test_a_map_grows_by_one_cell_for_each_stride_of_input(spec: str) -> None:
    encoder = encoder_of(spec)
    strides = [stage.stride for stage in encoder.stages.values()]
    assert strides == sorted(strides)
    size = encoder.smallest_input
    with torch.no_grad():
        small = encoder(images(1, size))
        if spec == FIXED:
            assert [m.shape[-1] for m in small.values()] == [size // stride for stride in strides]
            return
        large = encoder(images(1, size + strides[-1]))  # every stride divides the deepest
    grown = [large[name].shape[-1] - small[name].shape[-1] for name in encoder.stages]
    assert grown == [strides[-1] // stride for stride in strides]


@pytest.mark.parametrize("spec", OF_ANY_SIZE)
@pytest.mark.parametrize("size", [96, 128, 227])
def test_every_size_in_use_has_every_stage(spec: str, size: int) -> None:
    with torch.no_grad():
        maps = encoder_of(spec)(images(1, size))
    assert all(min(m.shape) >= 1 and m.isfinite().all() for m in maps.values())


@pytest.mark.parametrize("spec", SPECS)
def test_in_eval_mode_an_image_is_described_alone_and_always_alike(spec: str) -> None:
    encoder = encoder_of(spec)
    pixels = images(2, encoder.smallest_input)
    with torch.no_grad():
        together, again, alone = encoder(pixels), encoder(pixels), encoder(pixels[1:])
    for name in encoder.stages:
        assert torch.equal(together[name], again[name])
        # other batch sizes sum in another order
        torch.testing.assert_close(together[name][1:], alone[name], rtol=1e-3, atol=1e-4 * float(alone[name].std()))


@pytest.mark.parametrize("spec", SPECS)
def test_the_seed_alone_decides_the_weights(spec: str) -> None:
    torch.manual_seed(11)  # the caller's own random state has no say
    again = checkpoint.weights_sha256(checkpoint.build_encoder(spec, {}, seed=0)[0])
    assert again == checkpoint.weights_sha256(encoder_of(spec))
    assert again != checkpoint.weights_sha256(checkpoint.build_encoder(spec, {}, seed=1)[0])


@pytest.mark.parametrize("spec", SPECS)
def test_the_gradient_reaches_the_first_layer(spec: str) -> None:
    encoder, _ = checkpoint.build_encoder(spec, {}, seed=0)
    maps = encoder(images(1, max(64, encoder.smallest_input)))
    functional.softplus(maps[list(encoder.stages)[-1]]).sum().backward()
    first = next(m for m in encoder.modules() if isinstance(m, nn.Conv2d))
    assert first.weight.grad is not None
    assert first.weight.grad.abs().max() > 0


@pytest.mark.parametrize("spec", SPECS)
def test_weights_and_card_come_back_from_their_file_bit_for_bit(spec: str, tmp_path: Path) -> None:
    encoder, card = checkpoint.build_encoder(spec, {}, seed=3)
    for name, buffer in encoder.named_buffers():
        if "running_mean" in name:
            buffer.normal_()
    card = card.model_copy(update={"method": "Context encoder", "seed": 3, "pretraining_seconds": 1.5})
    checkpoint.save_weights(tmp_path / checkpoint.ENCODER_FILE, encoder, card)
    found, found_card = checkpoint.open_encoder(str(tmp_path), {}, seed=9)
    assert found_card == card
    assert checkpoint.weights_sha256(found) == checkpoint.weights_sha256(encoder)
    pixels = images(1, encoder.smallest_input)
    with torch.no_grad():
        assert all(map(torch.equal, encoder.eval()(pixels).values(), found.eval()(pixels).values()))


def imagenet(pixels: Tensor) -> Tensor:
    from torchvision.transforms.functional import normalize

    return normalize(pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def caffe(pixels: Tensor) -> Tensor:
    return torch.stack([255 * pixels[:, c] - mean for c, mean in enumerate((123.675, 116.28, 103.53))], dim=1)


@pytest.mark.parametrize(
    ("spec", "normalise"),
    [
        ("alexnet", caffe),
        ("compact_alexnet", caffe),
        ("dcgan", lambda pixels: pixels * 2 - 1),
        ("torchvision_alexnet", imagenet),
        ("timm:resnet18", imagenet),
        (VIT, lambda pixels: (pixels - 0.5) / 0.5),  # the mean and deviation of its own weights
    ],
)
def test_images_are_normalised_inside(spec: str, normalise: Callable[[Tensor], Tensor]) -> None:
    encoder = encoder_of(spec)
    pixels = images(1, encoder.smallest_input)
    seen = seen_by_first_convolution(encoder, pixels)
    torch.testing.assert_close(seen, normalise(pixels), rtol=1e-5, atol=1e-4)  # of values up to 255


def test_alexnet_sees_nothing_in_the_mean_colour() -> None:
    colour = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    assert seen_by_first_convolution(encoder_of("alexnet"), colour).abs().max() < 1e-4
    with torch.no_grad():
        assert encoder_of("alexnet")(colour)["conv1"].abs().max() < 1e-4  # no bias to begin with


@pytest.mark.parametrize(
    ("spec", "size", "sides"),
    [
        ("alexnet", 227, [55, 27, 27, 13, 13, 13, 13, 6]),  # Krizhevsky's; the paper's 6 x 6 x 256
        ("compact_alexnet", 96, [48, 24, 24, 12, 12, 12, 12, 6]),
        ("dcgan", 128, [64, 32, 16, 8, 4]),  # train.lua
    ],
)
def test_maps_have_the_published_sizes(spec: str, size: int, sides: list[int]) -> None:
    with torch.no_grad():
        maps = encoder_of(spec)(images(1, size))
    assert [m.shape[-1] for m in maps.values()] == sides


def test_alexnet_has_as_many_parameters_as_caffenet() -> None:
    counts = {
        "conv1": 96 * (3 * 11 * 11) + 96,
        "conv2": 256 * (48 * 5 * 5) + 256,  # two groups: 96 / 2 channels in
        "conv3": 384 * (256 * 3 * 3) + 384,
        "conv4": 384 * (192 * 3 * 3) + 384,
        "conv5": 256 * (192 * 3 * 3) + 256,
    }
    encoder = encoder_of("alexnet")
    found = {name: sum(p.numel() for p in encoder.get_submodule(name).parameters()) for name in counts}
    assert found == counts
    assert sum(p.numel() for p in encoder.parameters()) == 2_334_080 == sum(counts.values())


def test_alexnet_normalises_responses_as_caffe_does() -> None:
    maps = 100 * torch.rand(1, 7, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.empty_like(maps)
    for channel in range(7):
        near = maps[:, max(0, channel - 2) : channel + 3]
        expected[:, channel] = maps[:, channel] / (1 + 1e-4 / 5 * near.square().sum(dim=1)) ** 0.75
    torch.testing.assert_close(alexnet.AlexNet(alexnet.Config()).response(maps), expected)


def test_alexnet_normalises_what_conv2_and_conv3_read_and_nothing_else() -> None:
    torch.manual_seed(0)
    encoder = alexnet.AlexNet(alexnet.Config(channels=(4, 8, 8, 8, 4), initial_deviation=0.1))
    with torch.no_grad():
        maps = encoder(images(1, 64))
        after = {"conv2": encoder.response(maps["pool1"]), "conv3": encoder.response(maps["pool2"])}
        after |= {"conv4": maps["conv3"], "conv5": maps["conv4"]}
        assert not torch.equal(after["conv2"], maps["pool1"])
        for name, read in after.items():
            torch.testing.assert_close(maps[name], encoder.get_submodule(name)(read).relu())


def test_alexnet_begins_gaussian_without_bias() -> None:
    for layer in (m for m in encoder_of("alexnet").modules() if isinstance(m, nn.Conv2d)):
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.02)  # of 35,000 draws or more
        assert layer.bias is not None
        assert not layer.bias.any()


def test_dcgan_begins_as_released_and_has_no_norm_after_conv1() -> None:
    encoder = dcgan.DCGANEncoder(dcgan.Config())
    for layer in encoder.convolutions:
        assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
        assert layer.bias is None
    assert isinstance(encoder.norms[0], nn.Identity)
    scales = torch.cat([norm.weight.detach() for norm in encoder.norms[1:]])
    assert float(scales.mean()) == pytest.approx(1, abs=0.003)
    assert float(scales.std()) == pytest.approx(0.02, rel=0.1)


def test_dcgan_leaks_below_zero() -> None:
    encoder, pixels = encoder_of("dcgan"), images(1, 32)
    with torch.no_grad():
        plain = functional.conv2d(pixels * 2 - 1, encoder.convolutions[0].weight, stride=2, padding=1)
        torch.testing.assert_close(encoder(pixels)["conv1"], torch.where(plain > 0, plain, 0.2 * plain))


@pytest.mark.parametrize("normalization", ["lrn", "batch", "none"])
@pytest.mark.parametrize("stem", ["11x11/4", "7x7/2"])
def test_every_variant_of_alexnet_keeps_its_contract(stem: str, normalization: str) -> None:
    config = alexnet.Config(channels=(4, 8, 8, 8, 4), groups=1, stem=stem, normalization=normalization)
    encoder = alexnet.build(config)
    maps = encoder(images(2, 64))
    assert [m.shape[1] for m in maps.values()] == [s.channels for s in encoder.stages.values()]
    assert all((m >= 0).all() for m in maps.values())


def test_compact_alexnet_differs_in_stem_and_norm_only() -> None:
    own, paper = compact_alexnet.Config().model_dump(), alexnet.Config().model_dump()
    assert {k for k in paper if own[k] != paper[k]} == {"stem", "normalization", "initial_deviation"}


def test_torchvision_alexnet_ends_where_torchvision_does() -> None:
    from torchvision.models import alexnet as reference

    encoder, pixels = encoder_of("torchvision_alexnet"), images(1, 96)
    model = reference(weights=None)
    model.features.load_state_dict(encoder.features.state_dict())
    with torch.no_grad():
        maps = encoder(pixels)
        assert torch.equal(maps["pool5"], model.features(imagenet(pixels)))
        conv1 = functional.conv2d(imagenet(pixels), model.features[0].weight, model.features[0].bias, 4, 2)
    torch.testing.assert_close(maps["conv1"], conv1.relu())  # and no later layer has written over it


def test_timm_maps_with_channels_last_are_turned() -> None:
    import timm as library

    encoder = encoder_of("timm:swin_tiny_patch4_window7_224")
    whole = library.create_model("swin_tiny_patch4_window7_224")
    whole.load_state_dict({k: v for k, v in _unwrapped(encoder).items() if k in whole.state_dict()}, strict=False)
    pixels = images(1, 224)
    with torch.no_grad():
        expected = whole.eval().forward_intermediates(imagenet(pixels), intermediates_only=True, output_fmt="NCHW")
        for found, wanted in zip(encoder(pixels).values(), expected, strict=True):
            torch.testing.assert_close(found, wanted)


def _unwrapped(encoder: Encoder) -> dict[str, Tensor]:
    # timm's features_only writes layers_0 where the model has layers.0
    return {k.removeprefix("model.").replace("layers_", "layers."): v for k, v in encoder.state_dict().items()}


def test_a_timm_model_of_one_size_refuses_others() -> None:
    encoder = encoder_of(FIXED)
    assert encoder.smallest_input == 224
    with pytest.raises(UsageError, match=r"takes images of 224 pixels a side only and was given 227"):
        encoder(images(1, 227))


def test_a_timm_model_is_not_left_half_random() -> None:
    config = timm.Config(argument="test_resnet")
    weights = timm.whole(config).state_dict()
    made = timm.build(config, weights)
    assert torch.equal(made.state_dict()["model.conv1.0.weight"], weights["conv1.0.weight"])
    del weights["conv1.0.weight"]
    with pytest.raises(ValueError, match="1 tensors of 'test_resnet' are not among the weights"):
        timm.build(config, weights)


SMALL_VIT = {"image_size": "64", "patch_size": "8", "depth": "3"}


def test_a_timm_transformer_is_made_for_the_size_that_is_set(tmp_path: Path) -> None:
    encoder, card = checkpoint.build_encoder("timm:test_vit", SMALL_VIT, seed=0)
    assert encoder.smallest_input == 16 and len(encoder.positions) == 64
    assert [m.shape for m in encoder.eval()(images(2, 64)).values()] == [(2, 64, 8, 8)] * 3
    assert [stage.stride for stage in encoder.stages.values()] == [8, 8, 8]
    checkpoint.save_weights(tmp_path / checkpoint.ENCODER_FILE, encoder, card)
    again, _ = checkpoint.open_encoder(str(tmp_path), {}, seed=9)  # the file knows the size
    assert torch.equal(again.eval()(images(1, 64))["stage3"], encoder(images(1, 64))["stage3"])


def test_a_vit_at_its_own_size_is_timms_own_to_the_last_bit() -> None:
    import timm as library

    encoder = checkpoint.build_encoder("timm:test_vit", SMALL_VIT, seed=0)[0].eval()
    whole = library.create_model("test_vit", img_size=64, patch_size=8, depth=3).eval()
    weights = {name.removeprefix("model.model."): tensor for name, tensor in encoder.state_dict().items()}
    assert set(whole.load_state_dict(weights, strict=False).missing_keys) <= {
        *("fc_norm.weight", "fc_norm.bias", "norm.weight", "norm.bias", "head.weight", "head.bias")
    }
    with torch.no_grad():
        expected = whole.forward_intermediates(encoder.normalised(images(2, 64)), intermediates_only=True)
        assert all(map(torch.equal, encoder(images(2, 64)).values(), expected))


def test_a_vit_stretches_its_positions_over_images_of_another_shape() -> None:
    encoder = checkpoint.build_encoder("timm:test_vit", SMALL_VIT, seed=0)[0].eval()
    grid = encoder.positions.T.reshape(1, 64, 8, 8)
    wide = functional.interpolate(grid, (8, 16), mode="bicubic", antialias=True).flatten(2)[0].T
    other, _ = checkpoint.build_encoder("timm:test_vit", SMALL_VIT, seed=0)
    with torch.no_grad():
        vit = other.eval().model.model
        found = vit._pos_embed(torch.zeros(1, 8, 16, 64))[0, other.prefix_tokens :]
        torch.testing.assert_close(found, wide)
        assert [m.shape for m in encoder(torch.rand(1, 3, 64, 121)).values()] == [(1, 64, 8, 16)] * 3


def test_a_vit_knows_the_size_that_it_was_made_for_and_so_does_its_grey_twin() -> None:
    assert checkpoint.build_encoder("timm:test_vit", SMALL_VIT, seed=0)[0].natural_size == 64
    assert checkpoint.build_encoder("grey:timm:test_vit", {}, seed=0)[0].natural_size == 160
    assert encoder_of("timm:resnet18").natural_size == 0


def test_what_a_vit_is_not_shown_of_its_last_patches_is_the_mean_colour() -> None:
    encoder = checkpoint.build_encoder("timm:test_vit", SMALL_VIT, seed=0)[0].eval()
    whole = encoder.mean.expand(1, 3, 72, 72).clone()
    whole[..., :68, :65] = images(1, 72)[..., :68, :65]
    with torch.no_grad():
        torch.testing.assert_close(encoder(whole[..., :68, :65])["stage3"], encoder(whole)["stage3"])


def test_a_timm_transformer_of_another_size_takes_weights_of_that_size_only() -> None:
    config = timm.Config(argument="test_vit", image_size=64, patch_size=8, depth=3)
    weights = timm.whole(config).state_dict()
    assert torch.equal(timm.build(config, weights).state_dict()["model.model.pos_embed"], weights["pos_embed"])
    with pytest.raises(ValueError, match="are not among the weights"):
        timm.build(config.model_copy(update={"image_size": 96}), weights)  # timm would stretch the positions


def test_a_timm_transformer_as_its_name_says_is_as_it_was_before_it_could_be_set() -> None:
    plain = timm.Config(argument="vit_tiny_patch16_224")
    assert plain.identity() == {"argument": "vit_tiny_patch16_224", "pretrained": False}
    assert plain.changes == {}


def test_a_vit_run_on_all_patches_gives_its_deepest_stage() -> None:
    encoder = checkpoint.build_encoder("timm:test_vit", SMALL_VIT, seed=0)[0].eval()
    pixels, order = images(2, 64), torch.rand(2, 64, generator=torch.Generator().manual_seed(1)).argsort(dim=1)
    with torch.no_grad():
        expected = encoder(pixels)["stage3"].flatten(2).transpose(1, 2)
        found = encoder.encode_patches(pixels, order)
    assert encoder.prefix_tokens == 1  # the class token
    in_order = found[:, 1:].gather(1, order.argsort(dim=1).unsqueeze(2).expand(-1, -1, 64))
    torch.testing.assert_close(in_order, expected, rtol=1e-4, atol=1e-5)  # sums run in another order
    assert encoder.positions.shape == (64, 64)


def test_a_vit_computes_kept_patches_alone() -> None:
    encoder = checkpoint.build_encoder("timm:test_vit", SMALL_VIT, seed=0)[0].eval()
    pixels = images(1, 64)
    kept, poisoned = torch.tensor([[0, 9, 63]]), torch.full_like(pixels, torch.nan)
    for row, column in ((0, 0), (1, 1), (7, 7)):  # patches 0, 9 and 63 of eight a row
        window = (..., slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
        poisoned[window] = pixels[window]
    lengths: list[int] = []
    handle = encoder.model.model.blocks[0].register_forward_pre_hook(
        lambda _, inputs: lengths.append(inputs[0].shape[1])
    )
    with torch.no_grad():
        clean, found = encoder.encode_patches(pixels, kept), encoder.encode_patches(poisoned, kept)
    handle.remove()
    assert torch.equal(found, clean)
    assert lengths == [4, 4]  # with the class token


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "vit_tiny_r_s16_p8_224"])
def test_only_transformers_of_separate_patches_drop_some(name: str) -> None:
    """Of Swin's windows none may be missing, and a hybrid's convolutions see beyond their patch."""
    assert not hasattr(checkpoint.build_encoder(f"timm:{name}", {}, seed=0)[0], "encode_patches")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet18", {"image_size": "64"}, "takes no such setting.*encoder.image_size, .* are for transformers"),
        ("test_vit", {"depth": "2"}, "depth = 2: input should be greater than or equal to 3"),
        ("vit_tiny_r_s16_p8_224", {"image_size": "64", "patch_size": "7"}, "cannot make 'vit_tiny_r_s16_p8_224'"),
    ],
)
def test_settings_that_a_timm_model_cannot_have_are_refused(name: str, settings: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        checkpoint.build_encoder(f"timm:{name}", settings, seed=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnte18", "no timm model 'resnte18'.*resnet18"),
        ("resnet18.nothing", "Invalid pretrained tag"),
    ],
)
def test_unknown_timm_models_are_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        timm.build(timm.Config(argument=name))
    assert len(str(caught.value)) < 300  # not all of timm's thousand names


@pytest.mark.parametrize("size", [96, 113, 128, 227])
@pytest.mark.parametrize("stem", ["11x11/4", "7x7/2"])
def test_pool_free_alexnet_has_the_maps_of_the_pooled_one(size: int, stem: str) -> None:
    torch.manual_seed(0)
    pooled, free = (
        alexnet.AlexNet(alexnet.Config(channels=(2, 4, 4, 4, 4), stem=stem, pooling=pooling)).eval()
        for pooling in ("max", "convolution")
    )
    pixels = images(1, size)
    assert {k: m.shape for k, m in free(pixels).items()} == {k: m.shape for k, m in pooled(pixels).items()}
    assert free.stages == pooled.stages
    assert not any(isinstance(module, nn.MaxPool2d) for module in free.modules())
    maps = torch.rand(1, 4, 9, 9, generator=torch.Generator().manual_seed(1))
    layer = free.pools[2]
    expected = functional.conv2d(maps, layer.convolution.weight, layer.convolution.bias, stride=2).relu()
    torch.testing.assert_close(layer(maps), expected)  # nothing is padded where the windows fit


@pytest.mark.parametrize("channels", [1, 3, 4, 5, 96])
def test_response_normalisation_is_torchs_and_keeps_the_memory_format(channels: int) -> None:
    maps = 100 * torch.randn(2, channels, 5, 7, generator=torch.Generator().manual_seed(0))
    maps = maps.contiguous(memory_format=torch.channels_last).requires_grad_()
    ours, theirs = alexnet.ResponseNorm()(maps), torch.nn.LocalResponseNorm(5, 1e-4, 0.75)(maps)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    gradients = [torch.autograd.grad(one.square().sum(), maps)[0] for one in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-3)
