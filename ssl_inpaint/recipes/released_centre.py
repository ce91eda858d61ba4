"""The released inpainting network for central holes: 128 pixels, 64-pixel target, 4,000 units, joint loss.

Command: ssl-inpaint pretrain --data folder:PHOTOS --recipe released_centre
Source: train.lua as its README runs it, with an overlap of 4 pixels; the paper's 7 are
--set pretext.overlap_pixels=7 --set pretext.hole_fraction=0.152587890625 (a 50-pixel hole). The README trains 500
epochs: of the paper's 14,900 street views (recalled) that is 116,000 steps of 64. train.lua has the discriminator's
rate as the base and the generator's at ten times that; here the generator's is the base.
Deviation: hidden pixels are filled with the mean colour, where train.lua permutes it (pretext.fill=released).
Cost: 3.7 GFLOP a training image by torch's counter, multiply and add counted as two; it wants a GPU. An H200 was seen
to train 16,500 images a second on ready batches, where the step is captured (5,000 where not): all of it in 8 minutes.
"""

from __future__ import annotations

from ssl_inpaint.batches import Crops
from ssl_inpaint.plans import Recipe
from ssl_inpaint.train import FitConfig

PRETEXT = {
    "bottleneck": "full",
    "bottleneck_units": "4000",
    "decoder_deviation": "0.02",
    "loss": "joint",
}
CROPS = Crops(size=128, store_size=350, smallest_share=128 / 350, largest_share=128 / 350)
TRAIN = FitConfig(
    steps=116_000,
    batch_size=64,
    optimizer="adam",
    learning_rate=2e-3,
    beta1=0.5,
    schedule="constant",
    cuda_graph=True,
    checkpoint_every_steps=1000,
    sample_every_steps=2000,
)


def build() -> Recipe:
    """The recipe."""
    own = {
        "holes": "centre",
        "hole_fraction": str((56 / 128) ** 2),
        "overlap_pixels": "4",
        "predicts": "target",
        "decoder_channels": "256,128,64",
    }
    return Recipe(encoder="dcgan", pretext_settings={**PRETEXT, **own}, crops=CROPS, train=TRAIN)
