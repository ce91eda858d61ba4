"""The five bottlenecks: what sees what, how many parameters each has, and that all train what lies below."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from ssl_inpaint.core import Batch, TrainingFacts
from ssl_inpaint.encoders.alexnet import AlexNet
from ssl_inpaint.encoders.alexnet import Config as AlexNetConfig
from ssl_inpaint.pretext import inpainting
from ssl_inpaint.pretext.bottlenecks import Kind, Mixed, NonLocal, build_bottleneck
from ssl_inpaint.records import Record

KINDS = get_args(Kind)
CHANNELS, SIDE, UNITS = 4, 7, 5


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The tensors are so small that threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(
    kind: Kind, channels: int = CHANNELS, side: int = SIDE, units: int = UNITS, dropout: float = 0.0
) -> nn.Module:
    """In eval mode and double precision, all weights positive, as maps are: every ReLU lets everything through."""
    torch.manual_seed(0)
    made = build_bottleneck(kind, channels, side, units, dropout).double().eval()
    for parameter in made.parameters():
        parameter.data.abs_()
    for part in made.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            part.running_var.uniform_(0.5, 1.5)
    return made


def maps_of(channels: int = CHANNELS, side: int = SIDE, count: int = 1) -> Tensor:
    return torch.rand(count, channels, side, side, generator=seeded(), dtype=torch.float64)


def sees(layer: nn.Module) -> Tensor:
    """Channel out x place out x channel in x place in, bool: True where the input has a part in the output."""
    places = SIDE * SIDE
    jacobian = torch.autograd.functional.jacobian(layer, maps_of())
    return jacobian.view(CHANNELS, places, CHANNELS, places) != 0


def distances() -> Tensor:
    """place x place: how many places apart, the larger of down and across."""
    down, across = torch.arange(SIDE * SIDE) // SIDE, torch.arange(SIDE * SIDE) % SIDE
    return torch.maximum((down[:, None] - down).abs(), (across[:, None] - across).abs())


def joining(kind: Kind, **settings: int) -> nn.Module:
    """What stands before the 1 x 1 convolution."""
    return built(kind, **settings).get_submodule(kind)


SAME_CHANNEL = torch.eye(CHANNELS, dtype=torch.bool)[:, None, :, None]
SAME_PLACE = torch.eye(SIDE * SIDE, dtype=torch.bool)[None, :, None, :]


def test_without_a_layer_between_each_place_sees_itself_alone() -> None:
    seen = sees(built("none"))
    assert torch.equal(seen, SAME_PLACE.expand_as(seen))
    maps = maps_of()
    torch.testing.assert_close(joining("none")(maps), maps)


def test_the_channelwise_layer_joins_all_places_of_one_channel() -> None:
    seen = sees(joining("channelwise"))
    assert torch.equal(seen, SAME_CHANNEL.expand_as(seen))


def test_the_convolutions_join_five_by_five_places_of_their_group() -> None:
    layer = joining("convolution")
    assert [part.groups for part in layer if isinstance(part, nn.Conv2d)] == [1, 1]  # 7^4 / 18 is above 4
    seen = sees(layer).any(dim=2).any(dim=0)
    assert torch.equal(seen, distances() <= 2)


def test_groups_of_convolutions_are_kept_apart() -> None:
    layer = nn.Sequential(*joining("convolution", side=2))  # 2^4 / 18 channels a group, at least one
    seen = sees(layer).any(dim=3).any(dim=1)
    assert torch.equal(seen, torch.eye(CHANNELS, dtype=torch.bool))


def test_attention_joins_all_places_of_all_channels() -> None:
    assert sees(joining("attention")).all()


def test_the_full_layer_joins_everything() -> None:
    assert sees(built("full")).all()


@pytest.mark.parametrize("kind", ["channelwise", "convolution", "attention"])
def test_with_the_one_by_one_convolution_every_channel_sees_every_other(kind: Kind) -> None:
    assert sees(built(kind)).any(dim=3).any(dim=1).all()


def test_attention_knows_what_is_there_and_not_where() -> None:
    layer, maps = joining("attention"), maps_of(count=2)
    order = torch.randperm(SIDE * SIDE, generator=seeded())

    def moved(found: Tensor) -> Tensor:
        return found.flatten(2)[..., order].view_as(found)

    torch.testing.assert_close(layer(moved(maps)), moved(layer(maps)))
    fixed = joining("channelwise")
    assert not torch.allclose(fixed(moved(maps)), moved(fixed(maps)))


def test_attention_is_the_embedded_gaussian_of_the_article() -> None:
    """y_i = sum_j softmax_j(theta_i . phi_j / root of their length) g_j, written out by place."""
    layer, maps = joining("attention", channels=4, side=2).requires_grad_(False), maps_of(4, 2)
    assert isinstance(layer, NonLocal)
    places = maps[0].flatten(1).T

    def embedded(part: nn.Conv2d) -> Tensor:
        return places @ part.weight.flatten(1).T + part.bias

    theta, phi, g = (embedded(part) for part in (layer.theta, layer.phi, layer.g))
    rows = []
    for i in range(4):
        weights = torch.tensor([math.exp(float(theta[i] @ phi[j]) / math.sqrt(2)) for j in range(4)])
        rows.append(sum(weights[j] / weights.sum() * g[j] for j in range(4)))
    gathered = torch.stack(rows).T.view(1, 2, 2, 2)
    torch.testing.assert_close(layer(maps), maps + layer.norm(layer.out(gathered)), rtol=1e-5, atol=1e-6)


def test_attention_begins_as_the_identity() -> None:
    layer, maps = NonLocal(6).train(), maps_of(6, 3, count=2).float()
    torch.testing.assert_close(layer(maps), maps)


def expected_parameters(kind: Kind, m: int, n: int, u: int, w: int) -> int:
    own = {
        "none": 0,
        "channelwise": m * n**4 + m * n**2,
        "convolution": 18 * m * w + 2 * m,
        "attention": 2 * m**2 + 9 * m // 2,
        "full": 2 * u * m * n**2 + 2 * u + 2 * m,
    }
    return own[kind] + (0 if kind == "full" else m**2 + m)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("m", "n", "w"), [(8, 3, 4), (256, 6, 64), (128, 4, 16), (6, 1, 1), (10, 4, 10)])
def test_the_parameters_are_those_of_the_formula(kind: Kind, m: int, n: int, w: int) -> None:
    made = build_bottleneck(kind, m, n, 7, 0.0)
    assert sum(p.numel() for p in made.parameters()) == expected_parameters(kind, m, n, 7, w)


def test_the_convolutions_have_about_the_weights_of_the_channelwise_layer() -> None:
    for channels, side in ((256, 6), (128, 4), (192, 5)):
        layers = build_bottleneck("convolution", channels, side, 1, 0.0).get_submodule("convolution")
        weights = sum(part.weight.numel() for part in layers if isinstance(part, nn.Conv2d))
        assert 1 / math.sqrt(2) < weights / (channels * side**4) < math.sqrt(2)  # no divisor is further off


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("channels", "side"), [(4, 7), (1, 1), (3, 2)])
def test_maps_keep_their_shape(kind: Kind, channels: int, side: int) -> None:
    maps = maps_of(channels, side, count=2)
    found = built(kind, channels, side)(maps)
    assert found.shape == maps.shape and (found >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_all_parameters_and_the_maps_below_get_a_gradient(kind: Kind) -> None:
    """With scales that begin at zero (attention's last) taken away from there, as one step does."""
    made, maps = built(kind).train(), maps_of(count=8).requires_grad_()
    made(maps).square().sum().backward()
    assert maps.grad is not None and maps.grad.abs().max() > 0
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_attention_is_there_from_the_first_step(kind: Kind) -> None:
    torch.manual_seed(0)
    made, maps = build_bottleneck(kind, CHANNELS, SIDE, UNITS, 0.0).train(), maps_of(count=8).float().requires_grad_()
    made(maps).square().sum().backward()
    assert maps.grad is not None and maps.grad.abs().max() > 0
    if kind == "attention":
        assert made.get_submodule("attention.norm").weight.grad.abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_off_in_eval_mode(kind: Kind) -> None:
    made, maps = built(kind, dropout=0.5), maps_of(count=2)
    torch.testing.assert_close(made(maps), made(maps))
    made.train()
    assert not torch.equal(made(maps), made(maps))


def test_the_names_of_weights_are_those_of_files_written_before() -> None:
    assert list(build_bottleneck("channelwise", 2, 2, 1, 0.0).state_dict()) == [
        "channelwise.weight",
        "channelwise.bias",
        "mix.weight",
        "mix.bias",
    ]
    assert {name.split(".")[0] for name in build_bottleneck("full", 2, 2, 1, 0.0).state_dict()} == {
        "squeeze",
        "squeeze_norm",
        "expand",
        "expand_norm",
    }


def test_the_kinds_differ_by_one_layer() -> None:
    """All but the full one have the 1 x 1 convolution behind them, and nothing else that learns."""
    for kind in ("none", "channelwise", "convolution", "attention"):
        made = build_bottleneck(kind, 4, 3, 1, 0.0)
        assert isinstance(made, Mixed)
        assert {name.split(".")[0] for name, _ in made.named_parameters()} <= {kind, "mix"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_task_trains_with_every_kind(kind: Kind) -> None:
    torch.manual_seed(0)
    encoder = AlexNet(AlexNetConfig(channels=(4, 6, 8, 8, 6), stem="7x7/2", normalization="batch"))
    config = inpainting.Config(bottleneck=kind, bottleneck_units=9, decoder_channels=(8,))
    objective = inpainting.build(config, encoder, TrainingFacts(64))
    for _, loss in objective.losses(Batch(torch.rand(4, 3, 64, 64, generator=seeded())), seeded()):
        loss.backward()
    assert encoder.conv1.weight.grad.abs().max() > 0
    assert inpainting.Config(**config.model_dump(mode="json")) == config


# The table of benchmarks/bottlenecks.py


def test_the_table_joins_costs_with_the_ledgers_records(load: Any) -> None:
    """Error by the settings of pretraining, transfer by its weights, over seeds; what is not measured is a dash."""
    benchmark = load("bottlenecks")
    plain = Record(
        **dict.fromkeys(("dataset_sha256", "commit", "device", "source", "supervision", "encoder", "method"), "a"),
        **{"pretext": "inpainting", "weights_sha256": "w0", "task": "pretext", "protocol": "p", "mode": "-"},
        **{"dataset": "ours", "split": "s", "metric": "hidden_mse", "seed": 0, "recipe": "quick", "config_hash": "h"},
        **{"value": 0.03, "higher_is_better": False, "n_examples": 9, "versions": {}, "workers": 1, "seconds": 1.0},
        **{"pretraining_seconds": 1.0, "created_at": "2026-01-01T00:00:00+00:00"},
    )
    moved = replace(plain, task="cls", protocol="quick-cls/v1", mode="frozen", metric="mAP", config_hash="t", value=0.5)
    records = [
        plain,
        replace(plain, seed=1, weights_sha256="w1", value=0.05),
        replace(plain, config_hash="other", value=0.9),
        replace(plain, dataset="another", value=0.9),
        replace(plain, metric="mean_fill_mse", value=0.07),
        moved,
        replace(moved, mode="finetune", value=0.9),
        replace(moved, weights_sha256="of another run", value=0.9),
        replace(moved, metric="mAP (area)", value=0.9),
    ]
    line = {"bottleneck": "none", "parameters": 1234, "step_seconds": 0.0125, "step_ratio": 0.9, "rounds": 4}
    line |= {"step_ratio_low": 0.8, "step_ratio_high": 1.1, "batch_size": 2, "hardware": "here", "torch": "2"}
    line |= {"encoder": "e", "recipe": "quick", "image_size": 64, "steps": 3, "dataset": "ours", "settings": "h"}
    costs = pd.DataFrame([line, {**line, "bottleneck": "full", "settings": "not measured"}])
    text = benchmark.render(costs, records, "cls", "quick-cls/v1", "frozen")
    rows = [[field.strip() for field in row.split("|")[1:-1]] for row in text.splitlines() if row.startswith("| ")]
    assert rows[1] == ["none", "1,234", "12.5", "0.90 (0.80 to 1.10)", "0.0400 ± 0.0141", "50.0"]
    assert rows[2] == ["full", "1,234", "12.5", "0.90 (0.80 to 1.10)", "–", "–"]
    assert rows[3] == ["mean colour, no network", "–", "–", "–", "0.0700", "–"]
