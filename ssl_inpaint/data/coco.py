"""COCO's format of boxes and outlines in JSON files: several classes an image, for detection and segmentation."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import Field

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Split
from ssl_inpaint.data.coco_json import CocoFile, count_images, peek_classes, read_coco
from ssl_inpaint.data.coco_outlines import OutlinedMasks
from ssl_inpaint.data.listing import (
    PART_OF_FOLDER,
    folder_name,
    part_by_hash,
    part_folders,
    parts_of,
    shares_of,
    some_of,
)
from ssl_inpaint.data.mask_files import IGNORED
from ssl_inpaint.data.sources import FileImages
from ssl_inpaint.data.voc import presence
from ssl_inpaint.data.voc_masks import BACKGROUND
from ssl_inpaint.errors import UsageError

INSTANCES = re.compile(r"instances_((train|valid|val|test).*)\.json")
ROBOFLOW = "_annotations.coco.json"
OFFICIAL_COUNTS = {"train": ("instances_train2017.json", 118_287), "val": ("instances_val2017.json", 5_000)}


class Config(Settings):
    """What is read, and how much is held out where the files do not say."""

    masks: bool = False  # class masks painted from the outlines, besides boxes and labels
    images: str = ""  # folder of the images, where it is not beside the JSON file
    val_fraction: float = Field(default=0.2, gt=0, lt=0.5)  # where there is no val file, or val has to serve as test
    test_fraction: float = Field(default=0.2, gt=0, lt=0.5)  # where there is neither a test nor a val file


class _Source(NamedTuple):
    part: str  # train, val, test, or empty where the files do not say
    file: Path
    image_folders: tuple[str, ...]  # where its images may lie, relative to the root


class _Kept(NamedTuple):
    """The images of one file that are in the split."""

    coco: CocoFile
    positions: list[int]
    prefix: str  # of the images' names


def build(path: Path | None, split: str, config: Config) -> Split:
    """The images of `split`, with boxes, N x K labels (255 where there is only a crowd) and, if set, class masks.

    From PATH/annotations/instances_{train,val,test}*.json with the images in a folder of that name or in images, from
    PATH/{train,valid,test}/_annotations.coco.json with the images beside it (Roboflow), or from one JSON file, shared
    out by the names of its images. Without test, val serves as test and val becomes a share of train. UsageError where
    files are broken, name different categories, or images are missing.
    """
    parts = parts_of(split)
    root, sources = _sources(path)
    there = {source.part: source.file.name for source in sources if source.part}
    shares = shares_of(root, there, config.val_fraction, config.test_fraction)
    kept: list[_Kept] = []
    for source in sources:
        if _may_be_in(parts, *shares[source.part]):
            coco = read_coco(source.file)
            prefix = _image_folder(root, source, coco, config.images)
            in_split = [i for i, n in enumerate(coco.names) if part_by_hash(n, *shares[source.part]) in parts]
            kept.append(_Kept(coco, in_split, prefix))
    classes = _common_classes(sources, kept)
    objects = tuple(some.coco.objects[i] for some in kept for i in some.positions)
    dataset = _dataset(path or root, sources)
    if not objects:
        raise UsageError(f"The split {split} of {dataset} holds no images: add images, or files for train and test.")
    images = FileImages(root, [some.prefix + some.coco.names[i] for some in kept for i in some.positions])
    labels = np.stack([presence(found, len(classes)) for found in objects])
    found = Split(dataset, split, images, classes, labels, objects)
    return found if not config.masks else _with_masks(found, kept)


def recognises(path: Path) -> bool:
    """True for a JSON file, and where JSON files lie as `build` expects them in a folder."""
    return path.suffix.lower() == ".json" if path.is_file() else bool(_instances(path) or _roboflow(path))


def _sources(path: Path | None) -> tuple[Path, list[_Source]]:
    """The folder that names are relative to, and the JSON files."""
    if path is None:
        raise UsageError("The data set coco needs a folder or a JSON file: write coco:PATH.")
    if path.is_file():
        return path.parent, [_Source("", path, ("", "images"))]
    found = [*_instances(path), *_roboflow(path)]
    if not found:
        raise UsageError(
            f"{path} holds no annotations in COCO's format: coco expects annotations/instances_train*.json, or "
            f"train/{ROBOFLOW}, or one JSON file as coco:FILE."
        )
    for part in sorted({source.part for source in found}):
        files = [str(source.file.relative_to(path)) for source in found if source.part == part]
        if len(files) > 1:
            raise UsageError(f"{path} holds {some_of(files)}, all of them for {part}: keep one of them.")
    return path, found


def _instances(root: Path) -> list[_Source]:
    found = []
    for file in sorted((root / "annotations").glob("*.json")):
        match = INSTANCES.fullmatch(file.name)
        if match:
            folder, part = match.groups()
            places = (folder, part, f"images/{folder}", f"images/{part}", "images")
            found.append(_Source(PART_OF_FOLDER[part], file, places))
    return found


def _roboflow(root: Path) -> list[_Source]:
    folders = part_folders(root) if root.is_dir() else {}
    files = {part: root / name / ROBOFLOW for part, name in folders.items()}
    return [_Source(part, file, (file.parent.name,)) for part, file in files.items() if file.is_file()]


def _may_be_in(parts: frozenset[str], val: float, test: float) -> bool:
    possible = {"train": val + test < 1, "val": val > 0, "test": test > 0}
    return any(possible[part] for part in parts)


def _image_folder(root: Path, source: _Source, coco: CocoFile, chosen: str) -> str:
    """What to put before the images' names; UsageError where images are missing."""
    base = Path(chosen).expanduser().absolute()
    places = [base, *(base / Path(folder).name for folder in source.image_folders)] if chosen else []
    prefixes = [f"{place}/" for place in places] or [f"{folder}/" if folder else "" for folder in source.image_folders]

    def is_there(prefix: str, name: str) -> bool:
        return os.path.isfile(os.path.join(root, prefix + name))  # noqa: PTH113, PTH118 (a hundred thousand of them)

    prefix = next((p for p in prefixes if any(is_there(p, name) for name in coco.names)), prefixes[0])
    missing = [name for name in coco.names if not is_there(prefix, name)]
    if missing:
        raise UsageError(
            f"{len(missing)} of the {len(coco.names)} images of {coco.file.name} do not exist in {root / prefix}: "
            f"{some_of(missing)}; add them, or name their folder with --set data.images=FOLDER."
        )
    return prefix


def _common_classes(sources: Sequence[_Source], kept: Sequence[_Kept]) -> tuple[str, ...]:
    """The classes of all files, those that are not in the split too; UsageError where they differ."""
    read = {some.coco.file: some.coco.classes for some in kept}
    first, classes = next(iter(read.items()))
    for source in sources:
        others = read.get(source.file) or peek_classes(source.file) or classes
        if others != classes:
            odd = sorted({*classes} ^ {*others}) or ["the same in another order"]
            raise UsageError(
                f"{first.name} and {source.file.name} have different categories ({some_of(odd)}): make them the same."
            )
    return classes


def _dataset(path: Path, sources: Sequence[_Source]) -> str:
    files = {source.part: source.file for source in sources}
    is_official = all(part in files and files[part].name == name for part, (name, _) in OFFICIAL_COUNTS.items())
    if is_official and all(count_images(files[part]) == count for part, (_, count) in OFFICIAL_COUNTS.items()):
        return "coco2017"
    return f"coco:{folder_name(path)}"


def _with_masks(found: Split, kept: Sequence[_Kept]) -> Split:
    """Adds masks where any object has an outline."""
    if not any(some.coco.has_outlines for some in kept):
        return found
    if len(found.classes) >= IGNORED:
        raise UsageError(f"{found.dataset} has {len(found.classes)} classes and masks hold {IGNORED - 1} at most.")
    wanted = [(some.coco, position) for some in kept for position in some.positions]
    masks = OutlinedMasks(
        [f"{coco.file.name}: {coco.names[position]}" for coco, position in wanted],
        [coco.size(position) for coco, position in wanted],
        [coco.outlined(position) for coco, position in wanted],
    )
    return replace(found, masks=masks, mask_classes=(BACKGROUND, *found.classes))
