"""Which photographs a path stands for, the masks that belong to them, and what the results are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ssl_inpaint.data.listing import find_images, some_of
from ssl_inpaint.errors import UsageError
from ssl_inpaint.photos import opened, suffix_of


def find_photos(path: Path) -> list[Path]:
    """The file `path`, or every image file below a folder, sorted, without hidden ones; UsageError where none is."""
    if not path.exists():
        raise UsageError(f"{path} does not exist: give an image file or a folder of images.")
    if not path.is_dir():
        return [path]
    if not (names := find_images(path)):
        raise UsageError(f"{path} holds no images: choose a folder with .jpg, .png or other image files.")
    return [path / name for name in names]


def output_names(paths: Sequence[Path], root: Path | None = None) -> list[str]:
    """The file to write for each photo, relative to the folder of results, no two the same, whatever the case.

    The path below `root` (without one, the name) with .png or, for modes that PNG lacks, .tif for the old suffix.
    Photos that would share a file all keep the old suffix before the new one: a.jpg and a.png give a.jpg.png and
    a.png.png; where even these are the same, the later ones are numbered. UsageError where a photo cannot be read.
    """
    suffixes = [suffix_of(opened(path, is_header_only=True)[0].mode) for path in paths]
    short = [_below(path, root) for path in paths]
    names = [path.with_suffix(suffix).as_posix() for path, suffix in zip(short, suffixes, strict=True)]
    long = [f"{path.as_posix()}{suffix}" for path, suffix in zip(short, suffixes, strict=True)]
    while shared := [place for place in _repeated(names) if names[place] != long[place]]:
        for place in shared:
            names[place] = long[place]
    return _numbered(names)


def masks_of(folder: Path, photos: Sequence[Path], root: Path | None = None) -> list[Path]:
    """The mask of each photo in a folder of masks: the one with its path below `root` (without one, its name).

    Suffixes are ignored; where both a.jpg and a.png are photos, masks may be told apart as a.jpg.png and a.png.png.
    UsageError, which names all faults, where a photo has no mask or several.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: give a folder with one mask for each photo, of the same name.")
    masks: dict[str, list[Path]] = {}
    for name in find_images(folder):
        masks.setdefault(Path(name).with_suffix("").as_posix(), []).append(folder / name)
    keys = [_below(photo, root) for photo in photos]
    found = [masks.get(key.as_posix()) or masks.get(key.with_suffix("").as_posix(), []) for key in keys]
    if lacking := [key.as_posix() for key, some in zip(keys, found, strict=True) if not some]:
        have = f"{len(lacking)} of {len(photos)} photos have no mask in {folder}: {some_of(lacking)}"
        raise UsageError(f"{have}. Add for each a mask of the same name, such as {Path(lacking[0]).stem}.png.")
    if several := [some for some in found if len(some) > 1]:
        names = "; ".join(" and ".join(path.name for path in some) for some in several)
        raise UsageError(f"{folder} has several masks for one photo, {names}: keep one of each.")
    return [some[0] for some in found]


def _below(path: Path, root: Path | None) -> Path:
    """The path below the root, or the bare name of a file that is not below it."""
    return path.relative_to(root) if root is not None and path.is_relative_to(root) else Path(path.name)


def _repeated(names: Sequence[str]) -> list[int]:
    """Positions of the names that are not alone; some file systems do not tell upper from lower case."""
    counts = Counter(name.casefold() for name in names)
    return [place for place, name in enumerate(names) if counts[name.casefold()] > 1]


def _numbered(names: Sequence[str]) -> list[str]:
    result: list[str] = []
    taken = Counter(name.casefold() for name in names)
    seen: set[str] = set()
    for name in names:
        path, number, new = Path(name), 1, name
        while new.casefold() in seen or (number > 1 and taken[new.casefold()]):
            number += 1
            new = path.with_name(f"{path.stem}-{number}{path.suffix}").as_posix()
        seen.add(new.casefold())
        result.append(new)
    return result
