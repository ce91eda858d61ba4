"""Tiny ImageNet as it is distributed: 200 classes of 64-pixel images (Le and Yang, 2015); val serves as test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Split
from ssl_inpaint.data.listing import find_images, folder_name, part_by_hash, parts_of, require_folder, subfolders
from ssl_inpaint.data.sources import FileImages
from ssl_inpaint.errors import UsageError


class Config(Settings):
    """How much of train is held out to choose on; the labels of the official test images are not public."""

    val_fraction: float = Field(default=0.1, gt=0, lt=1)  # of train: 10,000 images, as many as the official val


def build(path: Path | None, split: str, config: Config) -> Split:
    """The images below `path`: test is the official val, val a fixed share of train. Classes in order of their wnid.

    UsageError where folders or annotations are missing or name an unknown class.
    """
    root, parts = require_folder(path, "tinyimagenet"), parts_of(split)
    if not recognises(root):
        raise UsageError(f"{root} is not Tiny ImageNet: it needs train/WNID/images and val/val_annotations.txt.")
    wnids = subfolders(root / "train")
    labelled = _validation(root) if split == "test" else _training(root, wnids)
    chosen = [
        (name, wnid)
        for name, wnid in labelled
        if split == "test" or part_by_hash(name, config.val_fraction, 0.0) in parts
    ]
    position = {wnid: label for label, wnid in enumerate(wnids)}
    strange = sorted({wnid for _, wnid in chosen} - set(position))
    if strange or not chosen:
        raise UsageError(f"{root}: {'no images' if not chosen else f'no folder train/{strange[0]}'} for split {split}.")
    labels = np.array([position[wnid] for _, wnid in chosen], np.int64)
    images = FileImages(root, [name for name, _ in chosen])
    return Split(f"tinyimagenet:{folder_name(root)}", split, images, _words(root, wnids), labels)


def recognises(path: Path) -> bool:
    """True where val/val_annotations.txt lies beside train."""
    return (path / "val" / "val_annotations.txt").is_file() and (path / "train").is_dir()


def _training(root: Path, wnids: list[str]) -> list[tuple[str, str]]:
    return [(f"train/{wnid}/{name}", wnid) for wnid in wnids for name in find_images(root / "train" / wnid)]


def _validation(root: Path) -> list[tuple[str, str]]:
    lines = (root / "val" / "val_annotations.txt").read_text(encoding="utf-8").splitlines()
    fields = [line.split("\t") for line in lines if line.strip()]
    if any(len(field) < 2 for field in fields):
        raise UsageError(f"{root / 'val' / 'val_annotations.txt'} has lines without a tab: file name, tab, wnid.")
    return [(f"val/images/{field[0]}", field[1].strip()) for field in fields]


def _words(root: Path, wnids: list[str]) -> tuple[str, ...]:
    """The classes' names from words.txt, or their wnids where it is missing."""
    file = root / "words.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return tuple(words.get(wnid, wnid).strip() for wnid in wnids)
