"""The PASCAL VOC layout (Everingham et al., 2010): lists of images, and objects with boxes in XML files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from ssl_inpaint.core import Objects, Split
from ssl_inpaint.data.listing import (
    folder_name,
    is_image_name,
    part_by_hash,
    parts_of,
    require_folder,
    some_of,
    text_lines,
)
from ssl_inpaint.data.sources import FileImages
from ssl_inpaint.errors import UsageError, unknown_name

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
MAIN, SEGMENTATION = "Main", "Segmentation"  # the folders of ImageSets whose images have boxes, and class masks
LISTED_IN_MAIN = f"ImageSets/{MAIN}"
OFFICIAL_COUNTS = {
    ("2007", MAIN): {"train": 2501, "val": 2510, "test": 4952},
    ("2012", MAIN): {"train": 5717, "val": 5823},
    ("2007", SEGMENTATION): {"train": 209, "val": 213, "test": 210},
    ("2012", SEGMENTATION): {"train": 1464, "val": 1449},
}
TRUTH = {MAIN: "Annotations/{}.xml", SEGMENTATION: "SegmentationClass/{}.png"}  # what an image of the lists must have
HELD_OUT_FRACTION = 0.2  # of train, to choose on where val has to serve as test or is missing
SIZE = re.compile(rb"<(?:width|height)>\s*(\d+)")


class Annotation(NamedTuple):
    """The objects of one image as its XML file names them, in file order."""

    names: tuple[str, ...]
    is_difficult: tuple[bool, ...]
    boxes: np.ndarray  # M x 4 float32: x1 y1 x2 y2, zero-based, right and bottom edge excluded


def open_voc(path: Path | None, year: str, split: str, classes: tuple[str, ...]) -> Split:
    """`read_voc` at any of the folders that may be meant, under a name that says which images and classes these are."""
    devkit = find_devkit(require_folder(path, f"voc{year}"), year)
    found = read_voc(devkit, year, split, display_name(devkit, year), classes)
    if not set(found.classes) <= set(CLASSES):
        return replace(found, dataset=other_name(devkit))
    if len(found.classes) < len(CLASSES):
        return replace(found, dataset=f"{found.dataset}, {len(found.classes)} classes")
    return found


def read_voc(devkit: Path, year: str, split: str, dataset: str, classes: tuple[str, ...] = ()) -> Split:
    """The images of `split` in `devkit`/VOC<year>, with boxes and N x K labels.

    A label is 1 where an object of the class is not difficult, 255 where all of them are, else 0. Objects of other
    classes are left out. Without `classes` these are the twenty of VOC, or where trainval names others, all it names.
    UsageError where lists, images or annotations are missing or broken.
    """
    root, parts = devkit / f"VOC{year}", parts_of(split)
    lists = read_lists(root)
    wanted = sorted(name for part in parts for name in lists[part])
    if not wanted:
        raise UsageError(f"{root} has no {split} images in ImageSets/Main: choose another split or add the list.")
    files = find_files(root, wanted, LISTED_IN_MAIN)
    annotations = _annotations(root, {*wanted, *lists["train"], *lists["val"]})
    chosen = _chosen_classes(classes, (annotations[name] for part in ("train", "val") for name in lists[part]))
    objects = tuple(_objects(annotations[name], chosen) for name in wanted)
    labels = np.stack([presence(o, len(chosen)) for o in objects])
    return Split(dataset, split, FileImages(root, files), chosen, labels, objects)


def presence(objects: Objects, count: int) -> np.ndarray:
    """K int64: 1 for classes that some object has, 255 where all of these are difficult, 0 for the others."""
    labels = np.zeros(count, np.int64)
    labels[objects.labels[objects.is_difficult]] = 255
    labels[objects.labels[~objects.is_difficult]] = 1
    return labels


def find_devkit(path: Path, year: str, task: str = MAIN) -> Path:
    """The folder that holds VOC<year>, from that folder, the one above it, or VOC<year> itself."""
    here = Path(os.path.abspath(path))  # noqa: PTH100 (keeps symbolic links, whose names count here)
    for candidate in (here / "VOCdevkit", here, here.parent if here.name == f"VOC{year}" else here):
        if (candidate / f"VOC{year}" / "ImageSets" / task).is_dir():
            return candidate
    raise UsageError(
        f"{path} is no VOC devkit{' with class masks' if task == SEGMENTATION else ''}: give the folder that holds "
        f"VOC{year}/ImageSets/{task}, or VOC{year} itself."
    )


def is_voc(path: Path, year: str) -> bool:
    """True where `find_devkit` finds one, for boxes or for masks."""
    for task in (MAIN, SEGMENTATION):
        try:
            find_devkit(path, year, task)
        except UsageError:
            continue
        return True
    return False


def display_name(devkit: Path, year: str, task: str = MAIN) -> str:
    """voc2007 or voc2012 if the lists have the official counts; else a name with the longest side of the images."""
    root = devkit / f"VOC{year}"
    if is_official(root, year, task):
        return f"voc{year}"
    names = {name for part in ("train", "val", "trainval", "test") for name in identifiers(root, part, task)}
    files = [file for name in names if (file := root / TRUTH[task].format(name)).is_file()]
    side = max((side for file in files for side in (_sides_in_xml if task == MAIN else _sides)(file)), default=0)
    return f"VOC{year[2:]}-resplit, {side} px"


def other_name(devkit: Path) -> str:
    """What to call a data set of other classes: by the folder that holds VOCdevkit."""
    return f"voc:{folder_name(devkit if devkit.name != 'VOCdevkit' else devkit.parent)}"


def is_official(root: Path, year: str, task: str) -> bool:
    """True where the lists have the official counts."""
    official = OFFICIAL_COUNTS[year, task]
    return {part: len(identifiers(root, part, task)) for part in official} == official


def identifiers(root: Path, part: str, task: str = MAIN) -> list[str]:
    """The names in the list `part` of ImageSets/<task>; none where there is no such list."""
    file = root / "ImageSets" / task / f"{part}.txt"
    return [line.split()[0] for line in text_lines(file)] if file.is_file() else []


def read_lists(root: Path, task: str = MAIN, test_list: str = "") -> dict[str, list[str]]:
    """Image identifiers of train, val and test; where val serves as test, or is missing, val is a share of train.

    `test_list` is another list to test on; its images are then left out of train.
    """
    train, val, test = (identifiers(root, part, task) for part in ("train", "val", test_list or "test"))
    train = train or [name for name in identifiers(root, "trainval", task) if name not in set(val)]
    if test_list:
        train, val = [name for name in train if name not in set(test)], []
    elif root.name == "VOC2012" and not (test and (root / TRUTH[task].format(test[0])).is_file()):
        val, test = [], val  # the annotations of the official test images are not public
    if val:
        return {"train": train, "val": val, "test": test}
    is_held_out = {name: part_by_hash(name, HELD_OUT_FRACTION, 0.0) == "val" for name in train}
    return {
        "train": [n for n in train if not is_held_out[n]],
        "val": [n for n in train if is_held_out[n]],
        "test": test,
    }


def find_files(root: Path, wanted: list[str], listed_in: str, elsewhere: Path | None = None) -> list[str]:
    """The image file of each identifier, below `root`/JPEGImages or else in the folder `elsewhere`."""
    files: dict[str, str] = {}
    for folder, prefix in ((elsewhere, f"{elsewhere}/"), (root / "JPEGImages", "JPEGImages/")):
        names = names_in(folder) if folder else []
        files |= {name.rpartition(".")[0]: prefix + name for name in names if is_image_name(name)}
    refuse_missing(root / "JPEGImages", [name for name in wanted if name not in files], listed_in)
    return [files[name] for name in wanted]


def refuse_missing(folder: Path, missing: list[str], listed_in: str) -> None:
    """UsageError where files that the lists in `listed_in` name are missing."""
    if missing:
        raise UsageError(
            f"{folder} misses {len(missing)} files that {listed_in} lists: {some_of(missing)}; "
            "unpack the data set again."
        )


def names_in(folder: Path) -> list[str]:
    """The names in a folder; UsageError where it cannot be read."""
    try:
        return os.listdir(folder)  # noqa: PTH208 (names, not paths)
    except OSError as error:
        raise UsageError(f"Cannot read the folder {folder}: {error.strerror or error}.") from None


def names_of_objects(root: Path, identifiers: Iterable[str]) -> set[str]:
    """The classes that the annotations of these images name, as far as they have any."""
    files = [file for name in identifiers if (file := root / TRUTH[MAIN].format(name)).is_file()]
    return {name for file in files for name in _read_annotation(file).names}


def _sides_in_xml(file: Path) -> Iterable[int]:
    return map(int, SIZE.findall(file.read_bytes()))


def _sides(file: Path) -> Iterable[int]:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.size
    except OSError:  # said when it is read
        return ()


def _annotations(root: Path, wanted: set[str]) -> dict[str, Annotation]:
    folder, there = root / "Annotations", set(names_in(root / "Annotations"))
    refuse_missing(folder, sorted(name for name in wanted if f"{name}.xml" not in there), LISTED_IN_MAIN)
    return {name: _read_annotation(folder / f"{name}.xml") for name in wanted}


def _read_annotation(file: Path) -> Annotation:
    try:
        found = ElementTree.fromstring(file.read_bytes()).findall("object")
        names = tuple((o.findtext("name") or "").strip() for o in found)
        is_difficult = tuple(int(o.findtext("difficult") or 0) != 0 for o in found)
        corners = [[float(o.findtext(f"bndbox/{c}") or "") for c in ("xmin", "ymin", "xmax", "ymax")] for o in found]
    except (ElementTree.ParseError, ValueError, OSError) as error:
        raise UsageError(f"Cannot read the objects in {file}: {error}.") from None
    # VOC counts pixels from 1 and includes the last one: only the left and top edge move.
    boxes = np.array(corners, np.float32).reshape(-1, 4) - np.array([1, 1, 0, 0], np.float32)
    return Annotation(names, is_difficult, boxes)


def _chosen_classes(classes: tuple[str, ...], annotations: Iterable[Annotation]) -> tuple[str, ...]:
    found = {name for annotation in annotations for name in annotation.names}
    for name in classes:
        if name not in found | set(CLASSES):
            raise unknown_name("class", name, found)
    return classes or (CLASSES if found <= set(CLASSES) else tuple(sorted(found)))


def _objects(annotation: Annotation, classes: tuple[str, ...]) -> Objects:
    kept = [i for i, name in enumerate(annotation.names) if name in classes]
    labels = np.array([classes.index(annotation.names[i]) for i in kept], np.int64)
    is_difficult = np.array([annotation.is_difficult[i] for i in kept], bool)
    return Objects(annotation.boxes[kept], labels, is_difficult)
