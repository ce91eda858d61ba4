"""BatchNorm statistics for encoders that were never trained: without them a random network is no fair baseline."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ssl_inpaint.core import Encoder

BATCHES = 20  # how many set the statistics
BATCH_SIZE = 64


def calibrate(encoder: Encoder, batches: Iterable[Tensor]) -> None:
    """Sets every BatchNorm's mean and variance to the averages over `batches`, each B x 3 x H x W in [0, 1].

    A random network as built has means 0 and variances 1 there, which describe nothing. Reads no labels, draws no
    random numbers, and leaves the encoder in eval mode; does nothing to one without BatchNorm.
    """
    encoder.eval()
    norms = [module for module in encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.train()  # it alone: dropout stays off
    with torch.no_grad():
        for images in batches:
            encoder(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    encoder.eval()
