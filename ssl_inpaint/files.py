"""Files written whole or not at all, and the folder where the suite keeps what it can rebuild."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from ssl_inpaint.errors import UsageError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed onto it at the end, removed if anything went wrong.

    What is renamed has reached the disk, so that not even a power cut leaves half a file. A full or read-only disk
    becomes a UsageError that names the file.
    """
    temporary = path.with_name(f".{path.stem}.{uuid4().hex[:12]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise _not_written(path, error) from None
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _not_written(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Writes `value` as JSON with sorted keys, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def cache_folder() -> Path:
    """Where what can be rebuilt is kept: $SSL_INPAINT_CACHE, or ssl_inpaint in the user's cache folder."""
    chosen = os.environ.get("SSL_INPAINT_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssl_inpaint"


def _not_written(path: Path, error: OSError) -> UsageError:
    return UsageError(f"Cannot write {path}: {error.strerror or error}. Free space or choose another folder.")
