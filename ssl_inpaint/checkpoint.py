"""Encoders from names, runs and files: one strict loader, and the card that says where the weights came from."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ssl_inpaint import caffe, catalog, config, files
from ssl_inpaint.config import Settings
from ssl_inpaint.core import Encoder
from ssl_inpaint.errors import UsageError
from ssl_inpaint.runtime import seed_for, seeded

ENCODER_FILE = "encoder.safetensors"
# What training wrappers put before every key; taken off, repeatedly, when weights made elsewhere are read.
_PREFIXES = ("module.", "_orig_mod.", "encoder.", "backbone.", "model.")
# A classifier's own layers, which an encoder has no use for: torchvision's and timm's names, and Caffe's.
_HEADS = ("classifier.", "fc.", "head.", "fc6.", "fc7.", "fc8.")
# Untrained, with weights made of the unlabelled images that they are measured beside: source to the row's name.
BY_DATA = {"kmeans": "k-means (Krähenbühl)", "pca": "PCA (Krähenbühl)"}
# What reading damaged files was seen to raise.
_DAMAGE = (OSError, EOFError, RuntimeError, UnpicklingError, ValueError, TypeError, LookupError, AssertionError)


class Card(Settings):
    """Where an encoder's weights came from: travels in its file and into every record."""

    encoder: str  # the part, with its argument if it takes one: alexnet, timm:resnet18
    encoder_config: dict[str, Any]
    method: str  # the row's name in tables
    pretext: str = "none"
    pretext_config: dict[str, Any] = {}
    supervision: str = "none"  # "labels" where labels were read, "unknown" where nobody here can tell
    dataset: str = "none"
    dataset_sha256: str = ""
    image_size: int = 0  # pixels a side in pretraining; 0 where nothing was pretrained
    seed: int = 0
    steps: int = 0
    recipe: str = "none"
    config_hash: str = ""
    pretraining_seconds: float = 0.0


def build_encoder(spec: str, settings: Mapping[str, str], seed: int) -> tuple[Encoder, Card]:
    """A randomly initialised encoder by name (`alexnet`, `timm:resnet18`), the same for the same seed.

    UsageError for an unknown name or setting, and for pretrained weights, which the card would call random.
    """
    chosen = _chosen(spec, settings)
    if getattr(chosen, "pretrained", False):
        raise UsageError("encoder.pretrained = true has no place here: write --from torchvision:alexnet or timm:NAME.")
    return _build(spec, chosen, seed)


def open_encoder(source: str, settings: Mapping[str, str], seed: int) -> tuple[Encoder, Card]:
    """The encoder that `source` names, and its card.

    `random:ENCODER` or `random:RUN`: that architecture at its initialisation. `kmeans:` and `pca:` likewise: random
    until `experiment.data_initialisation` is shown images. `torchvision:alexnet`, `timm:NAME`: the library's pretrained
    weights, downloaded if need be. RUN or an encoder.safetensors: ours, whose file knows its architecture.
    `ENCODER=FILE`: a state dict made elsewhere, or a .caffemodel. UsageError says what does not fit.
    """
    kind, colon, architecture = source.partition(":")
    if kind == "random":
        return _open_random(kind, architecture, settings, seed)
    if kind in BY_DATA and colon:
        encoder, blank = _open_random(kind, architecture, settings, seed)
        return encoder, blank.model_copy(update={"method": BY_DATA[kind], "pretext": kind})
    if source == "torchvision:alexnet":
        return _open_pretrained(source, "torchvision_alexnet", settings, seed)
    if "=" in source and not Path(source).exists():
        spec, _, file = source.partition("=")
        return _open_foreign(spec, Path(file), settings, seed)
    if source.startswith("timm:"):
        return _open_pretrained(source, source, settings, seed)
    path = _weights_path(source)
    state, card = read_weights(path)
    if card is None:
        raise UsageError(f"{path} does not say which encoder it is for: write --from ENCODER={path}.")
    _refuse_settings(settings, f"{path} has an architecture of its own")
    encoder = encoder_of(card, path)
    load_strictly(encoder, state, path)
    return encoder, card


def architecture_of(source: str) -> str:
    """The encoder that a source speaks of, as records name it; empty where only its folder or file knows."""
    kind, _, rest = source.partition(":")
    if source == "torchvision:alexnet":
        return "torchvision_alexnet"
    if kind in ("random", *BY_DATA):
        return rest if is_architecture(rest) else ""
    if "=" in source and not Path(source).exists():
        return source.partition("=")[0]
    return source if kind == "timm" else ""


def is_architecture(name: str) -> bool:
    """True where that, behind `random:` and the like, is an encoder; otherwise it is the folder or file of a run."""
    return name.partition(":")[0] in catalog.parts("encoders") or not Path(name).exists()


def encoder_of(card: Card, path: Path) -> Encoder:
    """The architecture that a card from `path` names, at its random weights."""
    return _build(card.encoder, _stored_config(card, path), card.seed)[0]


def save_weights(path: Path, network: nn.Module, card: Card) -> None:
    """Writes an encoder's weights, or a whole network's, with its card as safetensors: whole or not at all."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with files.replacing(path) as temporary:
        try:
            save_file(state, temporary, metadata={"card": card.model_dump_json()})
        except SafetensorError as error:  # what a full disk becomes here
            raise OSError(str(error)) from None


def read_weights(path: Path) -> tuple[dict[str, Tensor], Card | None]:
    """A file's tensors (of a .caffemodel, `alexnet`'s), and its card if this suite wrote it; unpickles tensors only."""
    if path.suffix == ".caffemodel":
        return caffe.alexnet_state(caffe.read_caffemodel(path)), None
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            card = config.check(Card, "card", json.loads(metadata["card"])) if "card" in metadata else None
            return state, card
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (*_DAMAGE, struct.error, SafetensorError) as error:
        reason = (str(error).splitlines() or ["empty"])[0]
        if isinstance(error, UnpicklingError):  # torch's own words advise to load it in a way that runs what is in it
            reason = "it is no file of torch, or holds more than tensors"
        raise UsageError(f"{path} holds no weights that can be read safely ({reason}).") from None
    for key in ("state_dict", "model", "generator_state_dict", "generator", "netG", "G"):  # of a GAN, the generator
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    items = list(content.items()) if isinstance(content, dict) else []
    if not items or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in items):
        raise UsageError(f"{path} is not a state dict: give a file of names and tensors.")
    return content, None


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Puts `state` into the network; UsageError counts what is missing, unexpected or of another shape, and names some.

    A classifier's own layers are left as they are in the network and are out of account in the file.
    """
    wanted = {k: v for k, v in network.state_dict().items() if not k.startswith(_HEADS)}
    found = _without_prefixes(state, wanted)
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted(k for k in found.keys() - wanted.keys() if not k.startswith(_HEADS))
    reshaped = sorted(k for k in wanted.keys() & found.keys() if wanted[k].shape != found[k].shape)
    if missing or unexpected or reshaped:
        raise UsageError(
            f"{path} is of another encoder: {len(wanted) - len(missing) - len(reshaped)} of {len(wanted)} tensors fit, "
            f"missing {_some(missing)}, of another shape {_some(reshaped)}, unexpected {_some(unexpected)}. "
            "Name the encoder it was made with: ENCODER=FILE, and --set encoder.FIELD=VALUE for its settings."
        )
    network.load_state_dict({k: found[k] for k in wanted}, strict=False)  # all but the heads


def weights_sha256(module: nn.Module) -> str:
    """Hash over all parameters and persistent buffers, names, types and values: equal weights, equal hash."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _chosen(spec: str, settings: Mapping[str, str]) -> Settings:
    name, argument = catalog.split_argument(spec)
    kind: type[Settings] = catalog.load("encoders", name).Config
    return config.override(_default_config(kind, name, argument), "encoder", settings)


def _build(spec: str, chosen: Settings, seed: int) -> tuple[Encoder, Card]:
    name = spec.partition(":")[0]
    with seeded(seed_for(seed, "encoder")):
        encoder: Encoder = catalog.load("encoders", name).build(chosen)
    values = chosen.identity()
    full_name = f"{name}:{values['argument']}" if "argument" in values else name
    return encoder, Card(encoder=full_name, encoder_config=values, method="Random", seed=seed)


def _open_random(kind: str, name: str, settings: Mapping[str, str], seed: int) -> tuple[Encoder, Card]:
    if not name:
        raise UsageError(f"'{kind}' needs an architecture: write {kind}:ENCODER ({kind}:alexnet) or {kind}:RUN.")
    if is_architecture(name):
        return build_encoder(name, settings, seed)
    path = _weights_path(name)
    _, card = read_weights(path)
    if card is None:
        raise UsageError(f"{path} does not say which encoder it is for: write {kind}:ENCODER.")
    _refuse_settings(settings, f"{path} has an architecture of its own")
    return _build(card.encoder, _stored_config(card, path), seed)


def _open_pretrained(source: str, spec: str, settings: Mapping[str, str], seed: int) -> tuple[Encoder, Card]:
    try:
        encoder, card = _build(spec, _chosen(spec, {**settings, "pretrained": "true"}), seed)
    except (OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"The weights of {source} could not be had ({reason}): give a local file by --from {spec}=FILE."
        ) from None
    # torchvision's AlexNet read ImageNet's labels; what timm's weights read differs from model to model.
    supervision = "unknown" if source.startswith("timm:") else "labels"
    origin = {"method": f"{source} (pretrained)", "pretext": "library weights", "supervision": supervision}
    return encoder, card.model_copy(update=origin)


def _open_foreign(spec: str, path: Path, settings: Mapping[str, str], seed: int) -> tuple[Encoder, Card]:
    encoder, card = build_encoder(spec, settings, seed)
    state, _ = read_weights(_weights_path(str(path)))
    part = catalog.load("encoders", card.encoder.partition(":")[0])
    if hasattr(part, "whole") and state.keys() != encoder.state_dict().keys():
        model = part.whole(_chosen(spec, settings))  # layers named, and counted, as in the library's own model
        load_strictly(model, state, path)
        encoder = part.build(_chosen(spec, settings), model.state_dict())
    else:
        load_strictly(encoder, state, path)
    origin = {"method": f"{spec} from {path.name}", "pretext": "unknown", "supervision": "unknown"}
    return encoder, card.model_copy(update=origin)


def _weights_path(source: str) -> Path:
    path = Path(source, ENCODER_FILE) if Path(source).is_dir() else Path(source)
    if not path.is_file():
        raise UsageError(
            f"There are no weights at '{source}': name random:ENCODER, kmeans:ENCODER, pca:ENCODER, "
            f"torchvision:alexnet, timm:NAME, a run folder with {ENCODER_FILE} in it, or ENCODER=FILE."
        )
    return path


def _refuse_settings(settings: Mapping[str, str], reason: str) -> None:
    if settings:
        raise UsageError(f"--set encoder.{next(iter(settings))} cannot apply: {reason}. Leave it out.")


def _default_config(kind: type[Settings], name: str, argument: str) -> Settings:
    if not argument:
        return kind()
    if "argument" not in kind.model_fields:
        raise UsageError(f"Encoder '{name}' takes no argument and '{argument}' was given: write --encoder {name}.")
    return config.check(kind, "encoder", {"argument": argument})


def _stored_config(card: Card, path: Path) -> Settings:
    kind: type[Settings] = catalog.load("encoders", card.encoder.partition(":")[0]).Config
    # Weights follow from the file, so a library's download must not be asked for again.
    values = {k: (False if k == "pretrained" else v) for k, v in card.encoder_config.items()}
    return config.check(kind, f"{path.name}: encoder", values)


def _without_prefixes(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = dict(state)
    while not (found.keys() & wanted.keys()):
        prefix = next((p for p in _PREFIXES if any(k.startswith(p) for k in found)), None)
        if prefix is None:
            break
        found = {k.removeprefix(prefix): v for k, v in found.items()}
    return found


def _some(names: list[str]) -> str:
    return f"{len(names)}" + (f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else "")
