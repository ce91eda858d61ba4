"""Rescaling before fine-tuning: what layers measure afterwards, computed in a second way, and what stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn

from ssl_inpaint.encoders import alexnet
from ssl_inpaint.errors import Failure, UsageError
from ssl_inpaint.experiment.rescaling import layers_in_order, rescale
from ssl_inpaint.plans import Rescaling


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The tensors are so small that threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batches(count: int = 3, size: int = 8, side: int = 9) -> list[Tensor]:
    """Batches of unequal sizes."""
    draws = generator(7)
    return [torch.rand(size + index, 3, side, side, generator=draws) for index in range(count)]


def network(groups: int = 1, middle: nn.Module | None = None, deviation: float = 0.3) -> nn.Sequential:
    """A chain with biases whose layers learn at very different rates."""
    built = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2),
        nn.ReLU(inplace=True),  # works on the very tensor that the layer below gave
        nn.Conv2d(4, 6, 3, groups=groups),
        middle or nn.Identity(),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(24, 8),
        nn.ReLU(),
        nn.Linear(8, 5),
    )
    draws = generator(1)
    for layer, factor in zip(scaled_layers(built), (30.0, 1.0, 0.1, 1.0), strict=True):
        nn.init.normal_(layer.weight, std=deviation * factor, generator=draws)
        nn.init.normal_(layer.bias, std=deviation, generator=draws)
    return built


def scaled_layers(built: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    return [module for module in built.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def run(
    built: nn.Module,
    kind: Rescaling,
    images: Sequence[Tensor] | None = None,
    top: Callable[[Tensor], Tensor] | None = None,
    untrained: nn.Module | None = None,
    seed: int = 0,
) -> nn.Module:
    """The network rescaled, everything in it taken for random unless told otherwise."""
    found = batches() if images is None else images
    rescale(built, top or built, found, kind, generator(seed), untrained=untrained or built, name="ours")
    return built


def outputs_by_layer(built: nn.Module, images: Sequence[Tensor], top: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Of each layer all outputs of all images together, one row a channel."""
    found: list[Tensor] = []
    handles = [
        layer.register_forward_hook(lambda _, __, out: found.append(out.clone())) for layer in scaled_layers(built)
    ]
    built.eval()
    with torch.no_grad():
        top(torch.cat(list(images)))
    for handle in handles:
        handle.remove()
    return [outputs.transpose(0, 1).flatten(1) for outputs in found]


def expected_ratios(built: nn.Module, images: Tensor, top: Callable[[Tensor], Tensor]) -> Tensor:
    """Root of the exact mean over N(0, 1) top gradients: the squared Jacobian, one backward pass an output."""
    weights = [layer.weight for layer in scaled_layers(built)]
    outputs = top(images).flatten()
    squares = torch.zeros(len(weights))
    for output in outputs:
        squares += torch.stack([g.square().mean() for g in torch.autograd.grad(output, weights, retain_graph=True)])
    return (squares / torch.stack([weight.square().mean() for weight in weights])).sqrt().detach()


def state(built: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in built.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 0.0) -> None:
    for name, value in one.items():
        assert torch.allclose(value, other[name], rtol=tolerance, atol=tolerance), name


@pytest.mark.parametrize("groups", [1, 2])
def test_within_gives_every_channel_deviation_one_and_mean_a_tenth(groups: int) -> None:
    built = run(network(groups), "within")
    for outputs in outputs_by_layer(built, batches(), built):
        assert torch.allclose(outputs.std(dim=1, correction=0), torch.ones(len(outputs)), atol=1e-4)
        assert torch.allclose(outputs.mean(dim=1), torch.full((len(outputs),), 0.1), atol=1e-4)


def test_within_scales_whole_filters_of_the_untrained_part_alone() -> None:
    built = network()
    before = state(built)
    run(built, "within", untrained=built[7:])
    after = state(built)
    for name in before:
        if int(name.split(".")[0]) < 7:
            assert torch.equal(before[name], after[name])
        elif "weight" in name:
            share = after[name] / before[name]
            assert torch.allclose(share, share[:, :1].expand_as(share), rtol=1e-4) and (share > 0).all()
    last = outputs_by_layer(built, batches(), built)[-1]
    assert torch.allclose(last.std(dim=1, correction=0), torch.ones(5), atol=1e-4)


def test_within_leaves_a_layer_without_bias_its_mean() -> None:
    built = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(4 * 49, 2))
    first, last = outputs_by_layer(run(built, "within"), batches(), built)
    assert torch.allclose(first.std(dim=1, correction=0), torch.ones(4), atol=1e-4)
    assert (first.mean(dim=1) - 0.1).abs().max() > 0.1
    assert torch.allclose(last.mean(dim=1), torch.full((2,), 0.1), atol=1e-4)


def test_between_makes_the_ratios_of_its_own_gradients_agree() -> None:
    """Within 1 % of their common target: the gradients it sent are caught, and the ratios computed anew from them."""
    built, images, sent = network(), batches(), list[Tensor]()

    def top(batch: Tensor) -> Tensor:
        outputs = built(batch)
        if outputs.requires_grad:
            outputs.register_hook(sent.append)
        return outputs

    run(built, "between", images, top)
    built.eval()
    squares = []
    for batch, gradient in zip(images, sent[-3:], strict=True):
        built.zero_grad()
        built(batch).backward(gradient)
        squares.append(torch.stack([layer.weight.grad.square().mean() for layer in scaled_layers(built)]))
    weights = torch.stack([layer.weight.detach().square().mean() for layer in scaled_layers(built)])
    ratios = (torch.stack(squares).mean(dim=0) / weights).sqrt()
    assert ratios.max() / ratios.min() < 1.02
    deviation = outputs_by_layer(built, images, built)[-1].std(dim=1, correction=0).mean()
    assert abs(deviation.log()) < 0.05  # four layers' share of 1 %


@pytest.mark.parametrize("kind", ["between", "both"])
def test_between_makes_the_ratios_agree_in_expectation(kind: Rescaling) -> None:
    """Up to the spread of the 40 gradients it draws."""
    built, (images,) = network().eval(), batches(1)
    before = expected_ratios(built, images, built)
    assert before.max() / before.min() > 100
    run(built, kind, [images] * 40)
    after = expected_ratios(built, images, built)
    assert after.max() / after.min() < 1.15


def test_between_changes_the_function_by_one_factor() -> None:
    built, (images,) = network().eval(), batches(1)
    before = built(images).flatten()
    run(built, "between")
    after = built(images).flatten()
    assert torch.allclose(before / before.norm(), after / after.norm(), atol=1e-5)
    assert abs(after.norm() / before.norm() - 1) > 0.1  # it did change


def test_between_scales_whole_layers() -> None:
    built = network()
    before = state(built)
    for name, value in state(run(built, "between")).items():
        share = value / before[name]
        assert torch.allclose(share, share.flatten()[0].expand_as(share), rtol=1e-4)
        assert abs(share.flatten()[0] - 1) > 0.01


@pytest.mark.parametrize("kind", ["between", "within"])
def test_a_second_time_changes_nothing(kind: Rescaling) -> None:
    built = run(network(), kind)
    before = state(built)
    run(built, kind)
    assert_same(before, state(built), tolerance=1e-5)


def test_both_is_within_then_between() -> None:
    assert_same(state(run(network(), "both")), state(run(run(network(), "within"), "between")))


def test_none_changes_nothing_and_takes_any_network() -> None:
    built = network(middle=nn.BatchNorm2d(6))
    before = state(built)
    assert_same(before, state(run(built, "none")))


def test_the_same_generator_gives_the_same_weights_whatever_the_global_state() -> None:
    first, second = network(), network()
    run(first, "both")
    global_state = torch.manual_seed(2).get_state()
    assert_same(state(first), state(run(second, "both")))
    assert torch.equal(global_state, torch.get_rng_state())
    assert not torch.equal(second[0].weight, state(run(network(), "both", seed=1))["0.weight"])


def test_modes_flags_gradients_and_hooks_are_as_before() -> None:
    built = network().train()
    built[2].eval()
    built[0].weight.requires_grad_(False)
    built[7].weight.grad = torch.ones_like(built[7].weight)
    with torch.no_grad():
        run(built, "both")
    assert [module.training for module in built] == [index != 2 for index in range(len(built))] and built.training
    assert [name for name, p in built.named_parameters() if not p.requires_grad] == ["0.weight"]
    assert torch.equal(built[7].weight.grad, torch.ones_like(built[7].weight))
    assert [name for name, p in built.named_parameters() if p.grad is not None] == ["7.weight"]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in built.modules())


def test_modes_and_hooks_are_restored_after_an_error() -> None:
    built, images = network().train(), batches()
    images[1][0, 0, 0, 0] = torch.nan
    with pytest.raises(Failure, match="not finite"):
        run(built, "both", images)
    assert all(module.training for module in built.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in built.modules())


def test_it_measures_without_dropout_and_without_autocast() -> None:
    plain, cast = network().eval(), network().train()
    run(plain, "both")
    with torch.autocast("cpu", torch.bfloat16):
        run(cast, "both")
    assert_same(state(plain), state(cast))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(6), nn.GroupNorm(2, 6), nn.InstanceNorm2d(6), nn.LayerNorm([6, 2, 2])])
@pytest.mark.parametrize("kind", ["between", "within", "both"])
def test_normalisation_is_refused_before_anything_changes(norm: nn.Module, kind: Rescaling) -> None:
    built = network(middle=norm)
    before = state(built)
    with pytest.raises(
        UsageError, match=rf"without {type(norm).__name__} and 'ours' has it \(3\).*protocol.rescale=none"
    ):
        run(built, kind)
    assert_same(before, state(built))


@pytest.mark.parametrize("kind", ["between", "within", "both"])
@pytest.mark.parametrize("dead", [0, 2, 7, 9])
def test_a_layer_of_zeros_stays_and_spoils_nothing(kind: Rescaling, dead: int) -> None:
    built = network()
    nn.init.zeros_(built[dead].weight)
    bias = built[dead].bias.detach().clone()
    run(built, kind)
    assert all(value.isfinite().all() and value.abs().max() < 1e3 for value in built.state_dict().values())
    assert not built[dead].weight.any()
    if kind == "within":
        assert torch.equal(built[dead].bias, bias)


def test_dead_channels_stay_while_their_neighbour_is_rescaled() -> None:
    built = network()
    with torch.no_grad():
        built[0].weight[1:] *= torch.tensor([0.0, 1e-8, 1e-8]).view(3, 1, 1, 1)  # no more than rounding is left
        built[0].bias[1:] = 0.7
    before = state(built)
    run(built, "within")
    outputs = outputs_by_layer(built, batches(), built)[0]
    assert torch.equal(built[0].weight[1:], before["0.weight"][1:]) and (built[0].bias[1:] == 0.7).all()
    assert torch.allclose(outputs.std(dim=1, correction=0), torch.tensor([1.0, 0.0, 0.0, 0.0]), atol=1e-4)


def test_layers_below_a_dead_relu_have_no_gradient_and_stay() -> None:
    built = network()
    nn.init.constant_(built[2].bias, -1e4)
    before = state(built)
    run(built, "between")
    assert_same({name: before[name] for name in ("0.weight", "2.weight")}, state(built))


def test_layers_come_in_the_order_of_their_first_call() -> None:
    first, second, unused = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    built = nn.ModuleList([unused, second, first])
    found = layers_in_order(built, lambda images: first(second(first(images))), torch.zeros(1, 4))
    assert len(found) == 2 and found[0] is first and found[1] is second


def test_layers_that_top_skips_stay_as_they_are() -> None:
    built = nn.ModuleDict({"trunk": network(), "boxes": nn.Linear(5, 4)})
    before = state(built["boxes"])
    run(built, "both", top=built["trunk"])
    assert_same(before, state(built["boxes"]))


@pytest.mark.parametrize("normalization", ["none", "lrn"])
def test_alexnet_and_its_head_learn_at_one_rate(normalization: str) -> None:
    """From CaffeNet's Gaussian weights, with which the rates differ a thousandfold; LRN hardly hinders it."""
    config = alexnet.Config(channels=(4, 6, 8, 8, 6), normalization=normalization, stem="7x7/2")
    torch.manual_seed(0)
    encoder = alexnet.build(config)
    head = nn.Sequential(nn.Flatten(), nn.Linear(6 * 16, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3))
    built = nn.ModuleDict({"encoder": encoder, "head": head})

    def top(images: Tensor) -> Tensor:
        return head(encoder(images)["pool5"])

    images = batches(2, size=3, side=64)
    assert layers_in_order(built, top, images[0]) == scaled_layers(built)
    frozen = copy.deepcopy(encoder)
    run(built, "within", images, top, untrained=head)
    assert_same(state(frozen), state(encoder))
    run(built, "both", images * 2, top)
    ratios = expected_ratios(built.eval(), torch.cat(images), top)
    assert ratios.max() / ratios.min() < 2  # the spread of four gradients; before it is above 1000
    deviation = outputs_by_layer(built, images, top)[-1].std(dim=1, correction=0).mean()
    assert abs(deviation.log()) < 0.1  # eight layers' share of 1 %
