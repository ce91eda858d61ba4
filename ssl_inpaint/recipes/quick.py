"""Pretraining in under a minute on 2 CPU cores: AlexNet at 64 pixels, 280 steps of 64. What `quickstart` runs.

Command: ssl-inpaint pretrain --data shapes --recipe quick
"""

from __future__ import annotations

from ssl_inpaint.batches import Crops
from ssl_inpaint.plans import Recipe
from ssl_inpaint.train import FitConfig


def build() -> Recipe:
    """The recipe."""
    return Recipe(
        encoder="compact_alexnet",
        crops=Crops(size=64, store_size=80, smallest_share=0.6, largest_share=1.0),
        train=FitConfig(
            steps=280,
            batch_size=64,
            optimizer="adam",
            learning_rate=1e-3,
            warmup_steps=20,
            sample_every_steps=140,
            checkpoint_every_steps=140,
        ),
    )
