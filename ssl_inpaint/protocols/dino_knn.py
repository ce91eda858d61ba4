"""Nearest neighbours as published for ImageNet (dino-knn/v1): the middle 224 of 256 pixels, k 10 to 200, T 0.07.

Source: eval_knn.py of facebookresearch/dino (Caron et al. 2021), which finds 20 neighbours best for most networks and
scores ImageNet's val; as here every split but test is known to it. Cost: not measured.
Deviation: images are resized bilinearly, not bicubically; the features are the deepest map's average.
"""

from __future__ import annotations

from ssl_inpaint.batches import Crops
from ssl_inpaint.plans import Protocol
from ssl_inpaint.train import FitConfig


def build() -> Protocol:
    """The protocol."""
    return Protocol(
        name="dino-knn",
        version=1,
        task="knn",
        head={"k": (10, 20, 100, 200), "temperature": 0.07},
        crops=Crops(size=224, store_size=256, smallest_share=224 / 256, largest_share=224 / 256),
        train=FitConfig(),  # unused, as nothing is trained
        frozen_train=FitConfig(),
    )
