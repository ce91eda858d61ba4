import dataclasses
import json
import math
import multiprocessing
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ssl_inpaint import bootstrap, records
from ssl_inpaint.errors import UsageError
from ssl_inpaint.records import IDENTITY, Ledger, Record, key, provenance

BASE = Record(
    method="Context encoder (région)",
    pretext="inpainting",
    encoder="compact_alexnet",
    weights_sha256="ab" * 32,
    supervision="none",
    task="cls",
    protocol="compact-cls/v1",
    mode="frozen",
    dataset="Shapes",
    dataset_sha256="cd" * 32,
    split="test",
    metric="mAP",
    seed=0,
    recipe="quick",
    config_hash="0123456789ab",
    value=0.25,
    higher_is_better=True,
    n_examples=100,
    source="measured",
    commit="unknown",
    versions={"torch": "2"},
    device="cpu",
    workers=1,
    seconds=1.0,
    pretraining_seconds=2.0,
    created_at="2026-01-01T00:00:00+00:00",
)
REPLICATES = bootstrap.pack(BASE.value, np.linspace(0.2, 0.3, bootstrap.REPLICATES))


def _other(name: str) -> Record:
    value = getattr(BASE, name)
    if name == "replicates":
        return dataclasses.replace(BASE, replicates=REPLICATES)
    changed = {str: lambda: value + "x", bool: lambda: not value, dict: lambda: {"a": "b"}}
    return dataclasses.replace(BASE, **{name: changed.get(type(value), lambda: value + 1)()})


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Record)])
def test_only_identity_fields_change_the_key(name: str) -> None:
    assert (key(_other(name)) != key(BASE)) == (name in IDENTITY)


@pytest.mark.parametrize("name", ["value", "seconds", "pretraining_seconds"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(name: str, number: float) -> None:
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(BASE, **{name: number})


def test_a_metric_over_no_examples_is_refused() -> None:
    with pytest.raises(ValueError, match="n_examples"):
        dataclasses.replace(BASE, n_examples=0)


def test_a_missing_file_is_an_empty_ledger(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "none.jsonl").read() == []


def test_records_come_back_as_they_were_added_and_in_order(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "deep" / "measured.jsonl")
    added = [dataclasses.replace(BASE, seed=seed, value=np.float32(seed / 4)) for seed in (3, 1, 2)]
    ledger.add(added[:2])
    ledger.add(added[2:])
    assert ledger.read() == added
    assert ledger.has(key(added[0])) and not ledger.has(key(BASE))


def test_the_newest_of_one_key_wins_and_keeps_its_place(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "measured.jsonl")
    second = dataclasses.replace(BASE, seed=1)
    ledger.add([BASE, second])
    newer = dataclasses.replace(BASE, value=0.75, device="cuda", workers=8)
    ledger.add([newer])
    assert ledger.read() == [newer, second]


def test_lines_are_utf8_json_with_sorted_names(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "measured.jsonl")
    ledger.add([BASE])
    text = ledger.path.read_text(encoding="utf-8")
    assert "région" in text and text.endswith("}\n") and text.count("\n") == 1
    assert list(json.loads(text)) == sorted(json.loads(text)) and json.loads(text)["key"] == key(BASE)


def test_replicates_come_back_and_lines_without_them_stay_as_they_were(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "measured.jsonl")
    ledger.add([BASE])
    before = ledger.path.read_text(encoding="utf-8")
    second = dataclasses.replace(BASE, seed=1, replicates=REPLICATES)
    ledger.add([second])
    assert ledger.path.read_text(encoding="utf-8").startswith(before) and "replicates" not in before
    assert ledger.read() == [BASE, second] and key(second) == key(dataclasses.replace(BASE, seed=1))


def test_the_committed_ledger_is_read_and_written_without_a_change(tmp_path: Path) -> None:
    committed = Path(__file__).parents[1] / "results" / "measured.jsonl"
    copy = tmp_path / "measured.jsonl"
    copy.write_bytes(committed.read_bytes())
    Ledger(copy).add([])
    assert copy.read_bytes() == committed.read_bytes()


def _edit(path: Path, **changes: object) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    fields = json.loads(lines[1]) | changes
    lines[1] = json.dumps({name: value for name, value in fields.items() if value != "REMOVED"})
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 7}, "edited by hand"),
        ({"key": "0" * 64}, "edited by hand"),
        ({"key": "REMOVED"}, "edited by hand"),
        ({"schema": 99}, "schema 99"),
        ({"schema": "REMOVED"}, "schema None"),
        ({"metric": "REMOVED"}, "metric"),
        ({"surprise": 1}, "surprise"),
        ({"value": "0.3"}, "value"),
        ({"value": math.nan}, "finite"),
        ({"replicates": "AAAA"}, "replicates are 1 numbers|replicates are not"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    ledger = Ledger(tmp_path / "measured.jsonl")
    ledger.add([BASE, dataclasses.replace(BASE, seed=1)])
    _edit(ledger.path, **changes)
    with pytest.raises(UsageError, match=rf"measured\.jsonl, line 2: .*{said}"):
        ledger.read()


@pytest.mark.parametrize("broken", [b'{"half": ', b"<<<<<<< HEAD", b"[1]", b"\xff\xfe"])
def test_a_line_that_is_no_object_is_named_and_left_alone(tmp_path: Path, broken: bytes) -> None:
    ledger = Ledger(tmp_path / "measured.jsonl")
    ledger.add([BASE])
    ledger.path.write_bytes(before := ledger.path.read_bytes() + broken + b"\n")
    with pytest.raises(UsageError, match="line 2: not a JSON object"):
        ledger.add([dataclasses.replace(BASE, seed=1)])
    assert ledger.path.read_bytes() == before


def test_a_folder_in_place_of_the_ledger_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Cannot read the ledger"):
        Ledger(tmp_path).read()


def _add_many(path: Path, first: int, start) -> None:
    start.wait()
    for seed in range(first, first + 10):
        Ledger(path).add([dataclasses.replace(BASE, seed=seed)])


def test_two_processes_adding_at_once_lose_nothing(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(2)
    path = tmp_path / "measured.jsonl"
    processes = [spawn.Process(target=_add_many, args=(path, first, start)) for first in (0, 10)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(record.seed for record in Ledger(path).read()) == list(range(20))


def test_provenance_completes_a_record_and_says_utc() -> None:
    identity = {name: getattr(BASE, name) for name in (*IDENTITY, "value", "higher_is_better", "n_examples")}
    record = Record(**identity, **provenance("cpu", seconds=1.5, pretraining_seconds=0.0, workers=2))
    assert (record.source, record.device, record.workers, record.seconds) == ("measured", "cpu", 2, 1.5)
    assert record.created_at.endswith("+00:00")
    assert record.versions["numpy"] == np.__version__ and set(record.versions) >= {"python", "torch", "ssl-inpaint"}


def _commit_of(package: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(records, "__file__", str(package / "records.py"))
    return provenance("cpu", 0.0, 0.0, 1)["commit"]


def test_the_commit_is_the_checkouts_and_says_when_the_package_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "records.py").write_text("one\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@e"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert _commit_of(package, monkeypatch) == "unknown"  # in a checkout that does not hold it
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "m"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "results.jsonl").write_text("results are not code\n")
    assert _commit_of(package, monkeypatch) == head
    (package / "records.py").write_text("two\n")
    assert _commit_of(package, monkeypatch) == f"{head}-dirty"


def test_outside_a_checkout_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "records.py").write_text("")
    assert _commit_of(tmp_path, monkeypatch) == "unknown"
