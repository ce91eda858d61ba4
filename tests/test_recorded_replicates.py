"""The verbs that measure put replicates into their records, of the same examples for all methods on one test set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_inpaint import bootstrap
from ssl_inpaint.data import shapes
from ssl_inpaint.experiment import evaluation, retrieval, transfer
from ssl_inpaint.records import Ledger, Record
from ssl_inpaint.runtime import Runtime

CPU = Runtime(torch.device("cpu"), is_bf16=False)
SMALL = {
    "encoder": {"channels": "8,8,8,8,8"},
    "crops": {"size": "64", "store_size": "64", "smallest_share": "1", "largest_share": "1"},
    "head": {"hidden": "[]", "grid": "1"},
    "protocol": {"cached_views": "1", "test_views": "centre"},
}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_INPAINT_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("data") / "shapes"
        yield f"shapes:{shapes.make_shapes(folder, shapes.Config(train=16, val=10, test=12))}"


def _replicates(record: Record) -> np.ndarray:
    found = bootstrap.unpack(record.value, record.replicates)
    assert found is not None
    return found


def _transferred(spec: str, folder: Path, seed: int) -> transfer.Transferred:
    settings = {**SMALL, "train": {"steps": "2", "batch_size": "8", "learning_rate": "0.1"}}
    plan = transfer.plan_transfer(spec, "random:compact_alexnet", "cls", "frozen", "quick_cls", settings, seed)
    return transfer.transfer(plan, folder, CPU, Ledger(folder.with_suffix(".jsonl")))


def test_transfer_records_replicates_around_each_value(spec: str, tmp_path: Path) -> None:
    made = _transferred(spec, tmp_path / "first", 0)
    again = _transferred(spec, tmp_path / "again", 0)
    other = _transferred(spec, tmp_path / "other", 1)
    assert Ledger(tmp_path / "first.jsonl").read() == made.records
    for first, second, third in zip(made.records, again.records, other.records, strict=True):
        assert first.replicates == second.replicates != third.replicates
        # Of the same images, whatever was trained: how hard these are is shared by both.
        assert np.corrcoef(_replicates(first), _replicates(third))[0, 1] > 0.3
        found = bootstrap.interval(first.value, _replicates(first))
        assert found.low < first.value < found.high


@pytest.mark.parametrize(("task", "few"), [("knn", 0), ("svm", 2)])
def test_a_probe_of_features_records_replicates_for_every_score(task: str, few: int, spec: str, tmp_path: Path) -> None:
    heads = {"knn": {"k": "5,15"}, "svm": {"features": "8", "costs": "1", "shots": "1,2", "samples": "2"}}
    settings = {"encoder": SMALL["encoder"], "crops": SMALL["crops"], "head": heads[task]}
    made = []
    for seed in (0, 1):
        plan = transfer.plan_transfer(spec, "random:compact_alexnet", task, "frozen", None, settings, seed)
        made.append(transfer.transfer(plan, tmp_path / str(seed), CPU).records)
    scores = [(first, second) for first, second in zip(*made, strict=True) if "deviation" not in first.metric]
    assert len(scores) == 3 and len(made[0]) == 3 + few
    assert not any(record.replicates for record in made[0] if "deviation" in record.metric)
    for first, second in scores:
        # Of the same images. Of other ones 1,000 replicates correlate by 0 with a deviation of 0.03.
        assert np.corrcoef(_replicates(first), _replicates(second))[0, 1] > 0.15
        found = bootstrap.interval(first.value, _replicates(first))
        assert found.low <= first.value <= found.high and found.low < found.high


def test_retrieval_records_replicates_for_every_descriptor_and_metric(spec: str, tmp_path: Path) -> None:
    small = {"queries": "30", "gallery": "30", "store_size": "96", "patch_size": "64", "shown_queries": "1", "k": "1,3"}
    plan = retrieval.plan_retrieval(spec, ("hog", "random:compact_alexnet"), {"retrieval": small}, 0)
    made = retrieval.nn_retrieval(plan, tmp_path / "nn", CPU)
    assert len(made.records) == 2 * 2 * 3
    for record in made.records:
        assert abs(_replicates(record).mean() - record.value) < 0.5 * _replicates(record).std()


def test_inpainting_records_replicates_of_the_same_squares_and_holes(spec: str, tmp_path: Path) -> None:
    plan = evaluation.plan_evaluation(spec, ("navier_stokes", "telea"), None, None, {"evaluation": {"size": "64"}}, 0)
    made = evaluation.evaluate(plan, tmp_path / "run", CPU)
    by_name = {(record.method, record.metric): record for record in made.records}
    first, second = (_replicates(by_name[name, "PSNR (dB)"]) for name in ("Navier-Stokes", "Telea"))
    assert np.corrcoef(first, second)[0, 1] > 0.3
    assert all(record.replicates for record in made.records)
    assert "[" in made.text()
