"""Detection in seconds (quick-det/v1): 80-pixel images. What `quickstart` runs; compact_det is the one to quote."""

from __future__ import annotations

from ssl_inpaint.data.proposals import ProposalConfig
from ssl_inpaint.plans import Protocol
from ssl_inpaint.scenes import Scenes
from ssl_inpaint.train import FitConfig


def build() -> Protocol:
    """The protocol."""
    fit = FitConfig(steps=150, batch_size=8, optimizer="adamw", learning_rate=1e-3, weight_decay=0.01, warmup_steps=20)
    return Protocol(
        name="quick-det",
        version=1,
        task="det",
        head={
            "hidden": (256,),
            "grid": 4,
            "largest_stride": 8,
            "standardize": True,
            "anchor_sides": (16, 32, 64),
        },
        scenes=Scenes(store_size=80, sides=(80,), test_side=80, longest=240, flip=False),
        proposals=ProposalConfig(mode="light", short_side=80),
        train=fit.model_copy(update={"learning_rate": 3e-4}),
        frozen_train=fit,
    )
