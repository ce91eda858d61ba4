"""The whole suite in one command, at a size of seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssl_inpaint import train
from ssl_inpaint.benches import quick
from ssl_inpaint.data import shapes
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment import quickstart
from ssl_inpaint.records import Ledger
from ssl_inpaint.rows import Bench
from ssl_inpaint.tables import stale_tables

FEW = {"steps": "2", "batch_size": "4"}
PRETRAINING = {"train": FEW, "crops": {"size": "64", "store_size": "64"}, "encoder": {"channels": "8,8,8,8,8"}}
TRANSFER = {"train": FEW, "head": {"hidden": "8"}}


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tiny shapes folder; quickstart is cut down to it, and to seconds."""
    folder = tmp_path_factory.mktemp("quickstart")
    data = shapes.make_shapes(folder / "shapes", shapes.Config(train=20, val=10, test=10))
    plain = quick.build()
    tiny = Bench(
        rows=[row if row.source else row.model_copy(update={"settings": PRETRAINING}) for row in plain.rows],
        measurements=[m.model_copy(update={"settings": TRANSFER}) for m in plain.measurements],
        data=dict.fromkeys(plain.data, f"shapes:{data}"),
    )
    size = quickstart._Size(
        "quick",
        retrieval={"retrieval": {"queries": "5", "gallery": "20"}},
        evaluation={"evaluation": {"images": "3", "gallery": "8"}},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_INPAINT_CACHE", str(folder / "cache"))
        patch.setattr(quick, "build", lambda: tiny)
        patch.setattr(quickstart, "MINUTES", size)
        yield data


@pytest.fixture(scope="module")
def finished(data: Path) -> tuple[Path, str]:
    """Where a whole quickstart wrote, and what it said at the end."""
    out = data.parent / "finished"
    return out, quickstart.quickstart(out)


def test_quickstart_measures_every_row_and_names_what_it_made(finished: tuple[Path, str]) -> None:
    out, closing = finished
    measured = Ledger(out / "results" / "measured.jsonl").read()
    rows = {(r.task, r.method) for r in measured if r.task != "pretext"}
    methods = {"Random", "Context encoder (region)", "Supervised"}
    retrieved = {("nn-retrieval", m) for m in methods | {"HOG"}}
    ours = "Context encoder (region)"
    fillers = {
        ours,
        "Mean colour",
        "Telea",
        "Navier-Stokes",
        "Shift map",
        "NN-inpainting (HOG)",
        f"NN-inpainting ({ours})",
    }
    transferred = {(task, m) for task in ("cls", "det", "seg") for m in methods}
    assert rows == transferred | retrieved | {("inpaint", m) for m in fillers}
    assert all(method in closing for method in methods)
    for line in closing[closing.index("What there is now") :].splitlines()[1:]:
        assert Path(line.rsplit("  ", 1)[1]).exists(), line
    assert stale_tables(out / "results" / "measured.jsonl", out / "results") == []


def test_quickstart_goes_on_where_it_was_stopped_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "quickstart"
    some = quick.build().model_copy(update={"measurements": quick.build().measurements[:1]})
    monkeypatch.setattr(quick, "build", lambda: some)  # one task shows it
    whole, calls = train.fit, []

    def stop_at_the_second(*args: object, **options: object) -> object:
        calls.append(options["label"])
        if len(calls) == 2:
            raise train.Interrupted("Stopped by SIGINT after step 1 of 2: its checkpoint is kept.")
        return whole(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "fit", stop_at_the_second)
    with pytest.raises(train.Interrupted, match="the same command goes on"):
        quickstart.quickstart(out)
    quickstart.quickstart(out)
    assert calls[:3] == [f"pretrain {p}" for p in ("inpainting", "supervised", "supervised")]
    assert calls.count("pretrain inpainting") == 1
    before = len(calls)
    quickstart.quickstart(out)
    assert len(calls) == before


def test_quickstart_refuses_a_folder_of_other_settings(finished: tuple[Path, str]) -> None:
    config = finished[0] / "runs" / "inpainting-0" / "config.json"
    before = config.read_text()
    plan = json.loads(before)
    plan["train"]["learning_rate"] = 0.5
    config.write_text(json.dumps(plan))
    with pytest.raises(UsageError, match="other settings"):
        quickstart.quickstart(finished[0])
    config.write_text(before)
