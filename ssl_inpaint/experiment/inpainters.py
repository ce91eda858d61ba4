"""Inpainters by name, side by side: trained networks, nearest neighbours, and the methods without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ssl_inpaint import catalog, checkpoint, config
from ssl_inpaint.checkpoint import Card
from ssl_inpaint.core import Inpainter
from ssl_inpaint.descriptors.encoder import EncoderDescriptor
from ssl_inpaint.errors import UsageError, unknown_name
from ssl_inpaint.experiment.descriptors import calibrated, open_descriptor
from ssl_inpaint.experiment.generators import TrainedGenerator, open_generator
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


def open_trained(spec: str) -> TrainedGenerator:
    """The network of a run folder or file; UsageError, where it looks like a name, with the names that there are."""
    if not any(mark in spec for mark in "/\\.") and not Path(spec).exists():
        raise unknown_name("inpainter, run or file", spec, [*plain_parts(), f"{NEAREST}:hog"])
    return open_generator(spec)


def open_inpainters(
    specs: Sequence[str],
    settings: Settings,
    encoder_settings: Mapping[str, str],
    seed: int,
    runtime: Runtime,
    gallery: Callable[[], Patches],
) -> list[Named]:
    """Those of `specs`, in order: `telea`, ..., `nearest:DESCRIPTOR`, or a run folder or generator.safetensors.

    `gallery` is asked, once, only where neighbours are. UsageError where one does not exist or is named twice, also by
    two names, and for settings of others; two of one name, such as runs of several seeds, are told apart by their
    source.
    """
    config.refuse_unknown_parts(settings, catalog.parts("inpainters"))
    _refuse_idle(specs, settings, encoder_settings)
    if twins := sorted({spec for spec in specs if specs.count(spec) > 1}):
        raise UsageError(f"Inpainter '{twins[0]}' is named twice: name each once.")
    opened: list[Named] = []
    patches: list[Patches] = []  # the gallery, once it is there
    for spec in specs:
        if is_nearest(spec):
            patches = patches or [gallery()]
            opened.append(_open_nearest(spec, settings, encoder_settings, seed, runtime, patches[0]))
        elif is_trained(spec):
            opened.append(_open_trained(spec, settings, runtime))
        else:
            own = _chosen(spec, settings)
            plain = catalog.load("inpainters", spec).build(own)
            opened.append(Named(spec, plain.name, plain, None, NO_WEIGHTS, (own,)))
    return _told_apart(opened)


def _open_nearest(
    spec: str,
    settings: Settings,
    encoder_settings: Mapping[str, str],
    seed: int,
    runtime: Runtime,
    patches: Patches,
) -> Named:
    own = _chosen(NEAREST, settings)
    source = spec.partition(":")[2] or "hog"
    described = calibrated(open_descriptor(source, patches.size, encoder_settings, seed, runtime), patches)
    descriptor, card = described.descriptor, described.card
    name = f"NN-inpainting ({descriptor.name})"
    built = catalog.load("inpainters", NEAREST).build(own, descriptor, patches, name)
    identity: tuple[object, ...] = (own, patches.store.digest, len(patches))
    if card is not None:
        shown = descriptor.config.size if isinstance(descriptor, EncoderDescriptor) else 0
        identity = (*identity, source.partition("@")[2], shown, card.encoder_config, card.config_hash)
    return Named(spec, name, built, card, described.weights, identity)


def _open_trained(spec: str, settings: Settings, runtime: Runtime) -> Named:
    trained, own = open_trained(spec), _chosen(TRAINED, settings)
    network, card = trained.network.to(runtime.device), trained.card
    part = catalog.load("inpainters", TRAINED)
    built = part.build(own, network, card.method, trained.frame, trained.config.fill_colour)
    # Equal weights fill otherwise in another architecture or size, or where another colour is shown in the hole.
    identity = (card.encoder_config, trained.config.identity(), card.image_size, card.config_hash)
    share = network.target / network.image_size
    return Named(spec, built.name, built, card, checkpoint.weights_sha256(network), identity, share)


def _chosen(part: str, settings: Settings) -> config.Settings:
    return config.override(catalog.load("inpainters", part).Config(), part, settings.get(part, {}))


def _refuse_idle(specs: Sequence[str], settings: Settings, encoder_settings: Mapping[str, str]) -> None:
    """UsageError for settings of what is not among the inpainters, which would change nothing."""
    used = {NEAREST if is_nearest(spec) else TRAINED if is_trained(spec) else spec for spec in specs}
    idle = [f"{part}.{field}" for part in settings if part not in used for field in settings[part]]
    if NEAREST not in used:
        idle += [f"encoder.{field}" for field in encoder_settings]
    if idle:
        raise UsageError(
            f"--set {idle[0]} changes nothing here: the inpainters are {', '.join(specs) or 'none'}. Leave it out, or "
            "name the inpainter that it is for by --with."
        )


def _told_apart(opened: list[Named]) -> list[Named]:
    """With the last part of its source behind a name that several have, or all of it where that is the same too."""
    contents = [(one.name, one.weights, config.hash_of(*one.identity)) for one in opened]
    for position, one in enumerate(opened):
        if contents[position] in contents[:position]:
            first = opened[contents.index(contents[position])].spec
            raise UsageError(f"Inpainters '{first}' and '{one.spec}' are one and the same: name it once.")
    short = [f"{one.name} ({Path(one.spec).name})" for one in opened]
    names = [one.name for one in opened]
    found = []
    for one, label in zip(opened, short, strict=True):
        name = label if short.count(label) == 1 else f"{one.name} ({one.spec})"
        found.append(one._replace(name=name) if names.count(one.name) > 1 else one)
    return found
