"""The paper's classification protocol on VOC 2007 (voc07-cls/v1): 80,000 iterations of 16, fc6 to fc8 anew.

Source: philkr/voc-classification, the code behind Table 2 (reference settings: SGD 1e-3 halved every 10,000
iterations, momentum 0.9, weight decay 1e-6, gradient clip 10, biases at twice the rate, Gaussian head weights 0.01).
Cost: about an hour on a large GPU at AlexNet's size; days on a CPU.
Deviation: crops are uniform in the window's side rather than in the resizing factor, over the same range of sizes.
Deviation: the test averages the logits of ten fixed crops, where the reference draws ten at random.
"""

from __future__ import annotations

from ssl_inpaint.batches import Crops
from ssl_inpaint.plans import Protocol
from ssl_inpaint.train import FitConfig


def build() -> Protocol:
    """The protocol."""
    train = FitConfig(
        steps=80_000,
        batch_size=16,
        optimizer="sgd",
        learning_rate=1e-3,
        beta1=0.9,
        weight_decay=1e-6,
        schedule="step",
        decay_every_steps=10_000,
        decay_factor=0.5,
        clip_norm=10.0,
        checkpoint_every_steps=1000,
    )
    return Protocol(
        name="voc07-cls",
        version=1,
        task="cls",
        head={"hidden": (4096, 4096), "grid": 6, "initial_deviation": 0.01, "bias_learning_rate_ratio": 2.0},
        # 227-pixel windows of images resized by 0.5 to 2: 0.3 to all of a 375-pixel short side.
        crops=Crops(size=227, store_size=320, smallest_share=0.3, largest_share=1.0),
        test_views="ten",
        train=train,
        frozen_train=train,
    )
