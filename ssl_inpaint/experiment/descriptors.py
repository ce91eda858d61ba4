"""Descriptors by name, side by side: HOG, runs, random networks, and one stage or another of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ssl_inpaint import catalog, checkpoint
from ssl_inpaint.checkpoint import Card
from ssl_inpaint.core import Descriptor
from ssl_inpaint.descriptors.encoder import EncoderDescriptor
from ssl_inpaint.errors import UsageError, unknown_name
from ssl_inpaint.experiment import data_initialisation
from ssl_inpaint.experiment.patches import Patches
from ssl_inpaint.plans import RetrievalPlan
from ssl_inpaint.records import NO_WEIGHTS
from ssl_inpaint.runtime import Runtime


class Named(NamedTuple):
    """A descriptor, and where its weights came from; no card where it has none."""

    descriptor: Descriptor
    card: Card | None
    weights: str


def open_descriptors(plan: RetrievalPlan, runtime: Runtime) -> list[Named]:
    """Those of the plan, in its order; UsageError where one does not exist or is named twice.

    Two of one method, such as runs of several seeds, are told apart by the last part of their source.
    """
    twins = sorted({spec for spec in plan.descriptors if plan.descriptors.count(spec) > 1})
    if twins:
        raise UsageError(f"Descriptor '{twins[0]}' is named twice: name each once, or add @STAGE for another stage.")
    size, settings = plan.config.patch_size, plan.encoder_settings
    found = [open_descriptor(spec, size, settings, plan.seed, runtime) for spec in plan.descriptors]
    names = [one.descriptor.name for one in found]
    for one, spec in zip(found, plan.descriptors, strict=True):
        if names.count(one.descriptor.name) > 1:
            one.descriptor.name += f" ({Path(spec).name})"
    return found


def open_descriptor(
    spec: str, patch_size: int, encoder_settings: Mapping[str, str], seed: int, runtime: Runtime
) -> Named:
    """`hog`, or an encoder's source, with @STAGE behind it if it is not the deepest: `RUN`, `random:alexnet@conv5`."""
    if spec in catalog.parts("descriptors") and spec != "encoder":
        part = catalog.load("descriptors", spec)
        return Named(part.build(part.Config()), None, NO_WEIGHTS)
    source, _, stage = spec.partition("@")
    if source != "random" and not any(mark in source for mark in ":=") and not Path(source).exists():
        hand_made = [name for name in catalog.parts("descriptors") if name != "encoder"]
        random = [f"random:{name}" for name in catalog.parts("encoders")]
        raise unknown_name("descriptor, run or file", spec, [*hand_made, *random])
    encoder, card = checkpoint.open_encoder(source, encoder_settings, seed)
    part = catalog.load("descriptors", "encoder")
    size = max(card.image_size or getattr(encoder, "natural_size", 0) or patch_size, encoder.smallest_input)
    name = card.method + (f" {stage}" if stage else "")
    built = part.build(part.Config(stage=stage, size=size), encoder.to(runtime.device).eval(), name)
    return Named(built, card, checkpoint.weights_sha256(encoder))


def calibrated(one: Named, gallery: Patches) -> Named:
    """An untrained encoder made ready by gallery patches, as `transfer` does it by images; any other as it is."""
    if one.card is None or not isinstance(one.descriptor, EncoderDescriptor):
        return one
    encoder, size = one.descriptor.encoder, one.descriptor.config.size
    device = next(encoder.parameters()).device

    def images(count: int, batch_size: int) -> Iterator[Tensor]:
        for chosen in torch.arange(len(gallery)).split(batch_size)[:count]:
            yield functional.interpolate(gallery.cut(chosen).to(device), size, mode="bilinear", antialias=True)

    card = data_initialisation.prepare(encoder, one.card, images)
    return one._replace(card=card, weights=checkpoint.weights_sha256(encoder))
