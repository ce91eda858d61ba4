"""Classification sets that torchvision can read or download, by their lower-case names: one class an image."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from pydantic import Field

from ssl_inpaint import files
from ssl_inpaint.config import Settings
from ssl_inpaint.core import Images, Split
from ssl_inpaint.data.listing import part_by_hash, parts_of
from ssl_inpaint.data.sources import ArrayImages, FileImages
from ssl_inpaint.errors import UsageError, unknown_name


class Config(Settings):
    """Which set, and what is held out of it where it has no official val or test."""

    name: str = "cifar10"  # a key of SETS
    download: bool = False  # fetch the set where it is missing
    val_fraction: float = Field(default=0.2, gt=0, lt=0.5)  # of train, where there is no official val
    test_fraction: float = Field(default=0.2, gt=0, lt=0.5)  # of all, where there are no official parts


class Content(NamedTuple):
    """The images of one official part: decoded, or as files whose names are their paths."""

    pixels: np.ndarray | None  # N x H x W (x 3) uint8; None for files
    names: tuple[str, ...]
    labels: np.ndarray  # N int64; -1 where an image has none


@dataclass(frozen=True)
class VisionSet:
    """How torchvision's class is called for each official part, and how its images are found in the object."""

    constructor: str
    arguments: Mapping[str, Mapping[str, str | bool]]  # keys train, val, test, pretrain; or whole
    read: Callable[[object], Content]
    class_count: int = 0  # only for sets that do not name their classes


def build(path: Path | None, split: str, config: Config) -> Split:
    """The images of `split`, from the folder torchvision calls root (without one, a folder in the cache).

    Without an official val it is a fixed share of train; without any official parts so is test. STL-10's pretrain has
    its unlabelled images too, and no labels. UsageError where the set is unknown, missing, or cannot be downloaded.
    """
    if config.name not in SETS:
        raise unknown_name("torchvision data set", config.name, SETS)
    entry, root = SETS[config.name], path or files.cache_folder() / "torchvision"
    contents: list[Content] = []
    classes: tuple[str, ...] = ()
    for part, shares in _sources(split, entry.arguments, config).items():
        opened = _opened(config, part, root)
        classes = _classes(opened, entry.class_count)
        contents.append(_within(entry.read(opened), root, split, shares))
    images, labels = _images(contents, root), np.concatenate([content.labels for content in contents])
    if not len(images):
        raise UsageError(f"The split {split} of {config.name} in {root} holds no images.")
    return Split(config.name, split, images, classes, None if (labels < 0).any() else labels)


def _sources(split: str, arguments: Mapping[str, object], config: Config) -> dict[str, tuple[float, float]]:
    """The official parts in which images of the split lie, and what is held out of each as val and as test."""
    if "whole" in arguments:
        return {"whole": (config.val_fraction, config.test_fraction)}
    if split == "pretrain" and split in arguments:
        return {split: (0.0, 0.0)}
    held_out = 0.0 if "val" in arguments else config.val_fraction
    shares = {"train": (held_out, 0.0), "val": (1.0, 0.0), "test": (0.0, 1.0)}
    holders = parts_of(split) | ({"train"} if split == "val" and held_out else set())
    return {part: share for part, share in shares.items() if part in arguments and part in holders}


def _opened(config: Config, part: str, root: Path) -> object:
    import torchvision.datasets

    entry = SETS[config.name]
    construct = partial(getattr(torchvision.datasets, entry.constructor), str(root), **entry.arguments[part])
    try:
        return construct()
    except (RuntimeError, OSError) as error:
        if not config.download:
            raise UsageError(
                f"{config.name} is not complete in {root} ({error}); "
                "give the folder that holds it, or ask for the download with --set data.download=true."
            ) from None
    try:
        return construct(download=True)
    except (RuntimeError, OSError) as error:
        raise UsageError(f"{config.name} could not be downloaded to {root}: {error}; try again later.") from None


def _classes(opened: object, count: int) -> tuple[str, ...]:
    named = getattr(opened, "classes", None) or getattr(opened, "categories", None) or range(count)
    return tuple(str(name[0] if isinstance(name, tuple) else name) for name in named)  # Imagenette lists synonyms


def _within(content: Content, root: Path, split: str, shares: tuple[float, float]) -> Content:
    """The images of an official part that are in the split; files in order of their paths below the root."""
    pixels, names, labels = content
    if pixels is None:
        names = tuple(Path(os.path.relpath(name, root)).as_posix() for name in names)
    order = range(len(names)) if pixels is not None else sorted(range(len(names)), key=names.__getitem__)
    kept = np.array([i for i in order if part_by_hash(names[i], *shares) in parts_of(split)], np.int64)
    return Content(None if pixels is None else pixels[kept], tuple(names[i] for i in kept), labels[kept])


def _images(contents: list[Content], root: Path) -> Images:
    names = [name for content in contents for name in content.names]
    pixels = [content.pixels for content in contents if content.pixels is not None]
    return ArrayImages(np.concatenate(pixels), names) if pixels else FileImages(root, names)


def _from_arrays(opened: object, labels: str = "targets", is_channels_first: bool = False) -> Content:
    pixels = np.asarray(opened.data)  # type: ignore[attr-defined]
    pixels = pixels.transpose(0, 2, 3, 1) if is_channels_first else pixels
    names = tuple(str(i) for i in range(len(pixels)))
    return Content(pixels, names, np.asarray(getattr(opened, labels), np.int64))


def _from_files(opened: object, paths: str = "_image_files", labels: str = "_labels") -> Content:
    return Content(None, tuple(map(str, getattr(opened, paths))), np.asarray(getattr(opened, labels), np.int64))


def _from_pairs(opened: object, pairs: str) -> Content:
    paths, labels = zip(*getattr(opened, pairs), strict=True)
    return Content(None, tuple(map(str, paths)), np.array(labels, np.int64))


def _from_caltech(opened: object) -> Content:
    names = [opened.categories[label] for label in opened.y]  # type: ignore[attr-defined]
    numbers = opened.index  # type: ignore[attr-defined]
    root = Path(opened.root) / "101_ObjectCategories"  # type: ignore[attr-defined]
    paths = tuple(str(root / name / f"image_{n:04d}.jpg") for name, n in zip(names, numbers, strict=True))
    return Content(None, paths, np.array(opened.y, np.int64))  # type: ignore[attr-defined]


_FLAG = {"train": {"train": True}, "test": {"train": False}}
_TWO = {"train": {"split": "train"}, "test": {"split": "test"}}
_THREE = {**_TWO, "val": {"split": "val"}}
_WHOLE: Mapping[str, Mapping[str, str | bool]] = {"whole": {}}
_CHANNELS_FIRST = partial(_from_arrays, labels="labels", is_channels_first=True)

SETS: Mapping[str, VisionSet] = MappingProxyType(
    {
        "caltech101": VisionSet("Caltech101", _WHOLE, _from_caltech),
        "cifar10": VisionSet("CIFAR10", _FLAG, _from_arrays),
        "cifar100": VisionSet("CIFAR100", _FLAG, _from_arrays),
        "country211": VisionSet(
            "Country211", {**_TWO, "val": {"split": "valid"}}, partial(_from_pairs, pairs="samples")
        ),
        "dtd": VisionSet("DTD", _THREE, _from_files),
        "eurosat": VisionSet("EuroSAT", _WHOLE, partial(_from_pairs, pairs="samples")),
        "fashionmnist": VisionSet("FashionMNIST", _FLAG, _from_arrays),
        "fgvcaircraft": VisionSet("FGVCAircraft", _THREE, _from_files),
        "flowers102": VisionSet("Flowers102", _THREE, _from_files),
        "food101": VisionSet("Food101", _TWO, _from_files),
        "gtsrb": VisionSet("GTSRB", _TWO, partial(_from_pairs, pairs="_samples"), class_count=43),
        "imagenette": VisionSet(  # val serves as test
            "Imagenette",
            {"train": {"split": "train", "size": "320px"}, "test": {"split": "val", "size": "320px"}},
            partial(_from_pairs, pairs="_samples"),
        ),
        "kmnist": VisionSet("KMNIST", _FLAG, _from_arrays),
        "mnist": VisionSet("MNIST", _FLAG, _from_arrays),
        "oxfordiiitpet": VisionSet(
            "OxfordIIITPet",
            {"train": {"split": "trainval"}, "test": {"split": "test"}},
            partial(_from_files, paths="_images"),
        ),
        "stl10": VisionSet("STL10", {**_TWO, "pretrain": {"split": "train+unlabeled"}}, _CHANNELS_FIRST),
        "sun397": VisionSet("SUN397", _WHOLE, _from_files),
        "svhn": VisionSet("SVHN", _TWO, _CHANNELS_FIRST, class_count=10),
        "usps": VisionSet("USPS", _FLAG, _from_arrays, class_count=10),
    }
)
