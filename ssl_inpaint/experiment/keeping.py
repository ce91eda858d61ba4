"""What a run keeps of its predictions on whole images: files that other tools read, and a gallery beside the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_inpaint import figures, galleries, predictions
from ssl_inpaint.core import Detections, Objects
from ssl_inpaint.experiment.annotated import Scene, objects_of

SHOWN = 12  # images of a gallery, spread over the split
GALLERY = "gallery.png"


def keep(folder: Path, part: Scene, found: Sequence[Any], classes: tuple[str, ...]) -> None:
    """Boxes as COCO's JSON or masks as palette PNGs, and gallery.png, below `folder`."""
    count = len(part)
    shown = sorted({round(place) for place in np.linspace(0, count - 1, min(SHOWN, count))})
    images = [part.images.store.image(position) for position in shown]
    names = [part.image_name(position) for position in range(count)]
    if isinstance(found[0], Detections):
        truths = [objects_of(part, position) for position in range(count)]
        sizes = [part.original_size(position) for position in range(count)]
        predictions.write_detections(folder, names, sizes, classes, found, truths)
        in_store = [_in_store(part, position, found[position]) for position in shown]
        true = [_objects_in_store(part, position) for position in shown]
        gallery = galleries.detection_gallery(images, in_store, true, classes)
    else:
        predictions.write_masks(folder / "masks", _distinct(names), found)
        masks = [_nearest(found[p], part.images.store.image(p).shape[:2]) for p in shown]
        true_masks = [_nearest(part.images.mask(p), part.images.store.image(p).shape[:2]) for p in shown]
        gallery = galleries.segmentation_gallery(images, masks, true_masks, classes)
    figures.save(gallery, folder / GALLERY)


def _distinct(names: Sequence[str]) -> list[str]:
    """Names that differ before the dot too: where two do not, their endings become a part of them."""
    stems = Counter(name.rpartition(".")[0] for name in names)
    return [f"{name.replace('.', '_')}.png" if stems[name.rpartition(".")[0]] > 1 else name for name in names]


def _in_store(part: Scene, position: int, found: Detections) -> Detections:
    return Detections(part.images.store.boxes(position, found.boxes), found.labels, found.scores)


def _objects_in_store(part: Scene, position: int) -> Objects:
    objects = objects_of(part, position)
    return Objects(part.images.store.boxes(position, objects.boxes), objects.labels, objects.is_difficult)


def _nearest(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """The mask at another height and width, by the value in the middle of each pixel."""
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(np.int64) for n, m in zip(size, mask.shape, strict=True))
    resized: np.ndarray = mask[np.ix_(rows, columns)]
    return resized
