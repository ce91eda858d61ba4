"""Class folders of images, as torchvision's ImageFolder: one class an image."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import Field

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Split
from ssl_inpaint.data.listing import (
    find_images,
    folder_name,
    holds_images,
    holds_images_below,
    part_by_hash,
    part_folders,
    parts_of,
    require_folder,
    shares_of,
    subfolders,
)
from ssl_inpaint.data.sources import FileImages
from ssl_inpaint.errors import UsageError


class Config(Settings):
    """How much is held out where the folders do not say; by a hash of the names, so new images never move others."""

    val_fraction: float = Field(default=0.2, gt=0, lt=0.5)  # where there is no val folder, or val has to serve as test
    test_fraction: float = Field(default=0.2, gt=0, lt=0.5)  # where there is neither a test nor a val folder


class _Source(NamedTuple):
    folder: Path
    val_fraction: float  # shares of this folder that are held out as val and test
    test_fraction: float


def build(path: Path | None, split: str, config: Config) -> Split:
    """The images of `split` below `path`/{train,val,test}/CLASS or `path`/CLASS, classes in alphabetical order.

    Without class folders for test, val serves as test and val becomes a share of train. UsageError where the layout
    is mixed, a class is unknown to train, or nothing is found.
    """
    root, parts = require_folder(path, "imagefolder"), parts_of(split)
    sources = _sources(root, config)
    classes = _classes(sources)
    names, labels = [], []
    for source in sources:
        above = source.folder.relative_to(root).as_posix()
        prefix = "" if above == "." else f"{above}/"
        for label, name in enumerate(classes):
            for image in find_images(source.folder / name) if (source.folder / name).is_dir() else []:
                if part_by_hash(f"{name}/{image}", source.val_fraction, source.test_fraction) in parts:
                    names.append(f"{prefix}{name}/{image}")  # strings: Path objects take four times as long
                    labels.append(label)
    dataset = f"imagefolder:{folder_name(root)}"
    if not names:
        raise UsageError(f"The split {split} of {dataset} holds no images: add images, or folders train, val and test.")
    return Split(dataset, split, FileImages(root, names), classes, np.array(labels, np.int64))


def recognises(path: Path) -> bool:
    """True for a folder with train/CLASS/images, or with two or more CLASS/images and nothing loose."""
    if not path.is_dir() or holds_images(path):
        return False
    split_folders = part_folders(path)
    holder = path / split_folders["train"] if "train" in split_folders else path
    return sum(holds_images(holder / name) for name in subfolders(holder)) >= (2 if holder == path else 1)


def _sources(root: Path, config: Config) -> list[_Source]:
    folders = part_folders(root)
    _refuse_mixtures(root, folders)
    shares = shares_of(root, folders, config.val_fraction, config.test_fraction)
    return [_Source(root / folders.get(part, ""), *fractions) for part, fractions in shares.items()]


def _refuse_mixtures(root: Path, folders: dict[str, str]) -> None:
    for holder in [root, *(root / name for name in folders.values())]:
        if holds_images(holder):
            raise UsageError(
                f"{holder} holds images beside class folders or instead of them: imagefolder expects CLASS/image files "
                "there; move them, or read the folder without labels as folder:PATH."
            )
    others = [name for name in subfolders(root) if folders and name not in folders.values()]
    odd = [name for name in others if holds_images_below(root / name)]
    if odd:
        raise UsageError(
            f"{root} holds images in {', '.join(odd[:3])} beside {', '.join(folders.values())}: move them."
        )


def _classes(sources: list[_Source]) -> tuple[str, ...]:
    train, *others = sources
    classes = tuple(name for name in subfolders(train.folder) if holds_images_below(train.folder / name))
    if not classes:
        raise UsageError(f"{train.folder} holds no class folders with images: imagefolder expects CLASS/image files.")
    for source in others:
        strange = sorted(set(subfolders(source.folder)) - set(classes))
        if strange:
            raise UsageError(f"{source.folder} holds classes unknown to {train.folder.name}: {', '.join(strange[:3])}.")
    return classes
