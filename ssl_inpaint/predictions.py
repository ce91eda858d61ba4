"""What a transfer run found, written for others to read: boxes as COCO JSON, masks as palette PNG, scores as CSV.

The numbers of a run are records; these files hold what the numbers were computed from, so that any tool can check them.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

import numpy as np

from ssl_inpaint import files
from ssl_inpaint.core import Detections, Objects
from ssl_inpaint.images import voc_palette

SCHEMA = 1  # of ground_truth.json, in its field `info`; COCO's results are a bare list and have no place for one
BOX_DECIMALS = 2
SCORE_DECIMALS = 5


def write_detections(
    folder: Path,
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    classes: Sequence[str],
    detections: Sequence[Detections],
    truths: Sequence[Objects],
) -> list[Path]:
    """Writes detections.json (COCO results) and ground_truth.json (COCO annotations), and returns both paths.

    `sizes` are height and width of the original files. Images, categories and annotations are numbered from 1 in the
    given order. A difficult object is also COCO's iscrowd, which is left out of the count but overlaps by the share of
    the detection it covers: COCO's precision differs a little from VOC's where there are such objects. ValueError,
    which names all faults, where the arguments do not fit.
    """
    if not len(names) == len(sizes) == len(detections) == len(truths):
        counts = f"{len(names)} names, {len(sizes)} sizes, {len(detections)} detections, {len(truths)} truths"
        raise ValueError(f"{counts}: give one of each an image.")
    if faults := [*box_faults(detections, len(classes)), *box_faults(truths, len(classes))]:
        raise ValueError(" ".join(faults))
    found = [line for number, record in enumerate(detections, start=1) for line in _results(number, record)]
    annotations = [line for number, record in enumerate(truths, start=1) for line in _annotations(number, record)]
    truth = {
        "info": {"description": "ssl_inpaint ground truth", "schema": SCHEMA},  # pycocotools 2.0.9 fails without info
        "images": [
            {"id": number, "file_name": name, "height": int(height), "width": int(width)}
            for number, (name, (height, width)) in enumerate(zip(names, sizes, strict=True), start=1)
        ],
        "annotations": [{"id": number, **line} for number, line in enumerate(annotations, start=1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, start=1)],
    }
    return [_write_compact(folder / "detections.json", found), _write_compact(folder / "ground_truth.json", truth)]


def write_masks(folder: Path, names: Sequence[str], masks: Iterable[np.ndarray]) -> list[Path]:
    """Writes each mask, H x W uint8, as `<name without extension>.png` in VOC's colours, and returns the paths.

    Masks are taken one at a time. Sub-folders of a name are kept; a name that would leave `folder` (absolute, or with
    '..') becomes one file name, its parts joined by '_'. ValueError, before anything is written, where two names give
    one path; later where a mask does not fit or there are not as many as names.
    """
    from PIL import Image

    paths = [folder / _below(name) for name in names]
    if repeated := [str(path) for path, count in Counter(paths).items() if count > 1]:
        raise ValueError(f"Several names give the same file: {', '.join(repeated)}. Names must differ before the dot.")
    palette = voc_palette().tobytes()
    for path, mask in zip(paths, masks, strict=True):
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise ValueError(f"Mask for {path}: {mask.dtype} of shape {mask.shape}, where H x W uint8 is needed.")
        picture = Image.fromarray(mask)
        picture.putpalette(palette)
        with files.replacing(path) as temporary:
            picture.save(temporary, format="PNG")
    return paths


def write_scores(path: Path, names: Sequence[str], classes: Sequence[str], scores: np.ndarray) -> Path:
    """Writes the scores, N x K, as CSV: the image's name, then a column a class of 6 significant digits.

    ValueError where shapes do not fit or a score is not finite.
    """
    if scores.shape != (len(names), len(classes)):
        raise ValueError(f"Scores of shape {scores.shape} do not fit {len(names)} names and {len(classes)} classes.")
    if not np.isfinite(scores).all():
        first = names[int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])]
        raise ValueError(f"Scores of '{first}' are not all finite.")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", *classes])
    writer.writerows([name, *(f"{score:.6g}" for score in row)] for name, row in zip(names, scores, strict=True))
    files.write_text(path, text.getvalue())
    return path


def box_faults(records: Sequence[Detections] | Sequence[Objects], classes: int) -> list[str]:
    """A sentence for each record whose arrays do not fit each other or `classes` many classes; empty where all do."""
    faults = [_fault(records[place], classes) for place in range(len(records))]
    return [
        f"{type(record).__name__} of image {place}: {fault}."
        for place, (record, fault) in enumerate(zip(records, faults, strict=True))
        if fault
    ]


def _fault(record: Detections | Objects, classes: int) -> str:
    """What is wrong with one record; empty where nothing is."""
    boxes, labels = record.boxes, record.labels
    last = record.scores if isinstance(record, Detections) else record.is_difficult
    if boxes.shape != (len(labels), 4) or last.shape != labels.shape or labels.ndim != 1:
        return f"boxes {boxes.shape}, labels {labels.shape} and {last.shape} beside them, where M x 4, M and M must be"
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        return f"labels from {labels.min()} to {labels.max()}, where there are {classes} classes"
    if not (np.isfinite(boxes).all() and np.isfinite(last).all()):
        return "boxes or scores that are not finite"
    return "boxes that end before they begin" if (boxes[:, 2:] < boxes[:, :2]).any() else ""


def _results(image: int, found: Detections) -> list[dict[str, object]]:
    """COCO results of one image."""
    return [
        {
            "image_id": image,
            "category_id": int(label) + 1,
            "bbox": _corner_and_size(box),
            "score": round(float(score), SCORE_DECIMALS),
        }
        for box, label, score in zip(found.boxes, found.labels, found.scores, strict=True)
    ]


def _annotations(image: int, objects: Objects) -> list[dict[str, object]]:
    """COCO annotations of one image, still without their own number."""
    lines: list[dict[str, object]] = []
    for box, label, is_difficult in zip(objects.boxes, objects.labels, objects.is_difficult, strict=True):
        corner_and_size = _corner_and_size(box)
        area = round(corner_and_size[2] * corner_and_size[3], BOX_DECIMALS)
        line = {"image_id": image, "category_id": int(label) + 1, "bbox": corner_and_size, "area": area}
        lines.append(line | {"iscrowd": int(is_difficult), "difficult": int(is_difficult)})
    return lines


def _corner_and_size(box: np.ndarray) -> list[float]:
    """x1 y1 x2 y2 to COCO's x, y, width, height."""
    x1, y1, x2, y2 = (float(edge) for edge in box)
    return [round(value, BOX_DECIMALS) for value in (x1, y1, x2 - x1, y2 - y1)]


def _below(name: str) -> PurePath:
    """The relative path of a mask, which stays below whatever folder it is joined to."""
    path = PurePath(name)
    if path.anchor or ".." in path.parts:
        path = PurePath("_".join(part for part in path.parts if part not in (path.anchor, "..")))
    if not path.name:
        raise ValueError(f"The name '{name}' names no file.")
    return path.with_suffix(".png")


def _write_compact(path: Path, value: object) -> Path:
    """JSON on one line: indented, thousands of boxes would take a line a number."""
    text = json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False)
    files.write_text(path, text + "\n")
    return path
