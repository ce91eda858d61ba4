"""Object proposals in files: .npz and .json of the suite's own, and the .mat that came with Fast R-CNN.

An .npz file holds one array an image under its name, a .json file {name: [[x1, y1, x2, y2], ...]}; boxes are in pixels
of the upright file, right and bottom edge excluded. A .mat file (selective_search_data/voc_2007_trainval.mat) holds the
cell arrays `images`, names, and `boxes`, y1 x1 y2 x2 counted from one, edges included. The name of an image is its path
in the data set, or the last part of it without the ending.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np

from ssl_inpaint import files
from ssl_inpaint.core import Images
from ssl_inpaint.errors import UsageError

BROKEN = (OSError, ValueError, TypeError, LookupError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def read_proposals(listed: str, images: Images) -> tuple[np.ndarray, ...]:
    """The boxes of every image, P x 4 float32, from one file or several with commas between them.

    Names that are not in `images` are passed over. UsageError where a file cannot be read, images are in none of
    them or differently in two, or boxes are no finite rectangles.
    """
    paths = [Path(part.strip()).expanduser() for part in listed.split(",") if part.strip()]
    keys = _keys([images.name(position) for position in range(len(images))])
    wanted = {key for of_image in keys for key in of_image}
    held = [_entries(path, wanted) for path in paths]
    found = [[entries[key] for entries in held for key in of_image if key in entries] for of_image in keys]
    boxes = [[_as_boxes(value) for value in values] for values in found]
    _refuse(listed, keys, lambda n: not boxes[n], "are missing from it", "add them, or choose another file")
    _refuse(
        listed,
        keys,
        lambda n: any(of_one is None for of_one in boxes[n]),
        "have boxes there that are no rectangles",
        "each must be four finite numbers x1 y1 x2 y2 with x1 < x2 and y1 < y2 (in a .mat file: y1 x1 y2 x2 from one)",
    )
    known = [[of_one for of_one in of_image if of_one is not None] for of_image in boxes]
    _refuse(
        listed,
        keys,
        lambda n: any(not np.array_equal(of_one, known[n][0]) for of_one in known[n]),
        "are there more than once, with different boxes",
        "name the images by their whole path, or remove one of the files",
    )
    return tuple(of_image[0] for of_image in known)


def write(path: Path, images: Images, boxes: Sequence[np.ndarray]) -> None:
    """Writes the boxes of every image as .npz, whole or not at all; UsageError for other endings or a full disk."""
    if path.suffix.lower() != ".npz":
        raise UsageError(f"Proposals are written as .npz, not as '{path.name}': choose a name that ends in .npz.")
    with files.replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for position, of_image in enumerate(boxes):  # not numpy's savez, which takes names for parameters
            with archive.open(f"{_printable(images.name(position))}.npy", "w") as stream:
                np.lib.format.write_array(stream, np.asarray(of_image, np.float32), allow_pickle=False)


def are_boxes(boxes: np.ndarray) -> bool:
    """True where N x 4 corners are finite and every box is larger than nothing; also where there are none."""
    return boxes.shape[1] == 4 and bool(np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all())


def _keys(names: Sequence[str]) -> list[tuple[str, ...]]:
    """What an image may be called in a file: its name, and the stem of it where no other image has the same."""
    stems = [PurePosixPath(name).stem for name in names]
    count = Counter(stems)
    return [
        (_printable(name),) if count[stem] > 1 or stem == name else (_printable(name), _printable(stem))
        for name, stem in zip(names, stems, strict=True)
    ]


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _entries(path: Path, wanted: set[str]) -> dict[str, object]:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"Proposals are read from {', '.join(READERS)}, not from '{path.name}': convert the file.")
    try:
        return reader(path, wanted)
    except BROKEN as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = " ".join(said.split()).rstrip(".") or "it is broken"
        raise UsageError(f"Cannot read the proposals {path}: {reason}. Mend the file or choose another.") from None


def _read_npz(path: Path, wanted: set[str]) -> dict[str, object]:
    with path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise ValueError("it is no .npz archive")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name in wanted}


def _read_json(path: Path, wanted: set[str]) -> dict[str, object]:
    held = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(held, dict):
        raise ValueError("it holds no object {name: [[x1, y1, x2, y2], ...]}")
    return {name: boxes for name, boxes in held.items() if name in wanted}


def _read_mat(path: Path, wanted: set[str]) -> dict[str, object]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    with path.open("rb") as stream:
        try:
            held = loadmat(stream, variable_names=["boxes", "images"])
        except MatReadError as error:
            raise ValueError(str(error)) from None
    if not {"boxes", "images"} <= held.keys():
        raise ValueError("it has no cell arrays 'boxes' and 'images'")
    names = [str(np.ravel(cell)[0]) for cell in held["images"].ravel()]
    cells = held["boxes"].ravel()
    if len(names) != len(cells):
        raise ValueError(f"it names {len(names)} images and has boxes of {len(cells)}")
    return {name: _from_matlab(cell) for name, cell in zip(names, cells, strict=True) if name in wanted}


def _from_matlab(cell: np.ndarray) -> np.ndarray:
    """y1 x1 y2 x2 from one, edges included, as x1 y1 x2 y2 from zero, right and bottom edge excluded."""
    if cell.ndim != 2 or cell.shape[1] != 4:
        return cell
    return cell.astype(np.float64)[:, (1, 0, 3, 2)] - np.array([1, 1, 0, 0])


def _as_boxes(value: object) -> np.ndarray | None:
    """P x 4 float32; None where the value is anything else."""
    try:
        with np.errstate(over="ignore"):  # what overflows is not finite
            boxes = np.asarray(value, np.float64).astype(np.float32)
    except (ValueError, TypeError):
        return None
    if not boxes.size:
        return np.zeros((0, 4), np.float32)
    return boxes if boxes.ndim == 2 and are_boxes(boxes) else None


def _refuse(
    listed: str, keys: Sequence[tuple[str, ...]], is_wrong: Callable[[int], bool], what: str, remedy: str
) -> None:
    """UsageError with the number of images that are wrong and the first three of them."""
    wrong = [of_image[0] for n, of_image in enumerate(keys) if is_wrong(n)]
    if wrong:
        first = ", ".join(wrong[:3]) + (", ..." if len(wrong) > 3 else "")
        raise UsageError(f"{listed}: {len(wrong)} of {len(keys)} images {what}: {first}; {remedy}.")


READERS: Mapping[str, Callable[[Path, set[str]], dict[str, object]]] = MappingProxyType(
    {".npz": _read_npz, ".json": _read_json, ".mat": _read_mat}
)
