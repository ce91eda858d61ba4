import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint import catalog, checkpoint, holes, losses
from ssl_inpaint.core import Batch, Encoder, TrainingFacts
from ssl_inpaint.encoders.alexnet import AlexNet
from ssl_inpaint.encoders.alexnet import Config as AlexNetConfig
from ssl_inpaint.errors import UsageError
from ssl_inpaint.pretext import autoencoder, inpainting, supervised
from ssl_inpaint.pretext.bottlenecks import ChannelwiseFullyConnected, FullyConnected
from ssl_inpaint.pretext.discriminator import Discriminator
from ssl_inpaint.pretext.generator import ContextEncoder, GeneratorConfig, deepest_side

HOLES = holes.KINDS
LOSSES = ("reconstruction", "joint", "adversarial")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=seeded(seed))


def tiny_encoder(stem: str = "7x7/2") -> Encoder:
    torch.manual_seed(0)
    config = AlexNetConfig(channels=(4, 6, 8, 8, 6), stem=stem, normalization="batch", initial_deviation=None)
    return AlexNet(config)


def task(size: int = 64, **settings: object) -> inpainting.Inpainting:
    values = {"decoder_channels": (8, 8), "dropout": 0.0, **settings}
    return inpainting.build(inpainting.Config(**values), tiny_encoder(), TrainingFacts(size))


@contextmanager
def calls_of(module: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """(input, output) of every call of the module."""
    seen: list[tuple[Tensor, Tensor]] = []
    handle = module.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    try:
        yield seen
    finally:
        handle.remove()


# The channel-wise fully-connected layer


def test_the_channelwise_layer_is_a_full_layer_for_each_channel() -> None:
    layer, maps = ChannelwiseFullyConnected(4, 3), images(2, 3).repeat(1, 2, 1, 1)[:, :4]
    layer.bias.data.normal_(generator=seeded())
    layer.requires_grad_(False)
    expected = torch.empty_like(maps)
    for channel in range(4):
        for sample in range(2):
            row = maps[sample, channel].reshape(9)
            out = [
                sum(float(row[i] * layer.weight[channel, i, j]) for i in range(9)) + float(layer.bias[channel, 0, j])
                for j in range(9)
            ]
            expected[sample, channel] = torch.tensor(out).view(3, 3)
    torch.testing.assert_close(layer(maps), expected)


def test_the_channelwise_layer_mixes_all_positions_of_one_channel_only() -> None:
    layer = ChannelwiseFullyConnected(3, 2)
    jacobian = torch.autograd.functional.jacobian(layer, torch.rand(1, 3, 2, 2, generator=seeded()))
    by_channel = jacobian.view(3, 4, 3, 4).abs().permute(0, 2, 1, 3)  # channel out x channel in x positions
    for out, into in np.ndindex(3, 3):
        assert bool((by_channel[out, into] > 0).all()) == (out == into)
        assert bool((by_channel[out, into] == 0).all()) == (out != into)


def test_the_channelwise_layer_does_not_care_how_maps_lie_in_memory() -> None:
    layer, maps = ChannelwiseFullyConnected(6, 4), torch.rand(3, 6, 4, 4, generator=seeded())
    torch.testing.assert_close(layer(maps.contiguous(memory_format=torch.channels_last)), layer(maps))


@pytest.mark.parametrize(("channels", "side", "weights"), [(256, 6, 331_776), (2, 3, 162)])
def test_the_channelwise_layer_has_m_n_to_the_fourth_weights(channels: int, side: int, weights: int) -> None:
    layer = ChannelwiseFullyConnected(channels, side)
    assert layer.weight.numel() == weights == channels * side**4
    assert layer.bias.numel() == channels * side**2


def test_the_full_layer_is_the_released_convolution_onto_one_place_and_back() -> None:
    """train.lua writes it with 4 x 4 convolutions; here it is two matrix products with the same weights."""
    torch.manual_seed(0)
    layer = FullyConnected(6, 4, 10, 0.0).eval()
    for norm in (layer.squeeze_norm, layer.expand_norm):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    maps = torch.rand(3, 6, 4, 4, generator=seeded())
    down = functional.conv2d(maps, layer.squeeze.weight.view(10, 6, 4, 4))
    assert down.shape == (3, 10, 1, 1)
    code = functional.leaky_relu(layer.squeeze_norm(down.flatten(1)), 0.2).view(3, 10, 1, 1)
    up = functional.conv_transpose2d(code, layer.expand.weight.T.reshape(10, 6, 4, 4))
    torch.testing.assert_close(layer(maps), torch.relu(layer.expand_norm(up)), rtol=1e-4, atol=1e-5)


# The generator


def generator_of(spec: str, size: int) -> ContextEncoder:
    encoder, _ = checkpoint.build_encoder(spec, {}, seed=0)
    torch.manual_seed(0)
    return ContextEncoder(encoder, size, GeneratorConfig(decoder_channels=(16, 8), dropout=0.5)).eval()


ENCODERS = [name for name in catalog.parts("encoders") if name != "timm"] + ["timm:resnet18"]
SIZES = [(spec, size) for spec in ENCODERS for size in (64, 96, 128, 227)] + [("timm:vit_tiny_patch16_224", 224)]


@pytest.mark.parametrize(("spec", "size"), SIZES)
def test_the_generator_makes_images_of_the_size_it_was_given(spec: str, size: int) -> None:
    generator = generator_of(spec, size)
    with torch.no_grad():
        found = generator(images(1, size))
    assert found.shape == (1, 3, size, size)
    assert found.dtype == torch.float32
    assert found.min() >= 0
    assert found.max() <= 1


def test_the_paper_generator_has_six_by_six_maps_and_five_doublings() -> None:
    config = GeneratorConfig(dropout=0.5, decoder_normalization="none")
    generator = ContextEncoder(checkpoint.build_encoder("alexnet", {}, 0)[0], 227, config)
    assert generator.bottleneck.channelwise.weight.numel() == 331_776
    ups = [layer for layer in generator.decoder if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in ups] == [128, 64, 64, 32, 3]
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in generator.decoder)


def test_the_one_by_one_convolution_mixes_channels_at_one_place_only() -> None:
    mix = task().generator.bottleneck.mix
    jacobian = torch.autograd.functional.jacobian(mix, torch.rand(1, 6, 2, 2, generator=seeded())).view(6, 4, 6, 4)
    same = torch.eye(4, dtype=torch.bool)[None, :, None, :].expand_as(jacobian)
    assert (jacobian[same] != 0).all()
    assert (jacobian[~same] == 0).all()


def test_dropout_is_on_the_channelwise_layer_only_and_off_in_eval_mode() -> None:
    generator = task(dropout=0.5).generator
    assert sum(isinstance(module, nn.Dropout) for module in generator.modules()) == 1
    with calls_of(generator.bottleneck.channelwise) as before, calls_of(generator.bottleneck.mix) as after:
        generator(images(2, 64))
        generator.eval()(images(2, 64))
    relu = [out.relu() for _, out in before]
    dropped = after[0][0]
    assert ((dropped == 0) | torch.isclose(dropped, 2 * relu[0])).all()
    assert (dropped[relu[0] > 0] == 0).any()
    assert torch.equal(after[1][0], relu[1])


def test_building_a_generator_leaves_the_encoder_as_it_was() -> None:
    encoder = tiny_encoder().train()
    before = checkpoint.weights_sha256(encoder)  # with the running statistics
    ContextEncoder(encoder, 64, GeneratorConfig(decoder_channels=(8,)))
    assert encoder.training
    assert checkpoint.weights_sha256(encoder) == before


def test_any_place_of_the_output_depends_on_any_place_of_the_input() -> None:
    generator = generator_of("compact_alexnet", 64).double()
    pixels = images(1, 64).double().requires_grad_()
    generator(pixels)[0, 0, 0, 0].backward()
    assert pixels.grad is not None
    corner = pixels.grad[
        ..., 48:, 48:
    ]  # farther than any convolution of 64 pixels sees: through the channel-wise layer
    assert corner.abs().max() > 0


def test_deepest_side_is_that_of_the_last_stage() -> None:
    assert deepest_side(tiny_encoder("11x11/4"), 227) == 6
    assert deepest_side(tiny_encoder("7x7/2"), 96) == 6


# The discriminator


@pytest.mark.parametrize("size", [8, 9, 48, 64, 113, 227])
def test_the_discriminator_gives_one_logit_an_image_at_any_size(size: int) -> None:
    assert Discriminator(size, channels=8)(images(2, size)).shape == (2,)


def test_the_discriminator_is_the_released_one_at_64_pixels() -> None:
    discriminator = Discriminator(64)
    convolutions = 4 * 4 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512 * 1)  # no biases
    assert sum(p.numel() for p in discriminator.parameters()) == convolutions + 2 * (128 + 256 + 512)
    with calls_of(discriminator.maps) as seen:
        discriminator(images(2, 64))
    assert seen[0][1].shape == (2, 512, 4, 4)
    assert seen[0][0].min() < -0.9  # [0, 1] became [-1, 1]
    assert float(discriminator.decide.weight.detach().std()) == pytest.approx(0.02, rel=0.05)


def test_the_discriminator_for_128_pixels_has_64_channels_more_at_the_shallow_end() -> None:
    widths = [m.out_channels for m in Discriminator(128).modules() if isinstance(m, nn.Conv2d)]
    assert widths == [64, 64, 128, 256, 512]


# The inpainting objective


@pytest.mark.parametrize("kind", HOLES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("count", "size"), [(1, 65), (3, 64)])
def test_every_loss_works_with_every_hole(kind: str, loss: str, count: int, size: int) -> None:
    objective = task(size, holes=kind, loss=loss, overlap_pixels=2)
    found = list(objective.losses(Batch(images(count, size)), seeded()))
    names = ["generator"] if loss == "reconstruction" else ["discriminator", "generator"]
    assert [name for name, _ in found] == names
    assert set(objective.players()) == set(names)
    assert all(value.ndim == 0 and value.isfinite() and value > 0 for _, value in found)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_generator_runs_once_a_step(loss: str) -> None:
    objective = task(loss=loss)
    with calls_of(objective.generator) as seen:
        for _, value in objective.losses(Batch(images(2, 64)), seeded()):
            value.backward()
    assert len(seen) == 1


def gradients(module: nn.Module) -> list[bool]:
    return [p.grad is not None and bool(p.grad.abs().max() > 0) for p in module.parameters()]


@pytest.mark.parametrize("loss", ["joint", "adversarial"])
def test_each_loss_moves_its_own_player_only(loss: str) -> None:
    objective = task(loss=loss, holes="blocks")
    assert objective.discriminator is not None
    pending = objective.losses(Batch(images(2, 64)), seeded())
    name, value = next(pending)
    value.backward()
    assert name == "discriminator"
    assert all(gradients(objective.discriminator))
    assert not any(gradients(objective.generator))
    objective.discriminator.zero_grad(set_to_none=True)
    name, value = next(pending)
    value.backward()
    assert name == "generator"
    assert not any(gradients(objective.discriminator))
    assert any(gradients(objective.generator.encoder))
    assert all(gradients(objective.generator.decoder))
    assert next(pending, None) is None
    assert all(p.requires_grad for p in objective.discriminator.parameters())


def test_a_step_that_is_broken_off_leaves_the_discriminator_trainable() -> None:
    objective = task(loss="joint")
    assert objective.discriminator is not None
    pending = objective.losses(Batch(images(2, 64)), seeded())
    next(pending), next(pending)
    assert not any(p.requires_grad for p in objective.discriminator.parameters())
    pending.close()
    assert all(p.requires_grad for p in objective.discriminator.parameters())


@pytest.mark.parametrize(("loss", "ratio"), [("joint", 0.1), ("adversarial", 1.0)])
def test_in_the_joint_loss_the_generator_learns_ten_times_faster(loss: str, ratio: float) -> None:
    players = task(loss=loss).players()
    assert [group.learning_rate_ratio for group in players["generator"].groups] == [1.0]
    assert [group.learning_rate_ratio for group in players["discriminator"].groups] == [ratio]


@pytest.mark.parametrize("loss", LOSSES)
def test_players_hold_every_parameter_once(loss: str) -> None:
    for player in task(loss=loss).players().values():
        held = [id(p) for group in player.groups for p in group.parameters]
        assert sorted(held) == sorted(id(p) for p in player.module.parameters())


@pytest.mark.parametrize("kind", [kind for kind in HOLES if kind != "centre"])
def test_each_sample_has_a_hole_of_its_own(kind: str) -> None:
    objective, colour = task(holes=kind), torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    with calls_of(objective.generator) as seen:
        next(iter(objective.losses(Batch(images(1, 64).repeat(6, 1, 1, 1)), seeded())))
    hidden = (seen[0][0] == colour).all(dim=1)
    assert len(hidden.flatten(1).unique(dim=0)) == 6
    assert ((hidden.float().mean(dim=(1, 2)) - 0.25).abs() < 0.02).all()


@pytest.mark.parametrize("kind", HOLES)
def test_hidden_pixels_are_never_read(kind: str) -> None:
    objective = task(holes=kind)
    objective.generator.eval()
    truth = images(2, 64)
    hole = objective.draw_holes(2, 64, seeded(5))
    poisoned = torch.where(hole, images(2, 64, seed=9), truth)
    clean, found = (objective.preview(Batch(pixels), seeded(5)) for pixels in (truth, poisoned))
    assert torch.equal(found["input"], clean["input"])
    assert torch.equal(found["output"], clean["output"])
    assert not torch.equal(found["truth"], clean["truth"])


def test_a_preview_keeps_visible_pixels_and_fills_the_rest_by_the_generator() -> None:
    objective, truth = task(holes="blocks"), images(2, 64)
    objective.generator.eval()
    hole = objective.draw_holes(2, 64, seeded(5)).expand_as(truth)
    with calls_of(objective.generator) as seen:
        columns = objective.preview(Batch(truth), seeded(5))
    assert list(columns) == ["input", "output", "truth"]
    assert torch.equal(columns["output"][~hole], truth[~hole])
    assert torch.equal(columns["output"][hole], seen[0][1][hole])


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_the_reconstruction_loss_is_that_of_hole_and_band(distance: str) -> None:
    objective, truth = task(holes="blocks", overlap_pixels=3, distance=distance), images(2, 64)
    with calls_of(objective.generator) as seen:
        (_, found), *_ = objective.losses(Batch(truth), seeded(5))
    hole = objective.draw_holes(2, 64, seeded(5))
    band = (functional.max_pool2d(hole.float(), 7, 1, 3) > 0) & ~hole  # three pixels round about
    error = (2 * (seen[0][1] - truth)).abs() ** (1 if distance == "l1" else 2)
    expected = (error * (hole + 10.0 * band)).sum() / (3 * (hole | band).sum())
    torch.testing.assert_close(found, expected)


def test_the_joint_loss_weighs_reconstruction_and_adversary_once_each() -> None:
    objective = task(loss="joint", reconstruction_weight=0.75, adversarial_weight=0.25)
    assert objective.discriminator is not None
    truth = images(2, 64)
    with calls_of(objective.generator) as made, calls_of(objective.discriminator) as judged:
        (_, first), (_, second) = objective.losses(Batch(truth), seeded(5))
    real, filled, again = (output for _, output in judged)
    torch.testing.assert_close(first, losses.discriminator_loss(real, filled))
    hole = objective.draw_holes(2, 64, seeded(5))
    reconstruction = losses.reconstruction_loss(made[0][1], truth, hole)
    torch.testing.assert_close(second, 0.75 * reconstruction + 0.25 * losses.generator_loss(again))


def test_the_joint_loss_sets_its_reconstruction_apart_for_the_log() -> None:
    objective, truth = task(loss="joint"), images(2, 64)
    with calls_of(objective.generator) as made:
        list(objective.losses(Batch(truth), seeded(5)))
    expected = losses.reconstruction_loss(made[0][1], truth, objective.draw_holes(2, 64, seeded(5)))
    torch.testing.assert_close(objective.terms, {"reconstruction": expected.detach()})


def test_the_weights_of_the_joint_loss_are_the_released_ones() -> None:
    config = inpainting.Config(loss="joint")
    assert (config.reconstruction_weight, config.adversarial_weight) == (0.999, 0.001)


def test_the_adversarial_loss_has_no_reconstruction_in_it() -> None:
    objective = task(loss="adversarial")
    assert objective.discriminator is not None
    with calls_of(objective.discriminator) as judged:
        (_, _), (_, value) = objective.losses(Batch(images(2, 64)), seeded())
    torch.testing.assert_close(value, losses.generator_loss(judged[2][1]))


@pytest.mark.parametrize("predicts", ["image", "target"])
def test_the_discriminator_judges_the_central_hole_with_its_band(predicts: str) -> None:
    objective = task(65, loss="joint", holes="centre", overlap_pixels=4, predicts=predicts)
    assert objective.discriminator is not None
    truth, hole = images(2, 65), objective.draw_holes(2, 65, seeded())
    with calls_of(objective.generator) as made, calls_of(objective.discriminator) as judged:
        list(objective.losses(Batch(truth), seeded()))
    target = (hole | holes.band(hole, 4)).expand_as(truth)
    for (seen, _), whole in zip(judged, (truth, made[0][1], made[0][1]), strict=True):
        assert torch.equal(seen.flatten(), whole[target])  # all of it, and nothing else


def test_where_only_the_target_is_predicted_the_rest_is_the_input() -> None:
    objective = task(64, holes="centre", hole_fraction=(28 / 64) ** 2, overlap_pixels=2, predicts="target")
    generator = objective.generator.eval()
    pixels = images(2, 64)
    with calls_of(generator.decoder) as seen:
        found = generator(pixels)
    assert generator.window()[1:] == (slice(16, 48), slice(16, 48))
    torch.testing.assert_close(found[..., 16:48, 16:48], (torch.tanh(seen[0][1]) + 1) / 2)
    around = torch.ones(64, 64, dtype=torch.bool)
    around[16:48, 16:48] = False
    assert torch.equal(found[..., around], pixels[..., around])
    assert seen[0][1].shape == (2, 3, 32, 32)


def test_the_loss_may_count_visible_pixels_as_the_released_random_code_does() -> None:
    truth = images(2, 64)
    for weight in (1.0, 10.0):
        objective = task(holes="noise", visible_weight=weight)
        with calls_of(objective.generator) as seen:
            (_, found), *_ = objective.losses(Batch(truth), seeded(5))
        hole = objective.draw_holes(2, 64, seeded(5))
        error = 4 * (seen[0][1] - truth).square()
        torch.testing.assert_close(found, (error * torch.where(hole, 1.0, weight)).mean())  # over all of the image


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"predicts": "target", "holes": "region"}, "only a central hole is a target"),
        ({"visible_weight": 1.0, "overlap_pixels": 4}, "visible_weight has no place"),
        ({"visible_weight": 1.0, "predicts": "target", "holes": "centre"}, "visible_weight has no place"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inpainting.Config(**settings)


def test_the_input_is_filled_with_the_colour_that_was_chosen() -> None:
    for fill, colour in (("mean", (123.675, 116.28, 103.53)), ("released", (117, 104, 123))):
        objective = task(holes="centre", fill=fill)
        with calls_of(objective.generator) as seen:
            next(iter(objective.losses(Batch(images(1, 64)), seeded())))
        torch.testing.assert_close(255 * seen[0][0][0, :, 32, 32], torch.tensor(colour, dtype=torch.float32))


def test_with_free_holes_the_discriminator_sees_real_pixels_around_them() -> None:
    objective, truth = task(loss="joint", holes="noise"), images(2, 64)
    assert objective.discriminator is not None
    hole = objective.draw_holes(2, 64, seeded())
    with calls_of(objective.generator) as made, calls_of(objective.discriminator) as judged:
        list(objective.losses(Batch(truth), seeded()))
    assert torch.equal(judged[0][0], truth)
    assert torch.equal(judged[1][0], torch.where(hole, made[0][1], truth))


def test_validation_compares_with_the_mean_colour_on_hidden_pixels() -> None:
    objective, truth = task(holes="blocks"), images(2, 64)
    objective.generator.eval()
    hidden = objective.draw_holes(2, 64, seeded(5)).expand_as(truth)
    with calls_of(objective.generator) as seen:
        values = objective.validate(Batch(truth), seeded(5))
    torch.testing.assert_close(values["hidden_mse"], (seen[0][1] - truth)[hidden].square().mean())
    torch.testing.assert_close(values["mean_fill_mse"], (seen[0][0] - truth)[hidden].square().mean())
    for name, found in (("hidden_psnr", seen[0][1]), ("mean_fill_psnr", seen[0][0])):
        own = [
            -10 * math.log10(float((f - t)[h].square().mean())) for f, t, h in zip(found, truth, hidden, strict=True)
        ]
        assert float(values[name]) == pytest.approx(sum(own) / len(own), abs=1e-4)  # each image's own, then their mean


def test_the_draws_are_the_generators_alone() -> None:
    objective = task()
    objective.generator.eval()
    first, again, other = (
        next(iter(objective.losses(Batch(images(2, 64)), seeded(seed))))[1].item() for seed in (1, 1, 2)
    )
    assert first == again != other


def test_silhouettes_of_the_data_set_make_the_region_holes() -> None:
    disc = torch.zeros(1, 32, 32, dtype=torch.bool)
    disc[:, 8:24, 8:24] = True
    facts = TrainingFacts(64, silhouettes=holes.signed_distance(disc))
    objective = inpainting.build(inpainting.Config(decoder_channels=(8,)), tiny_encoder(), facts)
    expected = holes.draw("region", 4, 64, seeded(), 0.25, disc)
    assert torch.equal(objective.draw_holes(4, 64, seeded()), expected)
    assert not torch.equal(task().draw_holes(4, 64, seeded()), expected)


def test_training_fills_the_hole_better_than_the_mean_colour() -> None:
    objective, batch = task(holes="centre"), Batch(images(4, 8).repeat_interleave(8, 2).repeat_interleave(8, 3))
    optimizer = torch.optim.Adam(objective.generator.parameters(), 3e-3)
    for step in range(60):
        (_, loss), *_ = objective.losses(batch, seeded(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    values = objective.validate(batch, seeded())
    assert values["hidden_mse"] < 0.7 * values["mean_fill_mse"]


@pytest.mark.parametrize("loss", ["joint", "adversarial"])
def test_an_adversary_without_weight_is_refused(loss: str) -> None:
    with pytest.raises(ValueError, match="adversarial_weight must be above 0"):
        inpainting.Config(loss=loss, adversarial_weight=0)


def test_rows_are_named_for_the_hole_and_the_loss() -> None:
    assert inpainting.method_name(inpainting.Config()) == "Context encoder (region)"
    assert inpainting.method_name(inpainting.Config(holes="centre", loss="joint")) == "Context encoder (centre, joint)"


# The controls


def test_the_autoencoder_sees_every_pixel_and_answers_for_each() -> None:
    config = autoencoder.Config(decoder_channels=(8,), dropout=0.0)
    objective, truth = autoencoder.build(config, tiny_encoder(), TrainingFacts(64)), images(2, 64)
    with calls_of(objective.generator) as seen:
        ((name, loss),) = objective.losses(Batch(truth), seeded())
    assert name == "generator"
    assert list(objective.players()) == ["generator"]
    assert torch.equal(seen[0][0], truth)
    torch.testing.assert_close(loss, 4 * functional.mse_loss(seen[0][1], truth))  # on [-1, 1]
    objective.generator.eval()
    with calls_of(objective.generator) as seen:
        values, columns = objective.validate(Batch(truth), seeded()), objective.preview(Batch(truth), seeded())
    torch.testing.assert_close(values["mse"], functional.mse_loss(seen[0][1], truth))
    assert torch.equal(columns["input"], truth)


def test_the_autoencoder_is_the_inpainting_network() -> None:
    shared = autoencoder.Config().model_dump().items() & inpainting.Config().model_dump().items()
    assert dict(shared) == autoencoder.Config().model_dump()
    control = autoencoder.build(autoencoder.Config(), tiny_encoder(), TrainingFacts(64)).generator
    own = inpainting.build(inpainting.Config(), tiny_encoder(), TrainingFacts(64)).generator
    assert str(control) == str(own)


def test_the_supervised_pretext_refuses_data_without_labels() -> None:
    with pytest.raises(UsageError, match="needs labels"):
        supervised.build(supervised.Config(), tiny_encoder(), TrainingFacts(64))


@pytest.mark.parametrize("is_multilabel", [False, True])
def test_the_supervised_pretext_is_cross_entropy_on_the_deepest_stage(is_multilabel: bool) -> None:
    encoder = tiny_encoder().eval()
    facts = TrainingFacts(64, classes=5, is_multilabel=is_multilabel)
    objective = supervised.build(supervised.Config(dropout=0.0), encoder, facts)
    labels = torch.tensor([[0, 1, 255, 0, 1], [1, 0, 0, 0, 255]]) if is_multilabel else torch.tensor([3, 0])
    batch = Batch(images(2, 64), labels)
    ((name, loss),) = objective.losses(batch, seeded())
    linear = objective.network["head"][-1]
    logits = encoder(batch.images)["pool5"].mean(dim=(2, 3)) @ linear.weight.T + linear.bias
    if is_multilabel:
        signs = torch.where(labels == 1, -logits, logits)
        expected = functional.softplus(signs)[labels != 255].mean()
    else:
        expected = -logits.log_softmax(dim=1)[torch.arange(2), labels].mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(objective.validate(batch, seeded())["cross_entropy"], expected)
    assert (name, list(objective.players())) == ("classifier", ["classifier"])
    assert objective.preview(batch, seeded()) == {}


def test_a_supervised_batch_without_labels_is_the_callers_fault() -> None:
    objective = supervised.build(supervised.Config(), tiny_encoder(), TrainingFacts(64, classes=2))
    with pytest.raises(ValueError, match="needs labels"):
        next(objective.losses(Batch(images(2, 64)), seeded()))


@pytest.mark.parametrize("name", list(catalog.parts("pretext")))
def test_every_pretext_trains_its_encoder(name: str) -> None:
    part = catalog.load("pretext", name)
    encoder = tiny_encoder()
    if getattr(part, "NEEDS", "stages") == "patches":  # no convolutional network will do
        settings = {"image_size": "64", "patch_size": "16", "depth": "3"}
        encoder, _ = checkpoint.build_encoder("timm:test_vit", settings, seed=0)
    objective = part.build(part.Config(), encoder, TrainingFacts(64, classes=3))
    assert objective.encoder is encoder
    assert part.SUPERVISION in ("none", "labels")
    assert part.method_name(part.Config())
    for _, loss in objective.losses(Batch(images(4, 64), torch.tensor([0, 1, 2, 0])), seeded()):
        loss.backward()
    first = next(module for module in encoder.modules() if isinstance(module, nn.Conv2d))
    assert first.weight.grad is not None
    assert first.weight.grad.abs().max() > 0
    held = {id(p) for player in objective.players().values() for group in player.groups for p in group.parameters}
    assert held >= {id(p) for p in encoder.parameters()}
    values = objective.validate(Batch(images(4, 64), torch.tensor([0, 1, 2, 0])), seeded())
    assert all(value.ndim == 0 and math.isfinite(value) for value in values.values())
