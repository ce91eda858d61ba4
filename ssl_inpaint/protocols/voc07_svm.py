"""Linear SVMs on VOC 2007 as published (voc07-svm/v1): 3 folds, 26 costs, and 1 to 96 examples of each class.

Source: tools/svm of facebookresearch/fair_self_supervision_benchmark (Goyal et al. 2019): whole images squeezed to 227
pixels, about 9,000 features of unit length, positives weighing double, costs of 1e-7 to 100 and 0.5^4 to 0.5^19, five
draws of few examples. Each layer has machines of its own: `--set head.stages=conv1,conv2,conv3,conv4,conv5`.
Cost: not measured; hours on one core.
Deviation: maps are averaged over cells that need not be alike in size; the reference averages over fixed windows.
"""

from __future__ import annotations

from ssl_inpaint.batches import Crops
from ssl_inpaint.plans import Protocol
from ssl_inpaint.train import FitConfig


def build() -> Protocol:
    """The protocol."""
    costs = (*(10.0**power for power in range(-7, 3)), *(0.5**power for power in range(4, 20)))
    return Protocol(
        name="voc07-svm",
        version=1,
        task="svm",
        head={"costs": costs, "folds": 3, "positive_weight": 2.0, "samples": 5},
        crops=Crops(size=227, store_size=256, smallest_share=1.0, largest_share=1.0),
        test_views="whole",
        train=FitConfig(),  # unused: the machines have a solver of their own
        frozen_train=FitConfig(),
    )
