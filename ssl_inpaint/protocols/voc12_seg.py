"""The paper's segmentation protocol on VOC 2012 (voc12-seg/v1): FCN-32s on AlexNet, 100,000 iterations of 20.

Source: shelhamer/fcn.berkeleyvision.org, voc-fcn-alexnet: one image at a time, gradients of 20 summed, SGD at a
constant 1e-4, momentum 0.9, weight decay 5e-4, fc6 as a 6 x 6 convolution, softmax loss over counted pixels. Published
numbers train on SBD and are on seg11valid: `voc2012:VOCdevkit` with SBD beside it, and --set data.test_list=seg11valid.
Cost: not measured; it wants a large GPU.
Deviation: images are shown with a short side of 375 pixels and mirrored at random, 20 a step, padded to the largest;
FCN shows them as they are, one by one, and divides the loss by the pixels of each.
Deviation: fc6 and fc7 are drawn anew, as the paper does, and not ImageNet's; the scores' layer too, which FCN begins
at zero, and all biases learn twice as fast without decay.
"""

from __future__ import annotations

from ssl_inpaint.plans import Protocol
from ssl_inpaint.scenes import Scenes
from ssl_inpaint.train import FitConfig


def build() -> Protocol:
    """The protocol."""
    train = FitConfig(
        steps=100_000,
        batch_size=20,
        optimizer="sgd",
        learning_rate=1e-4,
        beta1=0.9,
        weight_decay=5e-4,
        schedule="constant",
        checkpoint_every_steps=1000,
    )
    return Protocol(
        name="voc12-seg",
        version=1,
        task="seg",
        head={"initial_deviation": 0.01, "bias_learning_rate_ratio": 2.0},
        scenes=Scenes(store_size=375, sides=(375,), test_side=375, longest=500),
        train=train,
        frozen_train=train,
    )
