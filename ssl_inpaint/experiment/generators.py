"""Trained inpainting networks, whole: written beside the encoder, read back for filling holes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssl_inpaint import checkpoint, config
from ssl_inpaint.checkpoint import Card
from ssl_inpaint.core import Frame, TrainingFacts
from ssl_inpaint.errors import UsageError
from ssl_inpaint.pretext import inpainting
from ssl_inpaint.pretext.generator import ContextEncoder

GENERATOR_FILE = "generator.safetensors"


@dataclass(frozen=True)
class TrainedGenerator:
    """A network that fills holes, where its weights came from, and how it was trained."""

    network: ContextEncoder
    card: Card  # of its encoder
    config: inpainting.Config

    @property
    def frame(self) -> Frame:
        """What it must be shown."""
        return Frame(self.card.image_size, self.config.hole_fraction**0.5, self.config.holes == "centre")


def open_generator(source: str) -> TrainedGenerator:
    """The network of a run folder or of a generator.safetensors; UsageError says what else is there."""
    path = Path(source) / GENERATOR_FILE if Path(source).is_dir() else Path(source)
    if not path.is_file():
        raise UsageError(
            f"There is no inpainting network at '{source}': name the folder of a finished run of "
            f"ssl-inpaint pretrain --pretext inpainting, or its {GENERATOR_FILE}."
        )
    state, card = checkpoint.read_weights(path)
    if card is None or card.pretext != "inpainting":
        raise UsageError(f"{path} does not say how its network is built: ssl-inpaint import makes a file that does.")
    if not any(name.startswith("encoder.") for name in state):
        raise UsageError(f"{path} holds an encoder without what follows it: name its run folder, or {GENERATOR_FILE}.")
    settings = config.check(inpainting.Config, f"{path.name}: pretext", card.pretext_config)
    facts = TrainingFacts(card.image_size)
    network = inpainting.build(settings, checkpoint.encoder_of(card, path), facts).generator
    checkpoint.load_strictly(network, state, path)
    return TrainedGenerator(network.eval(), card, settings)
