"""The paper's detection protocol on VOC 2007 (voc07-det/v1): Fast R-CNN and selective search, as published.

Source: rbgirshick/fast-rcnn's CaffeNet settings: trainval, 40,000 iterations of 2 images, SGD 1e-3 divided by ten after
30,000, momentum 0.9, weight decay 5e-4, 64 regions an image with a quarter foreground, mirrored, short side 600 and
long one 1,000 at most, 2,000 proposals, RoI pooling 6 x 6 at 1/16, NMS at 0.3. conv1 learns, which those settings fix
and random weights need; `--set head.fixed=conv1.` fixes it. Networks trained from scratch are known to want more
iterations: --set train.steps=150000 --set train.decay_every_steps=50000.
Multi-scale, as theirs: --set scenes.sides=480,576,688,864,1200 --set scenes.longest=2000.
Cost: not measured; it wants a large GPU. The proposals are searched once, on all cores.
Deviation: conv1 and pooling are not padded anew; regions are moved to where the cells look.
Deviation: images are decoded at a short side of 600 pixels and shown from there.
"""

from __future__ import annotations

from ssl_inpaint.data.proposals import ProposalConfig
from ssl_inpaint.plans import Protocol
from ssl_inpaint.scenes import Scenes
from ssl_inpaint.train import FitConfig


def build() -> Protocol:
    """The protocol."""
    train = FitConfig(
        steps=40_000,
        batch_size=2,
        optimizer="sgd",
        learning_rate=1e-3,
        beta1=0.9,
        weight_decay=5e-4,
        schedule="step",
        decay_every_steps=30_000,
        decay_factor=0.1,
        checkpoint_every_steps=1000,
    )
    return Protocol(
        name="voc07-det",
        version=1,
        task="det",
        head={"pooling": "max", "initial_deviation": 0.01, "bias_learning_rate_ratio": 2.0},
        scenes=Scenes(store_size=600, sides=(600,), test_side=600, longest=1000),
        proposals=ProposalConfig(mode="fast", most=2000),
        train=train,
        frozen_train=train,
    )
