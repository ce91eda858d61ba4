"""The paper's AlexNet context encoder at 227 pixels: images a second, beside the GPU's arithmetic limit and plain code.

The limit is what the GPU would do if it only multiplied: the FLOPs of forward and backward pass by torch's counter over
the rate of a large bfloat16 matrix product measured in the same process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from fitting import InMemory, first_losses, objective_of, timed_beside
from measuring import Measured, seconds_of
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ssl_inpaint import catalog
from ssl_inpaint.plans import Recipe
from ssl_inpaint.pretext.inpainting import Inpainting
from ssl_inpaint.progress import say
from ssl_inpaint.runtime import Runtime, has_fast_bf16
from ssl_inpaint.train import FitConfig, on_device

NAME = "paper"
WHAT = "training step, AlexNet context encoder"
PLAIN = "the same written plainly: float32, contiguous, no autocast, Adam as it comes"
LIMIT = "arithmetic limit, {gigaflops:.2f} GFLOP an image at {teraflops:.0f} TFLOP/s of a matrix product"
WANTED = 15_000.0  # images a second: 100,000 iterations of 256 in under 30 minutes
WANTED_SHARE = 0.25  # of the limit
TOLERANCE = 3e-2  # relative, of the first step's loss in bfloat16 against float32
BATCHES = (256, 512, 1024)
ROUND_STEPS = 10


def measure(device: torch.device, rounds: int, is_small: bool) -> Iterator[Measured]:
    """Three lines for each batch size and way to run it: against plain code, the limit, and what is wanted."""
    if device.type != "cuda" and not is_small:
        say("Left out: the AlexNet context encoder at 227 pixels, which wants a GPU.")
        return
    recipe: Recipe = catalog.load("recipes", "paper").build()
    size, batches = (64, (4,)) if is_small else (recipe.crops.size, BATCHES)
    rate = _matrix_rate(device, is_small)
    for words, changes in _variants(device, is_small).items():
        for count in batches:
            yield from _lines(recipe, size, count, rate, device, rounds, words, changes)


def _variants(device: torch.device, is_small: bool) -> dict[str, dict[str, bool]]:
    """Ways to run ours: as it comes, and by each option for speed."""
    options = ["compile", *(name for name in ("cuda_graph",) if name in FitConfig.model_fields)]
    return {"": {}} | ({} if is_small else {f", train.{name}": {name: True} for name in options})


def _lines(
    recipe: Recipe,
    size: int,
    count: int,
    rate: float,
    device: torch.device,
    rounds: int,
    words: str,
    changes: dict[str, bool],
) -> Iterator[Measured]:
    images = torch.randint(256, (count, 3, size, size), dtype=torch.uint8, device=device)
    runtime = Runtime(device, has_fast_bf16(device))
    agreement = _agreement(recipe, images, runtime)
    objective, train = objective_of(recipe, size), recipe.train.model_copy(update=changes)
    flops = flops_of(objective, images[:2], runtime) / 2
    plain = _plain_step(objective_of(recipe, size), images)
    steps = ROUND_STEPS if device.type == "cuda" else 1
    found = timed_beside(plain, objective, images, train, runtime, rounds, steps)
    precision = "bfloat16" if runtime.is_bf16 else "float32"
    line = found.measured(
        what=f"{WHAT}, {precision}{words}",
        size=f"{size} px, batch {count}",
        compared_with=PLAIN,
        count=steps * count,
        unit="images/s",
        reach=None,
        agreement=agreement,
        device=runtime.describe(),
    )
    yield line
    limit = LIMIT.format(gigaflops=flops / 1e9, teraflops=rate / 1e12)
    yield _against(line, "share of the arithmetic limit", limit, rate / flops, WANTED_SHARE)
    yield _against(line, "against the rate wanted", "100,000 iterations of 256 in half an hour", WANTED, 1.0)


def flops_of(objective: Inpainting, images: Tensor, runtime: Runtime) -> float:
    """Floating-point operations of one forward and backward pass, a multiply and an add counted as two."""
    objective.generator.to(images.device)
    batch = on_device(InMemory(images).at(0), runtime)
    with FlopCounterMode(display=False) as counter:
        for _, loss in objective.losses(batch, torch.Generator(images.device)):
            loss.backward()
    return float(counter.get_total_flops())


def _against(line: Measured, words: str, compared_with: str, other: float, reach: float) -> Measured:
    """The same measurement beside a number that is not a run."""
    scale = line.ours / other / line.ratio
    return replace(
        line,
        what=f"{line.what}: {words}",
        compared_with=compared_with,
        other=other,
        ratio=line.ours / other,
        lowest=line.lowest * scale,
        highest=line.highest * scale,
        reach=reach,
    )


def _agreement(recipe: Recipe, images: Tensor, runtime: Runtime) -> str:
    """The first step's loss beside that in float32, of equal weights, holes and dropout."""
    found = []
    for chosen in (runtime, Runtime(runtime.device, False)):
        objective = objective_of(recipe, images.shape[-1])
        found.append(first_losses(objective, images, recipe.train, chosen)["generator"])
    apart = abs(found[0] - found[1]) / found[1]
    if apart > TOLERANCE:
        raise ValueError(f"the first step's loss is {found[0]} and in float32 {found[1]}, tolerance {TOLERANCE:g}")
    return f"first step's loss equal to that in float32 to {apart:.1g}, tolerance {TOLERANCE:g}"


def _plain_step(objective: Inpainting, images: Tensor) -> Callable[[], float]:
    """The same task as most would write it."""
    device = images.device
    network = objective.generator.to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    generator = torch.Generator(device).manual_seed(0)
    batch = InMemory(images.contiguous().float() / 255).at(0)

    def step() -> float:
        (_, loss), *_ = objective.losses(batch, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _matrix_rate(device: torch.device, is_small: bool) -> float:
    """FLOP/s of a large square matrix product, the best of ten: bfloat16 on a GPU, float32 on a CPU."""
    side = 256 if is_small else 8192
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return 2 * side**3 / min(seconds_of(lambda: left @ right, device) for _ in range(10))
