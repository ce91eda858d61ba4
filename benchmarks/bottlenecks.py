"""The paper's central claim, ablated: what joins encoder and decoder, from nothing to everything, in one table.

    python benchmarks/bottlenecks.py --data folder:photos --on voc2007:VOCdevkit --recipe compact --protocol compact_cls

Each kind of `pretext/bottlenecks.py` is pretrained by inpainting and transferred, by the very commands a user would
type; what is finished is not run again, so the same command resumes. Hidden-pixel error and transfer are the ledger's.
Parameters and step time are measured here and kept in results/bottlenecks.csv: all kinds in one process on one batch of
noise, a step of each in turn, since times of separate runs would say more of the machine than of the layers. The table
of both is results/bottlenecks.md.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_args

import click
import numpy as np
import pandas as pd
import torch
from running import run_once
from tabulate import tabulate

from ssl_inpaint import catalog, checkpoint, files
from ssl_inpaint.checkpoint import Card
from ssl_inpaint.core import Batch, TrainingFacts
from ssl_inpaint.pretext import inpainting
from ssl_inpaint.pretext.bottlenecks import Kind
from ssl_inpaint.records import Ledger, Record
from ssl_inpaint.runtime import Runtime, open_runtime
from ssl_inpaint.train import FitConfig

KINDS: tuple[str, ...] = get_args(Kind)
# Its own: in the tables of all rows these would be told apart by hashes of their settings alone.
LEDGER = Path("results/bottlenecks.jsonl")
COMPARED = "channelwise"  # the paper's: whose step the others are ratios to
WARM_UP_ROUNDS = 3
FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--data", default="shapes", show_default=True, help="Data spec of the unlabelled images.")
@click.option("--on", help="Data spec of the labelled ones; those of --data, if absent.")
@click.option("--recipe", default="quick", show_default=True)
@click.option("--protocol", default="quick_cls", show_default=True)
@click.option("--mode", type=click.Choice(["frozen", "finetune"]), default="frozen", show_default=True)
@click.option("--steps", type=int, help="Of pretraining; the recipe's, if absent.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="How many, from 0 on.")
@click.option("--rounds", type=click.IntRange(min=1), default=20, show_default=True, help="Timed steps of each kind.")
@click.option("--runs", type=FOLDER, default=Path("runs/bottlenecks"), show_default=True)
@click.option("--ledger", type=click.Path(path_type=Path), default=LEDGER, show_default=True)
@click.option("--output", type=FOLDER, default=Path("results"), show_default=True, help="Where the table goes.")
def bottlenecks(
    data: str,
    on: str | None,
    recipe: str,
    protocol: str,
    mode: str,
    steps: int | None,
    seeds: int,
    rounds: int,
    runs: Path,
    ledger: Path,
    output: Path,
) -> None:
    """Runs what is not there yet, measures what a step costs, and writes the table."""
    plan = catalog.load("protocols", protocol).build()
    length = [f"train.steps={steps}"] if steps else []
    for seed in range(seeds):
        for kind in KINDS:
            trained, measured = runs / f"{kind}-{seed}", runs / f"{plan.task}-{mode}-{kind}-{seed}"
            settings = [part for text in (f"pretext.bottleneck={kind}", *length) for part in ("--set", text)]
            run_once("pretrain", trained, seed, ledger, "--data", data, "--recipe", recipe, *settings)
            arguments = ["--task", plan.task, "--data", on or data, "--from", str(trained)]
            run_once("transfer", measured, seed, ledger, *arguments, "--mode", mode, "--protocol", protocol)
    cards = {kind: checkpoint.open_encoder(str(runs / f"{kind}-0"), {}, 0)[1] for kind in KINDS}
    path = output / "bottlenecks.csv"
    if not path.exists() or list(pd.read_csv(path)["settings"]) != [card.config_hash for card in cards.values()]:
        costs = measure_costs(cards, catalog.load("recipes", recipe).build().train, rounds)
        files.write_text(path, costs.to_csv(index=False, float_format="%.6g"))
    text = render(pd.read_csv(path), Ledger(ledger).read(), plan.task, plan.label, mode)
    files.write_text(output / "bottlenecks.md", text)
    click.echo(text)


def measure_costs(cards: Mapping[str, Card], train: FitConfig, rounds: int) -> pd.DataFrame:
    """One line a kind: parameters, seconds a step, and what the ledger knows its pretraining by."""
    runtime = open_runtime(precision=train.precision)
    networks = {kind: _objective(card) for kind, card in cards.items()}
    steps = {kind: _stepper(made, cards[kind].image_size, train, runtime) for kind, made in networks.items()}
    seconds = _interleaved(steps, rounds)
    lines = []
    for kind, card in cards.items():
        ratios = [own / theirs for own, theirs in zip(seconds[kind], seconds[COMPARED], strict=True)]
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        line = {
            "bottleneck": kind,
            "parameters": sum(p.numel() for p in networks[kind].generator.bottleneck.parameters()),
        }
        line |= {"step_seconds": statistics.median(seconds[kind]), "step_ratio": middle}
        line |= {"step_ratio_low": low, "step_ratio_high": high, "rounds": rounds, "batch_size": train.batch_size}
        line |= {"hardware": _hardware(runtime), "torch": torch.__version__}
        line |= {name: getattr(card, name) for name in ("encoder", "recipe", "image_size", "steps", "dataset")}
        lines.append(line | {"settings": card.config_hash})
    return pd.DataFrame(lines)


def render(costs: pd.DataFrame, records: Sequence[Record], task: str, protocol: str, mode: str) -> str:
    """The table in Markdown, of costs as `measure_costs` gives them and of the ledger's records; a dash: not there."""
    headers = [
        "bottleneck",
        "parameters",
        "step, ms",
        "step, of channelwise's",
        "hidden-pixel error",
        f"{task}, {mode}",
    ]
    rows, used = [], list[Record]()
    for cost in costs.to_dict("records"):
        own = [r for r in records if r.task == "pretext" and r.config_hash == cost["settings"]]
        own = [r for r in own if r.dataset == cost["dataset"]]
        weights = {r.weights_sha256 for r in own}
        moved = [r for r in records if r.weights_sha256 in weights]
        moved = [r for r in moved if (r.task, r.protocol, r.mode) == (task, protocol, mode)]
        moved = [r for r in moved if r.metric == moved[0].metric]
        ratio = f"{cost['step_ratio']:.2f} ({cost['step_ratio_low']:.2f} to {cost['step_ratio_high']:.2f})"
        first = [cost["bottleneck"], f"{cost['parameters']:,}", f"{1000 * cost['step_seconds']:.1f}", ratio]
        rows.append([*first, _over_seeds(own, "hidden_mse", 1, 4), _over_seeds(moved, None, 100, 1)])
        used += own + moved
    rows.append(["mean colour, no network", *"–––", _over_seeds(used, "mean_fill_mse", 1, 4), "–"])
    sides = ["left", *["right"] * (len(headers) - 1)]
    grid = tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=sides)
    return "\n".join([_TITLE, grid, "", *_notes(costs.iloc[0], used, protocol), ""])


_TITLE = """<!-- Made by benchmarks/bottlenecks.py from the ledger and results/bottlenecks.csv; edits are lost. -->

## Bottlenecks
"""


def _notes(cost: pd.Series[str], used: Sequence[Record], protocol: str) -> list[str]:
    held_out = " or ".join(sorted({str(r.n_examples) for r in used if r.task == "pretext"}))
    moved = sorted({f"{r.metric} on {r.n_examples:,} of {r.dataset}" for r in used if r.task != "pretext"})
    return [
        "- Parameters: of what joins encoder and decoder, alone.",
        f"- Step: of the whole network, {cost['encoder']} at {cost['image_size']} pixels, {cost['batch_size']} images,"
        f" the kinds in turn; median of {cost['rounds']}, of the ratios with quartiles. {cost['hardware']}, torch"
        f" {cost['torch']}.",
        f"- Hidden-pixel error: mean squared, images in [0, 1], {held_out} held-out images of {cost['dataset']}, after"
        f" {cost['steps']:,} steps of the recipe {cost['recipe']}. Lower is better.",
        f"- Transfer: {'; '.join(moved)}, test, in percent, protocol {protocol}. Random weights: see tables.md.",
        "- Mean ± sample standard deviation where there are several seeds.",
    ]


def _over_seeds(records: Iterable[Record], metric: str | None, scale: float, digits: int) -> str:
    """Mean and spread of the newest record of each seed; of all metrics where none is named."""
    chosen = sorted((r for r in records if metric in (None, r.metric)), key=lambda r: r.created_at)
    newest = {r.seed: scale * r.value for r in chosen}
    if not newest:
        return "–"
    text = f"{statistics.mean(newest.values()):.{digits}f}"
    return text if len(newest) == 1 else f"{text} ± {statistics.stdev(newest.values()):.{digits}f}"


def _objective(card: Card) -> inpainting.Inpainting:
    encoder = checkpoint.encoder_of(card, Path(checkpoint.ENCODER_FILE))
    return inpainting.build(inpainting.Config(**card.pretext_config), encoder, TrainingFacts(card.image_size))


def _stepper(made: inpainting.Inpainting, size: int, train: FitConfig, runtime: Runtime) -> Callable[[], float]:
    """What makes one training step, as the loop does, and says how many seconds it took."""
    layout = torch.channels_last if train.channels_last else torch.contiguous_format
    network = made.generator.to(runtime.device).to(memory_format=layout).train()
    optimizer = torch.optim.Adam(network.parameters(), train.learning_rate, fused=True)
    generator = torch.Generator(runtime.device).manual_seed(0)
    noise = torch.rand(train.batch_size, 3, size, size, generator=generator, device=runtime.device)
    batch = Batch(noise.contiguous(memory_format=layout))

    def step() -> float:
        _settle(runtime)
        began = time.perf_counter()
        with runtime.autocast():
            ((_, loss),) = made.losses(batch, generator)  # reconstruction alone yields once
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        _settle(runtime)
        return time.perf_counter() - began

    return step


def _interleaved(steps: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each kind, round by round; each round begins with another kind, so that none always comes first."""
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    names = list(steps)
    for turn in range(WARM_UP_ROUNDS + rounds):
        first = turn % len(names)
        for kind in names[first:] + names[:first]:
            took = steps[kind]()
            if turn >= WARM_UP_ROUNDS:
                seconds[kind].append(took)
    return seconds


def _settle(runtime: Runtime) -> None:
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)


def _hardware(runtime: Runtime) -> str:
    """The device in words, a CPU by its model."""
    precision = "bfloat16" if runtime.is_bf16 else "float32"
    if runtime.device.type == "cuda":
        return f"{runtime.describe()}, {precision}"
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {torch.get_num_threads()} threads, {precision}"


if __name__ == "__main__":
    bottlenecks()
