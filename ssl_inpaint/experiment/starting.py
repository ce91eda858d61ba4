"""What pretraining starts from: random weights, those of a run, a library or a file, or filters made of its images."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssl_inpaint import checkpoint, config, files
from ssl_inpaint.checkpoint import Card
from ssl_inpaint.core import Encoder
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment import data_initialisation
from ssl_inpaint.experiment.data_initialisation import Images
from ssl_inpaint.plans import PretrainPlan
from ssl_inpaint.state import CHECKPOINT_FILE

START_FILE = "start.json"  # in the run folder: what a resumed run, whose weights are in its checkpoint, need not open
STRANGE = ("unknown", "library weights")  # pretext tasks of weights that no card but their own hash tells apart


@dataclass(frozen=True)
class Start:
    """An encoder before its first step, and where its weights came from."""

    encoder: Encoder
    card: Card
    weights_sha256: str = ""  # of weights that were made elsewhere; else empty

    def prepared(self, images: Images) -> Start:
        """As it is, or with filters made of those images where the card says so; the encoder lies where they do."""
        if self.card.pretext not in checkpoint.BY_DATA or self.card.pretraining_seconds:
            return self
        return replace(self, card=data_initialisation.prepare(self.encoder, self.card, images))

    def method(self, name: str) -> str:
        """What a row is called whose task is called `name`."""
        return name if self.card.pretext == "none" else f"{name}, from {self.card.method}"

    def supervision(self, own: str) -> str:
        """What labels the weights have read in the end, where those of the task are its `own`."""
        return self.card.supervision if own == "none" else own

    def identity(self, plan: PretrainPlan) -> list[Any]:
        """What of it counts in a row's settings: all but the time it took, and a seed that is the plan's own."""
        if not plan.start:
            return []
        left_out = {"pretraining_seconds", *(["seed"] if self.card.seed == plan.seed else [])}
        return [self.card.model_dump(mode="json", exclude=left_out), *filter(None, [self.weights_sha256])]

    def write(self, folder: Path) -> None:
        """Into the run folder."""
        kept = {"card": self.card.model_dump(mode="json"), "weights_sha256": self.weights_sha256}
        files.write_json(folder / START_FILE, {"schema": 1, **kept})


def open_start(plan: PretrainPlan, folder: Path, is_resumed: bool) -> Start:
    """The encoder of the plan; of a run that has a checkpoint its architecture alone, with the card it began with.

    UsageError where there are no such weights, or the run's own note of them is damaged.
    """
    if is_resumed and (folder / CHECKPOINT_FILE).exists() and (folder / START_FILE).exists():
        return _noted(folder / START_FILE)
    source = plan.start or f"random:{plan.encoder}"
    encoder, card = checkpoint.open_encoder(source, plan.encoder_settings, plan.seed)
    return Start(encoder, card, checkpoint.weights_sha256(encoder) if card.pretext in STRANGE else "")


def _noted(path: Path) -> Start:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        card, weights = config.check(Card, "card", found["card"]), str(found["weights_sha256"])
    except (OSError, ValueError, LookupError, TypeError):
        raise UsageError(f"{path} is damaged, so the run cannot go on: begin it anew in another --output.") from None
    return Start(checkpoint.encoder_of(card, path), card, weights)
