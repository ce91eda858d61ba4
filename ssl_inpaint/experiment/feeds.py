"""What a probe reads of a data set: the two ways, crops with labels and whole images with objects or masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ssl_inpaint.batches import Batches
from ssl_inpaint.bootstrap import Scores
from ssl_inpaint.core import TransferFacts
from ssl_inpaint.train import FitConfig


class Part(Protocol):
    """One decoded split."""

    @property
    def name(self) -> str:
        """train, val or test."""
        ...

    @property
    def dataset(self) -> str:
        """The data set's name."""
        ...

    @property
    def digest(self) -> str:
        """Identifies images and annotations by content, wherever they lie."""
        ...

    def __len__(self) -> int: ...


class Feed(Protocol):
    """The splits of a data set as batches, and as scores of what was learned on them.

    It knows train and val from the start; test only once it has been admitted, when all choices are made.
    """

    def open(self, name: str) -> Part:
        """One split, decoded and kept apart; UsageError where it is missing, or has not what the task needs."""
        ...

    def admit(self, name: str) -> None:
        """Makes a split known that was opened before."""
        ...

    def facts(self) -> TransferFacts:
        """What the task must know of the data."""
        ...

    def batches(self, objective: Any, names: Sequence[str], loop: FitConfig) -> Batches:
        """Training batches of those splits joined: of images, or for a frozen encoder of its cached features."""
        ...

    def images(self, count: int, batch_size: int) -> Iterator[Tensor]:
        """So many batches of training images on the device, B x 3 x H x W in [0, 1], whose labels are not read."""
        ...

    def inputs(self) -> list[str]:
        """What else was read of all splits opened, by content: outside proposals; empty where there are none."""
        ...

    def score(self, objective: Any, name: str, keep: Path | None = None, counts: np.ndarray | None = None) -> Scores:
        """The metrics of one split, everything in eval mode; what was predicted is written to `keep`, if given.

        With replicates where `counts` (N x R, see `bootstrap.draw_counts`) are given and the task knows how.
        """
        ...


def scores_of(objective: Any, *predicted: object, counts: np.ndarray | None) -> Scores:
    """What `objective.score` gives, or `objective.score_resampled` where there are counts and it has that."""
    if counts is None or not hasattr(objective, "score_resampled"):
        return Scores(objective.score(*predicted))
    found: Scores = objective.score_resampled(*predicted, counts)
    return found
