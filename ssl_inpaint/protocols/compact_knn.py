"""Nearest neighbours for small machines (compact-knn/v1): the middle of each image at 96 pixels.

Cost for the 3,000 images of `shapes`: 20 seconds of one core.
"""

from __future__ import annotations

from ssl_inpaint.batches import Crops
from ssl_inpaint.plans import Protocol
from ssl_inpaint.train import FitConfig


def build() -> Protocol:
    """The protocol."""
    return Protocol(
        name="compact-knn",
        version=1,
        task="knn",
        head={"k": (10, 20, 100, 200), "temperature": 0.07},
        crops=Crops(size=96, store_size=112, smallest_share=1.0, largest_share=1.0),
        train=FitConfig(),  # unused, as nothing is trained
        frozen_train=FitConfig(),
    )
