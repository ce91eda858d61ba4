"""What inpainters are compared on: squares of the test part, their holes, and a gallery that holds none of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ssl_inpaint import holes, progress
from ssl_inpaint.core import Split
from ssl_inpaint.data.specs import open_data
from ssl_inpaint.data.store import ImageStore, open_store
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment.patches import Patches, middles
from ssl_inpaint.plans import EvaluationConfig, EvaluationPlan
from ssl_inpaint.runtime import seed_for


def open_squares(plan: EvaluationPlan) -> Patches:
    """The images to fill: of test where there is one, else of all; which, depends on the seed and their number only."""
    found = _test_split(plan.data, plan.data_settings)
    store = open_store(found.images, plan.config.size)
    return middles(found, store, plan.config.size).drawn(plan.config.images, seed_for(plan.seed, "inpainting"))


def draw_holes(plan: EvaluationPlan, count: int) -> Tensor:
    """count x 1 x S x S bool; those of the first images are the same however many follow."""
    chosen = plan.config
    drawn = torch.empty(count, 1, chosen.size, chosen.size, dtype=torch.bool)
    for position in range(count):
        generator = torch.Generator().manual_seed(seed_for(plan.seed, "hole", position))
        drawn[position] = holes.draw(chosen.hole, 1, chosen.size, generator, chosen.hole_fraction)[0]
    return drawn


def open_gallery(
    spec: str, settings: Mapping[str, str], chosen: EvaluationConfig, seed: int, filled: ImageStore
) -> Patches:
    """At most chosen.gallery of the images that pretraining may read, less those that are `filled` themselves.

    They are told by their pixels, as each would find itself. UsageError where none remains.
    """
    found = open_data(spec, "pretrain", settings)
    store = open_store(found.images, chosen.size)
    own = set(_fingerprints(filled))
    kept = [position for position, pixels in enumerate(_fingerprints(store)) if pixels not in own]
    if not kept:
        raise UsageError(
            f"The gallery {spec} holds the very images that are filled and no others, and each would find itself: "
            "name another by --gallery."
        )
    if len(kept) < len(store):
        progress.say(
            f"{len(store) - len(kept)} of the {len(store)} images of the gallery {spec} are left out of it: "
            "they are filled themselves, and each would find itself."
        )
    everything = middles(found, store, chosen.size).at(torch.tensor(kept))
    return everything.drawn(chosen.gallery, seed_for(seed, "gallery"))


def _test_split(spec: str, settings: Mapping[str, str]) -> Split:
    everything = open_data(spec, "pretrain", settings)
    has_parts = everything.labels is not None or everything.masks is not None or "test_fraction" in settings
    return open_data(spec, "test", settings) if has_parts else everything


def _fingerprints(store: ImageStore) -> list[bytes]:
    """A hash of the pixels of each image."""
    images = (np.ascontiguousarray(store.image(position)) for position in range(len(store)))
    return [hashlib.sha256(str(image.shape).encode() + image.data).digest() for image in images]
