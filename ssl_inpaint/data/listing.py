"""Which image files lie in a folder, and which of train, val and test each of them is in."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from ssl_inpaint.errors import UsageError, unknown_name

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2"),
)
SPLIT_SEED = "ssl_inpaint split 1"  # hashed with an image's name; changing it moves images between splits
PARTS_OF_SPLIT = {
    "train": frozenset({"train"}),
    "val": frozenset({"val"}),
    "trainval": frozenset({"train", "val"}),
    "pretrain": frozenset({"train", "val"}),  # all that pretraining may read: never test
    "test": frozenset({"test"}),
}
PART_OF_FOLDER = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def find_images(folder: Path) -> list[str]:
    """Every image file below `folder`, as sorted relative paths; hidden files and __MACOSX are left out.

    Symbolic links are followed, each real folder once. UsageError where a folder cannot be read.
    """
    return sorted(_walk(folder))


def holds_images_below(folder: Path) -> bool:
    """True where `find_images` finds any."""
    return next(_walk(folder), None) is not None


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in `folder`, sorted, without hidden ones and __MACOSX."""
    return sorted(entry.name for entry in _entries(str(folder)) if entry.is_dir())


def holds_images(folder: Path) -> bool:
    """True where an image lies directly in `folder`."""
    return any(is_image_name(entry.name) and entry.is_file() for entry in _entries(str(folder)))


def is_image_name(name: str) -> bool:
    """True where the file name ends like an image's, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 (a million of them)


def require_folder(path: Path | None, part: str) -> Path:
    """`path` if it is a folder; UsageError where it is missing, a file, or not given."""
    if path is None:
        raise UsageError(f"The data set {part} needs a folder: write {part}:FOLDER.")
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UsageError(f"{path} {what}: {part}:FOLDER takes an existing folder.")
    return path


def folder_name(path: Path) -> str:
    """The last name of a path, to tell data sets apart without showing where they lie."""
    return Path(os.path.abspath(path)).name  # noqa: PTH100 (keeps symbolic links)


def parts_of(split: str) -> frozenset[str]:
    """Which of train, val and test the split reads; UsageError for an unknown split."""
    if split not in PARTS_OF_SPLIT:
        raise unknown_name("split", split, PARTS_OF_SPLIT)
    return PARTS_OF_SPLIT[split]


def part_by_hash(name: str, val_fraction: float, test_fraction: float) -> str:
    """train, val or test for an image, by a hash of its relative name alone.

    The same on every machine, and adding or removing images never moves others; shares are met on average.
    """
    normal = unicodedata.normalize("NFC", name)  # macOS stores accents apart from their letters
    share = int(hashlib.sha256(name_bytes(f"{SPLIT_SEED}:{normal}")).hexdigest()[:13], 16) / 16**13
    if share < test_fraction:
        return "test"
    return "val" if share < test_fraction + val_fraction else "train"


def part_folders(root: Path) -> dict[str, str]:
    """train, val and test to the name of the folder in `root` that holds each, where there is one.

    UsageError where two folders are the same part.
    """
    found: dict[str, str] = {}
    for name in subfolders(root):
        part = PART_OF_FOLDER.get(name.lower())
        if part in found:
            raise UsageError(f"{root} holds {found[part]} and {name}, both of them for {part}: keep one of them.")
        if part:
            found[part] = name
    return found


def shares_of(root: Path, there: Mapping[str, str], val: float, test: float) -> dict[str, tuple[float, float]]:
    """Which shares of each part that lies ready in `root` are read as val and as test, for `part_by_hash`.

    `there` is part to the name of its folder or file. With no parts, "" stands for all images, and `val` and `test` of
    them are held out. Without test, val serves as test; then, and without val, `val` of train is held out as val.
    UsageError where train is missing.
    """
    if not there:
        return {"": (val, test)}
    if "train" not in there:
        raise UsageError(f"{root} has no train beside {', '.join(sorted(there.values()))}: add it.")
    return {
        ("train",): {"train": (val, test)},
        ("test", "train"): {"train": (val, 0.0), "test": (0.0, 1.0)},
        ("train", "val"): {"train": (val, 0.0), "val": (0.0, 1.0)},  # val serves as test
        ("test", "train", "val"): {"train": (0.0, 0.0), "val": (1.0, 0.0), "test": (0.0, 1.0)},
    }[tuple(sorted(there))]


def text_lines(file: Path) -> list[str]:
    """The lines of a UTF-8 text file that are not blank, without the space around them; UsageError if unreadable."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Cannot read {file} as UTF-8 text: {error}.") from None
    return [line.strip() for line in lines if line.strip()]


def some_of(names: list[str]) -> str:
    """The first three names, for a message."""
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def name_bytes(name: str) -> bytes:
    """A file name to hash; names need not be valid UTF-8."""
    return name.encode("utf-8", "surrogateescape")


def _walk(folder: Path) -> Iterator[str]:
    waiting, seen = [("", str(folder))], set()
    while waiting:
        prefix, current = waiting.pop()
        real = os.path.realpath(current)
        if real in seen:
            continue
        seen.add(real)
        for entry in _entries(current):
            if entry.is_dir():
                waiting.append((f"{prefix}{entry.name}/", entry.path))
            elif is_image_name(entry.name):
                yield prefix + entry.name


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """As they come, so that who looks for one only reads no further."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name != "__MACOSX":
                    yield entry
    except OSError as error:
        raise UsageError(f"Cannot read the folder {folder}: {error.strerror or error}.") from None
