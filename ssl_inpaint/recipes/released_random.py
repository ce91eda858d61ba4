"""The released inpainting network for holes anywhere: 128 pixels, random pattern, 4,000 units, joint loss.

Command: ssl-inpaint pretrain --data folder:PHOTOS --recipe released_random
Source: train_random.lua as its README runs it: one up-convolution and one convolution of the discriminator more than
for central holes, and squared errors over the whole image, visible or not.
Deviation: each image has a hole of its own, of just a quarter; train_random.lua shares one in a batch, 20 to 30 %.
Deviation: the discriminator sees the real pixels around the hole; there it sees all of the generator's output.
Deviation: hidden pixels are filled with the mean colour, where the released code permutes it (pretext.fill=released).
Cost: 5.4 GFLOP a training image, counted likewise; it wants a GPU.
"""

from __future__ import annotations

from ssl_inpaint.plans import Recipe
from ssl_inpaint.recipes.released_centre import CROPS, PRETEXT, TRAIN


def build() -> Recipe:
    """The recipe."""
    own = {"holes": "noise", "visible_weight": "1", "decoder_channels": "256,128,64,64"}
    return Recipe(encoder="dcgan", pretext_settings={**PRETEXT, **own}, crops=CROPS, train=TRAIN)
