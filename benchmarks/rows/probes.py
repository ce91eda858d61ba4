"""Linear probes of every layer at ten learning rates, beside describing once per layer and training head after head.

Both read the same images, make the same features, see the same batches in the same order and begin from zero, so that
every head must end where the other way leaves it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from measuring import Measured, side_by_side
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint import train
from ssl_inpaint.batches import FeatureBatches
from ssl_inpaint.checkpoint import build_encoder
from ssl_inpaint.core import Batch, Encoder, TransferFacts
from ssl_inpaint.runtime import Runtime
from ssl_inpaint.train import FitConfig, on_device
from ssl_inpaint.transfer import heads, linear, pooling

NAME = "probes"
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
COMPARED_STEPS = 12  # after which weights are compared: the highest rates make of any rounding a large difference
TOLERANCE = 1e-3  # of weights, relative to the largest of their head: float32 sums in another order
MOST_ROUNDS = 3  # of what takes a minute
DESCRIBED = 128  # images at a time
SEED = 0


@dataclass(frozen=True)
class Problem:
    """What both ways are given."""

    encoder: Encoder
    images: Tensor  # N x 3 x S x S in [0, 1]
    labels: Tensor  # N int64
    classes: int
    config: linear.Config
    loop: FitConfig
    runtime: Runtime


def measure(device: torch.device, rounds: int, is_small: bool) -> Iterator[Measured]:
    """One line: heads an hour, from images to trained heads."""
    problem = _problem(device, is_small)
    agreement = _agreement(_shortened(problem))
    rounds = min(rounds, MOST_ROUNDS)
    found = side_by_side(lambda: ours(problem), lambda: plain(problem), rounds, warm_up=0, device=device)
    stages, count = len(problem.encoder.stages), len(problem.images)
    yield found.measured(
        what="linear probes of all layers at ten learning rates, frozen encoder, float32",
        size=f"{count:,} images of {problem.images.shape[-1]} px, {stages} layers of about {problem.config.features:,} "
        f"features, {problem.loop.steps} steps of {problem.loop.batch_size}",
        compared_with="describing all images once per layer and training one head after another",
        count=stages * len(RATES),
        unit="heads/s",
        reach=10.0,
        agreement=agreement,
        device=problem.runtime.describe(),
    )


def ours(problem: Problem) -> dict[str, Tensor]:
    """By stage heads x K x D weights: features of all stages by one pass, all heads side by side."""
    facts = TransferFacts(
        problem.images.shape[-1],
        tuple(map(str, range(problem.classes))),
        is_multilabel=False,
        is_frozen=True,
        examples=len(problem.images),
        learning_rates=RATES,
    )
    probes = linear.build(problem.config, problem.encoder, facts)
    shown = (
        on_device(Batch(some), problem.runtime, problem.loop.channels_last).images
        for some in problem.images.split(DESCRIBED)
    )
    parts = [{name: maps.half() for name, maps in probes.features(some).items()} for some in shown]
    features = {name: torch.cat([part[name] for part in parts])[:, None] for name in parts[0]}
    train.fit(probes, _batches(features, problem), problem.loop, seed=SEED, runtime=problem.runtime)
    return {name: torch.stack([weight.detach() for weight in one.weights]) for name, one in probes.heads.items()}


def plain(problem: Problem) -> dict[str, Tensor]:
    """The same, layer by layer and head by head."""
    return {
        stage: torch.stack([_head(maps, stage, rate, problem) for rate in RATES])
        for stage in problem.encoder.stages
        for maps in [_maps(stage, problem)]
    }


def _maps(stage: str, problem: Problem) -> Tensor:
    with torch.no_grad():
        found = [
            pooling.pooled(heads.features_of(problem.encoder, some, (stage,))[stage], problem.config).half()
            for some in problem.images.split(DESCRIBED)
        ]
    return torch.cat(found)


def _head(maps: Tensor, stage: str, rate: float, problem: Problem) -> Tensor:
    norm = nn.BatchNorm2d(maps.shape[1], affine=False).to(maps.device)
    layer = nn.Linear(maps[0].numel(), problem.classes).to(maps.device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    loop = problem.loop
    optimizer = torch.optim.SGD(
        [{"params": [layer.weight], "weight_decay": loop.weight_decay}, {"params": [layer.bias], "weight_decay": 0.0}],
        lr=rate,
        momentum=loop.beta1,
    )
    batches = _batches({stage: maps[:, None]}, problem)
    for step in range(loop.steps):
        batch = batches.at(step)
        loss = functional.cross_entropy(layer(norm(batch.features[stage].float()).flatten(1)), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return layer.weight.detach()


def _batches(features: Mapping[str, Tensor], problem: Problem) -> FeatureBatches:
    return FeatureBatches(features, problem.labels, problem.loop.batch_size, SEED)


def _shortened(problem: Problem) -> Problem:
    """A few steps on a few images, in one order of memory."""
    loop = problem.loop.model_copy(update={"steps": COMPARED_STEPS, "channels_last": False})
    few = 2 * loop.batch_size
    return dataclasses.replace(problem, images=problem.images[:few], labels=problem.labels[:few], loop=loop)


def _agreement(problem: Problem) -> str:
    """ValueError where weights differ by more than the tolerance."""
    found, expected = ours(problem), plain(problem)
    worst = max(
        float(((found[stage] - other).abs().amax(dim=(1, 2)) / other.abs().amax(dim=(1, 2))).max())
        for stage, other in expected.items()
    )
    if worst > TOLERANCE:
        raise ValueError(f"weights of heads differ by {worst:.1e} of their largest: at most {TOLERANCE:g} was expected")
    return (
        f"after {problem.loop.steps} steps the weights of all heads equal to {worst:.1e} of their largest "
        f"(tolerance {TOLERANCE:g})"
    )


def _problem(device: torch.device, is_small: bool) -> Problem:
    images, size, features, steps = (96, 64, 64, 6) if is_small else (3000, 64, 2304, 60)
    channels = "8,8,8,8,8" if is_small else "24,64,96,96,64"  # a quarter of AlexNet's
    encoder, _ = build_encoder("compact_alexnet", {"channels": channels}, seed=SEED)
    draws = torch.Generator().manual_seed(SEED)
    loop = FitConfig(
        steps=steps,
        batch_size=32 if is_small else 128,
        optimizer="sgd",
        learning_rate=1.0,  # of which each head takes its own
        beta1=0.9,
        weight_decay=5e-4,
        schedule="constant",
        precision="fp32",
    )
    return Problem(
        encoder=encoder.to(device).eval(),
        images=torch.rand(images, 3, size, size, generator=draws).to(device),
        labels=torch.randint(20, (images,), generator=draws).to(device),
        classes=20,
        config=linear.Config(features=features),
        loop=loop,
        runtime=Runtime(device, is_bf16=False),
    )
