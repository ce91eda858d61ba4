"""`ssl-inpaint import`: weights made elsewhere, in the layouts they come in, into run folders that every verb takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ssl_inpaint import caffe, checkpoint, config, layouts
from ssl_inpaint.core import TrainingFacts
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment.checks import refuse_size, refuse_used
from ssl_inpaint.experiment.generators import GENERATOR_FILE
from ssl_inpaint.experiment.pretrain import plan_pretraining
from ssl_inpaint.pretext import inpainting
from ssl_inpaint.runtime import claimed

DEFAULT_RECIPE = "released_centre"
ELSEWHERE = {"supervision": "unknown", "dataset": "unknown"}


@dataclass(frozen=True)
class Imported:
    """What an import made, and lines on what fitted."""

    written: list[Path]
    report: list[str]


def import_weights(
    path: Path, recipe: str | None, settings: Mapping[str, Mapping[str, str]], output: Path, seed: int = 0
) -> Imported:
    """Writes the encoder of `path` to the folder `output` and, of an inpainting network, the whole generator.

    A .caffemodel is the paper's feature model, for `alexnet`; anything else a state dict of the network that `recipe`
    and `settings` describe. UsageError for a file that cannot be read safely, and for a poor match, with all of it.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}: name a .caffemodel, or a state dict (.pth, .pt, .safetensors).")
    refuse_used(output)
    if path.suffix == ".caffemodel":
        if recipe is not None:
            raise UsageError(f"{path} holds an AlexNet, to which --recipe {recipe} cannot apply: leave it out.")
        return _import_caffe(path, settings, output)
    return _import_generator(path, recipe or DEFAULT_RECIPE, settings, output, seed)


def _import_caffe(path: Path, settings: Mapping[str, Mapping[str, str]], output: Path) -> Imported:
    config.refuse_unknown_parts(settings, ("encoder", "run"))
    encoder, card = checkpoint.open_encoder(f"alexnet={path}", settings.get("encoder", {}), 0)
    _refuse_infinite(encoder, path)
    layers = caffe.read_caffemodel(path)
    used = caffe.convolution_names(layers)
    unused = [name for name in layers if name not in used]
    with claimed(output):
        file = output / checkpoint.ENCODER_FILE
        checkpoint.save_weights(file, encoder, card.model_copy(update=ELSEWHERE))
    report = [f"all {len(used)} convolutions come from the file: {', '.join(used)}"]
    return Imported([file], report + ([f"not of the encoder, left out: {', '.join(unused)}"] if unused else []))


def _import_generator(
    path: Path, recipe: str, settings: Mapping[str, Mapping[str, str]], output: Path, seed: int
) -> Imported:
    config.refuse_unknown_parts(settings, ("encoder", "pretext", "crops", "run"))
    state, own = checkpoint.read_weights(path)
    if own is not None:
        raise UsageError(f"{path} was written by this suite and needs no import: name it, or its folder, as it is.")
    # The ports fill holes as train.lua does.
    pretext = {"fill": "released", **settings.get("pretext", {})}
    plan = plan_pretraining("shapes", "inpainting", recipe, None, {**settings, "pretext": pretext}, seed)
    chosen = config.check(inpainting.Config, "pretext", plan.pretext_config)
    encoder, card = checkpoint.build_encoder(plan.encoder, plan.encoder_settings, seed)
    refuse_size(encoder, plan.encoder, "crops.size", plan.crops.size)
    network = inpainting.build(chosen, encoder, TrainingFacts(plan.crops.size)).generator
    match = layouts.match(state, network.state_dict())
    layouts.refuse_poor(match, path)
    network.load_state_dict(match.state)
    _refuse_infinite(network, path)
    origin = {
        "method": f"{inpainting.method_name(chosen)} from {path.name}",
        "pretext": "inpainting",
        "pretext_config": plan.pretext_config,
        "image_size": plan.crops.size,
        "recipe": recipe,
    }
    card = card.model_copy(update=ELSEWHERE | origin)
    with claimed(output):
        written = [output / GENERATOR_FILE, output / checkpoint.ENCODER_FILE]
        checkpoint.save_weights(written[0], network, card)
        checkpoint.save_weights(written[1], encoder, card)
    return Imported(written, match.report())


def _refuse_infinite(network: nn.Module, path: Path) -> None:
    """UsageError where a weight is no finite number: such a network fills with nothing."""
    wrong = [name for name, tensor in network.state_dict().items() if not torch.isfinite(tensor).all()]
    if wrong:
        raise UsageError(
            f"{path} has numbers that are not finite, in {len(wrong)} of our tensors, {wrong[0]} the first: take the "
            "weights of an earlier step."
        )
