"""PASCAL VOC 2012, or any data set in its layout: twenty classes, several an image, with boxes; val serves as test."""

from __future__ import annotations

from pathlib import Path

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Split
from ssl_inpaint.data import voc

YEAR = "2012"


class Config(Settings):
    """Which classes are read."""

    classes: tuple[str, ...] = ()  # none: the twenty of VOC, or where the annotations name others, those


def build(path: Path | None, split: str, config: Config) -> Split:
    """The images of `split`, from the folder that holds VOCdevkit, from VOCdevkit, or from VOC2012 itself.

    The annotations of the official test images are not public: as in the literature val serves as test, and a fixed
    fifth of train is held out as val to choose on. pretrain and trainval are the whole of train.
    """
    return voc.open_voc(path, YEAR, split, config.classes)


def recognises(path: Path) -> bool:
    """True where VOC2012 lies there."""
    return voc.is_voc(path, YEAR)
