"""A text file with one image path a line, without labels: for pretraining on chosen images."""

from __future__ import annotations

import os
from pathlib import Path

from ssl_inpaint.core import Split
from ssl_inpaint.data import folder
from ssl_inpaint.data.listing import folder_name, some_of, text_lines
from ssl_inpaint.errors import UsageError

SUFFIXES = (".txt", ".lst")


class Config(folder.Config):
    """How much of the list is held out, by a hash of each path as it is written in the list."""


def build(path: Path | None, split: str, config: Config) -> Split:
    """The listed images, in the order of the list; shares as in `folder`.

    Blank lines and lines that begin with # are skipped, an image listed twice is read once. Relative paths begin at
    the list's folder or at the nearest folder above it that holds the first image. UsageError where images are missing.
    """
    if path is None or not path.is_file():
        raise UsageError(
            f"{path or 'Nothing'} is not a file: filelist:FILE takes a text file with an image path a line."
        )
    names = _listed(path)
    root = _root(path, names)
    missing = [name for name in names if not os.path.isfile(os.path.join(root, name))]  # noqa: PTH113, PTH118 (speed)
    if missing:
        raise UsageError(
            f"{len(missing)} of the {len(names)} images in {path.name} do not exist below {root}: "
            f"{some_of(missing)}; move the list or mend its paths."
        )
    return folder.unlabelled(f"filelist:{folder_name(path)}", root, names, split, config)


def recognises(path: Path) -> bool:
    """True for a .txt or .lst file."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def _listed(path: Path) -> list[str]:
    names = list(dict.fromkeys(line for line in text_lines(path) if not line.startswith("#")))
    if not names:
        raise UsageError(f"{path} lists no images: write one image path a line.")
    return names


def _root(path: Path, names: list[str]) -> Path:
    own = Path(os.path.abspath(path)).parent  # noqa: PTH100 (keeps symbolic links)
    first = next((name for name in names if not os.path.isabs(name)), names[0])  # noqa: PTH117
    return next((folder for folder in (own, *own.parents) if (folder / first).is_file()), own)
