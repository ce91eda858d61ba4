"""Any folder of images, however nested, without labels: for pretraining and held-out reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, model_validator

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Split
from ssl_inpaint.data.listing import find_images, folder_name, part_by_hash, parts_of, require_folder, subfolders
from ssl_inpaint.data.sources import FileImages
from ssl_inpaint.errors import UsageError


class Config(Settings):
    """How much of an unlabelled set is held out; by a hash of the names, so that new images never move others."""

    val_fraction: float = Field(default=0.1, ge=0, le=1)  # a fraction of all images; still read by pretraining
    test_fraction: float = Field(default=0.0, ge=0, le=1)  # never read by pretraining; 0: pretraining reads every image

    @model_validator(mode="after")
    def _some_train(self) -> Config:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction and test_fraction together must stay below 1")
        return self


def build(path: Path | None, split: str, config: Config) -> Split:
    """Every image below the folder `path`; train, val and test are shares of it, pretrain is all but test."""
    folder = require_folder(path, "folder")
    return unlabelled(f"folder:{folder_name(folder)}", folder, find_images(folder), split, config)


def recognises(path: Path) -> bool:
    """True for any folder but one with a folder `test`, which must not slip into pretraining unasked."""
    return path.is_dir() and "test" not in subfolders(path)


def unlabelled(dataset: str, root: Path, names: Sequence[str], split: str, config: Config) -> Split:
    """The share `split` of images without labels; UsageError where there is none."""
    parts = parts_of(split)
    if not names:
        raise UsageError(f"{dataset} holds no images in {root}: choose a folder with .jpg, .png or other image files.")
    chosen = [name for name in names if part_by_hash(name, config.val_fraction, config.test_fraction) in parts]
    if not chosen:
        settings = f"val_fraction {config.val_fraction:g} and test_fraction {config.test_fraction:g}"
        raise UsageError(
            f"The split {split} of {dataset} is empty: {len(names)} images shared out with {settings}; hold more out "
            f"with --set data.{'val' if split == 'val' else 'test'}_fraction=0.2, or choose another split."
        )
    return Split(dataset, split, FileImages(root, chosen))
