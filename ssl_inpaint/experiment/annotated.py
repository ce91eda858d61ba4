"""Splits with objects or masks, opened, decoded and checked before any work starts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ssl_inpaint import progress
from ssl_inpaint.core import Masks, Objects, Split
from ssl_inpaint.data.proposals import open_proposals
from ssl_inpaint.data.specs import open_data
from ssl_inpaint.data.store import ImageStore, open_store
from ssl_inpaint.errors import UsageError
from ssl_inpaint.metrics import NOT_COUNTED
from ssl_inpaint.plans import TransferPlan
from ssl_inpaint.scenes import Annotated, Scenes


@dataclass(frozen=True)
class Scene:
    """One decoded split of whole images."""

    name: str
    split: Split
    images: Annotated
    digest: str  # identifies images and annotations by content, wherever they lie
    proposals_digest: str = ""  # of outside proposals

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return self.split.dataset

    def __len__(self) -> int:
        return len(self.images.store)

    def image_name(self, position: int) -> str:
        """What to call the image: its path below the data set's root."""
        return self.split.images.name(int(self.images.store.kept[position]))

    def original_size(self, position: int) -> tuple[int, int]:
        """Height and width of the file, upright."""
        store = self.images.store
        return int(store.original_heights[position]), int(store.original_widths[position])


def open_with_objects(plan: TransferPlan, name: str, scenes: Scenes, has_proposals: bool) -> Scene:
    """One split with its boxes, and outside proposals where they are wanted; UsageError where it has no boxes."""
    split = open_data(plan.data, name, plan.data_settings, needs="objects")
    if split.objects is None:
        raise UsageError(
            f"Data set '{plan.data}' has no boxes and detection needs them: name one that has, "
            "such as shapes, voc2007:PATH or coco:PATH."
        )
    if not any((~objects.is_difficult).any() for objects in split.objects):
        raise UsageError(f"No image of the split {name} of '{plan.data}' has an object: add annotated images.")
    store = open_store(split.images, scenes.store_size)
    objects = tuple(split.objects[kept] for kept in store.kept.tolist())
    proposals, proposals_digest = None, ""
    if has_proposals and plan.protocol.proposals is not None:
        found = open_proposals(split.images, plan.protocol.proposals)
        proposals, proposals_digest = tuple(found.boxes[kept] for kept in store.kept.tolist()), found.digest
    digest = hashlib.sha256(store.digest.encode())
    for one in objects:
        for values in (one.boxes, one.labels, one.is_difficult):
            digest.update(np.ascontiguousarray(values).tobytes())
    return Scene(name, split, Annotated(store, objects, proposals), digest.hexdigest(), proposals_digest)


def open_with_masks(plan: TransferPlan, name: str, scenes: Scenes) -> Scene:
    """One split with its masks, every one of them read once; UsageError where they are missing or do not fit."""
    split = open_data(plan.data, name, plan.data_settings, needs="masks")
    if split.masks is None:
        raise UsageError(
            f"Data set '{plan.data}' has no masks and segmentation needs them: name one that has, "
            "such as shapes, voc2012:PATH or maskfolder:PATH."
        )
    store = open_store(split.images, scenes.store_size)
    masks = tuple((split.masks, kept) for kept in store.kept.tolist())
    digest, has_counted = hashlib.sha256(store.digest.encode()), False
    with progress.bar(f"read masks of {name}", len(masks)) as bar:
        for position, (found, place) in enumerate(masks):
            values = _read_mask(found, place)
            _refuse_misfit(values, found.name(place), store, position, len(split.mask_classes))
            digest.update(values.tobytes())
            has_counted |= bool((values != NOT_COUNTED).any())
            bar.advance()
    if not has_counted:
        raise UsageError(
            f"No mask of the split {name} of '{plan.data}' has a pixel that is counted: add masks that have."
        )
    return Scene(name, split, Annotated(store, masks=masks), digest.hexdigest())


def _read_mask(masks: Masks, place: int) -> np.ndarray:
    try:
        return np.ascontiguousarray(masks.read(place))
    except OSError as error:
        raise UsageError(f"Cannot read a mask: {str(error).rstrip('.')}.") from None  # which names the file


def _refuse_misfit(values: np.ndarray, name: str, store: ImageStore, position: int, classes: int) -> None:
    size = int(store.original_heights[position]), int(store.original_widths[position])
    if values.shape != size:
        raise UsageError(
            f"The mask {name} has {values.shape[1]} x {values.shape[0]} pixels and its image {size[1]} x {size[0]}: "
            "they must be of one size."
        )
    largest = int(values[values != NOT_COUNTED].max(initial=0))
    if largest >= classes:
        raise UsageError(
            f"The mask {name} has the value {largest}, where there are {classes} classes from 0 on and {NOT_COUNTED} "
            "for what is not counted: name all classes, or the value to ignore."
        )


def objects_of(scene: Scene, position: int) -> Objects:
    """The objects of one image; ValueError where the split has none."""
    if scene.images.objects is None:
        raise ValueError("this split has no objects")
    return scene.images.objects[position]
