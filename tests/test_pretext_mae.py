import math

import pytest
import torch
from torch import Tensor, nn

from ssl_inpaint import catalog, checkpoint
from ssl_inpaint.core import Batch, Encoder, TrainingFacts
from ssl_inpaint.encoders.alexnet import AlexNet
from ssl_inpaint.encoders.alexnet import Config as AlexNetConfig
from ssl_inpaint.errors import UsageError
from ssl_inpaint.pretext import masked_autoencoder as mae
from ssl_inpaint.pretext.patch_painter import sine_positions

SIZE, PATCH = 32, 8
PATCHES = (SIZE // PATCH) ** 2


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, size: int = SIZE, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=seeded(seed))


def tiny_vit(size: int = SIZE, patch: int = PATCH) -> Encoder:
    settings = {"image_size": str(size), "patch_size": str(patch), "depth": "3"}
    return checkpoint.build_encoder("timm:test_vit", settings, seed=0)[0]


def task(size: int = SIZE, patch: int = PATCH, **settings: object) -> mae.MaskedAutoencoding:
    config = mae.Config(**{"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2, **settings})
    torch.manual_seed(0)
    return mae.build(config, tiny_vit(size, patch), TrainingFacts(size))


# Patches


def test_patches_are_numbered_row_by_row_and_come_together_again() -> None:
    pixels = images(2)
    patches = mae.split(pixels, PATCH)
    assert patches.shape == (2, 16, 3 * PATCH**2)
    assert torch.equal(patches[1, 6].view(3, PATCH, PATCH), pixels[1, :, 8:16, 16:24])  # second row, third of four
    assert torch.equal(mae.joined(patches, PATCH), pixels)


def test_a_patch_is_normalised_over_all_its_values() -> None:
    mean, deviation = mae.statistics(torch.tensor([[[0.0, 1.0, 2.0, 5.0], [0.5, 0.5, 0.5, 0.5]]]))
    assert mean.flatten().tolist() == [2.0, 0.5]
    assert deviation.flatten().tolist() == pytest.approx([math.sqrt(14 / 3), 1e-3], abs=1e-6)  # 4 + 1 + 0 + 9, over 3


def test_positions_are_waves_that_tell_every_place_from_every_other() -> None:
    waves = sine_positions(3, 8)
    assert waves.shape == (9, 8)
    x, y = 2, 1  # patch 5
    expected = [math.sin(x), math.sin(x / 100), math.cos(x), math.cos(x / 100)]
    expected += [math.sin(y), math.sin(y / 100), math.cos(y), math.cos(y / 100)]
    assert waves[5].tolist() == pytest.approx(expected, abs=1e-6)
    distances = torch.cdist(waves, waves) + torch.eye(9)
    assert distances.min() > 0.1


# What is hidden


@pytest.mark.parametrize(("size", "fraction", "kept"), [(32, 0.75, 4), (32, 0.5, 8), (16, 0.75, 1), (16, 0.99, 1)])
def test_each_sample_has_its_own_patches_and_all_of_them_are_kept_or_hidden(
    size: int, fraction: float, kept: int
) -> None:
    objective = task(size, hidden_fraction=fraction)
    visible, hidden = objective.draw_patches(20, seeded())
    assert visible.shape[1] == kept
    everything = torch.cat([visible, hidden], dim=1).sort(dim=1).values
    assert torch.equal(everything, torch.arange(objective.patches).expand(20, -1))
    assert len(visible.sort(dim=1).values.unique(dim=0)) > 3
    again, other = objective.draw_patches(20, seeded())[0], objective.draw_patches(20, seeded(1))[0]
    assert torch.equal(again, visible)
    assert not torch.equal(other, visible)


def test_every_patch_is_hidden_as_often_as_any_other() -> None:
    _, hidden = task().draw_patches(2000, seeded())
    shares = hidden.flatten().bincount(minlength=PATCHES) / 2000
    assert (shares - 0.75).abs().max() < 0.05  # five deviations of such a share


@pytest.mark.parametrize("normalized", [True, False])
def test_hidden_pixels_never_influence_what_is_drawn(normalized: bool) -> None:
    objective = task(normalized_targets=normalized)
    objective.network.eval()
    pixels = images(2)
    kept, hidden = objective.draw_patches(2, seeded(5))
    patches = mae.split(pixels, PATCH)
    index = hidden.unsqueeze(2).expand(-1, -1, patches.shape[2])
    poisoned = mae.joined(patches.scatter(1, index, torch.nan), PATCH)
    with torch.no_grad():
        clean, found = objective.network(pixels, kept, hidden), objective.network(poisoned, kept, hidden)
    assert poisoned.isnan().float().mean() == 0.75
    assert torch.equal(found, clean)


def test_visible_pixels_do_influence_it() -> None:
    objective, pixels = task(), images(1).requires_grad_()
    kept, hidden = objective.draw_patches(1, seeded(5))
    objective.network(pixels, kept, hidden).square().sum().backward()
    assert pixels.grad is not None
    reached = mae.split(pixels.grad, PATCH)[0].abs().sum(dim=1) > 0
    assert reached.nonzero().flatten().tolist() == sorted(kept[0].tolist())


def test_hidden_patches_are_not_computed_in_the_encoder() -> None:
    objective, lengths = task(), list[int]()
    for block in objective.encoder.model.model.blocks:
        block.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    next(objective.losses(Batch(images(2)), seeded()))
    assert lengths == [1 + PATCHES // 4] * 3  # with the class token, in three blocks


def test_the_order_of_visible_and_of_hidden_patches_is_irrelevant() -> None:
    objective, pixels = task(), images(2)
    objective.network.eval()
    kept, hidden = objective.draw_patches(2, seeded(5))
    turned, shuffled = kept.flip(1), torch.randperm(hidden.shape[1], generator=seeded(6))
    with torch.no_grad():
        expected = objective.network(pixels, kept, hidden)
        found = objective.network(pixels, turned, hidden[:, shuffled])
    torch.testing.assert_close(found, expected[:, shuffled], rtol=1e-4, atol=1e-5)  # sums run in another order


# The loss


@pytest.mark.parametrize("normalized", [True, False])
def test_the_loss_is_the_mean_over_hidden_patches_and_over_no_others(normalized: bool) -> None:
    objective, pixels = task(normalized_targets=normalized), images(2)
    drawn: list[Tensor] = []
    objective.network.register_forward_hook(lambda _, __, output: drawn.append(output.detach()))
    ((name, loss),) = objective.losses(Batch(pixels), seeded(5))
    _, hidden = objective.draw_patches(2, seeded(5))
    errors = []
    for sample in range(2):
        for place, patch in enumerate(hidden[sample].tolist()):
            row, column = divmod(patch, SIZE // PATCH)
            window = pixels[sample, :, PATCH * row : PATCH * (row + 1), PATCH * column : PATCH * (column + 1)]
            target = (window - window.mean()) / (window.var() + 1e-6).sqrt() if normalized else window
            errors.append((drawn[0][sample, place] - target.flatten()).square().mean())
    assert name == "autoencoder"
    torch.testing.assert_close(loss, torch.stack(errors).mean())
    assert list(objective.players()) == ["autoencoder"]


def test_validation_sets_the_error_beside_that_of_each_patchs_own_mean() -> None:
    values = 3 * PATCH**2
    for normalized in (True, False):
        objective, pixels = task(normalized_targets=normalized), images(2)
        objective.network.eval()
        found = objective.validate(Batch(pixels), seeded(5))
        ((_, loss),) = objective.losses(Batch(pixels), seeded(5))
        torch.testing.assert_close(found["hidden_patch_mse"], loss.detach(), rtol=1e-4, atol=1e-6)
        _, hidden = objective.draw_patches(2, seeded(5))
        own = mae.taken(mae.split(pixels, PATCH), hidden).var(dim=2, correction=0).mean()
        expected = (values - 1) / values if normalized else float(own)
        assert float(found["patch_mean_mse"]) == pytest.approx(expected, rel=1e-3)


def test_flat_patches_have_a_target_of_zero() -> None:
    objective = task()
    found = objective.validate(Batch(torch.full((2, 3, SIZE, SIZE), 0.3)), seeded())
    assert float(found["patch_mean_mse"]) == pytest.approx(0, abs=1e-6)
    assert found["hidden_patch_mse"].isfinite()


@pytest.mark.parametrize("normalized", [True, False])
def test_a_preview_shows_visible_patches_as_they_are_and_hides_the_rest(normalized: bool) -> None:
    objective, truth = task(normalized_targets=normalized), images(3)
    objective.network.eval()
    columns = objective.preview(Batch(truth), seeded(5))
    assert list(columns) == ["input", "output", "truth"]
    _, hidden = objective.draw_patches(3, seeded(5))
    is_hidden = torch.zeros(3, PATCHES, dtype=torch.bool).scatter(1, hidden, True)
    shown = {name: mae.split(maps, PATCH) for name, maps in columns.items()}
    assert torch.equal(shown["output"][~is_hidden], shown["truth"][~is_hidden])
    assert torch.equal(shown["input"][~is_hidden], shown["truth"][~is_hidden])
    assert shown["input"][is_hidden].unique().numel() == 3  # one colour
    assert (shown["output"][is_hidden] != shown["truth"][is_hidden]).float().mean() > 0.9
    assert columns["output"].min() >= 0
    assert columns["output"].max() <= 1


# The network


def test_encoder_positions_begin_as_sines_and_are_learned_on() -> None:
    encoder = task().encoder
    torch.testing.assert_close(encoder.positions, sine_positions(4, 64))
    assert encoder.model.model.pos_embed.requires_grad
    before = checkpoint.weights_sha256(tiny_vit())
    assert checkpoint.weights_sha256(task(begins_with_sines=False).encoder) == before


def test_weights_decay_and_biases_and_norms_do_not() -> None:
    player = task().players()["autoencoder"]
    decaying, others = player.groups
    assert (decaying.weight_decay_ratio, others.weight_decay_ratio) == (1.0, 0.0)
    assert all(p.ndim > 1 for p in decaying.parameters)
    assert all(p.ndim == 1 for p in others.parameters)
    held = [id(p) for group in player.groups for p in group.parameters]
    assert sorted(held) == sorted(id(p) for p in player.module.parameters())


def test_the_decoder_can_be_the_papers() -> None:
    network = task(decoder_depth=8, decoder_width=512, decoder_heads=16).network
    blocks = [module for module in network.modules() if isinstance(module, nn.TransformerEncoderLayer)]
    assert [(b.linear1.in_features, b.linear1.out_features, b.self_attn.num_heads) for b in blocks] == [
        (512, 2048, 16)
    ] * 8


@pytest.mark.parametrize(("width", "heads"), [(30, 2), (32, 3)])
def test_a_width_that_heads_or_waves_do_not_divide_is_refused(width: int, heads: int) -> None:
    with pytest.raises(ValueError, match=f"decoder_width {width} must be a multiple of 4 and of the {heads} heads"):
        mae.Config(decoder_width=width, decoder_heads=heads)


def test_an_encoder_without_patches_is_refused_with_one_that_has_them() -> None:
    encoder = AlexNet(AlexNetConfig(channels=(2, 2, 2, 2, 2), stem="7x7/2"))
    with pytest.raises(UsageError, match=r"--encoder timm:vit_tiny_patch16_224.*image_size=96.*--recipe mae"):
        mae.build(mae.Config(), encoder, TrainingFacts(96))


@pytest.mark.parametrize(("size", "patch"), [(36, 8), (16, 16)])
def test_images_that_patches_do_not_tile_are_refused(size: int, patch: int) -> None:
    with pytest.raises(UsageError, match=f"Patches of {patch} pixels do not tile images of {size}"):
        task(size, patch)


def test_images_of_another_size_than_the_encoders_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"positions of 16 patches and images of 64 pixels have 64: set encoder\.image_size=64"
    ):
        mae.build(mae.Config(), tiny_vit(32), TrainingFacts(64))


def test_the_recipe_suits_the_task() -> None:
    recipe = catalog.load("recipes", "mae").build()
    encoder, _ = checkpoint.build_encoder(recipe.encoder, recipe.encoder_settings, seed=0)
    assert mae.build(mae.Config(), encoder, TrainingFacts(recipe.crops.size)).patches == 64


def test_rows_are_named_for_the_target() -> None:
    assert mae.method_name(mae.Config()) == "Masked autoencoder"
    assert mae.method_name(mae.Config(normalized_targets=False)) == "Masked autoencoder (raw pixels)"


def test_training_draws_hidden_patches_better_than_their_own_means() -> None:
    """Stripes of four kinds, and any visible patch tells which. The bound is a third of the patch means' error."""
    place = torch.arange(SIZE) / PATCH * math.tau
    waves = torch.stack([place.sin().expand(SIZE, -1), place.sin().expand(SIZE, -1).T, place.cos().expand(SIZE, -1)])
    kinds = (0.5 + 0.4 * torch.cat([waves, -waves[:1]])).unsqueeze(1).expand(-1, 3, -1, -1)

    def batch(seed: int) -> Batch:
        chosen = torch.randint(4, (16,), generator=seeded(seed))
        return Batch((kinds[chosen] + 0.02 * torch.randn(16, 3, SIZE, SIZE, generator=seeded(seed))).clamp(0, 1))

    objective = task()
    optimizer = torch.optim.AdamW(objective.network.parameters(), 3e-3)
    for step in range(30):
        ((_, loss),) = objective.losses(batch(step), seeded(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    objective.network.eval()
    values = objective.validate(batch(1000), seeded())
    assert values["hidden_patch_mse"] < values["patch_mean_mse"] / 3
