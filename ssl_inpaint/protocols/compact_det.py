"""Detection for small machines (compact-det/v1): Fast R-CNN on images of 128 pixels' short side.

Proposals by selective search at that size, regions pooled 4 x 4 at stride 8, one hidden layer of 512.
"""

from __future__ import annotations

from ssl_inpaint.data.proposals import ProposalConfig
from ssl_inpaint.plans import Protocol
from ssl_inpaint.scenes import Scenes
from ssl_inpaint.train import FitConfig


def build() -> Protocol:
    """The protocol."""
    return Protocol(
        name="compact-det",
        version=1,
        task="det",
        head={
            "hidden": (512,),
            "grid": 4,
            "largest_stride": 8,
            "standardize": True,
            "anchor_sides": (16, 32, 64, 128),
        },
        scenes=Scenes(store_size=128, sides=(128,), test_side=128, longest=384),
        proposals=ProposalConfig(mode="light", short_side=128),
        train=FitConfig(
            steps=400,
            batch_size=8,
            optimizer="adamw",
            learning_rate=3e-4,
            weight_decay=0.01,
            warmup_steps=50,
            checkpoint_every_steps=100,
        ),
        frozen_train=FitConfig(
            steps=800,
            batch_size=8,
            optimizer="adamw",
            learning_rate=1e-3,
            weight_decay=0.01,
            warmup_steps=50,
            checkpoint_every_steps=400,
        ),
    )
