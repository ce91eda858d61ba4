"""Nine products in the place of sixteen give what torch's convolutions give, and so do their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint import winograd
from ssl_inpaint.runtime import seeded
from ssl_inpaint.winograd import Doubling, Halving

SHAPES = [(2, 3, 8, 8), (1, 5, 4, 12), (3, 1, 16, 4)]


def plain(kind: str, maps: Tensor, weight: Tensor) -> Tensor:
    way = functional.conv2d if kind == "halved" else functional.conv_transpose2d
    return way(maps, weight, stride=2, padding=1)


def ours(kind: str, maps: Tensor, weight: Tensor) -> Tensor:
    found: Tensor = (winograd._Halved if kind == "halved" else winograd._Doubled).apply(maps, weight)
    return found


def drawn(kind: str, shape: tuple[int, ...], other: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    sides = (other, shape[1]) if kind == "halved" else (shape[1], other)
    maps = torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()
    return maps, torch.randn(*sides, 4, 4, generator=generator, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["halved", "doubled"])
def test_outputs_and_gradients_are_those_of_torch(
    kind: str, shape: tuple[int, ...], memory: torch.memory_format
) -> None:
    maps, weight = drawn(kind, shape, 6, torch.float64)
    shown = maps.contiguous(memory_format=memory)
    found, expected = ours(kind, shown, weight), plain(kind, shown, weight)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)
    back = torch.randn_like(expected)
    pairs = (torch.autograd.grad(made, (maps, weight), back) for made in (found, expected))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", ["halved", "doubled"])
def test_gradients_are_those_of_small_differences(kind: str) -> None:
    assert torch.autograd.gradcheck(lambda *given: ours(kind, *given), drawn(kind, (1, 2, 4, 4), 2, torch.float64))


@pytest.mark.parametrize("wanted", [0, 1])
@pytest.mark.parametrize("kind", ["halved", "doubled"])
def test_a_gradient_that_is_not_asked_for_is_not_made(kind: str, wanted: int) -> None:
    given = drawn(kind, (2, 3, 8, 8), 4, torch.float64)
    given[1 - wanted].requires_grad_(False)
    found = torch.autograd.grad(ours(kind, *given).square().sum(), given[wanted])
    expected = torch.autograd.grad(plain(kind, *given).square().sum(), given[wanted])
    torch.testing.assert_close(found, expected)


def test_a_filter_of_ones_counts_the_taps_that_lie_inside() -> None:
    found = winograd._Halved.apply(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
    assert found.tolist() == [[[[9, 9], [9, 9]]]]


@pytest.mark.parametrize(("kind", "shape"), [(Halving, (4, 64, 16, 16)), (Doubling, (4, 128, 8, 8))])
def test_rounding_is_no_worse_than_some_times_torchs(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    with seeded(0):
        layer, maps = kind(shape[1], 192 - shape[1]), torch.randn(shape)
    plain: Any = kind.__base__
    found, theirs = layer(maps), plain.forward(layer, maps)
    exact = plain.forward(layer.double(), maps.double())
    apart, usual = ((made.double() - exact).abs().max() for made in (found, theirs))
    assert not torch.equal(found, theirs) and apart < 8 * usual


@pytest.mark.parametrize("wanted", [0, 1])
@pytest.mark.parametrize("kind", ["halved", "doubled"])
def test_nothing_is_kept_for_a_gradient_that_is_not_asked_for(kind: str, wanted: int) -> None:
    given, kept = drawn(kind, (4, 3, 16, 16), 4, torch.float64), list[int]()
    given[1 - wanted].requires_grad_(False)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda saved: kept.append(saved.numel()) or saved, lambda saved: saved
    ):
        ours(kind, *given)
    tiles, filters = given[0].numel() * 9 // 4, given[1].numel() * 9 // 4
    assert kept == ([filters] if wanted == 0 else [pytest.approx(tiles, rel=0.3)])


@pytest.mark.parametrize(
    ("layer", "shape", "pays"),
    [
        (Halving(64, 128), (4, 64, 16, 16), True),
        (Halving(64, 64), (4, 64, 16, 16), False),  # few channels
        (Halving(64, 128), (3, 64, 16, 16), False),  # few tiles
        (Halving(64, 128), (4, 64, 18, 18), False),  # an odd number of outputs
        (Doubling(128, 64), (4, 128, 8, 8), True),
        (Doubling(128, 64), (8, 128, 7, 8), False),
        (Doubling(128, 3), (4, 128, 8, 8), False),
        (Halving(64, 128).double(), (4, 64, 16, 16), False),
    ],
)
def test_it_is_used_where_it_pays(
    layer: nn.Module, shape: tuple[int, ...], pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = list[str]()

    def noted(name: str, plain: Any) -> Any:
        return lambda *given: (called.append(name), plain(*given))[1]

    for kind in ("_Halved", "_Doubled"):
        monkeypatch.setattr(getattr(winograd, kind), "apply", noted(kind, getattr(winograd, kind).apply))
    layer(torch.zeros(shape, dtype=next(layer.parameters()).dtype))
    assert bool(called) == pays
    called.clear()
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.zeros(shape, dtype=next(layer.parameters()).dtype))
    assert not called


def test_maps_of_another_width_are_refused_in_torchs_words() -> None:
    with pytest.raises(RuntimeError, match="channels"):
        Halving(64, 128)(torch.zeros(4, 65, 16, 16))


def test_weights_are_those_of_torchs_layers() -> None:
    pairs = ((Halving(3, 5), nn.Conv2d(3, 5, 4, 2, 1)), (Doubling(3, 5), nn.ConvTranspose2d(3, 5, 4, 2, 1)))
    for layer, other in pairs:
        layer.load_state_dict(other.state_dict())
        maps = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
        assert torch.equal(layer(maps), other(maps))
