"""What pretraining looks at as it goes: held-out images, filled in and measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_inpaint import curves, figures, files, inpainting_figures, runlog, train
from ssl_inpaint.batches import fixed_views
from ssl_inpaint.core import Batch, Pretext
from ssl_inpaint.experiment.data import Examples
from ssl_inpaint.plans import PretrainPlan
from ssl_inpaint.runtime import Runtime, seed_for

SAMPLES = 8  # rows of a sample grid
LOOKS_FILE = "looks.npz"  # the same rows at every look, for what shows them over time


class Watcher:
    """Looks at held-out images as training goes: sample grids, and how well the task itself is done."""

    def __init__(
        self,
        folder: Path,
        objective: Pretext,
        examples: Examples,
        labels: Tensor | None,
        held_out: Tensor,
        plan: PretrainPlan,
        runtime: Runtime,
    ) -> None:
        self.folder, self.objective, self.runtime = folder, objective, runtime
        self.path = folder / "validation.jsonl"
        self.seed = seed_for(plan.seed, "validation")
        views = fixed_views(examples.store, plan.crops, "centre", 64, held_out)
        self.batches = [Batch(cut[0], None if labels is None else labels[positions]) for positions, cut in views]

    def look(self, step: int) -> None:
        """Writes samples/<step>.png and a line of validation.jsonl; the networks are put back in training mode."""
        with _evaluating(self.objective), self.runtime.autocast():
            values = self._validate()
            generator = self._generator()
            first = train.on_device(self.batches[0], self.runtime)
            columns = self.objective.preview(Batch(first.images[:SAMPLES]), generator)
        before = [line for line in runlog.read_log(self.path) if line["step"] < step]
        lines = [*before, {"step": step, **values}]
        files.write_text(self.path, "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
        if columns:
            shown = {name: maps.float().cpu().numpy() for name, maps in columns.items()}
            grid = figures.sample_grid(list(shown.values()), list(shown))
            figures.save(grid, self.folder / "samples" / f"{step:07d}.png")
            if {"input", "output"} <= shown.keys():
                self._keep(step, shown)

    def draw(self) -> None:
        """Writes learning_curve.png and, where something can be seen of the task, samples_over_time.png."""
        log = runlog.read_log(self.folder / "log.jsonl")
        curve = curves.learning_curve(log, runlog.read_log(self.path))
        figures.save(curve, self.folder / "learning_curve.png")
        kept = self._kept()
        by_step = {int(name): _to_float(pixels) for name, pixels in kept.items() if name.isdigit()}
        if by_step:
            first, last = (_to_float(kept[name]) for name in ("input", "truth"))
            over_time = inpainting_figures.samples_over_time(last, first, by_step)
            figures.save(over_time, self.folder / "samples_over_time.png")

    def latest(self) -> dict[str, float]:
        """The values of the last look; none before the first."""
        lines = runlog.read_log(self.path)
        return {k: v for k, v in lines[-1].items() if k != "step"} if lines else {}

    def _keep(self, step: int, shown: Mapping[str, np.ndarray]) -> None:
        """Adds the outputs of this look to those before it."""
        before = {name: pixels for name, pixels in self._kept().items() if name.isdigit() and int(name) < step}
        ends = {"input": shown["input"], "truth": shown.get("truth", shown["input"])}
        looks = {name: _to_bytes(pixels) for name, pixels in {**ends, f"{step:07d}": shown["output"]}.items()}
        with files.replacing(self.folder / "samples" / LOOKS_FILE) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **before, **looks)

    def _kept(self) -> dict[str, np.ndarray]:
        path = self.folder / "samples" / LOOKS_FILE
        if not path.exists():
            return {}
        with np.load(path, allow_pickle=False) as content:
            return dict(content)

    def _validate(self) -> dict[str, float]:
        generator, sums, count = self._generator(), dict[str, float](), 0
        for batch in self.batches:
            values = self.objective.validate(train.on_device(batch, self.runtime), generator)
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(batch.images)
            count += len(batch.images)
        return {name: total / count for name, total in sums.items()}

    def _generator(self) -> torch.Generator:
        """The same draws at every look, so that looks differ by the network only."""
        return torch.Generator(self.runtime.device).manual_seed(self.seed)


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)


def _to_float(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / 255


@contextmanager
def _evaluating(objective: Pretext) -> Iterator[None]:
    modules = [player.module for player in objective.players().values()]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for module in modules:
            module.train()
