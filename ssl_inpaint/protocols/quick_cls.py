"""Classification in seconds (quick-cls/v1): 64-pixel crops. What `quickstart` runs; compact_cls is the one to quote."""

from __future__ import annotations

from ssl_inpaint.batches import Crops
from ssl_inpaint.plans import Protocol
from ssl_inpaint.train import FitConfig


def build() -> Protocol:
    """The protocol."""
    return Protocol(
        name="quick-cls",
        version=1,
        task="cls",
        head={"hidden": (512,), "grid": 3, "standardize": True},
        crops=Crops(size=64, store_size=80, smallest_share=0.6, largest_share=1.0),
        test_views="corners",
        cached_views=4,
        learning_rates=(1e-3, 3e-3),
        train=FitConfig(steps=250, batch_size=64, optimizer="adamw", learning_rate=5e-4, weight_decay=0.01),
        frozen_train=FitConfig(steps=250, batch_size=128, optimizer="adamw", learning_rate=1e-3, weight_decay=0.01),
    )
