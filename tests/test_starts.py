"""The table of starts: its rows are commands that make what it says, and it holds the records of their runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_inpaint import bootstrap, checkpoint, options
from ssl_inpaint.checkpoint import build_encoder
from ssl_inpaint.experiment.pretrain import plan_pretraining
from ssl_inpaint.records import Record

BASE = Record(
    **dict.fromkeys(("weights_sha256", "dataset_sha256", "config_hash", "recipe", "commit"), "a"),
    **{"method": "Random", "pretext": "none", "encoder": "compact_alexnet", "supervision": "none"},
    **{"task": "cls", "protocol": "quick-cls/v1", "mode": "frozen", "dataset": "shapes", "split": "test"},
    **{"metric": "mAP (step)", "seed": 0, "value": 0.25, "higher_is_better": True, "n_examples": 1000},
    **{"source": "measured", "versions": {}, "device": "cpu", "workers": 0, "seconds": 1.0},
    **{"pretraining_seconds": 0.0, "created_at": "2026-01-01T00:00:00+00:00"},
)


def record(value: float, **changes: object) -> Record:
    spread = np.random.default_rng(0).normal(value, 0.01, bootstrap.REPLICATES)
    return dataclasses.replace(BASE, value=value, replicates=bootstrap.pack(value, spread), **changes)


def test_every_row_is_a_command_of_its_own_that_trains_as_long_as_it_says(load: Any) -> None:
    rows = load("starts").ROWS
    assert len({row.folder for row in rows}) == len(rows)
    for row in (row for row in rows if row.pretext):
        words = list(zip(row.arguments[::2], row.arguments[1::2], strict=True))
        pairs, told = dict(words), options.settings_of([value for name, value in words if name == "--set"])
        plan = plan_pretraining("shapes", pairs["--pretext"], pairs["--recipe"], None, told, 0, pairs.get("--from", ""))
        assert (plan.train.steps, plan.train.batch_size, plan.start) == (row.steps, row.batch, row.start)
        assert plan.train.learning_rate == float(row.rate)
        assert plan.encoder_settings["channels"] in load("starts").NARROW[1]


def test_a_line_is_the_record_of_its_own_weights(load: Any, tmp_path: Path) -> None:
    starts = load("starts")
    encoder, card = build_encoder("compact_alexnet", {"channels": "8,8,8,8,8"}, 0)
    checkpoint.save_weights(tmp_path / "run" / "encoder.safetensors", encoder, card)
    own = {"pretext": "rotation", "method": "Rotation, from PCA (Krähenbühl)"}
    records = [
        record(0.25),
        record(0.36, pretext="pca", method="PCA (Krähenbühl)"),
        record(0.99, **own),
        record(0.26, weights_sha256=checkpoint.weights_sha256(encoder), **own),
    ]
    found = [(starts.Row(""), tmp_path), (starts.Row("", starts.PCA), tmp_path)]
    found.append((starts.Row("rotation", starts.PCA, steps=1000), tmp_path / "run"))
    lines = [line for line in starts.render(found, records).splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]
    assert [(*line[:3], line[3][:4]) for line in cells] == [
        ("random weights", "nothing is trained", "–", "25.0"),
        ("filters by PCA", "nothing is trained", "–", "36.0"),
        ("filters by PCA", "Rotation", "1,000 x 32, 1e-3", "26.0"),
    ]
    with pytest.raises(ValueError, match="no record of rotation-pca"):
        starts.render(found, records[:3])


def test_a_finished_run_is_not_run_again(load: Any, tmp_path: Path) -> None:
    (tmp_path / "encoder.safetensors").write_text("done")
    load("running").run_once("pretrain", tmp_path, 0, None, "--no-such-option")
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.safetensors"]
