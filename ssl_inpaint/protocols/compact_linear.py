"""Linear probes for small machines (compact-linear/v1): every layer at ten learning rates, 96-pixel crops.

Four random crops of each image are described once, at about 2,300 features a layer; the learning rate of each layer is
chosen on val, its head is trained anew on train and val, and test is scored once.
Cost for the 3,000 images of `shapes`, 8 layers: 2 minutes of one core. All heads at once take 1/5 of the time of one
learning rate after another, and 1/7 of that of one head after another.
"""

from __future__ import annotations

from ssl_inpaint.batches import Crops
from ssl_inpaint.plans import Protocol
from ssl_inpaint.train import FitConfig


def build() -> Protocol:
    """The protocol."""
    train = FitConfig(
        steps=600,
        batch_size=128,
        optimizer="sgd",
        learning_rate=0.1,
        beta1=0.9,
        weight_decay=5e-4,
        checkpoint_every_steps=600,
    )
    return Protocol(
        name="compact-linear",
        version=1,
        task="linear",
        head={"features": 2304},
        crops=Crops(size=96, store_size=112, smallest_share=0.6, largest_share=1.0),
        test_views="centre",
        cached_views=4,
        learning_rates=(0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
        train=train,
        frozen_train=train,
    )
