"""The paper's feature learning: CaffeNet at 227 pixels, random regions, 100,000 iterations of 256, Adam 1e-4.

Command: ssl-inpaint pretrain --data imagefolder:IMAGENET --recipe paper --set pretext.decoder_normalization=none
Cost: 14 hours on the paper's Titan X; 38 minutes on an H200 by 11,250 images a second, seen over 40 steps on ready
batches. The learning rate is recalled, not verified, for random regions. The batch size
of feature learning is not stated in the sources at hand, and 256 is this suite's choice, as is Adam's beta1 of 0.9
(0.5 in the released adversarial code).
"""

from __future__ import annotations

from ssl_inpaint.batches import Crops
from ssl_inpaint.plans import Recipe
from ssl_inpaint.train import FitConfig


def build() -> Recipe:
    """The recipe."""
    return Recipe(
        encoder="alexnet",
        pretext_settings={"dropout": "0.5", "decoder_normalization": "none"},
        crops=Crops(size=227, store_size=256, smallest_share=227 / 256, largest_share=227 / 256),
        train=FitConfig(
            steps=100_000,
            batch_size=256,
            optimizer="adam",
            learning_rate=1e-4,
            schedule="constant",
            checkpoint_every_steps=1000,
            sample_every_steps=5000,
        ),
    )
