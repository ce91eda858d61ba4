"""Average precision and mean IoU of as many images as VOC 2007 tests on, beside COCO's code and torchmetrics.

Detections are objects moved about, and masks tiles of classes partly mistaken: what is scored has no part in the time.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from measuring import Measured, side_by_side

from ssl_inpaint import detection_metrics, segmentation_metrics
from ssl_inpaint.core import Detections, Objects
from ssl_inpaint.progress import say
from ssl_inpaint.runtime import Runtime

NAME = "scores"
CLASSES, MASK_CLASSES = 20, 21
IMAGES, DETECTIONS = 4_952, 100  # VOC 2007's test, and how many a detector usually leaves of an image
MASKS = 210  # VOC 2007's test has so many with masks
AREA_TOLERANCE, IOU_TOLERANCE = 0.01, 1e-6  # how far from the others': COCO reads precision at 101 recalls; float32


def measure(device: torch.device, rounds: int, is_small: bool) -> Iterator[Measured]:
    """Two lines, on the CPU."""
    yield from _detection(100 if is_small else IMAGES, rounds)
    yield _segmentation(6 if is_small else MASKS, rounds)


def _detection(images: int, rounds: int) -> Iterator[Measured]:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        say("Left out: average precision beside COCO's code, which is not installed: pip install pycocotools.")
        return
    truths = _objects(images)
    detections = _detections(truths)
    dataset, results = _coco_dataset(truths), _coco_results(detections)

    def ours() -> float:
        return detection_metrics.mean_average_precision_of_detections(detections, truths, CLASSES, "area")[0]

    def theirs() -> float:
        with contextlib.redirect_stdout(io.StringIO()):  # they tell of their progress
            return _coco_ap50(COCO, COCOeval, dataset, results)

    found, expected = ours(), theirs()
    if abs(found - expected) > AREA_TOLERANCE:
        raise ValueError(
            f"mAP is {found:.4f} by ours and {expected:.4f} by COCO's: {AREA_TOLERANCE} apart at most expected"
        )
    yield side_by_side(ours, theirs, rounds).measured(
        what="VOC mean average precision (area), from boxes",
        size=f"{images:,} images, {sum(len(one.labels) for one in truths):,} objects, {DETECTIONS} detections each",
        compared_with="pycocotools' COCOeval at IoU 0.5, one range of areas, from dictionaries in memory",
        count=images,
        unit="images/s",
        reach=3.0,
        agreement=f"mAP {found:.4f}, theirs at 101 recalls {expected:.4f} (tolerance {AREA_TOLERANCE})",
        device=_cpu(),
    )


def _segmentation(images: int, rounds: int) -> Measured:
    from torchmetrics.classification import MulticlassJaccardIndex

    pairs = [_masks(seed) for seed in range(images)]
    # As each wants them: a network's predictions and masks from files are bytes, torchmetrics takes int64 too.
    tensors = [[torch.from_numpy(mask)[None].long() for mask in pair] for pair in pairs]

    def ours() -> np.ndarray:
        empty = np.zeros((MASK_CLASSES, MASK_CLASSES), np.int64)
        matrix = sum((segmentation_metrics.confusion(*pair, MASK_CLASSES) for pair in pairs), empty)
        return segmentation_metrics.class_iou(matrix)

    def theirs() -> np.ndarray:
        metric = MulticlassJaccardIndex(MASK_CLASSES, average="none", ignore_index=255, validate_args=False)
        for prediction, truth in tensors:
            metric.update(prediction, truth)
        each: np.ndarray = metric.compute().numpy()
        return each

    worst = float(np.abs(ours() - theirs()).max())
    if worst > IOU_TOLERANCE:
        raise ValueError(f"IoUs differ by {worst:.1e}: at most {IOU_TOLERANCE:g} was expected")
    return side_by_side(ours, theirs, rounds).measured(
        what="mean IoU, from masks",
        size=f"{images} images of 500 x 375 px, {MASK_CLASSES} classes",
        compared_with="torchmetrics' MulticlassJaccardIndex, image by image, its checks of values left out",
        count=images,
        unit="images/s",
        reach=3.0,
        agreement=f"IoU of every class equal to {worst:.1e} (tolerance {IOU_TOLERANCE:g}: theirs is float32)",
        device=_cpu(),
    )


def _objects(images: int) -> list[Objects]:
    """1 to 4 an image, none difficult: COCO's code excuses detections of difficult ones by another rule."""
    random, made = np.random.default_rng(0), []
    for _ in range(images):
        count = int(random.integers(1, 5))
        corners, sides = random.random((count, 2)) * (350, 250), 20 + random.random((count, 2)) * (130, 100)
        boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
        made.append(Objects(boxes, random.integers(0, CLASSES, count), np.zeros(count, bool)))
    return made


def _detections(truths: list[Objects]) -> list[Detections]:
    """Objects moved by up to some tens of pixels, two of five called something else; surer the less they moved."""
    random, made = np.random.default_rng(1), []
    for truth in truths:
        near = random.integers(0, len(truth.labels), DETECTIONS)
        moved = random.exponential(15, DETECTIONS)
        boxes = truth.boxes[near] + random.normal(size=(DETECTIONS, 4)) * moved[:, None]
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        is_right = random.random(DETECTIONS) < 0.6
        labels = np.where(is_right, truth.labels[near], random.integers(0, CLASSES, DETECTIONS))
        scores = (np.exp(-moved / 15) + is_right + random.random(DETECTIONS)).astype(np.float32)
        made.append(Detections(boxes.astype(np.float32), labels, scores))
    return made


def _coco_ap50(coco: Any, evaluation: Any, dataset: dict[str, Any], results: list[dict[str, Any]]) -> float:
    truth = coco()
    truth.dataset = dataset
    truth.createIndex()
    one = evaluation(truth, truth.loadRes(results), "bbox")
    one.params.iouThrs, one.params.maxDets = np.array([0.5]), [DETECTIONS]
    one.params.areaRng, one.params.areaRngLbl = [[0, 1e10]], ["all"]
    one.evaluate()
    one.accumulate()
    precision = one.eval["precision"][0, :, :, 0, 0]  # recalls x classes, -1 for a class without objects
    return float(precision[:, precision[0] >= 0].mean())


def _coco_dataset(truths: list[Objects]) -> dict[str, Any]:
    found = [
        {"image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for image, truth in enumerate(truths)
        for label, box in zip(truth.labels.tolist(), _coco_boxes(truth.boxes), strict=True)
    ]
    return {
        "images": [{"id": image} for image in range(len(truths))],
        "categories": [{"id": label} for label in range(CLASSES)],
        "annotations": [{**one, "id": number} for number, one in enumerate(found, start=1)],
    }


def _coco_results(detections: list[Detections]) -> list[dict[str, Any]]:
    return [
        {"image_id": image, "category_id": label, "bbox": box, "score": score}
        for image, found in enumerate(detections)
        for label, box, score in zip(
            found.labels.tolist(), _coco_boxes(found.boxes), found.scores.tolist(), strict=True
        )
    ]


def _coco_boxes(boxes: np.ndarray) -> list[list[float]]:
    exact = boxes.astype(np.float64)
    return np.concatenate([exact[:, :2], exact[:, 2:] - exact[:, :2]], axis=1).tolist()


def _masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A prediction that is right on most of 375 x 500 pixels, and a truth of tiles, a twentieth of it void."""
    random = np.random.default_rng(seed)
    truth = np.kron(random.integers(0, MASK_CLASSES, (15, 20)), np.ones((25, 25), int)).astype(np.uint8)
    is_wrong = random.random(truth.shape) < 0.3
    prediction = np.where(is_wrong, random.integers(0, MASK_CLASSES, truth.shape), truth).astype(np.uint8)
    truth[random.random(truth.shape) < 0.05] = 255
    return prediction, truth


def _cpu() -> str:
    return Runtime(torch.device("cpu"), is_bf16=False).describe()
