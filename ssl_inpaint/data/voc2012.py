"""PASCAL VOC 2012, or any data set in its layout: twenty classes, boxes or class masks; val serves as test."""

from __future__ import annotations

from pathlib import Path

from pydantic import model_validator

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Split
from ssl_inpaint.data import voc, voc_masks

YEAR = "2012"


class Config(Settings):
    """Which classes and which images are read."""

    classes: tuple[str, ...] = ()  # none: the twenty of VOC, or where the annotations name others, those
    masks: bool = False  # the images of ImageSets/Segmentation with their class masks, instead of Main's with boxes
    sbd: str = ""  # with masks: the folder of SBD to add to train; none: nothing; empty: SBD if it lies beside VOC
    test_list: str = ""  # with masks: another list in ImageSets/Segmentation to test on, such as seg11valid

    @model_validator(mode="after")
    def _lists_of_masks(self) -> Config:
        if not self.masks and (self.test_list or self.sbd not in ("", voc_masks.NO_SBD)):
            raise ValueError("sbd and test_list are for class masks: set data.masks=true, or leave them out")
        return self


def build(path: Path | None, split: str, config: Config) -> Split:
    """The images of `split`, from the folder that holds VOCdevkit, from VOCdevkit, or from VOC2012 itself.

    The annotations of the official test images are not public: as in the literature val serves as test, and a fixed
    fifth of train is held out as val to choose on. pretrain and trainval are the whole of train. With masks, the
    images of SBD (Hariharan et al., 2011) that are not tested on are added to train where SBD is there.
    """
    if config.masks:
        return voc_masks.open_voc_masks(path, YEAR, split, config.classes, config.sbd, config.test_list)
    return voc.open_voc(path, YEAR, split, config.classes)


def recognises(path: Path) -> bool:
    """True where VOC2012 lies there."""
    return voc.is_voc(path, YEAR)
