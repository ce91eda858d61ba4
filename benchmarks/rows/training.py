"""A training step of the released inpainting network with its joint loss, beside the common PyTorch port of it.

Ours is `train.fit` itself on a batch in memory. Both begin with the same weights and see the same images.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from fitting import first_losses, objective_of, timed_beside
from measuring import Measured
from rows.released_port import Port, Widths
from torch import Tensor, nn

from ssl_inpaint import allocation, catalog, layouts
from ssl_inpaint.plans import Recipe
from ssl_inpaint.pretext.inpainting import Inpainting
from ssl_inpaint.progress import say
from ssl_inpaint.runtime import Precision, Runtime, has_fast_bf16
from ssl_inpaint.train import FitConfig

NAME = "training"
WHAT = "training step, released inpainting network, joint loss"
PORT = "its PyTorch port: 4 x 4 convolutions as bottleneck, float32, contiguous, Adam as it comes"
IMAGE_SIZE = 128
EXACT, ROUGH = 1e-5, 3e-2  # relative, of the first step's losses: in float32, and with bfloat16 products
TF32 = 1e-3  # in float32 on a GPU, whose convolutions round their inputs to 10 bits unless told otherwise
REACHES = {("cpu", "fp32"): 2.5, ("cpu", "bf16"): 5.0, ("cuda", "bf16"): 4.0}


@dataclass(frozen=True)
class Variant:
    """One way to run ours."""

    words: str
    precision: Precision
    changes: Mapping[str, bool]
    has_reach: bool = True  # False: shown beside, not aimed at


def measure(device: torch.device, rounds: int, is_small: bool) -> Iterator[Measured]:
    """A line for each precision and way to run the step."""
    count, widths = (4, Widths(8, 64)) if is_small else (32, Widths())
    recipe = _recipe(widths)
    images = _photographs(count).to(device)
    for variant in _variants(device, is_small):
        torch.manual_seed(0)
        port, objective = Port(device, widths), objective_of(recipe, IMAGE_SIZE, fill="released")
        _copy_weights(port.generator, objective.generator)
        _copy_weights(port.discriminator, _judge(objective))
        yield _line(variant, port, objective, images, recipe.train, rounds)


def _line(
    variant: Variant, port: Port, objective: Inpainting, images: Tensor, train: FitConfig, rounds: int
) -> Measured:
    runtime = Runtime(images.device, variant.precision == "bf16")
    train = train.model_copy(update={"precision": variant.precision, **variant.changes})
    theirs = images.contiguous().float() / 255 * 2 - 1
    tolerance = ROUGH if runtime.is_bf16 else TF32 if images.is_cuda else EXACT
    agreement = _agreement(first_losses(objective, images, train, runtime), port.step(theirs), tolerance)
    # On a GPU a round has many steps, so that what is queued ahead is timed as in a long run.
    steps = 20 if images.is_cuda else 1
    found = timed_beside(lambda: _as_it_comes(port, theirs), objective, images, train, runtime, rounds, steps)
    reach = REACHES.get((images.device.type, variant.precision)) if variant.has_reach else None
    return found.measured(
        what=f"{WHAT}, {variant.words}",
        size=f"{IMAGE_SIZE} px, batch {len(images)}",
        compared_with=PORT,
        count=steps * len(images),
        unit="images/s",
        reach=reach,
        agreement=agreement,
        device=runtime.describe(),
    )


def _as_it_comes(port: Port, images: Tensor) -> None:
    """The port's step with memory handled as the C library does by itself, which our loop changes for its own."""
    if images.is_cuda:
        port.step(images)
        return
    allocation.map_large()
    try:
        port.step(images)
    finally:
        allocation.keep()


def _variants(device: torch.device, is_small: bool) -> Iterator[Variant]:
    yield Variant("float32", "fp32", {})
    if has_fast_bf16(device):
        yield Variant("bfloat16", "bf16", {})
    else:
        say("Left out: bfloat16 training, which this CPU does not compute itself (avx512_bf16 or AMX).")
    if is_small:
        return
    precision: Precision = "bf16" if has_fast_bf16(device) else "fp32"
    words = "bfloat16" if precision == "bf16" else "float32"
    if device.type == "cuda" and "cuda_graph" in FitConfig.model_fields:
        yield Variant(f"{words}, train.cuda_graph", precision, {"cuda_graph": True})
    if device.type == "cuda" or shutil.which("g++") or shutil.which("clang++"):
        yield Variant(f"{words}, train.compile", precision, {"compile": True}, has_reach=False)
    else:
        say("Left out: train.compile, which wants a C++ compiler, and there is none on this machine.")


def _recipe(widths: Widths) -> Recipe:
    """`released_centre` with these widths."""
    recipe: Recipe = catalog.load("recipes", "released_centre").build()
    c = widths.channels
    changes = {"decoder_channels": f"{4 * c},{2 * c},{c}", "bottleneck_units": str(widths.units)}
    changes["discriminator_channels"] = str(c)
    encoder = {**recipe.encoder_settings, "channels": f"{c},{c},{2 * c},{4 * c},{8 * c}"}
    pretext = {**recipe.pretext_settings, **changes}
    return recipe.model_copy(update={"encoder_settings": encoder, "pretext_settings": pretext})


def _copy_weights(theirs: nn.Module, ours: nn.Module) -> None:
    match = layouts.match(theirs.state_dict(), ours.state_dict())
    if objections := match.objections():
        raise ValueError(f"the port's layers are not ours: {'; '.join(objections)}")
    ours.load_state_dict({name: tensor.clone() for name, tensor in match.state.items()})


def _judge(objective: Inpainting) -> nn.Module:
    if objective.discriminator is None:
        raise ValueError("a joint loss has a discriminator")
    return objective.discriminator


def _agreement(ours: Mapping[str, float], theirs: Mapping[str, float], tolerance: float) -> str:
    """The largest relative difference of the losses; ValueError above the tolerance, for then nothing is compared."""
    names = sorted(ours.keys() & theirs.keys())
    apart = {name: abs(ours[name] - theirs[name]) / abs(theirs[name]) for name in names}
    worst = max(apart.values())
    if len(names) < 3 or worst > tolerance:
        raise ValueError(f"the first step's losses differ from the port's by {apart}, tolerance {tolerance:g}")
    return f"first step's losses ({', '.join(names)}) equal to {worst:.1g}, tolerance {tolerance:g}"


def _photographs(count: int) -> Tensor:
    """Smooth noise as uint8, count x 3 x IMAGE_SIZE x IMAGE_SIZE."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 12, 12, generator=generator)
    fine = nn.functional.interpolate(coarse, size=IMAGE_SIZE, mode="bicubic", align_corners=False)
    return (fine.clamp(0, 1) * 255).round().to(torch.uint8)
