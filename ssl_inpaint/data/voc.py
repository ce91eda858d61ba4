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
from ssl_inpaint.data.listing import folder_name, is_image_name, part_by_hash, parts_of, require_folder
from ssl_inpaint.data.sources import FileImages
from ssl_inpaint.errors import UsageError, unknown_name

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
OFFICIAL_COUNTS = {
    "2007": {"train": 2501, "val": 2510, "test": 4952},
    "2012": {"train": 5717, "val": 5823},
}
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
        return replace(found, dataset=f"voc:{folder_name(devkit if devkit.name != 'VOCdevkit' else devkit.parent)}")
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
    lists = _lists(root)
    wanted = sorted(name for part in parts for name in lists[part])
    if not wanted:
        raise UsageError(f"{root} has no {split} images in ImageSets/Main: choose another split or add the list.")
    files = _image_files(root, wanted)
    annotations = _annotations(root, {*wanted, *lists["train"], *lists["val"]})
    chosen = _chosen_classes(classes, (annotations[name] for part in ("train", "val") for name in lists[part]))
    objects = tuple(_objects(annotations[name], chosen) for name in wanted)
    labels = np.stack([_labels(o, len(chosen)) for o in objects])
    return Split(dataset, split, FileImages(root, files), chosen, labels, objects)


def find_devkit(path: Path, year: str) -> Path:
    """The folder that holds VOC<year>, from that folder, the one above it, or VOC<year> itself."""
    here = Path(os.path.abspath(path))  # noqa: PTH100 (keeps symbolic links, whose names count here)
    for candidate in (here / "VOCdevkit", here, here.parent if here.name == f"VOC{year}" else here):
        if (candidate / f"VOC{year}" / "ImageSets" / "Main").is_dir():
            return candidate
    raise UsageError(
        f"{path} is no VOC devkit: give the folder that holds VOC{year}/ImageSets/Main, or VOC{year} itself."
    )


def is_voc(path: Path, year: str) -> bool:
    """True where `find_devkit` finds one."""
    try:
        find_devkit(path, year)
    except UsageError:
        return False
    return True


def display_name(devkit: Path, year: str) -> str:
    """voc2007 or voc2012 if the lists have the official counts; else a name with the longest side of the images."""
    root = devkit / f"VOC{year}"
    counts = {part: len(_identifiers(root, part)) for part in OFFICIAL_COUNTS[year]}
    if counts == OFFICIAL_COUNTS[year]:
        return f"voc{year}"
    names = {name for part in ("train", "val", "trainval", "test") for name in _identifiers(root, part)}
    files = [root / "Annotations" / f"{name}.xml" for name in names]
    sides = (int(side) for file in files if file.is_file() for side in SIZE.findall(file.read_bytes()))
    return f"VOC{year[2:]}-resplit, {max(sides, default=0)} px"


def _identifiers(root: Path, part: str) -> list[str]:
    file = root / "ImageSets" / "Main" / f"{part}.txt"
    return [line.split()[0] for line in file.read_text().splitlines() if line.strip()] if file.is_file() else []


def _lists(root: Path) -> dict[str, list[str]]:
    """Image identifiers of train, val and test; where val serves as test, or is missing, val is a share of train."""
    train, val, test = (_identifiers(root, part) for part in ("train", "val", "test"))
    train = train or [name for name in _identifiers(root, "trainval") if name not in set(val)]
    if root.name == "VOC2012" and not (test and (root / "Annotations" / f"{test[0]}.xml").is_file()):
        val, test = [], val  # the annotations of the official test images are not public
    if val:
        return {"train": train, "val": val, "test": test}
    is_held_out = {name: part_by_hash(name, HELD_OUT_FRACTION, 0.0) == "val" for name in train}
    return {
        "train": [n for n in train if not is_held_out[n]],
        "val": [n for n in train if is_held_out[n]],
        "test": test,
    }


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 (names, not paths)
    except OSError as error:
        raise UsageError(f"Cannot read the folder {folder}: {error.strerror or error}.") from None


def _image_files(root: Path, wanted: list[str]) -> list[str]:
    files = {
        name.rpartition(".")[0]: f"JPEGImages/{name}" for name in _names_in(root / "JPEGImages") if is_image_name(name)
    }
    _refuse_missing(root / "JPEGImages", [name for name in wanted if name not in files])
    return [files[name] for name in wanted]


def _annotations(root: Path, wanted: set[str]) -> dict[str, Annotation]:
    folder, there = root / "Annotations", set(_names_in(root / "Annotations"))
    _refuse_missing(folder, sorted(name for name in wanted if f"{name}.xml" not in there))
    return {name: _read_annotation(folder / f"{name}.xml") for name in wanted}


def _refuse_missing(folder: Path, missing: list[str]) -> None:
    if missing:
        raise UsageError(
            f"{folder} misses {len(missing)} files that ImageSets/Main lists: {', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}; unpack the data set again."
        )


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


def _labels(objects: Objects, count: int) -> np.ndarray:
    labels = np.zeros(count, np.int64)
    labels[objects.labels[objects.is_difficult]] = 255
    labels[objects.labels[~objects.is_difficult]] = 1
    return labels
