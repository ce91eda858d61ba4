"""Splits opened and decoded once: what every verb begins with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssl_inpaint.core import Split
from ssl_inpaint.data.specs import chooses_masks, open_data
from ssl_inpaint.data.store import ImageStore, open_store
from ssl_inpaint.errors import UsageError

NAMED_CLASSES = 30  # in a line for a person
HELD_OUT_IMAGES = 256  # of those that pretraining may read, at most a twentieth: for the samples and the validation


@dataclass(frozen=True)
class Examples:
    """Readable images of one split, decoded, with their labels in the same order."""

    split: Split
    store: ImageStore
    labels: Tensor | None

    @property
    def digest(self) -> str:
        """Identifies images and labels by content, wherever they lie."""
        digest = hashlib.sha256(self.store.digest.encode())
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels.numpy()).tobytes())
        return digest.hexdigest()


def open_examples(spec: str, split: str, settings: Mapping[str, str], store_size: int) -> Examples:
    """One split at that short side in pixels; UsageError where it is missing or unreadable."""
    return _decoded(open_data(spec, split, settings), store_size)


def open_labelled(spec: str, split: str, settings: Mapping[str, str], store_size: int) -> tuple[Examples, Tensor]:
    """As open_examples, and its labels; UsageError where the data set has none, or nothing to tell apart."""
    found = open_data(spec, split, settings)
    if found.labels is None:
        raise UsageError(
            f"Data set '{spec}' has no labels and this needs them: name a labelled one, "
            "such as shapes, voc2007:PATH or imagefolder:PATH."
        )
    if len(found.classes) < 2 and not found.is_multilabel:
        raise UsageError(f"Data set '{spec}' has one class only, '{found.classes[0]}': this needs 2 or more.")
    if found.is_multilabel and not (found.labels == 1).any():
        raise UsageError(f"No image of the split {split} of '{spec}' has any of its classes: add labelled images.")
    examples = _decoded(found, store_size)
    return examples, torch.from_numpy(found.labels[examples.store.kept])


def hold_out(examples: Examples) -> tuple[Tensor, Tensor]:
    """Positions to train on and positions to look at; drawn by name, so the same whatever else is in the folder."""
    count = len(examples.store)
    names = [examples.split.images.name(int(position)) for position in examples.store.kept]
    order = sorted(range(count), key=lambda i: hashlib.sha256(names[i].encode()).digest())
    held_out = min(HELD_OUT_IMAGES, max(1, count // 20))
    if count < 2:
        raise UsageError(
            f"Data set '{examples.split.dataset}' has {count} readable image: pretraining needs 2 or more."
        )
    return torch.tensor(sorted(order[held_out:])), torch.tensor(sorted(order[:held_out]))


def _decoded(found: Split, store_size: int) -> Examples:
    store = open_store(found.images, store_size)
    labels = None if found.labels is None else torch.from_numpy(found.labels[store.kept])
    return Examples(found, store, labels)


def describe_data(spec: str) -> list[str]:
    """What is at a data spec, in lines for a person: its name and classes, then what each split holds."""
    lines = []
    for name in ("train", "val", "test", "pretrain"):
        try:
            split = open_data(spec, name)
        except UsageError as error:
            if name == "pretrain":
                raise
            lines.append(f"{name:<9} - ({error})")
            continue
        if not lines or name == "train":
            lines.insert(0, f"{split.dataset}: {_classes_of(split)}")
        boxes = "" if split.objects is None else f", {sum(len(o.boxes) for o in split.objects)} boxes"
        masks = "" if split.masks is None else f", {len(split.masks)} masks"
        lines.append(f"{name:<9} {len(split.images)} images{boxes}{masks}")
    return [*lines, *_chosen_masks(spec)]


def _chosen_masks(spec: str) -> list[str]:
    """A line on the masks of data sets that are asked for them."""
    if not chooses_masks(spec):
        return []
    counts, named = [], ""
    for name in ("train", "val", "test"):
        try:
            split = open_data(spec, name, needs="masks")
        except UsageError as error:
            return [f"masks     - ({error})"]
        if split.masks is None:
            return []
        counts.append(f"{len(split.masks)} {name}")
        named = named or f"{len(split.mask_classes)} classes: {_listed(split.mask_classes)}"
    return [f"masks     {', '.join(counts)}; {named}"]


def _classes_of(split: Split) -> str:
    masks = f"{len(split.mask_classes)} mask classes: {_listed(split.mask_classes)}" if split.masks is not None else ""
    if split.labels is None:
        return masks or "no labels"
    several = ", several an image" if split.is_multilabel else ""
    return f"{len(split.classes)} classes{several}: {_listed(split.classes)}{masks and f'; {masks}'}"


def _listed(classes: Sequence[str]) -> str:
    return f"{', '.join(classes[:NAMED_CLASSES])}{', ...' if len(classes) > NAMED_CLASSES else ''}"
