"""Segmentation in seconds (quick-seg/v1): 80-pixel images. What `quickstart` runs; compact_seg is the one to quote."""

from __future__ import annotations

from ssl_inpaint.plans import Protocol
from ssl_inpaint.scenes import Scenes
from ssl_inpaint.train import FitConfig


def build() -> Protocol:
    """The protocol."""
    fit = FitConfig(steps=120, batch_size=16, optimizer="adamw", learning_rate=1e-3, weight_decay=0.01, warmup_steps=20)
    return Protocol(
        name="quick-seg",
        version=1,
        task="seg",
        head={"hidden": (128,), "kernel": 3, "largest_stride": 8, "standardize": True},
        scenes=Scenes(store_size=80, sides=(80,), test_side=80, longest=240, flip=False),
        train=fit.model_copy(update={"learning_rate": 3e-4}),
        frozen_train=fit,
    )
