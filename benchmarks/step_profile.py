"""Where the time of a training step goes: operators by the shapes of what they are given, and on a GPU its kernels.

    python benchmarks/step_profile.py --recipe paper
    python benchmarks/step_profile.py --recipe quick --device cpu --set train.batch_size=16

It watches `train.fit` on one batch in memory, warm, and prints the milliseconds of a step that each kind takes.
Watching costs time too, most where steps are small: read shares, not speeds.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import click
import torch
from fitting import WARM_UP_STEPS, InMemory, objective_of
from measuring import finish
from refusing import Script
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ssl_inpaint import catalog, config, options
from ssl_inpaint.errors import UsageError
from ssl_inpaint.plans import Recipe
from ssl_inpaint.pretext.inpainting import Inpainting
from ssl_inpaint.runtime import Runtime, open_runtime
from ssl_inpaint.train import FitConfig, fit

WIDTH = 110  # of what is printed of a name


@dataclass(frozen=True)
class Spent:
    """What one kind of operator or kernel took of all watched steps."""

    name: str
    seconds: float
    calls: int


@click.command(cls=Script)
@click.option("--recipe", "name", type=options.part("recipes"), default="paper", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--set", "assignments", multiple=True, help="PART.FIELD=VALUE of the parts encoder, pretext and train.")
@click.option("--steps", type=click.IntRange(min=1), default=5, show_default=True, help="To watch, after a warm-up.")
@click.option("--rows", type=click.IntRange(min=1), default=20, show_default=True, help="Of each table.")
def step_profile(name: str, device: str, assignments: tuple[str, ...], steps: int, rows: int) -> None:
    """Prints what operators, and on a GPU kernels, take of a step of that recipe's inpainting."""
    recipe = _recipe(name, assignments)
    runtime = open_runtime(device, recipe.train.precision)
    size, train = recipe.crops.size, recipe.train
    images = torch.randint(256, (train.batch_size, 3, size, size), dtype=torch.uint8, device=runtime.device)
    seen, seconds = watched(objective_of(recipe, size), images, train, runtime, steps)
    precision = "bfloat16" if runtime.is_bf16 else "float32"
    click.echo(f"{name}, {size} px, batch {train.batch_size}, {precision}, {runtime.describe()}: ", nl=False)
    click.echo(f"{1e3 * seconds / steps:.2f} ms a step under watch")
    click.echo("\n".join(table("operator", operators(seen, images.is_cuda), seconds, steps, rows)))
    if images.is_cuda:
        click.echo("\n".join(table("kernel", kernels(seen), seconds, steps, rows)))


def watched(
    objective: Inpainting, images: torch.Tensor, train: FitConfig, runtime: Runtime, steps: int
) -> tuple[profile, float]:
    """What was seen of `steps` steps after a warm-up, and the seconds that they took."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if images.is_cuda else [])]
    seen, began, took = profile(activities=kinds, record_shapes=True), 0.0, 0.0
    last = WARM_UP_STEPS + steps

    def on_sample(step: int) -> None:
        nonlocal began, took
        finish(runtime.device)
        if step == WARM_UP_STEPS:
            seen.start()
            began = time.perf_counter()
        elif step == last:
            took = time.perf_counter() - began
            seen.stop()

    changes = {"steps": last, "sample_every_steps": 1, "checkpoint_every_steps": last}
    fit(objective, InMemory(images), train.model_copy(update=changes), seed=0, runtime=runtime, on_sample=on_sample)
    return seen, took


def operators(seen: profile, is_cuda: bool) -> Iterator[Spent]:
    """Each operator and the shapes that it was given, by its own time: on a GPU that of the kernels it started."""
    for found in seen.key_averages(group_by_input_shape=True):
        spent = found.self_device_time_total if is_cuda else found.self_cpu_time_total
        if found.device_type == DeviceType.CPU and spent:
            shapes = " ".join("x".join(map(str, shape)) for shape in found.input_shapes if shape)
            yield Spent(f"{found.key} {shapes}", spent / 1e6, found.count)


def kernels(seen: profile) -> Iterator[Spent]:
    """Each kernel, and each kind of copy, by its time."""
    spent, calls = defaultdict[str, float](float), defaultdict[str, int](int)
    for event in seen.events() or ():
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation:  # those span kernels
            spent[event.name] += event.self_device_time_total / 1e6
            calls[event.name] += 1
    return (Spent(name, spent[name], calls[name]) for name in spent)


def table(what: str, found: Iterable[Spent], seconds: float, steps: int, rows: int) -> Iterator[str]:
    """The largest `rows` as lines of text, and what is left; shares are of the time by the clock."""
    ranked = sorted(found, key=lambda one: -one.seconds)
    rest = ranked[rows:]
    yield f"\n{'ms a step':>9} {'share':>7} {'calls':>7}  {what}"
    for one in ranked[:rows]:
        yield _line(one.name, one.seconds, one.calls, seconds, steps)
    if rest:
        yield _line(f"{len(rest)} others", sum(o.seconds for o in rest), sum(o.calls for o in rest), seconds, steps)
    yield _line("all of these", sum(o.seconds for o in ranked), sum(o.calls for o in ranked), seconds, steps)


def _line(name: str, spent: float, calls: int, seconds: float, steps: int) -> str:
    return f"{1e3 * spent / steps:9.2f} {spent / seconds:7.1%} {calls / steps:7.1f}  {name[:WIDTH]}"


def _recipe(name: str, assignments: tuple[str, ...]) -> Recipe:
    recipe: Recipe = catalog.load("recipes", name).build()
    told = options.settings_of(assignments)
    config.refuse_unknown_parts(told, ("encoder", "pretext", "train"))
    changes = {
        "encoder_settings": {**recipe.encoder_settings, **told.get("encoder", {})},
        "pretext_settings": {**recipe.pretext_settings, **told.get("pretext", {})},
        "train": config.override(recipe.train, "train", told.get("train", {})),
    }
    found = recipe.model_copy(update=changes)
    if found.train.parts != 1:
        raise UsageError(f"train.parts = {found.train.parts}: the batch that is watched comes in one part.")
    return found


if __name__ == "__main__":
    step_profile()
