"""Rows x measurements x seeds: each cell once, whoever runs it, and what fails stands alone."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssl_inpaint import train
from ssl_inpaint.data import shapes
from ssl_inpaint.errors import Failure, UsageError
from ssl_inpaint.experiment import bench, pretrain, transfer
from ssl_inpaint.experiment.bench_cells import cells_of
from ssl_inpaint.records import Ledger
from ssl_inpaint.rows import Bench, Measurement, Row
from ssl_inpaint.runtime import open_runtime

FEW = {"steps": "2", "batch_size": "4"}
CROPS = {"size": "64", "store_size": "64"}
SETTINGS = {"train": FEW, "crops": CROPS, "encoder": {"channels": "8,8,8,8,8"}}
MEASURING = {"train": FEW, "crops": CROPS, "head": {"hidden": "8"}, "protocol": {"cached_views": "1"}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_INPAINT_CACHE", str(folder / "cache"))
        yield f"shapes:{shapes.make_shapes(folder / 'shapes', shapes.Config(train=20, val=10, test=10))}"


def small(spec: str, **changes: object) -> Bench:
    values: dict[str, object] = {
        "rows": (
            Row(name="ours", pretext="inpainting", recipe="quick", settings=SETTINGS),
            Row(name="random", source="random:{ours}"),
        ),
        "measurements": (
            Measurement(
                task="cls",
                mode="frozen",
                protocol="quick_cls",
                data="voc",
                settings=MEASURING,
            ),
        ),
        "data": {"photos": spec, "voc": spec},
    }
    return Bench(**values | changes)


def desk_at(folder: Path) -> bench.Desk:
    return bench.Desk(folder, open_runtime("cpu"), Ledger(folder / "measured.jsonl"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of all training there was."""
    whole, found = train.fit, list[str]()

    def counted(*args: object, **options: object) -> object:
        found.append(str(options["label"]))
        return whole(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "fit", counted)
    return found


def test_every_cell_is_run_once_and_found_done_afterwards(data: str, tmp_path: Path, calls: list[str]) -> None:
    cells, desk = cells_of(small(data, seeds=2), tmp_path), desk_at(tmp_path)
    names = ["ours-0", "cls-voc-frozen-ours-0", "cls-voc-frozen-random-0"]
    assert [c.name for c in cells] == [*names, *(n.replace("-0", "-1") for n in names)]
    assert [c.name for c in bench.outlook(cells, desk).left] == [c.name for c in cells]
    found = bench.run(cells, desk)
    assert (len(found.done), found.failed, found.left) == (6, {}, [])
    assert {(r.task, r.method, r.seed) for r in desk.ledger.read()} == {
        (task, method, seed)
        for seed in (0, 1)
        for task, method in (
            ("pretext", "Context encoder (region)"),
            ("cls", "Context encoder (region)"),
            ("cls", "Random"),
        )
    }
    before = len(calls)
    bench.run(cells, desk)
    assert len(calls) == before > 0


def test_a_cell_whose_numbers_left_the_ledger_is_measured_again(data: str, tmp_path: Path) -> None:
    cells, desk = cells_of(small(data), tmp_path), desk_at(tmp_path)
    bench.run(cells, desk)
    kept = [record for record in desk.ledger.read() if record.task != "cls" or record.method != "Random"]
    desk.ledger.path.unlink()
    desk.ledger.add(kept)
    assert [c.name for c in bench.outlook(cells, desk).left] == ["cls-voc-frozen-random-0"]
    assert not bench.run(cells, desk).left


def test_what_fails_is_noted_and_what_needs_it_too_and_the_rest_is_run(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (*small(data).rows, Row(name="alone", source="random:compact_alexnet", settings=SETTINGS | {"train": {}}))
    cells, desk = cells_of(small(data, rows=rows), tmp_path), desk_at(tmp_path)
    whole = pretrain.pretrain

    def broken(*args: object, **options: object) -> object:
        raise Failure("The loss of 'generator' is nan in step 1.")

    monkeypatch.setattr(pretrain, "pretrain", broken)
    found = bench.run(cells, desk)
    assert [c.name for c in found.done] == ["cls-voc-frozen-alone-0"]
    assert found.failed["ours-0"] == "The loss of 'generator' is nan in step 1."
    assert found.failed["cls-voc-frozen-ours-0"] == "it needs ours-0, which has failed"
    monkeypatch.setattr(pretrain, "pretrain", whole)
    assert len(bench.run(cells, desk).failed) == 3  # not tried again unasked
    assert not bench.run(cells, desk, retry=True).left
    assert not list((tmp_path / bench.FAILURES).iterdir())


def test_a_cell_that_another_process_runs_is_waited_for_and_not_done_twice(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    cells, desk = cells_of(small(data), tmp_path), desk_at(tmp_path)
    (tmp_path / bench.CELLS).mkdir()
    other = (tmp_path / bench.CELLS / "cls-voc-frozen-random-0.lock").open("a")
    fcntl.flock(other, fcntl.LOCK_EX)
    seen = []

    def sleep(seconds: float) -> None:
        if seconds == bench.POLL_SECONDS and not seen:  # others sleep too, while they wait for git
            seen.append([c.name for c in bench.outlook(cells, desk).left])
            other.close()

    monkeypatch.setattr(bench.time, "sleep", sleep)
    assert not bench.run(cells, desk).left
    assert seen == [["cls-voc-frozen-random-0"]]  # all else was done by then
    assert calls.count("pretrain inpainting") == 1


def test_an_interrupted_bench_goes_on(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells, desk = cells_of(small(data), tmp_path), desk_at(tmp_path)
    whole = transfer.transfer

    def stopped(*args: object, **options: object) -> object:
        raise train.Interrupted("Stopped by SIGINT after step 1 of 2: its checkpoint is kept.")

    monkeypatch.setattr(transfer, "transfer", stopped)
    with pytest.raises(train.Interrupted, match=r"^Stopped by SIGINT after step 1 of 2: the same command goes on"):
        bench.run(cells, desk)
    monkeypatch.setattr(transfer, "transfer", whole)
    assert not bench.run(cells, desk).left


def test_a_folder_of_other_settings_is_refused(data: str, tmp_path: Path) -> None:
    cells, desk = cells_of(small(data), tmp_path), desk_at(tmp_path)
    bench.run(cells, desk)
    config = tmp_path / "runs" / "ours-0" / "config.json"
    plan = json.loads(config.read_text())
    plan["train"]["learning_rate"] = 0.5
    config.write_text(json.dumps(plan))
    with pytest.raises(UsageError, match="made with other settings"):
        bench.outlook(cells, desk)


def test_a_damaged_note_is_named(data: str, tmp_path: Path) -> None:
    cells, desk = cells_of(small(data), tmp_path), desk_at(tmp_path)
    bench.run(cells, desk)
    desk.note(cells[0]).write_text("{")
    with pytest.raises(UsageError, match=r"ours-0\.json cannot be read: remove it"):
        bench.outlook(cells, desk)


def test_only_what_failed_before_is_tried_again(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several processes that were told to retry, one does."""
    cells, desk = cells_of(small(data), tmp_path), desk_at(tmp_path)
    tries = []

    def broken(*args: object, **options: object) -> object:
        tries.append(1)
        raise Failure("again")

    monkeypatch.setattr(pretrain, "pretrain", broken)
    bench.run(cells, desk, retry=True)
    assert len(tries) == 1
    began = bench.time.time()
    bench.run(cells, desk, retry=True)
    assert len(tries) == 2
    monkeypatch.setattr(bench.time, "time", lambda: began - 1)  # a process that began before that failure
    bench.run(cells, desk, retry=True)
    assert len(tries) == 2
