"""The ledger: one measured number a line, with what identifies it and where it came from.

Every table and figure of results is a function of these records, never of logs.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import ClassVar, TypedDict

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ssl_inpaint import bootstrap, files
from ssl_inpaint.errors import UsageError

SCHEMA = 1
MEASURED = "measured"
NO_WEIGHTS = ""  # the weights hash of a method that has none, such as HOG
VERSIONED = ("ssl-inpaint", "torch", "torchvision", "timm", "numpy", "opencv-contrib-python-headless")
IDENTITY = (
    *("method", "pretext", "encoder", "weights_sha256", "supervision", "task", "protocol", "mode"),
    *("dataset", "dataset_sha256", "split", "metric", "seed", "recipe", "config_hash"),
)


class Provenance(TypedDict):
    """How a number came about; to be passed on as `Record(..., **provenance(...))`."""

    source: str
    commit: str
    versions: dict[str, str]
    device: str
    workers: int
    seconds: float
    pretraining_seconds: float
    created_at: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """One number: its identity (what may change it), its value, and its provenance (what may not).

    `value` is a fraction (PSNR: decibels). ValueError where a number is not finite, no example was scored, or
    replicates are damaged.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    method: str  # the label of its row in tables
    pretext: str
    encoder: str
    weights_sha256: str
    supervision: str  # "none", "labels", ...
    task: str  # "cls", "det", "seg", "nn-retrieval", ...
    protocol: str  # name/version
    mode: str  # "frozen", "finetune", or "-" where neither applies
    dataset: str
    dataset_sha256: str
    split: str
    metric: str
    seed: int
    recipe: str
    config_hash: str

    value: float
    higher_is_better: bool
    n_examples: int

    source: str  # "measured", or a citation
    commit: str
    versions: Mapping[str, str]
    device: str
    workers: int
    seconds: float
    pretraining_seconds: float
    created_at: str  # UTC, ISO 8601
    replicates: str = ""  # the value on resampled test examples, as `bootstrap.pack` makes it; "": not known
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        for name in ("value", "seconds", "pretraining_seconds"):
            number = float(getattr(self, name))  # NumPy and torch scalars too, which JSON does not know
            object.__setattr__(self, name, number)
            if not math.isfinite(number):
                raise ValueError(f"{name} of '{self.method}', {self.metric} is {number}: only finite numbers count.")
        if self.n_examples < 1:
            raise ValueError(
                f"n_examples of '{self.method}', {self.metric} is {self.n_examples}: at least 1 is scored."
            )
        bootstrap.unpack(self.value, self.replicates)  # which refuses what is damaged


def key(record: Record) -> str:
    """What makes two records the same measurement: the SHA-256 of the identity fields, in hexadecimal digits."""
    identity = {name: getattr(record, name) for name in IDENTITY}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def provenance(device: str, seconds: float, pretraining_seconds: float, workers: int) -> Provenance:
    """The provenance of a number measured now, by this code, in `seconds` after `pretraining_seconds`."""
    return Provenance(
        source=MEASURED,
        commit=commit_of(Path(__file__)),
        versions={"python": platform.python_version()} | {name: _version(name) for name in VERSIONED},
        device=device,
        workers=workers,
        seconds=seconds,
        pretraining_seconds=pretraining_seconds,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


class Ledger:
    """A file of records, one JSON object a line; several processes may add at the same time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Record]:
        """All records in file order, none where there is no file; of two with one key the later line counts.

        UsageError names file and line where a line is broken, of another schema, or edited by hand.
        """
        return list(self._by_key().values())

    def has(self, wanted: str) -> bool:
        """True where a record of this key is in the file."""
        return wanted in self._by_key()

    def add(self, records: Iterable[Record]) -> None:
        """Puts `records` in: the place of a key that is there already is kept and its record replaced."""
        new = {key(record): record for record in records}
        with self._locked():
            merged = self._by_key() | new
            lines = (_line(name, record) for name, record in merged.items())
            files.write_text(self.path, "".join(lines))

    def _by_key(self) -> dict[str, Record]:
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UsageError(f"Cannot read the ledger {self.path}: {error.strerror}. Name another file.") from None
        return dict(_parse(line, f"{self.path}, line {n}") for n, line in enumerate(lines, start=1) if line.strip())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A lock file of its own: the ledger is replaced by renaming, and a lock on it would go with the old file.
        import fcntl

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = self.path.with_name(f".{self.path.name}.lock").open("a")
        except OSError as error:
            raise UsageError(f"Cannot write beside {self.path}: {error.strerror}. Choose another folder.") from None
        with handle:  # closing releases the lock
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


_reader = TypeAdapter(Record)


def _line(name: str, record: Record) -> str:
    fields = {"key": name, **asdict(record)}
    if not record.replicates:  # so that the lines of older records stay as they are
        del fields["replicates"]
    return json.dumps(fields, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _parse(line: bytes, place: str) -> tuple[str, Record]:
    remedy = "Restore the line from version control, or delete it and measure again."
    try:
        fields = json.loads(line)
    except ValueError:  # not UTF-8, or not JSON
        raise UsageError(f"{place}: not a JSON object. {remedy}") from None
    if not isinstance(fields, dict):
        raise UsageError(f"{place}: not a JSON object. {remedy}")
    if fields.get("schema") != SCHEMA:
        found = fields.get("schema")
        raise UsageError(
            f"{place}: schema {found!r}, where this version reads {SCHEMA}. Use the version that wrote it."
        )
    stored = fields.pop("key", None)
    try:
        record = _reader.validate_json(json.dumps(fields))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'record'}: {e['msg'].lower()}" for e in error.errors())
        raise UsageError(f"{place}: {wrong}. {remedy}") from None
    if stored != key(record):
        raise UsageError(f"{place}: the key does not fit the record, so one was edited by hand. {remedy}")
    return stored, record


@cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def commit_of(file: Path) -> str:
    """The commit of the checkout that holds a file, "-dirty" where its folder differs from it, or "unknown"."""
    here = file.resolve()
    try:
        # An installed copy may lie inside another project's checkout, whose commit would say nothing.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        commit = _git(here.parent, "rev-parse", "HEAD")
        return commit + ("-dirty" if _git(here.parent, "status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
