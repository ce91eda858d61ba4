"""Several processes on one bench: ranks of torchrun, shares that are divided beforehand, file systems without locks."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from ssl_inpaint.data import shapes
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment import bench, crew
from ssl_inpaint.experiment.bench_cells import Cell, Share, cells_of
from ssl_inpaint.experiment.bench_plans import plan_bench
from ssl_inpaint.experiment.crew import Crew, crew_of
from ssl_inpaint.records import Ledger
from ssl_inpaint.runtime import open_runtime

CROPS = {"size": "64", "store_size": "64"}
FEW = {"train": {"steps": "2", "batch_size": "4"}, "crops": CROPS, "encoder": {"channels": "8,8,8,8,8"}}
MEASURING = {"train": FEW["train"], "crops": CROPS, "head": {"hidden": "8"}, "protocol": {"cached_views": "1"}}
# `quick` with its first measurement only, at a size of seconds.
SCRIPT = f"""
from ssl_inpaint.benches import quick
from ssl_inpaint.cli import main
whole = quick.build()
rows = [row if row.source else row.model_copy(update={{"settings": {FEW}}}) for row in whole.rows]
column = whole.measurements[0].model_copy(update={{"settings": {MEASURING}}})
small = whole.model_copy(update={{"rows": tuple(rows), "measurements": (column,)}})
quick.build = lambda: small
main()
"""


def cells(seeds: int = 3) -> list[Cell]:
    return cells_of(plan_bench("quick", {}, seeds), Path("runs/quick"))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 40])
def test_shares_hold_each_cell_once_and_a_pretraining_with_all_that_needs_it(count: int) -> None:
    shares = [Share(number, count).of(cells()) for number in range(1, count + 1)]
    assert sorted(c.name for share in shares for c in share) == sorted(c.name for c in cells())
    for share in shares:
        names = [cell.name for cell in share]
        assert all(cell.needs in names for cell in share if cell.needs)
        assert names == [cell.name for cell in cells() if cell.name in names]  # in the plan's order
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 7  # the largest group: a pretraining and six measurements


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "-1/2", "a/b", "1/2/3", "1/0"])
def test_a_share_is_one_of_so_many_counted_from_one(text: str) -> None:
    with pytest.raises(UsageError, match="write I/N, counted from 1"):
        Share.parse(text)
    assert Share.parse("2/3") == Share(2, 3)


def test_torchrun_says_who_is_who() -> None:
    told = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert crew_of(told) == Crew(5, 8, 1, 4) and not crew_of(told).is_speaker
    assert crew_of({}) == Crew() and crew_of({}).is_speaker
    for wrong in ({"RANK": "8"}, {"RANK": "x"}, {"LOCAL_RANK": "4"}):
        with pytest.raises(UsageError, match="are no ranks of one group"):
            crew_of(told | wrong)


def test_processes_of_one_machine_take_its_devices_in_turn_and_its_cores_in_shares() -> None:
    four = [Crew(rank, 4, rank, 4) for rank in range(4)]
    assert [one.device("auto", 2) for one in four] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert {one.device("auto", 0) for one in four} == {"auto"} and {one.device("cpu", 2) for one in four} == {"cpu"}
    assert Crew().device("auto", 2) == "auto"
    assert (four[0].threads(16), four[0].threads(2), Crew().threads(16)) == (4, 1, 16)


def test_a_process_that_is_alone_is_placed_nowhere() -> None:
    before = torch.get_num_threads()
    assert crew.placed({"run": {"workers": "2"}}, Crew()) == {"run": {"workers": "2"}}
    assert crew.placed({}, Crew()) == {} and torch.get_num_threads() == before


def test_a_cell_does_not_see_that_torchrun_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="within"), crew.alone():
        assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} & os.environ.keys()
        raise ValueError("within")
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"], os.environ["LOCAL_RANK"]) == ("1", "2", "1")


def test_without_file_locks_the_work_must_be_shared_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(bench.fcntl, "flock", refuse)
    monkeypatch.setattr(bench, "_attempt", lambda cell, desk: bench._note_failure(cell, desk, "tried"))
    desk = bench.Desk(tmp_path / "bench", open_runtime("cpu"), Ledger(tmp_path / "measured.jsonl"))
    some = [cell for cell in cells() if not cell.needs]
    with pytest.raises(UsageError, match=r"has no locks.*--share I/N"):
        bench.run(some, desk)
    desk.has_own_share = True
    assert set(bench.run(some, desk).failed.values()) == {"tried"}


def test_torchrun_divides_the_cells_and_one_process_says_how_it_went(tmp_path: Path) -> None:
    """Two processes of their own: what one runs the other leaves, without a process group; the end is said once."""
    data = shapes.make_shapes(tmp_path / "shapes", shapes.Config(train=20, val=10, test=10))
    (tmp_path / "small.py").write_text(SCRIPT)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *(str(tmp_path / "small.py"), "bench", "quick"),
        *("--data", f"photos=shapes:{data}", "--data", f"voc=shapes:{data}"),
        *("--output", str(tmp_path / "bench"), "--set", f"run.ledger={tmp_path / 'measured.jsonl'}"),
    ]
    environment = {**os.environ, "SSL_INPAINT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("5 of 5 cells are done.") == 1
    begun = Counter(re.findall(r"^\[\d/5\] (\S+)$", done.stderr, re.MULTILINE))
    assert len(begun) == 5 and set(begun.values()) == {1}, done.stderr
    notes = list((tmp_path / "bench" / bench.CELLS).glob("*.json"))
    assert len(notes) == 5 and all(json.loads(note.read_text())["keys"] for note in notes)
