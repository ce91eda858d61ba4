"""One JSON file in COCO's format (Lin et al., 2014), checked: images, classes, objects and their outlines."""

from __future__ import annotations

import json
import mmap
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ssl_inpaint import progress
from ssl_inpaint.core import Objects
from ssl_inpaint.data.coco_outlines import Outlined
from ssl_inpaint.data.listing import some_of
from ssl_inpaint.data.mask_files import IGNORED
from ssl_inpaint.errors import UsageError

KINDS = ("images", "annotations", "categories")
MOST_CLOSINGS = 1000  # brackets tried as the end of the list of categories


@dataclass(frozen=True)
class CocoFile:
    """N images and their objects, in the order of the file."""

    file: Path
    names: tuple[str, ...]  # `file_name` of the images
    classes: tuple[str, ...]  # by category id; categories of one name are one class
    objects: tuple[Objects, ...]  # boxes without width or height are left out; crowds are difficult
    rows: tuple[np.ndarray, ...]  # of each image's objects in data["annotations"]
    data: dict[str, list[dict[str, Any]]]

    @property
    def has_outlines(self) -> bool:
        """True where any object has one."""
        return any(entry.get("segmentation") for entry in self.data["annotations"])

    def size(self, position: int) -> tuple[int, int]:
        """Height and width of an image as the file has them; UsageError where it has not."""
        entry = self.data["images"][position]
        height, width = entry.get("height"), entry.get("width")
        if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
            raise UsageError(f"{self.file}: {self.names[position]} has height {height} and width {width}: add them.")
        return height, width

    def outlined(self, position: int) -> list[Outlined]:
        """The objects of an image to paint; those without an outline by their box, as not to be counted."""
        found, objects = [], self.objects[position]
        for row, box, label in zip(self.rows[position], objects.boxes, objects.labels, strict=True):
            entry = self.data["annotations"][row]
            (left, top, right, bottom), outline = box.tolist(), entry.get("segmentation")
            value = int(label) + 1 if outline and not entry.get("iscrowd") else IGNORED
            area = entry.get("area")
            area = area if isinstance(area, int | float) else (right - left) * (bottom - top)
            found.append(Outlined(value, area, outline or [[left, top, right, top, right, bottom, left, bottom]]))
        return found


def read_coco(file: Path) -> CocoFile:
    """Reads the whole file; says how many boxes without width or height it leaves out.

    UsageError where it is no JSON, lacks what COCO asks for, or names images or categories that it does not hold.
    """
    data = _load(file)
    names = tuple(map(str, _field(file, data, "images", "file_name")))
    places = {identifier: place for place, identifier in enumerate(_field(file, data, "images", "id"))}
    if len(places) < len(names):
        raise UsageError(f"{file}: {len(names)} images share {len(places)} ids: give each an id of its own.")
    classes, labels_by_id = _classes(file, data)
    images = _looked_up(file, data, "image_id", places)
    labels = _looked_up(file, data, "category_id", labels_by_id)
    boxes = _boxes(file, data)
    is_crowd = np.array([bool(entry.get("iscrowd")) for entry in data["annotations"]], bool)
    is_whole = np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    if not is_whole.all():
        progress.say(f"{file.name}: {(~is_whole).sum()} boxes without width or height are left out.")
    order = np.flatnonzero(is_whole)[np.argsort(images[is_whole], kind="stable")]
    ends = np.searchsorted(images[order], np.arange(len(names) + 1))
    rows = tuple(order[start:end] for start, end in pairwise(ends))
    objects = tuple(Objects(boxes[some], labels[some], is_crowd[some]) for some in rows)
    return CocoFile(file, names, classes, objects, rows, data)


def peek_classes(file: Path) -> tuple[str, ...] | None:
    """The classes of a file without reading the rest of it; None where they are not found."""
    with _mapped(file) as view:
        key = view.find(b'"categories"')
        start = end = view.find(b"[", max(key, 0))
        for _ in range(MOST_CLOSINGS if key >= 0 <= start else 0):
            end = view.find(b"]", end) + 1
            try:
                return _classes(file, {"categories": json.loads(view[start:end])})[0]
            except (ValueError, UsageError):
                if not end:
                    break
    return None


def count_images(file: Path) -> int:
    """How many images the file names, found without parsing it."""
    with _mapped(file) as view:
        count, found = 0, view.find(b'"file_name"')
        while found >= 0:
            count, found = count + 1, view.find(b'"file_name"', found + 1)
    return count


@contextmanager
def _mapped(file: Path) -> Iterator[mmap.mmap]:
    try:
        with file.open("rb") as stream:
            view = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise UsageError(f"Cannot read {file} as JSON: {error}.") from None
    with view:
        yield view


def _load(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        with file.open(encoding="utf-8") as stream:
            data = json.load(stream)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"Cannot read {file} as JSON: {error}.") from None
    missing = [kind for kind in KINDS if not isinstance(data, dict) or not isinstance(data.get(kind), list)]
    if missing:
        raise UsageError(f"{file} is not in COCO's format: it has no list of {', '.join(missing)}.")
    for kind in KINDS:
        strange = next((entry for entry in data[kind] if not isinstance(entry, dict)), None)
        if strange is not None:
            raise UsageError(f"{file} is not in COCO's format: {kind} holds {strange!r:.40}, which has no fields.")
    found: dict[str, list[dict[str, Any]]] = data
    return found


def _field(file: Path, data: dict[str, list[dict[str, Any]]], kind: str, name: str) -> list[Hashable]:
    """One field of every entry; UsageError where some have none, or a list in its place."""
    values = [entry.get(name) for entry in data[kind]]
    broken = sum(value is None or isinstance(value, list | dict) for value in values)
    if broken:
        raise UsageError(f"{file}: {broken} of {len(values)} {kind} have no proper {name}: mend or export it again.")
    return values


def _classes(file: Path, data: dict[str, list[dict[str, Any]]]) -> tuple[tuple[str, ...], dict[Hashable, int]]:
    """The classes, and which of them each category id is."""
    identifiers, names = _field(file, data, "categories", "id"), _field(file, data, "categories", "name")
    if not names or not all(isinstance(identifier, int) for identifier in identifiers):
        raise UsageError(f"{file}: the categories need whole numbers as id, and there must be some.")
    pairs = sorted(zip(identifiers, map(str, names), strict=True))
    if len(dict(pairs)) < len(pairs):
        raise UsageError(f"{file}: {len(pairs)} categories share {len(dict(pairs))} ids: give each an id of its own.")
    classes = tuple(dict.fromkeys(name for _, name in pairs))
    return classes, {identifier: classes.index(name) for identifier, name in pairs}


def _looked_up(file: Path, data: dict[str, list[dict[str, Any]]], field: str, known: dict[Hashable, int]) -> np.ndarray:
    """What the field of each annotation stands for, A int64; UsageError where that is unknown."""
    asked = _field(file, data, "annotations", field)
    strange = [str(value) for value in asked if value not in known]
    if strange:
        raise UsageError(
            f"{file}: {len(strange)} annotations have an unknown {field}, {some_of(list(dict.fromkeys(strange)))}: "
            "add what they refer to, or remove them."
        )
    return np.array([known[value] for value in asked], np.int64)


def _boxes(file: Path, data: dict[str, list[dict[str, Any]]]) -> np.ndarray:
    """A x 4 float32: x1 y1 x2 y2, from COCO's x, y, width and height."""
    try:
        boxes = np.array([entry["bbox"] for entry in data["annotations"]], np.float64).reshape(-1, 4)
        if len(boxes) != len(data["annotations"]):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"{file}: not every annotation has a bbox of four numbers: mend or export it again.") from None
    boxes[:, 2:] += boxes[:, :2]
    return boxes.astype(np.float32)
