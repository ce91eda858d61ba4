"""What a verb refuses before any work starts: folders that are taken, crops and batches that a network cannot take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Encoder, Objective
from ssl_inpaint.errors import UsageError
from ssl_inpaint.plans import PLAN_FILE, Protocol, read_plan


def refuse_used(folder: Path) -> None:
    """UsageError where the folder holds a run, or anything else."""
    if (folder / PLAN_FILE).exists():
        raise UsageError(
            f"{folder} holds a run already: go on with it by --resume {folder}, or choose another --output."
        )
    if folder.is_dir() and any(entry.name != ".lock" for entry in folder.iterdir()):
        raise UsageError(f"{folder} is not empty and holds no run of this suite: choose another --output.")


def refuse_other(folder: Path, plan: Settings, last_file: str) -> None:
    """UsageError where the folder holds anything but this very run, unfinished: without the file that is its last."""
    if (folder / last_file).exists():
        raise UsageError(f"{folder} holds a finished run: choose another --output.")
    if (folder / PLAN_FILE).exists():
        try:
            is_other = read_plan(type(plan), folder) != plan
        except UsageError:
            is_other = True
        if is_other:
            raise UsageError(f"{folder} holds another run: choose another --output.")
    elif folder.is_dir() and any(entry.name != ".lock" for entry in folder.iterdir()):
        raise UsageError(f"{folder} is not empty and holds no run of this suite: choose another --output.")


def refuse_size(encoder: Encoder, name: str, setting: str, size: int, is_square: bool = True) -> None:
    """UsageError where the encoder cannot take images of that many pixels a side; or not square, of that short side."""
    if not is_square and getattr(encoder, "is_fixed", False):
        raise UsageError(
            f"Encoder '{name}' takes square images of {encoder.smallest_input} pixels only and this task shows whole "
            "images of any shape: choose another encoder, such as timm:resnet18."
        )
    if size < encoder.smallest_input:
        raise UsageError(f"{setting} = {size}: encoder '{name}' takes {encoder.smallest_input} pixels or more.")
    try:
        with torch.no_grad():
            encoder.eval()(torch.zeros(1, 3, size, size if is_square else size + size // 3 + 1))
    except (AssertionError, RuntimeError) as error:  # a library's network that says no smallest size of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{setting} = {size}: encoder '{name}' does not take it ({reason}).") from None


def refuse_sizes(encoder: Encoder, name: str, protocol: Protocol) -> None:
    """UsageError where the encoder cannot take the images that a protocol shows."""
    if protocol.crops is not None:
        refuse_size(encoder, name, "crops.size", protocol.crops.size)
    if protocol.scenes is not None:
        side, those = protocol.scenes.smallest_side, "scenes.sides, scenes.test_side and scenes.longest / 3"
        refuse_size(encoder, name, f"the smallest of {those}", side, is_square=False)


def refuse_lone_images(objective: Objective, batch_size: int) -> None:
    """UsageError where each step would read one image and a network has BatchNorm, which has no mean of one value."""
    networks = [player.module for player in objective.players().values()]
    has_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for network in networks for m in network.modules())
    if batch_size == 1 and has_norm:
        raise UsageError("train.batch_size = 1: BatchNorm, which this network has, needs 2 or more images a step.")


def refuse_for_probes(
    task: str, needs: str, mode: str, settings: Mapping[str, Mapping[str, str]], has_predictions: bool
) -> None:
    """UsageError for what does not go with probes of frozen encoders, or would change nothing."""
    if mode != "frozen":
        raise UsageError(f"Task '{task}' probes a frozen encoder: take --mode frozen, or --task cls to fine-tune.")
    if has_predictions:
        raise UsageError(
            f"Task '{task}' has several predictions of each image and keeps none: leave out --predictions."
        )
    if "clip_norm" in settings.get("train", {}):
        raise UsageError("train.clip_norm would tie together heads that train side by side: leave it out.")
    loop = [f"train.{name}" for name in settings.get("train", {}) if name != "precision"]
    loop += [f"protocol.{name}" for name in settings.get("protocol", {}) if name in ("cached_views", "learning_rates")]
    if needs == "features" and loop:
        raise UsageError(f"Task '{task}' has no training loop, so {loop[0]} cannot apply: leave it out.")
