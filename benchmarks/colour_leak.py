"""Does colour alone give the classes of `shapes` away? A logistic regression on colour histograms, beside chance.

    python benchmarks/colour_leak.py

Prints test mAP (step) after training on train and val: 0.205 where chance, the classes' mean share, is 0.183 (the
default `shapes`, under a minute on one CPU core). `ssl-inpaint quickstart` has the small trained network to compare.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression

from ssl_inpaint.data.sources import decode
from ssl_inpaint.data.specs import open_data
from ssl_inpaint.metrics import mean_average_precision


def histograms(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Rooted shares of 4 x 4 x 4 colours, N x 64, and the labels N x K."""
    found = open_data("shapes", split)
    shares = []
    for position in range(len(found.images)):
        bins = (decode(found.images.read(position)) // 64).astype(np.int64) @ [16, 4, 1]
        shares.append(np.bincount(bins.ravel(), minlength=64) / bins.size)
    if found.labels is None:
        raise ValueError("shapes has labels")
    return np.sqrt(np.stack(shares)), found.labels


def main() -> None:
    """Prints both numbers."""
    (train, train_labels), (test, test_labels) = histograms("trainval"), histograms("test")
    scores = []
    for labels in train_labels.T:
        is_counted = labels != 255
        classifier = LogisticRegression(C=10, max_iter=2000).fit(train[is_counted], labels[is_counted])
        scores.append(classifier.predict_proba(test)[:, 1])
    mean, _ = mean_average_precision(np.stack(scores, axis=1), test_labels, "step")
    chance = np.mean([(labels == 1).sum() / (labels != 255).sum() for labels in test_labels.T])
    print(f"colour histograms {mean:.3f} mAP (step), chance {chance:.3f}")


if __name__ == "__main__":
    main()
