"""Linear SVMs for small machines (compact-svm/v1): three costs, about 1,000 features, 96-pixel images.

Cost for the 3,000 images of `shapes`, 10 classes: 2.3 minutes of one core, 8 numbers of examples among them.
"""

from __future__ import annotations

from ssl_inpaint.batches import Crops
from ssl_inpaint.plans import Protocol
from ssl_inpaint.train import FitConfig


def build() -> Protocol:
    """The protocol."""
    return Protocol(
        name="compact-svm",
        version=1,
        task="svm",
        head={"features": 1024, "costs": (0.1, 1.0, 10.0), "solver": "primal"},
        crops=Crops(size=96, store_size=112, smallest_share=1.0, largest_share=1.0),
        test_views="whole",
        train=FitConfig(),  # unused: the machines have a solver of their own
        frozen_train=FitConfig(),
    )
