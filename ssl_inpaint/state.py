"""Where training stands: everything that a resumed run needs to go on as if it had never stopped."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from ssl_inpaint import files
from ssl_inpaint.core import Player
from ssl_inpaint.errors import UsageError

SCHEMA = 1
CHECKPOINT_FILE = "checkpoint.pt"  # in a run folder
# What reading a broken file raises, found by trying thousands: anything that a parser can stumble over.
_UNREADABLE = (EOFError, RuntimeError, UnpicklingError, LookupError, ValueError, TypeError, struct.error)


class TrainingState:
    """Step, seconds, weights and optimisers. Random states need no saving: every draw is a function of the step."""

    def __init__(
        self,
        folder: Path | None,
        players: Mapping[str, Player],
        optimizers: Mapping[str, torch.optim.Optimizer],
        identity: str,
    ) -> None:
        self.path = folder / CHECKPOINT_FILE if folder else None
        self.players, self.optimizers, self.identity = players, optimizers, identity
        self.step = 0
        self.seconds = 0.0
        self.losses: dict[str, float] = {}  # as last logged
        self.window: dict[str, Any] = {}  # what the log has summed since: see RunLog.window

    def save(self) -> None:
        """Writes checkpoint.pt whole or not at all; does nothing without a folder."""
        if self.path is None:
            return
        content = {
            "schema": SCHEMA,
            "identity": self.identity,
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "window": self.window,
            "modules": {name: player.module.state_dict() for name, player in self.players.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }
        with files.replacing(self.path) as temporary:
            try:
                torch.save(content, temporary)
            except RuntimeError as error:  # torch's zip writer turns a full disk into this
                reason = (str(error).splitlines() or [""])[0]
                raise OSError(f"not all of it could be written ({reason})") from None

    def load(self) -> None:
        """Takes up checkpoint.pt if there is one; UsageError where it is broken or of a run with other settings."""
        if self.path is None or not self.path.exists():
            return
        content = _read(self.path)
        if content.get("schema") != SCHEMA:
            raise UsageError(
                f"{self.path} has schema {content.get('schema')!r} and this version reads {SCHEMA}: "
                "resume with the version that wrote it, or choose another --output."
            )
        if content.get("identity") != self.identity:
            raise UsageError(
                f"{self.path} belongs to a run with other settings: resume with the settings it began with, "
                "or choose another --output."
            )
        try:
            self._take_up(content)
        except (LookupError, RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(
                f"{self.path} belongs to another network ({reason}): resume with the one it began with, "
                "or choose another --output."
            ) from None

    def _take_up(self, content: dict[str, Any]) -> None:
        for name, player in self.players.items():
            player.module.load_state_dict(content["modules"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(content["optimizers"][name])
        self.step, self.seconds, self.losses = content["step"], content["seconds"], content["losses"]
        self.window = content.get("window", {})


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from None
    except _UNREADABLE:  # torch's own words advise to load it in a way that runs whatever is in it
        content = None
    if not isinstance(content, dict):
        raise UsageError(f"{path} is broken, or no checkpoint of this suite: remove it to begin anew.")
    return content
