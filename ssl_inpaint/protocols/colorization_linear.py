"""Linear probes of AlexNet's layers as published (colorization-linear/v1): 140,000 iterations of 256 on ImageNet.

Source: feature_learning_tests/linear of richzhang/colorization, the protocol of the Split-Brain tables: 227-pixel
crops and mirror images, SGD 0.01 divided by ten every 40,000 iterations, momentum 0.9, weight decay 5e-4, biases at
twice the rate without decay, all layers at once. Published rows: `ssl-inpaint tables`, linear probes.
The encoder describes new crops in every step, as there; where memory allows, `--set protocol.cached_views=1` describes
each image once (five layers of a million images take 100 GB), and more learning rates are tried by, for example,
`--set protocol.learning_rates=0.003,0.01,0.03`.
Cost: not measured; it wants a large GPU.
Deviation: resizing is torch's bilinear one, not antialiased; that of the reference's Caffe was not compared.
"""

from __future__ import annotations

from ssl_inpaint.batches import Crops
from ssl_inpaint.plans import Protocol
from ssl_inpaint.train import FitConfig


def build() -> Protocol:
    """The protocol."""
    train = FitConfig(
        steps=140_000,
        batch_size=256,
        optimizer="sgd",
        learning_rate=0.01,
        beta1=0.9,
        weight_decay=5e-4,
        schedule="step",
        decay_every_steps=40_000,
        decay_factor=0.1,
        checkpoint_every_steps=1000,
    )
    return Protocol(
        name="colorization-linear",
        version=1,
        task="linear",
        head={"features": 9000, "pooling": "bilinear", "bias_learning_rate_ratio": 2.0},
        crops=Crops(size=227, store_size=256, smallest_share=227 / 256, largest_share=227 / 256),
        test_views="centre",
        cached_views=0,
        train=train,
        frozen_train=train,
    )
