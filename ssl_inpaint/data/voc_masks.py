"""The class masks of the PASCAL VOC layout: ImageSets/Segmentation, SegmentationClass, and more from SBD.

SBD (Hariharan et al., 2011) has class masks for 11,355 of VOC's images, most of them in no list of VOC's own: the usual
training set for segmentation is VOC 2012's train and all of SBD that is not tested on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ssl_inpaint.core import Split
from ssl_inpaint.data import voc
from ssl_inpaint.data.listing import parts_of, require_folder, text_lines
from ssl_inpaint.data.mask_files import IGNORED, MaskFiles, plain_table, read_values
from ssl_inpaint.data.sources import BROKEN, FileImages
from ssl_inpaint.data.voc import CLASSES, SEGMENTATION
from ssl_inpaint.errors import UsageError, unknown_name
from ssl_inpaint.images import voc_palette

BACKGROUND = "background"
NO_SBD = "none"
SBD_PLACES = ("", "dataset", "benchmark_RELEASE/dataset")  # where cls and img lie in what users call SBD
SBD_BESIDE_VOC = ("benchmark_RELEASE/dataset", "SBD", "sbd")
REMEDY = "name the classes of its values 1, 2, ... in labels.txt in the folder of ImageSets, or mend the mask"


def open_voc_masks(
    path: Path | None, year: str, split: str, classes: tuple[str, ...], sbd: str = NO_SBD, test_list: str = ""
) -> Split:
    """The images of `split` in VOC<year>/ImageSets/Segmentation with their class masks; no labels and no objects.

    Pixels of classes that are not chosen become background. `sbd` is a folder of SBD, whose images that are not tested
    on are added to train, "none", or where it is empty SBD if it lies beside VOC; val holds none of it. `test_list`
    is another list to test on. UsageError where lists, images or masks are missing.
    """
    devkit = voc.find_devkit(require_folder(path, f"voc{year}"), year, SEGMENTATION)
    root, parts = devkit / f"VOC{year}", parts_of(split)
    if test_list and not voc.identifiers(root, test_list, SEGMENTATION):
        there = [file.stem for file in (root / "ImageSets" / SEGMENTATION).glob("*.txt")]
        raise unknown_name("list in ImageSets/Segmentation", test_list, there)
    lists = voc.read_lists(root, SEGMENTATION, test_list)
    known = _value_names(root, year)
    more = _find_sbd(sbd, devkit, known)
    masks = {name: f"SegmentationClass/{name}.png" for part in lists.values() for name in part}
    from_sbd = [] if more is None else [name for name in _sbd_names(more) if name not in masks]
    masks |= {name: f"{more}/cls/{name}.mat" for name in from_sbd}
    lists["train"] = [*lists["train"], *from_sbd]
    wanted = sorted(name for part in parts for name in lists[part])
    if not wanted:
        raise UsageError(
            f"{root} has no {split} images in ImageSets/Segmentation: choose another split or add the list."
        )
    listed_in = f"ImageSets/{SEGMENTATION}{' or SBD' if more else ''}"
    files = [masks[name] for name in wanted]
    voc.refuse_missing(root, [file for file in files if not (root / file).is_file()], listed_in)
    images = FileImages(root, voc.find_files(root, wanted, listed_in, more and _images_of(more)))
    found = class_masks(root, files, known, classes)
    dataset = _dataset(devkit, year, known, classes, more, test_list)
    return Split(dataset, split, images, masks=found, mask_classes=(BACKGROUND, *(classes or known)))


def class_masks(root: Path, files: Sequence[str], known: tuple[str, ...], classes: tuple[str, ...] = ()) -> MaskFiles:
    """The masks in `files` below `root`, whose values 1, 2, ... stand for `known`; of these `classes` are kept, or all.

    UsageError where a class is not known.
    """
    table = plain_table(len(known) + 1)
    if classes:
        for name in classes:
            if name not in known:
                raise unknown_name("class", name, known)
        table[1 : len(known) + 1] = [classes.index(name) + 1 if name in classes else 0 for name in known]
    return MaskFiles(root, files, table, REMEDY, partial(_read, palette=voc_palette()))


def _value_names(root: Path, year: str) -> tuple[str, ...]:
    """What the values 1, 2, ... stand for: labels.txt, or else the order in which boxes would name the classes."""
    if (root / "labels.txt").is_file():
        lines = text_lines(root / "labels.txt")
        names = tuple(lines[1:] if lines[:1] == [BACKGROUND] else lines)
        if not 1 <= len(names) < IGNORED:
            raise UsageError(f"{root / 'labels.txt'} names {len(names)} classes: name 1 to {IGNORED - 1}, one a line.")
        return names
    if voc.is_official(root, year, SEGMENTATION):
        return CLASSES
    listed = [n for task in (voc.MAIN, SEGMENTATION) for p in ("train", "val") for n in voc.read_lists(root, task)[p]]
    found = voc.names_of_objects(root, dict.fromkeys(listed))
    return CLASSES if found <= set(CLASSES) else tuple(sorted(found))


def _dataset(
    devkit: Path, year: str, known: tuple[str, ...], classes: tuple[str, ...], sbd: Path | None, test_list: str
) -> str:
    is_voc = set(known) <= set(CLASSES)
    name = voc.display_name(devkit, year, SEGMENTATION) if is_voc else voc.other_name(devkit)
    if is_voc and len(classes or known) < len(CLASSES):
        name += f", {len(classes or known)} classes"
    return f"{name}{', with SBD' if sbd else ''}{f', {test_list}' if test_list else ''}"


def _find_sbd(sbd: str, devkit: Path, known: tuple[str, ...]) -> Path | None:
    if sbd == NO_SBD or (not sbd and known != CLASSES):
        return None
    if sbd and known != CLASSES:
        raise UsageError(f"SBD has the twenty classes of VOC and {devkit} has others: set data.sbd=none.")
    beside = (devkit, devkit.parent) if devkit.name == "VOCdevkit" else (devkit,)
    holders = [Path(sbd).expanduser()] if sbd else [folder / name for folder in beside for name in SBD_BESIDE_VOC]
    found = [holder / place for holder in holders for place in SBD_PLACES if (holder / place / "cls").is_dir()]
    if sbd and not found:
        raise UsageError(
            f"{sbd} is no SBD: data.sbd takes the folder benchmark_RELEASE/dataset, which holds cls, img, train.txt "
            "and val.txt, or the folder above it, or none."
        )
    return found[0].absolute() if found else None


def _sbd_names(sbd: Path) -> list[str]:
    return list(dict.fromkeys(name for part in ("train", "val") for name in text_lines(sbd / f"{part}.txt")))


def _images_of(sbd: Path) -> Path | None:
    return sbd / "img" if (sbd / "img").is_dir() else None  # VOC 2012 holds SBD's images too


def _read(file: Path, palette: np.ndarray) -> np.ndarray:
    return _read_sbd(file) if file.suffix == ".mat" else read_values(file, palette)


def _read_sbd(file: Path) -> np.ndarray:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        values = np.asarray(loadmat(str(file))["GTcls"]["Segmentation"][0, 0])
    except (MatReadError, NotImplementedError, *BROKEN) as error:
        raise OSError(f"no mask of SBD's, GTcls.Segmentation: {error}") from None
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer):
        raise OSError(f"no mask of SBD's: GTcls.Segmentation is {values.ndim}-dimensional {values.dtype}")
    return values
