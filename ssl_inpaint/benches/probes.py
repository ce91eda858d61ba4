"""Probes of what the bench `pretexts` has trained: linear ones of every layer, nearest neighbours, and SVMs.

Command: ssl-inpaint bench probes
It works in the same folder, runs/pretexts, so rows that are trained there are measured as they are and the others are
trained first. Protocols: compact_linear, compact_knn and compact_svm, at 96 pixels, where all were trained at 64. Cost:
the protocols say what they took for the 3,000 images of `shapes`; the whole was not measured.
"""

from __future__ import annotations

from ssl_inpaint.benches import pretexts
from ssl_inpaint.rows import Bench, Measurement


def build() -> Bench:
    """The bench."""
    trained = pretexts.build()
    columns = tuple(
        Measurement(task=task, mode="frozen", protocol=f"compact_{task}", data="voc")
        for task in ("knn", "linear", "svm")
    )
    return trained.model_copy(update={"measurements": columns, "folder": "pretexts"})
