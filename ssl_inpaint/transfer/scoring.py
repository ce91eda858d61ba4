"""The one score of probes that give something for each class: mean average precision, or accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssl_inpaint import metrics, resampled_metrics
from ssl_inpaint.metrics import ApKind


@dataclass(frozen=True)
class Scoring:
    """Of N x K outputs, higher for what is likelier: average precision where an image may have several classes."""

    is_multilabel: bool
    kind: ApKind  # of average precision

    @property
    def metric(self) -> str:
        """`mAP (<kind>)` or `accuracy`."""
        return f"mAP ({self.kind})" if self.is_multilabel else "accuracy"

    def score(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """A fraction; labels are N x K of 1, 0 and 255 for several classes, N for one."""
        if self.is_multilabel:
            return metrics.mean_average_precision(outputs, labels, self.kind)[0]
        return metrics.accuracy(outputs.argmax(axis=1), labels)

    def resampled(self, outputs: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """R fractions, for N x R counts of how often each example is in each resampling."""
        if self.is_multilabel:
            return resampled_metrics.mean_average_precision_of_scores(outputs, labels, self.kind, counts)
        return resampled_metrics.accuracy(outputs.argmax(axis=1), labels, counts)
