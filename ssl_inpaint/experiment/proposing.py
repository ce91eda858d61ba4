"""`ssl-inpaint data proposals`: objects searched in all images of a data set, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ssl_inpaint import catalog, config
from ssl_inpaint.data.proposals import open_proposals, write_proposals
from ssl_inpaint.data.specs import open_data
from ssl_inpaint.detection_metrics import proposal_recall
from ssl_inpaint.errors import UsageError
from ssl_inpaint.plans import Protocol


def search_proposals(
    spec: str, protocol: str, settings: Mapping[str, Mapping[str, str]], output: Path | None
) -> Iterator[str]:
    """Searches every split by the settings of a protocol; says what was found, split by split.

    Recall is the share of objects that are not difficult which a proposal overlaps by half. With a folder `output`, the
    proposals are written there as train.npz, val.npz and test.npz, for proposals.file.
    """
    config.refuse_unknown_parts(settings, ("data", "proposals"))
    base: Protocol = catalog.load("protocols", protocol).build()
    if base.proposals is None:
        raise UsageError(f"Protocol '{protocol}' needs no proposals: name one for Fast R-CNN, such as compact_det.")
    chosen = config.override(base.proposals, "proposals", settings.get("proposals", {}))
    for name in ("train", "val", "test"):
        split = open_data(spec, name, settings.get("data", {}), needs="objects")
        found = open_proposals(split.images, chosen)
        mean = np.mean([len(boxes) for boxes in found.boxes])
        recall = proposal_recall(found.boxes, split.objects) if split.objects is not None else np.nan
        note = "" if np.isnan(recall) else f", recall {recall:.3f} at IoU 0.5"
        yield f"{name:<5} {len(found.boxes)} images, {mean:.0f} proposals each{note}"
        if output is not None:
            write_proposals(output / f"{name}.npz", split.images, found)
            yield f"      {output / f'{name}.npz'}"
