"""Scores of segmentation, all read from one confusion matrix of the whole data set: add up `confusion` of every image.

Scores of single images must not be averaged instead: that weights a pixel by the size of its image and by how little of
its class the image holds, and comes out many points apart. The matrix is K x K counts, rows the truth, columns the
prediction. All results are fractions; nan where nothing is counted.
"""

from __future__ import annotations

import numpy as np

from ssl_inpaint.metrics import NOT_COUNTED


def confusion(prediction: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """K x K int64: how many pixels of class `row` were given class `column`; those whose truth is 255 are left out.

    Both are whole numbers of one shape, usually H x W; what is predicted where the truth is 255 does not matter.
    ValueError for unequal shapes, other values than 0 ... K - 1 on counted pixels, or K outside 1 ... 255.
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    if not 1 <= classes <= NOT_COUNTED:
        raise ValueError(f"There are {classes} classes: there must be 1 to {NOT_COUNTED}, for {NOT_COUNTED} is void.")
    if prediction.shape != truth.shape:
        raise ValueError(f"The prediction {prediction.shape} and the truth {truth.shape} must have one shape.")
    predicted_bytes, true_bytes = _as_bytes(prediction), _as_bytes(truth)
    if predicted_bytes is not None and true_bytes is not None:
        pairs = _pairs(predicted_bytes, true_bytes)
        matrix = pairs[:classes, :classes]
        if matrix.sum() == pairs[:NOT_COUNTED].sum():
            return matrix.copy()
    counted = truth != NOT_COUNTED  # what is left is wrong, or predicted where it does not matter
    predicted = _in_range("prediction", prediction[counted], classes)
    true = _in_range("truth", truth[counted], classes)
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)


def class_iou(matrix: np.ndarray) -> np.ndarray:
    """K float64: pixels in both truth and prediction over pixels in either; nan for a class in neither."""
    matrix = _checked(matrix)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - np.diag(matrix)
    return _share(np.diag(matrix), union)


def mean_iou(matrix: np.ndarray) -> float:
    """The mean IoU over the classes that occur in the truth, background included.

    A class absent from the truth is left out even if it is predicted: its IoU can only be 0 or nan, and one stray pixel
    would decide which; those pixels already cost the classes that they belong to.
    Deviation: VOCevalseg.m of the VOC devkit averages all K, so a class in neither truth nor prediction makes its mean
    nan, and FCN's `nanmean` counts an absent but predicted class as 0. All three agree where every class occurs in the
    truth, as in VOC's splits; ours is also defined on a small part of one.
    """
    return _mean(class_iou(matrix)[_occurs(matrix)])


def pixel_accuracy(matrix: np.ndarray) -> float:
    """The share of counted pixels that are right."""
    matrix = _checked(matrix)
    return float(_share(np.trace(matrix), matrix.sum()))


def mean_class_accuracy_of_pixels(matrix: np.ndarray) -> float:
    """The mean over the classes that occur in the truth of the share of each one's pixels that are right."""
    matrix = _checked(matrix)
    return _mean(_share(np.diag(matrix), matrix.sum(axis=1))[_occurs(matrix)])


def _as_bytes(values: np.ndarray) -> np.ndarray | None:
    """None where not all of them are whole numbers from 0 to 255."""
    if values.dtype == np.uint8:
        return values
    if not np.issubdtype(values.dtype, np.integer) or (values.size and (values.min() < 0 or values.max() > 255)):
        return None
    return values.astype(np.uint8)


def _pairs(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """256 x 256: how often each value of the truth meets each of the prediction. To select pixels takes far longer."""
    keys = true.astype(np.uint16)
    keys <<= 8
    keys |= predicted
    return np.bincount(keys.ravel(), minlength=2**16).reshape(256, 256)


def _in_range(what: str, values: np.ndarray, classes: int) -> np.ndarray:
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"The {what} is {values.dtype}: classes must be whole numbers.")
    if values.size and (values.min() < 0 or values.max() >= classes):
        raise ValueError(
            f"Counted pixels of the {what} are {values.min()} to {values.max()}: they must be 0 to {classes - 1}."
        )
    return values.astype(np.int64)


def _checked(matrix: np.ndarray) -> np.ndarray:
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or (matrix < 0).any():
        raise ValueError(f"The confusion matrix {matrix.shape} must be K x K counts, none below 0.")
    return matrix


def _occurs(matrix: np.ndarray) -> np.ndarray:
    return np.asarray(matrix).sum(axis=1) > 0


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
