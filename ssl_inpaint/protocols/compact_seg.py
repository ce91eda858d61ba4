"""Segmentation for small machines (compact-seg/v1): a small FCN on images of about 128 pixels' short side."""

from __future__ import annotations

from ssl_inpaint.plans import Protocol
from ssl_inpaint.scenes import Scenes
from ssl_inpaint.train import FitConfig


def build() -> Protocol:
    """The protocol."""
    return Protocol(
        name="compact-seg",
        version=1,
        task="seg",
        head={"hidden": (256,), "kernel": 3, "largest_stride": 8, "standardize": True},
        scenes=Scenes(store_size=144, sides=(112, 128, 144), test_side=128, longest=432),
        train=FitConfig(
            steps=300,
            batch_size=8,
            optimizer="adamw",
            learning_rate=3e-4,
            weight_decay=0.01,
            warmup_steps=50,
            checkpoint_every_steps=100,
        ),
        frozen_train=FitConfig(
            steps=400,
            batch_size=16,
            optimizer="adamw",
            learning_rate=1e-3,
            weight_decay=0.01,
            warmup_steps=50,
            checkpoint_every_steps=400,
        ),
    )
