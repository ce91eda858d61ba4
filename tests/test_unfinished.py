"""A probe of features that was stopped goes on: what it has described and scored is not computed again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssl_inpaint import checkpoint, train
from ssl_inpaint.data import shapes
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment import crop_feed, transfer, unfinished
from ssl_inpaint.experiment.unfinished import Unfinished
from ssl_inpaint.plans import TransferPlan
from ssl_inpaint.runtime import Runtime
from ssl_inpaint.transfer import machines, pooling

CPU = Runtime(torch.device("cpu"), is_bf16=False)
HEADS = {
    "knn": {"k": "1,3,5"},
    "svm": {"features": "8", "costs": "0.1,1", "shots": "1", "samples": "2", "folds": "2"},
}


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is kept, however quick it was."""
    monkeypatch.setattr(unfinished, "KEEP_SECONDS", 0.0)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_INPAINT_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("data") / "shapes"
        yield f"shapes:{shapes.make_shapes(folder, shapes.Config(train=20, val=10, test=12))}"


def batch(turn: int) -> dict[str, Tensor]:
    return {"conv1": torch.full((3, 1, 2), float(turn)).half(), "conv2": torch.rand(3, 1, 4).half()}


def described(kept: Unfinished, turns: range, known: dict[int, dict[str, Tensor]], last: int = 99) -> list[int]:
    """Reads batches of those turns, which must be the known ones; returns those that had to be made."""
    made = []

    def describe(turns: range) -> Iterator[dict[str, Tensor]]:
        for turn in turns:
            if turn > last:
                raise KeyboardInterrupt
            made.append(turn)
            yield known[turn]

    try:
        parts = list(kept.batches("train", turns, describe))
    except KeyboardInterrupt:
        return made
    for stage in ("conv1", "conv2"):
        assert torch.equal(torch.cat([part[stage] for part in parts]), torch.cat([known[t][stage] for t in turns]))
    return made


@pytest.mark.usefixtures("always")
def test_batches_are_made_once_and_in_order(tmp_path: Path) -> None:
    known = {turn: batch(turn) for turn in range(6)}
    assert described(Unfinished(tmp_path, "a"), range(6), known, last=3) == [0, 1, 2, 3]
    assert described(Unfinished(tmp_path, "a"), range(6), known) == [4, 5]
    assert described(Unfinished(tmp_path, "a"), range(6), known) == []
    assert described(Unfinished(tmp_path, "a"), range(2, 4), known) == []  # another process's share
    assert described(Unfinished(tmp_path, "b"), range(6), known) == list(range(6))


def test_batches_that_took_long_together_are_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, now = {turn: batch(turn) for turn in range(7)}, iter(range(0, 10_000, 8))
    monkeypatch.setattr(unfinished.time, "monotonic", lambda: next(now))
    described(Unfinished(tmp_path, "a"), range(7), known)
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == [
        "train-0-3.safetensors",
        "train-3-6.safetensors",
    ]
    assert described(Unfinished(tmp_path, "a"), range(7), known) == [6]
    assert described(Unfinished(tmp_path, "a"), range(5), known) == [3, 4]  # the second file goes beyond


def test_what_takes_a_moment_is_not_kept(tmp_path: Path) -> None:
    kept = Unfinished(tmp_path, "a")
    described(kept, range(3), {turn: batch(turn) for turn in range(3)})
    assert kept.noted("cost, 1.0", lambda: 0.5) == 0.5 == kept.noted("cost, 1.0", lambda: 0.7)
    assert not list(tmp_path.iterdir())
    kept.clear()


@pytest.mark.usefixtures("always")
def test_scores_are_computed_once_and_damage_is_said(tmp_path: Path) -> None:
    assert Unfinished(tmp_path, "a").noted("cost, 1.0", lambda: 0.1 + 0.2) == 0.1 + 0.2
    again = Unfinished(tmp_path, "a")
    assert again.noted("cost, 1.0", lambda: 0.7) == 0.1 + 0.2 and again.noted("cost, 2.0", lambda: 0.7) == 0.7
    assert Unfinished(tmp_path, "a", is_writer=False).noted("cost, 3.0", lambda: 0.9) == 0.9
    assert json.loads((tmp_path / "a" / "scores.json").read_text())["scores"].keys() == {"cost, 1.0", "cost, 2.0"}
    (tmp_path / "a" / "scores.json").write_text("[")
    with pytest.raises(UsageError, match=r"scores\.json is damaged"):
        Unfinished(tmp_path, "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "train-0-1.safetensors").write_bytes(b"no")
    with pytest.raises(UsageError, match=r"train-0-1\.safetensors is damaged"):
        described(Unfinished(tmp_path, "b"), range(1), {0: batch(0)})


def plan_of(spec: str, task: str) -> TransferPlan:
    crops = {"size": "64", "store_size": "64", "smallest_share": "1", "largest_share": "1"}
    settings = {"encoder": {"channels": "8,8,8,8,8"}, "crops": crops, "head": HEADS[task]}
    return transfer.plan_transfer(spec, "random:compact_alexnet", task, "frozen", None, settings, 0)


def stop_after(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, calls: int) -> list[int]:
    """Ctrl-C in call number `calls + 1` of a function; the number of calls goes into the list."""
    plain, count = getattr(owner, name), [0]

    def stopping(*arguments: object) -> object:
        count[0] += 1
        if count[0] > calls:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(owner, name, stopping)
    return count


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("task", "calls"), [("knn", 7), ("knn", 13), ("svm", 2)])
def test_described_images_are_not_described_again(
    task: str, calls: int, spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20, 10 and 12 images in batches of 3: 7, 4 and 4 of them. A stop after 13 is in the midst of test."""
    monkeypatch.setattr(crop_feed, "VIEW_BATCH", 3)
    whole = transfer.transfer(plan_of(spec, task), tmp_path / "whole", CPU)
    with monkeypatch.context() as patch, pytest.raises(train.Interrupted, match=r"go on by --resume .*halves"):
        stop_after(patch, pooling, "described", calls)
        transfer.transfer(plan_of(spec, task), tmp_path / "halves", CPU)
    with monkeypatch.context() as patch:
        count = stop_after(patch, pooling, "described", 99)
        resumed = transfer.transfer(plan_of(spec, task), tmp_path / "halves", CPU, resume=True)
    assert count[0] == 15 - calls
    assert resumed.scores == whole.scores and resumed.choices == whole.choices
    assert not (tmp_path / "halves" / "unfinished").exists() and not (tmp_path / "whole" / "unfinished").exists()


@pytest.mark.usefixtures("always")
def test_machines_are_not_fitted_again(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    with monkeypatch.context() as patch:
        counts.append(stop_after(patch, machines, "fit", 10_000))
        whole = transfer.transfer(plan_of(spec, "svm"), tmp_path / "whole", CPU)
    with monkeypatch.context() as patch, pytest.raises(train.Interrupted):
        stop_after(patch, machines, "fit", 21)  # five classes at two costs in two folds, and one more
        transfer.transfer(plan_of(spec, "svm"), tmp_path / "halves", CPU)
    with monkeypatch.context() as patch:
        counts.append(stop_after(patch, machines, "fit", 10_000))
        resumed = transfer.transfer(plan_of(spec, "svm"), tmp_path / "halves", CPU, resume=True)
    assert counts[0][0] - counts[1][0] == 20
    assert resumed.scores == whole.scores and resumed.choices == whole.choices


@pytest.mark.usefixtures("always")
def test_features_of_other_weights_are_not_taken(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, file, weights = plan_of(spec, "knn"), tmp_path / "encoder.safetensors", []
    for seed in (1, 2):
        checkpoint.save_weights(file, *checkpoint.build_encoder("compact_alexnet", plan.encoder_settings, seed))
        weights.append(file.read_bytes())
    plan = plan.model_copy(update={"source": f"compact_alexnet={file}"})
    fresh = transfer.transfer(plan, tmp_path / "fresh", CPU)
    file.write_bytes(weights[0])
    with monkeypatch.context() as patch, pytest.raises(train.Interrupted):
        stop_after(patch, pooling, "described", 2)
        transfer.transfer(plan, tmp_path / "halves", CPU)
    assert list((tmp_path / "halves" / "unfinished").glob("*/*.safetensors"))
    file.write_bytes(weights[1])
    assert transfer.transfer(plan, tmp_path / "halves", CPU, resume=True).scores == fresh.scores
