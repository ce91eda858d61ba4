"""What is timed is right: the rows of probes, retrieval, HOG and scores, on small sizes."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ssl_inpaint import retrieval
from ssl_inpaint.errors import UsageError

CPU = torch.device("cpu")


@pytest.fixture
def rows(load: Any) -> None:
    """They can be imported."""


def row(name: str) -> ModuleType:
    return importlib.import_module(f"rows.{name}")


@pytest.mark.parametrize("name", ["retrieval", "hog", "scores", "probes"])
def test_every_line_has_a_ratio_of_what_agrees(name: str, rows: None) -> None:
    # Each row refuses to time what does not agree, to the tolerance that it states.
    lines = list(row(name).measure(CPU, rounds=1, is_small=True))
    assert lines or name == "hog"
    for line in lines:
        assert line.lowest <= line.ratio <= line.highest
        assert line.ours > 0 and math.isfinite(line.ours) and line.agreement and line.device.startswith("cpu")
        assert line.ratio == pytest.approx(line.ours / line.other)


@pytest.mark.parametrize(("name", "missing"), [("hog", "skimage.feature"), ("scores", "pycocotools.coco")])
def test_what_is_not_installed_is_named_and_left_out(
    name: str, missing: str, rows: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)  # as Python marks what cannot be imported
    made = [line.what for line in row(name).measure(CPU, rounds=1, is_small=True)]
    assert not any("HOG" in what or "average precision" in what for what in made)
    assert "pip install" in capsys.readouterr().err


def test_search_without_faiss_still_measures_the_rest(
    rows: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert len(list(row("retrieval").measure(CPU, rounds=1, is_small=True))) == 2
    assert "pip install faiss-cpu" in capsys.readouterr().err


def test_a_row_refuses_what_does_not_agree(rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, probes = row("scores"), row("probes")
    confusion = scores.segmentation_metrics.confusion
    monkeypatch.setattr(scores.segmentation_metrics, "confusion", lambda *given: confusion(*given) + 1)
    with pytest.raises(ValueError, match="IoUs differ"):
        scores._segmentation(2, rounds=1)
    problem = probes._problem(CPU, is_small=True)
    plain = probes.plain
    monkeypatch.setattr(probes, "plain", lambda given: {name: 1.01 * w for name, w in plain(given).items()})
    with pytest.raises(ValueError, match="weights of heads differ"):
        probes._agreement(problem)


def test_a_search_of_millions_is_refused_where_the_disk_is_full_and_where_a_planted_one_is_missed(
    rows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    millions = row("millions")
    (line,) = millions.measure(CPU, rounds=1, is_small=True)
    assert line.agreement.startswith("all 1,000 planted neighbours found in order")
    search = retrieval.top_k
    monkeypatch.setattr(millions.retrieval, "top_k", lambda *given: (search(*given)[0] + 1, None))
    with pytest.raises(ValueError, match="planted at"):
        list(millions.measure(CPU, rounds=1, is_small=True))
    monkeypatch.setattr(millions, "COUNT", 10**15)
    with pytest.raises(UsageError, match="set TMPDIR"):
        list(millions.measure(CPU, rounds=1, is_small=False))


def test_growth_is_linear_where_every_image_takes_the_same_time(rows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    growth, spent = row("growth"), importlib.import_module("costs").Spent
    small, large = (SimpleNamespace(count=count, mebibytes={"a step": 3.0}) for count in (100, 1000))
    monkeypatch.setattr(growth, "spent_by", lambda work, _: spent(*work()))
    line = growth._line("a step", lambda folder: (folder.count / 50, folder.count / 100), large, small, 3, 0.0)
    assert line.ratio == 1 and line.ours == line.other == pytest.approx(50) and line.rounds == 3
    assert line.agreement == "10 s in all; 3 MiB of own memory beside 3 MiB of own memory"


def test_short_calls_are_repeated_until_their_time_can_be_told(rows: None) -> None:
    costs, calls = importlib.import_module("costs"), list[int]()
    spent = costs.spent_by(lambda: calls.append(sum(range(10_000))), least_seconds=0.05)
    assert len(calls) > 5 and spent.cpu_seconds == pytest.approx(0.05 / len(calls), rel=0.5)


def test_memory_of_a_search_does_not_grow_with_the_gallery(tmp_path: Path, rows: None) -> None:
    costs = importlib.import_module("costs")
    if not math.isfinite(costs.own_mebibytes()):
        pytest.skip("this system does not tell the memory of a process apart from files")
    queries = torch.randn(4, 256, generator=torch.Generator().manual_seed(0))
    held = []
    for count in (16_384, 65_536):  # 16 and 64 MiB, of which 8 are read at once and as much is made of them
        gallery = np.lib.format.open_memmap(tmp_path / f"{count}.npy", "w+", np.float32, (count, 256))
        gallery[:] = np.random.default_rng(0).standard_normal((count, 256), np.float32)
        held.append(costs.peak_mebibytes(lambda g=gallery: retrieval.top_k(queries, g, 10)))
    assert max(held) < 40
