"""Inpainters by name, side by side: trained networks, nearest neighbours, and the methods without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import nn

from ssl_inpaint import catalog, checkpoint, config
from ssl_inpaint.checkpoint import Card
from ssl_inpaint.core import Inpainter
from ssl_inpaint.errors import UsageError, unknown_name
from ssl_inpaint.experiment.descriptors import calibrated, open_descriptor
from ssl_inpaint.experiment.generators import open_generator
from ssl_inpaint.experiment.patches import Patches
from ssl_inpaint.records import NO_WEIGHTS
from ssl_inpaint.runtime import Runtime

TRAINED, NEAREST = "context_encoder", "nearest"
Settings = Mapping[str, Mapping[str, str]]  # by inpainter and field


class Named(NamedTuple):
    """An inpainter, where its weights came from (no card where it has none), and what else decides its output."""

    spec: str
    name: str  # the label of its row in tables, told apart from those of the others
    inpainter: Inpainter
    card: Card | None
    weights: str
    identity: tuple[object, ...]
    predicts: float = 1.0  # the share of a square's side that it can fill, in the middle


def plain_parts() -> list[str]:
    """The inpainters that need nothing but an image."""
    return [name for name in catalog.parts("inpainters") if name not in (TRAINED, NEAREST)]


def is_trained(spec: str) -> bool:
    """True where `spec` stands for a network from a run or a file."""
    return spec not in plain_parts() and not is_nearest(spec)


def is_nearest(spec: str) -> bool:
    """True for `nearest` and `nearest:DESCRIPTOR`."""
    return spec.partition(":")[0] == NEAREST


def open_inpainters(
    specs: Sequence[str],
    settings: Settings,
    encoder_settings: Mapping[str, str],
    seed: int,
    runtime: Runtime,
    gallery: Callable[[], Patches],
) -> list[Named]:
    """Those of `specs`, in order: `telea`, ..., `nearest:DESCRIPTOR`, or a run folder or generator.safetensors.

    `gallery` is asked only where neighbours are. UsageError where one does not exist, or is named twice; two of one
    name, such as runs of several seeds, are told apart by the last part of their source.
    """
    config.refuse_unknown_parts(settings, catalog.parts("inpainters"))
    twins = sorted({spec for spec in specs if specs.count(spec) > 1})
    if twins:
        raise UsageError(f"Inpainter '{twins[0]}' is named twice: name each once.")
    found = [_open(spec, settings, encoder_settings, seed, runtime, gallery) for spec in specs]
    names = [one.name for one in found]
    return [
        one._replace(name=f"{one.name} ({Path(one.spec).name})") if names.count(one.name) > 1 else one for one in found
    ]


def _open(
    spec: str,
    settings: Settings,
    encoder_settings: Mapping[str, str],
    seed: int,
    runtime: Runtime,
    gallery: Callable[[], Patches],
) -> Named:
    def chosen(name: str) -> config.Settings:
        return config.override(catalog.load("inpainters", name).Config(), name, settings.get(name, {}))

    if spec in plain_parts():
        own = chosen(spec)
        plain = catalog.load("inpainters", spec).build(own)
        return Named(spec, plain.name, plain, None, NO_WEIGHTS, (own,))
    if is_nearest(spec):
        own, patches = chosen(NEAREST), gallery()
        source = spec.partition(":")[2] or "hog"
        described = calibrated(open_descriptor(source, patches.size, encoder_settings, seed, runtime), patches)
        name = f"NN-inpainting ({described.descriptor.name})"
        built = catalog.load("inpainters", NEAREST).build(own, described.descriptor, patches, name)
        identity = (own, source.partition("@")[2], patches.digest)
        return Named(spec, name, built, described.card, described.weights, identity)
    if not any(mark in spec for mark in "/\\.") and not Path(spec).exists():
        raise unknown_name("inpainter, run or file", spec, [*plain_parts(), f"{NEAREST}:hog"])
    trained, own = open_generator(spec), chosen(TRAINED)
    network: nn.Module = trained.network.to(runtime.device)
    part = catalog.load("inpainters", TRAINED)
    built = part.build(own, network, trained.card.method, trained.frame, trained.config.fill_colour)
    share = trained.network.target / trained.network.image_size
    return Named(spec, built.name, built, trained.card, checkpoint.weights_sha256(network), (), share)
