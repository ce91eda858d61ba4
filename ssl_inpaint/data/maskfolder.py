"""Folders of images beside folders of class masks, as CamVid or images/ and masks/: for segmentation.

A mask is a greyscale or palette image whose values are class numbers, paired with its image by the name of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import Field

from ssl_inpaint import progress
from ssl_inpaint.config import Settings
from ssl_inpaint.core import Split
from ssl_inpaint.data.listing import (
    folder_name,
    part_by_hash,
    parts_of,
    require_folder,
    shares_of,
    some_of,
    text_lines,
)
from ssl_inpaint.data.mask_files import IGNORED, MaskFiles, plain_table, read_values
from ssl_inpaint.data.mask_pairs import Pair, Source, find_pairs, find_sources, has_pairs
from ssl_inpaint.data.sources import FileImages
from ssl_inpaint.errors import UsageError

CAMVID_CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree"),
    *("signsymbol", "fence", "car", "pedestrian", "bicyclist"),
)
CAMVID_VOID = len(CAMVID_CLASSES)
CAMVID_SEQUENCES = ("0001TP", "0006R0", "0016E5", "Seq05VD")  # how the names of its frames begin
REMEDY = (
    "name all classes in the order of their values in classes.txt in the data set's folder or with --set "
    "data.classes=..., or leave one value out with --set data.ignore=VALUE"
)


class Config(Settings):
    """What the values of the masks stand for, and how much is held out where the folders do not say."""

    classes: tuple[str, ...] = Field(default=(), max_length=IGNORED)  # of values 0, 1, ...; none: see `build`
    ignore: int | None = Field(default=None, ge=0, le=IGNORED)  # a value not to be counted; none: 255 alone
    val_fraction: float = Field(default=0.2, gt=0, lt=0.5)  # where there is no val folder, or val has to serve as test
    test_fraction: float = Field(default=0.2, gt=0, lt=0.5)  # where there is neither a test nor a val folder


class _Meaning(NamedTuple):
    classes: tuple[str, ...]
    ignored: tuple[int, ...]
    is_camvid: bool = False


def build(path: Path | None, split: str, config: Config) -> Split:
    """The images of `split` with their masks, from {train,val,test} beside {train,val,test}annot as in CamVid, from
    images/ beside masks/ (or labels, annotations, annot), flat or with train, val and test, or from those in each part.

    Classes are those of the settings, else of classes.txt, else CamVid's eleven for its frames, else the numbers that
    occur in train and val. Without test, val serves as test and val becomes a share of train. UsageError where the
    layout is another, or an image has no mask or a mask no image.
    """
    root, parts = require_folder(path, "maskfolder"), parts_of(split)
    sources = find_sources(root)
    if not sources:
        raise UsageError(
            f"{root} holds no pairs of images and masks: maskfolder expects train beside trainannot, images beside "
            "masks, or both of these in each of train, val and test."
        )
    by_part = _by_part(root, sources, config)
    meaning = _meaning(root, [*by_part["train"], *by_part["val"]], config)
    chosen = [pair for part in ("train", "val", "test") if part in parts for pair in by_part[part]]
    if not chosen:
        raise UsageError(f"The split {split} of {root} holds no images: add images, or folders train, val and test.")
    dataset = f"CamVid, {_longest_side(root, chosen)} px" if meaning.is_camvid else f"maskfolder:{folder_name(root)}"
    images = FileImages(root, [pair.image for pair in chosen])
    table = plain_table(len(meaning.classes), meaning.ignored)
    masks = MaskFiles(root, [pair.mask for pair in chosen], table, REMEDY, read_values)
    return Split(dataset, split, images, masks=masks, mask_classes=meaning.classes)


def recognises(path: Path) -> bool:
    """True where the layout is one of `build`'s and some image has a mask."""
    return path.is_dir() and any(has_pairs(path, source) for source in find_sources(path))


def _by_part(root: Path, sources: Sequence[Source], config: Config) -> dict[str, list[Pair]]:
    there = {source.part: source.images for source in sources if source.part}
    shares = shares_of(root, there, config.val_fraction, config.test_fraction)
    parts: dict[str, list[Pair]] = {"train": [], "val": [], "test": []}
    bare: list[str] = []
    loose: list[str] = []
    for source in sources:
        pairs, images, masks = find_pairs(root, source)
        for pair in pairs:
            parts[part_by_hash(pair.key, *shares[source.part])].append(pair)
        bare, loose = bare + images, loose + masks
    lonely = [f"{len(bare)} images without a mask ({some_of(bare)})"] if bare else []
    lonely += [f"{len(loose)} masks without an image ({some_of(loose)})"] if loose else []
    if lonely:
        raise UsageError(
            f"{root} holds {' and '.join(lonely)}: a mask has its image's name; add what is missing, or move the rest."
        )
    return parts


def _meaning(root: Path, pairs: Sequence[Pair], config: Config) -> _Meaning:
    """What the values in the masks of train and val stand for."""
    ignored = () if config.ignore is None else (config.ignore,)
    classes = config.classes
    if not classes and (root / "classes.txt").is_file():
        classes = tuple(text_lines(root / "classes.txt"))
    if classes:
        _refuse_bad_names(root, classes)
        return _Meaning(classes, ignored)
    values = _values_in(root, pairs) - {IGNORED}
    is_camvid = bool(pairs) and all(_is_camvid(pair) for pair in pairs)
    if is_camvid and max(values, default=0) <= CAMVID_VOID:
        return _Meaning(CAMVID_CLASSES, (*ignored, CAMVID_VOID), is_camvid=True)
    counted = values - {*ignored}
    if len(counted) < 2:
        raise UsageError(
            f"The masks of train and val in {root} hold {len(counted)} values to tell apart, and 2 or more are needed: "
            f"255 {f'and {config.ignore} are' if ignored else 'is'} never counted; save the classes as 0, 1, ..."
        )
    return _Meaning(tuple(str(value) for value in range(max(counted) + 1)), ignored)


def _is_camvid(pair: Pair) -> bool:
    return Path(pair.mask).parent.name.endswith("annot") and pair.key.startswith(CAMVID_SEQUENCES)


def _refuse_bad_names(root: Path, classes: tuple[str, ...]) -> None:
    if len(set(classes)) < len(classes) or not 2 <= len(classes) <= IGNORED:
        raise UsageError(
            f"{root}: {len(set(classes))} names for {len(classes)} values of the masks; name 2 to {IGNORED} classes, "
            "each once."
        )


def _values_in(root: Path, pairs: Sequence[Pair]) -> set[int]:
    """All values that occur; UsageError where a mask cannot be read or holds a value above 255."""
    found: set[int] = set()
    with progress.bar("values of masks", len(pairs)) as bar:
        for pair in pairs:
            try:
                values = np.unique(read_values(root / pair.mask))
            except OSError as error:
                raise UsageError(f"Cannot read the mask {root / pair.mask}: {error}.") from None
            if not 0 <= values[0] <= values[-1] <= IGNORED:
                raise UsageError(
                    f"{root / pair.mask} holds values from {values[0]} to {values[-1]}: save the classes as 0, 1, ..."
                )
            found |= set(values.tolist())
            bar.advance()
    return found


def _longest_side(root: Path, pairs: Sequence[Pair]) -> int:
    from PIL import Image

    try:
        with Image.open(root / pairs[0].image) as image:
            return max(image.size)
    except OSError as error:
        raise UsageError(f"Cannot read the image {root / pairs[0].image}: {error}.") from None
