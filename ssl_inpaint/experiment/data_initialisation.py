"""Data-dependent initialisation: convolutions made of unlabelled images, with nothing trained; a row beside random's.

What `--from kmeans:ENCODER` and `--from pca:ENCODER` stand for, to be measured as they are or pretrained further. One
convolution after the other, in the order in which they are called: its filters become the centroids or the principal
components of the patches that it sees, then each of its outputs gets deviation 1 and, where it has a bias, mean 0.1.
Groups of channels are taken one by one.

Source: Krähenbühl, Doersch, Donahue, Darrell, "Data-dependent Initializations of Convolutional Neural Networks", ICLR
2016, as their published code (philkr/magic_init, `magicInitialize`) does it: 10 batches of 16 images, bias mean 0.1.
Deviation: linear layers, those of heads too, stay random, as they are in every row; theirs are treated likewise.
Deviation: BatchNorm, which theirs cannot have, gets scale 1 and offset 0 and its statistics before the next layer.
Deviation: the images are crops as training shows them, of the training split; theirs are whole images, resized.
Measured, one seed, the quick recipe's encoder on `shapes`, quick-cls/v1, frozen: components 36.2 % mAP, centroids
26.5 %, random weights 24.0 %. Made in about half a minute of one CPU core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint import train
from ssl_inpaint.batches import Crops, ImageBatches
from ssl_inpaint.checkpoint import BY_DATA, Card
from ssl_inpaint.core import Encoder
from ssl_inpaint.data.device_store import Cuttable
from ssl_inpaint.errors import Failure
from ssl_inpaint.experiment import calibration, rescaling
from ssl_inpaint.experiment.data_filters import filters
from ssl_inpaint.runtime import Runtime, seed_for

Images = Callable[[int, int], Iterable[Tensor]]  # so many batches, of that many unlabelled training images each
PATCH_VALUES = 2**25  # at most, of all patches of a layer: 128 MiB; the reference's limit is 2**27


def random_crops(
    store: Cuttable, crops: Crops, seed: int, runtime: Runtime, members: Tensor | None = None
) -> Callable[[int, int], Iterator[Tensor]]:
    """Images as training shows them; of those at `members` only, where given."""

    def images(count: int, batch_size: int) -> Iterator[Tensor]:
        batches = ImageBatches(store, None, crops, batch_size, seed_for(seed, "calibration"), members)
        return (train.on_device(batches.at(step), runtime).images for step in range(count))

    return images


def prepare(encoder: Encoder, card: Card, images: Images) -> Card:
    """Readies in place an encoder that nothing was trained for, by unlabelled images; leaves a trained one as it is.

    Weights, where the card says by which data-dependent kind, and then BatchNorm's statistics. The card that comes
    back counts the seconds of the former.
    """
    if card.pretext not in ("none", *BY_DATA):
        return card
    began = time.monotonic()
    if card.pretext in BY_DATA:
        initialise(encoder, card.pretext, list(images(rescaling.BATCHES, rescaling.BATCH_SIZE)), card.seed)
        card = card.model_copy(update={"pretraining_seconds": time.monotonic() - began})
    calibration.calibrate(encoder, images(calibration.BATCHES, calibration.BATCH_SIZE))
    return card


@torch.no_grad()
def initialise(encoder: Encoder, kind: str, batches: Sequence[Tensor], seed: int) -> None:
    """New weights for every convolution that the encoder calls, in place; `kind` is "kmeans" or "pca".

    `batches` are B x 3 x H x W in [0, 1], on the encoder's device. The same for the same batches and seed; leaves the
    encoder in eval mode. Failure where what a layer sees is not finite.
    """
    generator = torch.Generator().manual_seed(seed_for(seed, "data initialisation"))
    encoder.eval()
    for module in encoder.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_parameters()
    with torch.autocast(batches[0].device.type, enabled=False):
        for layer in rescaling.layers_in_order(encoder, encoder, batches[0]):
            if isinstance(layer, nn.Conv2d):
                calibration.calibrate(encoder, batches)  # as the layers below now are
                _fill(layer, kind, _patches(encoder, layer, batches, generator), generator)
                rescaling.rescale(layer, encoder, batches, "within", generator, untrained=layer, name=kind)


def _fill(layer: nn.Conv2d, kind: str, patches: Tensor, generator: torch.Generator) -> None:
    groups = patches.chunk(layer.groups, dim=1)  # channels of a patch lie one after the other
    found = [filters(kind, part, layer.out_channels // layer.groups, generator) for part in groups]
    layer.weight.copy_(torch.cat(found).view_as(layer.weight))


def _patches(encoder: Encoder, layer: nn.Conv2d, batches: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """N x D on the CPU: what the layer sees at random places, at as many of each image."""
    size = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
    images = sum(len(batch) for batch in batches)
    count, found = max(1, PATCH_VALUES // size // images), list[Tensor]()

    def look(called: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.extend(_places(layer, maps, count, generator) for maps in inputs[0].split(1))

    with layer.register_forward_pre_hook(look):
        for batch in batches:
            encoder(batch)
    patches = torch.cat(found)
    if not patches.isfinite().all():
        raise Failure("Data-dependent initialisation stopped as a layer sees values that are not finite.")
    return patches


def _places(layer: nn.Conv2d, maps: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """At most `count` x D patches of 1 x C x H x W, drawn without replacement."""
    # Deviation: padding of other kinds counts as zeros, and none is made where it has a name in place of a width.
    padding = (0, 0) if isinstance(layer.padding, str) else layer.padding
    seen = functional.unfold(maps, layer.kernel_size, layer.dilation, padding, layer.stride)[0]
    chosen = torch.randperm(seen.shape[1], generator=generator)[:count].to(maps.device)
    return seen[:, chosen].T.float().cpu()
