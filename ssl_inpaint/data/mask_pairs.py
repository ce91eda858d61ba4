"""Which image files go with which mask files, by their folders and names."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ssl_inpaint.data.listing import find_images, holds_images, holds_images_below, part_folders, some_of
from ssl_inpaint.errors import UsageError

IMAGE_FOLDER = "images"
MASK_FOLDERS = ("masks", "labels", "annotations", "annot")  # beside IMAGE_FOLDER; the first that holds images
SUFFIXES = ("_mask", "_label", "_gt")  # that a mask's name may have beyond its image's


class Source(NamedTuple):
    """A folder of images and the folder of their masks, relative to the root."""

    part: str  # train, val, test, or empty where the folders do not say
    images: str
    masks: str


class Pair(NamedTuple):
    """An image and its mask, relative to the root, and what both are called below their folders."""

    key: str
    image: str
    mask: str


def find_sources(root: Path) -> list[Source]:
    """The pairs of folders in `root`: train beside trainannot, images beside masks, or both in train, val and test."""
    parts = part_folders(root)
    if any((root / f"{name}annot").is_dir() for name in parts.values()):
        return [Source(part, name, f"{name}annot") for part, name in parts.items()]
    masks = _mask_folder(root)
    if (root / IMAGE_FOLDER).is_dir() and masks:
        inner, beside = part_folders(root / IMAGE_FOLDER), part_folders(root / masks)
        split = [Source(p, f"{IMAGE_FOLDER}/{name}", f"{masks}/{beside.get(p, name)}") for p, name in inner.items()]
        return split or [Source("", IMAGE_FOLDER, masks)]
    if not any((root / name / IMAGE_FOLDER).is_dir() and _mask_folder(root / name) for name in parts.values()):
        return []
    folders = {part: f"{name}/{_mask_folder(root / name) or MASK_FOLDERS[0]}" for part, name in parts.items()}
    return [Source(part, f"{name}/{IMAGE_FOLDER}", folders[part]) for part, name in parts.items()]


def find_pairs(root: Path, source: Source) -> tuple[list[Pair], list[str], list[str]]:
    """The pairs of a source, sorted; the images without a mask; and the masks without an image.

    UsageError where images lie outside the source's folder, or two files have one name.
    """
    holder = root / Path(source.images).parent
    if holder != root and holds_images(holder):
        raise UsageError(f"{holder} holds images that are in none of its folders: move them into one.")
    images, masks = _files(root, source)
    pairs = [Pair(key, images[key][0], masks[key][0]) for key in sorted(images.keys() & masks.keys())]
    for files in (*images.values(), *masks.values()):
        if len(files) > 1:
            raise UsageError(f"{root} holds {some_of(files)}, which have one name: keep one of them.")
    bare = [images[key][0] for key in sorted(images.keys() - masks.keys())]
    return pairs, bare, [masks[key][0] for key in sorted(masks.keys() - images.keys())]


def has_pairs(root: Path, source: Source) -> bool:
    """True where some image of the source has a mask."""
    images, masks = _files(root, source)
    return not images.keys().isdisjoint(masks)


def _mask_folder(holder: Path) -> str:
    found = (name for name in MASK_FOLDERS if (holder / name).is_dir() and holds_images_below(holder / name))
    return next(found, "")


def _files(root: Path, source: Source) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Images and masks by what they are called below their folders, without a mask's suffix."""
    images: dict[str, list[str]] = {}
    masks: dict[str, list[str]] = {}
    for name in _below(root / source.images):
        images.setdefault(_stem(name), []).append(f"{source.images}/{name}")
    for name in _below(root / source.masks):
        key = _stem(name)
        suffix = next((s for s in SUFFIXES if key.endswith(s) and key not in images), "")
        masks.setdefault(key.removesuffix(suffix), []).append(f"{source.masks}/{name}")
    return images, masks


def _below(folder: Path) -> list[str]:
    return find_images(folder) if folder.is_dir() else []


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
