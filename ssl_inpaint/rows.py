"""What a bench is made of: rows, which are ways to come by an encoder, and what is measured of them."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from ssl_inpaint.config import Settings


class Row(Settings):
    """One way to come by an encoder: to pretrain it, or a source that needs no training."""

    name: str  # of its run folders
    pretext: str = ""  # empty where `source` says where the encoder comes from
    source: str = ""  # as in transfer --from; {NAME} stands for the run folder of the row NAME
    start: str = ""  # what pretraining goes on from, as in pretrain --from; empty: random weights
    recipe: str = ""
    encoder: str | None = None  # None: the recipe's
    settings: dict[str, dict[str, str]] = {}  # of pretraining, or of the source's encoder
    data: str = "photos"  # which of the bench's data sets it learns from

    @model_validator(mode="after")
    def _comes_from_somewhere(self) -> Row:
        if bool(self.pretext) == bool(self.source):
            raise ValueError(f"row '{self.name}' is pretrained or has a source, one of the two")
        if self.start and not self.pretext:
            raise ValueError(f"row '{self.name}' is not pretrained, so nothing starts from '{self.start}'")
        if "{" in self.start:
            raise ValueError(f"row '{self.name}' starts from '{self.start}': other rows are for `source` alone")
        return self

    @property
    def named(self) -> list[str]:
        """The rows whose encoders its source speaks of."""
        return re.findall(r"{([^{}]*)}", self.source)


class Measurement(Settings):
    """A transfer of some rows, by one protocol."""

    task: str
    mode: Literal["frozen", "finetune"]
    protocol: str
    data: str  # which of the bench's data sets
    rows: tuple[str, ...] = ()  # empty: all of them
    settings: dict[str, dict[str, str]] = {}
    has_predictions: bool = False


class Bench(Settings):
    """Rows x measurements x seeds."""

    rows: tuple[Row, ...] = Field(min_length=1)
    measurements: tuple[Measurement, ...] = ()
    data: dict[str, str]  # data spec by the name that rows and measurements use; empty where it must be given
    seeds: int = Field(1, ge=1)
    folder: str = ""  # in runs/; empty: the bench's name. Benches that share it share what their rows have trained

    @model_validator(mode="after")
    def _names_what_exists(self) -> Bench:
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError(f"rows {', '.join(names)} are not all different")
        wanted = {name for m in self.measurements for name in m.rows} - set(names)
        if wanted:
            raise ValueError(f"measurements name rows that do not exist: {', '.join(sorted(wanted))}")
        spoken = {name for row in self.rows for name in row.named} - {row.name for row in self.rows if not row.named}
        if spoken:
            raise ValueError(f"sources name rows that do not exist: {', '.join(sorted(spoken))}")
        cells = [(m.task, m.data, m.mode, name) for m in self.measurements for name in m.rows or names]
        if len(set(cells)) < len(cells):
            raise ValueError("two measurements have a row, task, data and mode in common, so their runs would mix")
        used = {m.data for m in self.measurements} | {row.data for row in self.rows if row.pretext}
        if used - self.data.keys():
            raise ValueError(f"no data set is given for {', '.join(sorted(used - self.data.keys()))}")
        return self
