"""The loop: resuming changes nothing, players move in order and alone, schedules are exact."""

from __future__ import annotations

import itertools
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_inpaint import train
from ssl_inpaint.core import Batch, ParameterGroup, Player
from ssl_inpaint.errors import UsageError
from ssl_inpaint.runlog import read_log
from ssl_inpaint.runtime import Runtime
from ssl_inpaint.train import FitConfig, fit, learning_rate_at

FP32, BF16 = Runtime(torch.device("cpu"), is_bf16=False), Runtime(torch.device("cpu"), is_bf16=True)
STEPS = 11
# Nothing is a multiple of anything else, so that stops fall between log lines, checkpoints and the end.
UNEVEN = FitConfig(
    steps=STEPS,
    batch_size=4,
    learning_rate=0.01,
    weight_decay=0.1,
    warmup_steps=2,
    log_every_steps=3,
    checkpoint_every_steps=4,
    sample_every_steps=1,
)


class Noise:
    """Images that are a function of the step."""

    batch_size = 4

    def at(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        generator = torch.Generator().manual_seed(step)
        return Batch(torch.randint(0, 256, (4, 3, 6, 6), generator=generator, dtype=torch.uint8))


def _network(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 1, 3))


class Duel:
    """Two players with everything that a resumed run could lose: BatchNorm, dropout, draws, unequal learning rates."""

    def __init__(self, on_loss: Callable[[], None] = lambda: None) -> None:
        self.critic, self.maker, self.on_loss = _network(1), _network(2), on_loss

    def players(self) -> dict[str, Player]:
        return {
            "maker": Player(self.maker, [ParameterGroup(list(self.maker.parameters()))]),
            "critic": Player(self.critic, [ParameterGroup(list(self.critic.parameters()), learning_rate_ratio=0.1)]),
        }

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        noise = torch.rand(batch.images.shape, generator=generator)
        yield "critic", (self.critic(batch.images).float().mean() - 1).square()
        self.on_loss()
        yield "maker", (self.critic(noise) * self.maker(batch.images)).float().square().mean()


class Weights:
    """One weight vector a player, and losses that are given functions of all of them."""

    def __init__(self, **losses: Callable[[dict[str, Tensor]], Tensor]) -> None:
        self.modules = {name: nn.Linear(3, 1, bias=False) for name in losses}
        for module in self.modules.values():
            nn.init.constant_(module.weight, 0.5)
        self.by_name = losses
        self.seen: list[dict[str, Tensor]] = []

    def players(self) -> dict[str, Player]:
        return {name: Player(m, [ParameterGroup(list(m.parameters()))]) for name, m in self.modules.items()}

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        for name, loss in self.by_name.items():
            self.seen.append({n: m.weight.detach().clone() for n, m in self.modules.items()})
            yield name, loss({n: m.weight for n, m in self.modules.items()})


def _fit(objective: Any, config: FitConfig = UNEVEN, runtime: Runtime = FP32, seed: int = 3, **more: Any) -> train.Fit:
    return fit(objective, more.pop("batches", Noise()), config, seed=seed, runtime=runtime, **more)


def _assert_same(one: Any, other: Any) -> None:
    """Equal to the last bit, nested values included."""
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            _assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for a, b in itertools.zip_longest(one, other):
            _assert_same(a, b)
    else:
        assert one == other


def _kept(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The checkpoint and the log, without the times in them."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    del state["seconds"]
    times = ("seconds", "images_per_second")
    return state, [{k: v for k, v in line.items() if k not in times} for line in read_log(folder / "log.jsonl")]


class _Crash(Exception):
    pass


def _raising_at(step: int) -> Callable[[int], None]:
    def on_sample(now: int) -> None:
        if now == step:
            raise _Crash

    return on_sample


def _signalling_at(step: int, number: int) -> Callable[[int], None]:
    def on_sample(now: int) -> None:
        if now == step:
            os.kill(os.getpid(), number)

    return on_sample


@pytest.mark.parametrize("runtime", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_resuming_equals_never_stopping(tmp_path: Path, runtime: Runtime, optimizer: Any) -> None:
    config = UNEVEN.model_copy(update={"optimizer": optimizer, "clip_norm": 0.1})
    whole = _fit(Duel(), config, runtime, folder=tmp_path / "whole")
    folder = tmp_path / "stopped"
    with pytest.raises(_Crash):  # the checkpoint is of step 4, the log has lines up to 6
        _fit(Duel(), config, runtime, folder=folder, on_sample=_raising_at(7))
    with pytest.raises(train.Interrupted):
        _fit(Duel(), config, runtime, folder=folder, resume=True, on_sample=_signalling_at(7, signal.SIGTERM))
    resumed = _fit(Duel(), config, runtime, folder=folder, resume=True)
    _assert_same(_kept(folder), _kept(tmp_path / "whole"))
    assert resumed.losses == whole.losses and resumed.steps == whole.steps == STEPS


def test_resuming_after_a_stop_between_two_players_equals_never_stopping(tmp_path: Path) -> None:
    calls = itertools.count(1)

    def crash_in_step_6() -> None:
        if next(calls) == 6:
            raise _Crash

    with pytest.raises(_Crash):
        _fit(Duel(crash_in_step_6), folder=tmp_path / "stopped")
    _fit(Duel(), folder=tmp_path / "stopped", resume=True)
    _fit(Duel(), folder=tmp_path / "whole")
    _assert_same(_kept(tmp_path / "stopped"), _kept(tmp_path / "whole"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_the_step_with_a_checkpoint_and_says_how_to_go_on(tmp_path: Path, number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(train.Interrupted, match=rf"{signal.Signals(number).name} after step 6 of 11.*--resume"):
        _fit(Duel(), folder=tmp_path, on_sample=_signalling_at(6, number))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 6
    assert signal.getsignal(number) is before


def test_a_signal_in_the_last_step_is_not_lost(tmp_path: Path) -> None:
    with pytest.raises(train.Interrupted, match="after step 11 of 11"):
        _fit(Duel(), folder=tmp_path, on_sample=_signalling_at(STEPS, signal.SIGTERM))
    assert _fit(Duel(), folder=tmp_path, resume=True).steps == STEPS


def test_a_finished_run_is_resumed_to_nothing_but_its_weights(tmp_path: Path) -> None:
    first, again = Duel(), Duel(on_loss=lambda: pytest.fail("a finished run trained on"))
    done = _fit(first, folder=tmp_path)
    assert _fit(again, folder=tmp_path, resume=True) == done
    _assert_same(dict(again.maker.state_dict()), dict(first.maker.state_dict()))


def test_resuming_where_nothing_was_saved_begins_anew(tmp_path: Path) -> None:
    with pytest.raises(_Crash):
        _fit(Duel(), folder=tmp_path / "stopped", on_sample=_raising_at(3))
    _fit(Duel(), folder=tmp_path / "stopped", resume=True)
    _fit(Duel(), folder=tmp_path / "whole")
    _assert_same(_kept(tmp_path / "stopped"), _kept(tmp_path / "whole"))


@pytest.mark.parametrize("change", [{"learning_rate": 0.02}, {"steps": 12}, {"batch_size": 8}])
def test_another_runs_checkpoint_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    _fit(Duel(), folder=tmp_path)
    with pytest.raises(UsageError, match="other settings"):
        _fit(Duel(), UNEVEN.model_copy(update=change), folder=tmp_path, resume=True)
    with pytest.raises(UsageError, match="other settings"):
        _fit(Duel(), folder=tmp_path, resume=True, seed=4)


def test_the_seed_and_nothing_else_decides(tmp_path: Path) -> None:
    runs = {}
    for name, seed, workers, noise in (("a", 3, 1, 1), ("b", 3, 3, 2), ("c", 4, 1, 1)):
        torch.manual_seed(noise)
        duel = Duel()
        _fit(duel, seed=seed, workers=workers)
        runs[name] = dict(duel.maker.state_dict())
    _assert_same(runs["a"], runs["b"])
    assert not torch.equal(runs["a"]["0.weight"], runs["c"]["0.weight"])


def test_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    _fit(Duel())
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(5)
    with pytest.raises(_Crash):
        _fit(Duel(), on_sample=_raising_at(2))
    assert torch.equal(torch.rand(3), expected)


PLAIN = FitConfig(steps=3, batch_size=4, optimizer="sgd", learning_rate=0.1, beta1=0.0, schedule="constant")


def test_a_player_is_stepped_before_the_next_loss_is_asked_for() -> None:
    toy = Weights(critic=lambda w: w["critic"].sum(), maker=lambda w: (w["critic"].detach() * w["maker"]).sum())
    _fit(toy, PLAIN.model_copy(update={"steps": 1}))
    before, between = toy.seen
    assert torch.allclose(before["critic"], torch.tensor(0.5)) and torch.allclose(between["critic"], torch.tensor(0.4))
    # The maker's gradient is the critic's weight: 0.4 once it has moved, 0.5 had it not.
    assert torch.allclose(toy.modules["maker"].weight, torch.tensor(0.5 - 0.1 * 0.4))


def test_only_the_player_whose_loss_it_is_moves() -> None:
    toy = Weights(
        critic=lambda w: (w["critic"] * w["maker"]).sum(), maker=lambda w: (3 * w["critic"] * w["maker"]).sum()
    )
    _fit(toy, PLAIN.model_copy(update={"steps": 2}))
    critic, maker = torch.tensor(0.5), torch.tensor(0.5)
    for _ in range(2):  # gradients that the other's loss leaves behind must not count
        critic = critic - 0.1 * maker
        maker = maker - 0.1 * 3 * critic
    assert torch.allclose(toy.modules["critic"].weight, critic.expand(1, 3))
    assert torch.allclose(toy.modules["maker"].weight, maker.expand(1, 3))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_group_ratios_are_those_of_a_plain_loop(optimizer: Any) -> None:
    config = FitConfig(
        **{"steps": 8, "batch_size": 4, "optimizer": optimizer, "learning_rate": 0.02, "weight_decay": 0.3},
        **{"warmup_steps": 3, "beta1": 0.8},
    )

    class Grouped:
        def __init__(self) -> None:
            self.module = nn.Sequential(nn.Flatten(), _linear(108, 5), nn.Tanh(), _linear(5, 2))

        def players(self) -> dict[str, Player]:
            fast = ParameterGroup([self.module[1].weight], learning_rate_ratio=10.0)
            free = ParameterGroup([self.module[1].bias], learning_rate_ratio=2.0, weight_decay_ratio=0.0)
            rest = ParameterGroup(list(self.module[3].parameters()), weight_decay_ratio=0.5)
            return {"net": Player(self.module, [fast, free, rest])}

        def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
            yield "net", self.module(batch.images).square().mean()

    ours, plain = Grouped(), Grouped()
    _fit(ours, config)
    first, last = plain.module[1], plain.module[3]
    groups = [
        {"params": [first.weight], "weight_decay": 0.3, "ratio": 10.0},
        {"params": [first.bias], "weight_decay": 0.0, "ratio": 2.0},
        {"params": list(last.parameters()), "weight_decay": 0.15, "ratio": 1.0},
    ]
    kind = {
        "adam": lambda: torch.optim.Adam(groups, betas=(0.8, 0.999)),
        "adamw": lambda: torch.optim.AdamW(groups, betas=(0.8, 0.999)),
        "sgd": lambda: torch.optim.SGD(groups, momentum=0.8),
    }[optimizer]()
    for step in range(8):
        for group in kind.param_groups:
            group["lr"] = group["ratio"] * learning_rate_at(config, step)
        kind.zero_grad()
        plain.module(Noise().at(step).images.float() / 255).square().mean().backward()
        kind.step()
    for mine, theirs in zip(ours.module.parameters(), plain.module.parameters(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6)  # fused and plain optimisers round differently


def _linear(inputs: int, outputs: int) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(inputs)
        return nn.Linear(inputs, outputs)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run_and_names_step_and_player(tmp_path: Path, bad: float) -> None:
    config = UNEVEN.model_copy(update={"checkpoint_every_steps": 2})
    calls = itertools.count(1)
    toy = Weights(
        critic=lambda w: w["critic"].sum(), maker=lambda w: w["maker"].sum() * (bad if next(calls) == 4 else 1)
    )
    with pytest.raises(train.NotFinite, match=r"loss of 'maker' is (nan|inf) in step 4"):
        _fit(toy, config, folder=tmp_path)
    last_asked = toy.seen[-1]["maker"]
    assert torch.equal(toy.modules["maker"].weight, last_asked)  # not moved by the bad loss
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 2
    again = Weights(critic=lambda w: w["critic"].sum(), maker=lambda w: w["maker"].sum())
    assert _fit(again, config, folder=tmp_path, resume=True).steps == STEPS


def test_weights_that_are_no_numbers_never_replace_the_last_good_checkpoint(tmp_path: Path) -> None:
    class Overflow(torch.autograd.Function):
        """Finite forward, infinite backward: as a square root at zero."""

        @staticmethod
        def forward(context: Any, value: Tensor) -> Tensor:
            return value.clone()

        @staticmethod
        def backward(context: Any, gradient: Tensor) -> Tensor:
            return gradient * math.inf

    calls = itertools.count(1)

    def loss(weights: dict[str, Tensor]) -> Tensor:
        total = weights["net"].sum()
        return Overflow.apply(total) if next(calls) == 8 else total

    with pytest.raises(train.NotFinite, match="Weights of 'net' are not finite after step 8"):
        _fit(Weights(net=loss), folder=tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 4 and torch.isfinite(state["modules"]["net"]["weight"]).all()


def test_cosine_halves_in_the_middle_and_ends_near_zero_after_a_linear_warm_up() -> None:
    config = FitConfig(steps=110, learning_rate=2.0, schedule="cosine", warmup_steps=10)
    rates = [learning_rate_at(config, step) for step in range(110)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[10] == 2.0 and rates[60] == pytest.approx(1.0) and 0 < rates[-1] < 1e-3
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))


def test_the_step_schedule_is_exact() -> None:
    config = FitConfig(steps=100, learning_rate=1.0, schedule="step", decay_every_steps=10, decay_factor=0.5)
    assert [learning_rate_at(config, step) for step in (0, 9, 10, 19, 20, 99)] == [1, 1, 0.5, 0.5, 0.25, 0.5**9]
    assert learning_rate_at(FitConfig(schedule="constant", learning_rate=3.0, steps=5), 4) == 3.0


def test_the_learning_rate_of_the_log_is_that_of_the_step(tmp_path: Path) -> None:
    _fit(Duel(), folder=tmp_path)
    for line in read_log(tmp_path / "log.jsonl"):
        assert line["learning_rate"] == learning_rate_at(UNEVEN, line["step"] - 1)


@pytest.mark.parametrize(("clip", "expected"), [(None, 3.0), (1.0, 1.0), (10.0, 3.0)])
def test_gradients_are_clipped_to_the_norm(clip: float | None, expected: float) -> None:
    toy = Weights(net=lambda w: math.sqrt(3) * w["net"].sum())  # three weights: a gradient of norm 3
    _fit(toy, PLAIN.model_copy(update={"steps": 1, "clip_norm": clip}))
    moved = (toy.modules["net"].weight - 0.5).norm() / 0.1
    assert moved.item() == pytest.approx(expected, rel=1e-4)


def test_each_player_is_clipped_by_its_own_norm() -> None:
    toy = Weights(big=lambda w: 100 * w["big"].sum(), small=lambda w: 0.1 * w["small"].sum())
    _fit(toy, PLAIN.model_copy(update={"steps": 1, "clip_norm": 1.0}))
    assert (toy.modules["big"].weight - 0.5).norm().item() == pytest.approx(0.1, rel=1e-4)
    assert torch.allclose(toy.modules["small"].weight, torch.tensor(0.5 - 0.01))


def test_terms_that_an_objective_sets_apart_are_logged_beside_its_losses(tmp_path: Path) -> None:
    toy = Weights(net=lambda w: w["net"].sum() * 0 + 4.0)
    toy.terms = {"part": torch.tensor(3.0)}  # type: ignore[attr-defined]
    done = _fit(toy, folder=tmp_path)
    assert done.losses == {"net": 4.0, "part": 3.0}
    assert {line["loss/part"] for line in read_log(tmp_path / "log.jsonl")} == {3.0}


def test_the_log_has_the_mean_losses_of_each_window(tmp_path: Path) -> None:
    values = [float(v) for v in range(1, 12)]
    calls = iter(values)
    done = _fit(Weights(net=lambda w: w["net"].sum() * 0 + next(calls)), folder=tmp_path)
    lines = read_log(tmp_path / "log.jsonl")
    assert [line["step"] for line in lines] == [3, 6, 9, 11]
    assert [line["loss/net"] for line in lines] == [2.0, 5.0, 8.0, 10.5]
    assert done.losses == {"net": 10.5} and done.examples == 44 and done.seconds > 0


def test_samples_are_asked_for_when_due_and_at_the_end() -> None:
    asked: list[int] = []
    _fit(Duel(), UNEVEN.model_copy(update={"sample_every_steps": 4}), on_sample=asked.append)
    assert asked == [4, 8, 11]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
@pytest.mark.parametrize("runtime", [FP32, BF16], ids=["fp32", "bf16"])
def test_batches_of_every_kind_train_in_every_precision(runtime: Runtime, dtype: torch.dtype) -> None:
    class Typed(Noise):
        def at(self, step: int, part: int = 0, parts: int = 1) -> Batch:
            return Batch(super().at(step).images.to(dtype))

    duel = Duel()
    _fit(duel, PLAIN, runtime, batches=Typed())
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in duel.maker.parameters())


def test_images_arrive_as_fractions_and_features_as_they_are() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    on = train.on_device(Batch(images, torch.tensor([7])), FP32)
    assert on.images.flatten().tolist() == pytest.approx([0, 0.2, 1]) and on.labels is not None
    assert on.labels.tolist() == [7]
    assert train.on_device(Batch(torch.full((2, 3), 51.0)), FP32).images.tolist() == [[51.0] * 3] * 2


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_memory_format_is_the_configured_one(channels_last: bool) -> None:
    seen = []

    class Looking(Duel):
        def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
            seen.append((batch.images, self.maker[0].weight))
            yield from super().losses(batch, generator)

    class Planar(Noise):
        def at(self, step: int, part: int = 0, parts: int = 1) -> Batch:
            return Batch(super().at(step).images.contiguous())

    _fit(Looking(), PLAIN.model_copy(update={"channels_last": channels_last}), batches=Planar())
    for tensor in seen[0]:
        assert tensor.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_a_failing_batch_is_reported_and_its_threads_end() -> None:
    class Broken(Noise):
        def at(self, step: int, part: int = 0, parts: int = 1) -> Batch:
            if step == 2:
                raise OSError("the image is gone")
            return super().at(step)

    with pytest.raises(OSError, match="the image is gone"):
        _fit(Duel(), batches=Broken(), workers=2)


def test_training_mode_is_on_while_fitting() -> None:
    duel = Duel()
    duel.maker.eval()
    before = duel.maker[1].running_mean.clone()
    _fit(duel, PLAIN)
    assert not torch.equal(duel.maker[1].running_mean, before)


def test_compiling_reaches_the_modules_that_are_called() -> None:
    class Held(Weights):
        def players(self) -> dict[str, Player]:
            return {
                name: Player(nn.ModuleDict({"part": player.module}), player.groups)
                for name, player in super().players().items()
            }

    toy = Held(net=lambda w: w["net"].sum())  # never called, so never compiled in earnest
    _fit(toy, PLAIN.model_copy(update={"compile": True}))
    assert toy.modules["net"]._compiled_call_impl is not None
