"""PASCAL VOC 2007, or any data set in its layout: twenty classes, several an image, with boxes or class masks."""

from __future__ import annotations

from pathlib import Path

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Split
from ssl_inpaint.data import voc, voc_masks

YEAR = "2007"


class Config(Settings):
    """Which classes and which images are read."""

    classes: tuple[str, ...] = ()  # none: the twenty of VOC, or where the annotations name others, those
    masks: bool = False  # the images of ImageSets/Segmentation with their class masks, instead of Main's with boxes


def build(path: Path | None, split: str, config: Config) -> Split:
    """The images of `split`, from the folder that holds VOCdevkit, from VOCdevkit, or from VOC2007 itself."""
    if config.masks:
        return voc_masks.open_voc_masks(path, YEAR, split, config.classes)
    return voc.open_voc(path, YEAR, split, config.classes)


def recognises(path: Path) -> bool:
    """True where VOC2007 lies there."""
    return voc.is_voc(path, YEAR)
