"""`ssl-inpaint import`: weights made elsewhere, in the layouts they come in, into run folders that every verb takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ssl_inpaint import caffe, catalog, checkpoint, config, layouts
from ssl_inpaint.core import TrainingFacts
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment.checks import refuse_used
from ssl_inpaint.experiment.generators import GENERATOR_FILE
from ssl_inpaint.experiment.pretrain import plan_pretraining
from ssl_inpaint.pretext import inpainting
from ssl_inpaint.runtime import claimed

ELSEWHERE = {"supervision": "unknown", "dataset": "unknown"}


@dataclass(frozen=True)
class Imported:
    """What an import made, and lines on what fitted."""

    written: list[Path]
    report: list[str]


def import_weights(
    path: Path, recipe: str, settings: Mapping[str, Mapping[str, str]], output: Path, seed: int = 0
) -> Imported:
    """Writes the encoder of `path` to the folder `output` and, of an inpainting network, the whole generator.

    A .caffemodel is the paper's feature model, for `alexnet`; anything else a state dict of the network that `recipe`
    and `settings` describe. UsageError for a file that cannot be read safely, and for a poor match, with all of it.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}: name a .caffemodel, or a state dict (.pth, .pt, .safetensors).")
    refuse_used(output)
    if path.suffix == ".caffemodel":
        return _import_caffe(path, settings, output)
    return _import_generator(path, recipe, settings, output, seed)


def _import_caffe(path: Path, settings: Mapping[str, Mapping[str, str]], output: Path) -> Imported:
    config.refuse_unknown_parts(settings, ("encoder", "run"))
    encoder, card = checkpoint.open_encoder(f"alexnet={path}", settings.get("encoder", {}), 0)
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
    # The ports fill holes as train.lua does.
    pretext = {"fill": "released", **settings.get("pretext", {})}
    plan = plan_pretraining("shapes", "inpainting", recipe, None, {**settings, "pretext": pretext}, seed)
    chosen = config.check(inpainting.Config, "pretext", plan.pretext_config)
    encoder, card = checkpoint.build_encoder(plan.encoder, plan.encoder_settings, seed)
    network = catalog.load("pretext", "inpainting").build(chosen, encoder, TrainingFacts(plan.crops.size)).generator
    state, _ = checkpoint.read_weights(path)
    match = layouts.match(state, network.state_dict())
    layouts.refuse_poor(match, path)
    network.load_state_dict(match.state)
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
