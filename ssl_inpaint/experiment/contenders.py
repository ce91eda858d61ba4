"""Who is compared by `inpaint --evaluate`: who beside those named, who cannot be, and of whom something is said."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ssl_inpaint import catalog
from ssl_inpaint.checkpoint import Card
from ssl_inpaint.core import Split
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment.inpainters import NEAREST, Named, is_nearest, is_trained, plain_parts
from ssl_inpaint.experiment.patches import Patches
from ssl_inpaint.plans import PLAN_FILE, EvaluationConfig, EvaluationPlan, PretrainPlan, read_plan

HOG = f"{NEAREST}:hog"


def chosen(plan: EvaluationPlan, split: Split, hole: Tensor) -> tuple[list[str], list[str]]:
    """Which inpainters are compared on holes B x 1 x S x S, and sentences on those that are left out.

    UsageError where none is compared, and where one that was named cannot be.
    """
    specs, others, reason = list(plan.inpainters), _others(plan), ""
    if plan.gallery is None and split.name != "test":
        reason = "there is no gallery: name a data set by --gallery"
    elif plan.config.hole != "centre":
        reason = "each image has a hole of its own, for which the gallery would be described anew: name it by --with"
    reasons = {spec: reason for spec in others if reason and is_nearest(spec)}
    is_named = any(_normal(spec) == HOG for spec in specs)
    shapes = hole[:1] if plan.config.hole == "centre" else hole
    complaint = _hog_complaint(shapes) if is_named or (HOG in others and not reason) else ""
    if complaint and is_named:
        raise UsageError(f"{HOG} cannot be compared. {complaint}")
    if complaint:
        reasons[HOG] = f"HOG cannot describe what is around such holes at evaluation.size = {plan.config.size}"
    specs += [spec for spec in others if spec not in reasons]
    if not specs:
        raise UsageError("No inpainter is named: name one by --with, or leave out evaluation.has_others=false.")
    if plan.gallery is not None and not any(map(is_nearest, [*specs, *reasons])):
        raise UsageError(
            f"--gallery {plan.gallery} is for nearest-neighbour inpainting, which is not compared: leave it out, or "
            f"add --with {HOG}."
        )
    return specs, [f"{spec} is left out, as {why}." for spec, why in reasons.items()]


def refuse_beyond(named: Sequence[Named], hole: Tensor, config: EvaluationConfig) -> None:
    """UsageError where a network knows a central square only and the holes, B x 1 x S x S, reach beyond it."""
    for one in named:
        share = _reach(one, config.size)
        side = round(config.size * share)
        start = (config.size - side) // 2
        is_far = torch.ones(config.size, config.size, dtype=torch.bool)
        is_far[start : start + side, start : start + side] = False
        if (hole & is_far).any():
            raise UsageError(
                f"{one.spec} fills the central {100 * share:.3g} % of a square's side only, and holes of kind "
                f"'{config.hole}' that hide {100 * config.hole_fraction:.3g} % of its area reach beyond: take --hole "
                f"centre with --set evaluation.hole_fraction={share**2:.3g} or less, or leave {one.spec} out."
            )


def suspicions(plan: EvaluationPlan, named: Sequence[Named], squares: Patches) -> list[str]:
    """A sentence on the networks that may have been trained on the images that are filled, if there are any."""
    found = [one.spec for one in named if one.card is not None and _has_seen(one.spec, one.card, plan, squares)]
    if not found:
        return []
    return [
        f"Trained on {squares.split.dataset}, and so perhaps on the very images that are filled: {', '.join(found)}. "
        "Pretrain and compare with the same --set data.test_fraction=0.2, and no network has seen what is filled."
    ]


def _others(plan: EvaluationPlan) -> list[str]:
    """What there is beside the inpainters that are named, if that is wanted."""
    if not plan.config.has_others:
        return []
    named = {_normal(spec) for spec in plan.inpainters}
    runs = [spec for spec in plan.inpainters if is_trained(spec) and Path(spec).is_dir()]  # a file has no encoder apart
    others = [*plain_parts(), HOG, *(f"{NEAREST}:{run}" for run in runs)]
    return [spec for spec in others if _normal(spec) not in named]


def _hog_complaint(holes: Tensor) -> str:
    """What HOG has against describing the context of such holes; empty where it has nothing."""
    part = catalog.load("descriptors", "hog")
    descriptor, blank = part.build(part.Config()), torch.zeros(1, 3, *holes.shape[2:])
    try:
        for hole in holes[:, 0]:
            descriptor.describe(blank, hole)
    except UsageError as error:
        return str(error)
    return ""


def _normal(spec: str) -> str:
    """One way to write the names of one inpainter: `nearest` and `nearest:hog`, `runs/a` and `runs/a/`."""
    kind, _, source = spec.partition(":")
    return f"{NEAREST}:{Path(source or 'hog')}" if kind == NEAREST else str(Path(spec))


def _reach(one: Named, size: int) -> float:
    """The share of a square's side that the inpainter can fill, in its middle."""
    frame = one.inpainter.frame
    if frame is not None and frame.is_central and frame.size != size:
        return frame.hole_share  # squares are resized for it, and then hidden as in its training
    return one.predicts


def _has_seen(spec: str, card: Card, plan: EvaluationPlan, squares: Patches) -> bool:
    """True where the card, or another share held out in training, lets one think so."""
    if squares.split.name == "test":
        return card.dataset == squares.split.dataset and _held_out(spec) != plan.data_settings.get("test_fraction")
    own = hashlib.sha256(squares.store.digest.encode()).hexdigest()  # as cards have it of images without labels
    return squares.split.dataset == card.dataset or own == card.dataset_sha256


def _held_out(spec: str) -> str | None:
    """What the run that an inpainter came from had as data.test_fraction; None where it was not set, or no run."""
    folder = Path(spec.removeprefix(f"{NEAREST}:").partition("@")[0])
    if not (folder / PLAN_FILE).is_file():
        return None
    return read_plan(PretrainPlan, folder).data_settings.get("test_fraction")
