"""The paper's inpainting with AlexNet: pool-free, channel-wise layer, 227 pixels, reconstruction loss.

Command: ssl-inpaint pretrain --data imagefolder:IMAGENET --recipe pool_free
As `paper`, but that convolutions at the same stride replace pooling: it fills finer, and the paper takes the network
with pooling for its features. The supplement prefers 128 pixels to 227 for filling: `released_centre`.
"""

from __future__ import annotations

from ssl_inpaint.plans import Recipe
from ssl_inpaint.recipes import paper


def build() -> Recipe:
    """The recipe."""
    return paper.build().model_copy(update={"encoder_settings": {"pooling": "convolution"}})
