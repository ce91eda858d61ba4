"""Weights made elsewhere, torchvision's AlexNet and three of timm's networks, each beside a random one of its kind.

Command: ssl-inpaint bench library --data voc=voc2007:VOCdevkit
Classification, linear probes and nearest neighbours of frozen features, by the protocols for small machines. The
weights are downloaded; where there is no network such a cell fails, says why, and the others are run. A file takes
their place by --set alexnet.source=torchvision_alexnet=FILE or --set resnet18.source=timm:resnet18=FILE, and another
network by --set ROW.source=timm:NAME. Every record has the hash of the weights that were read. Cost: not measured.
"""

from __future__ import annotations

from ssl_inpaint.rows import Bench, Measurement, Row

SMALL_IMAGES = {"encoder": {"image_size": "96"}}  # of the crops; its position embeddings are resampled
ROWS = (
    Row(name="alexnet", source="torchvision:alexnet"),
    Row(name="resnet18", source="timm:resnet18"),
    Row(name="resnet50", source="timm:resnet50"),
    Row(name="dino", source="timm:vit_small_patch16_224.dino", settings=SMALL_IMAGES),
    Row(name="random-alexnet", source="random:torchvision_alexnet"),
    Row(name="random-resnet18", source="random:timm:resnet18"),
    Row(name="random-resnet50", source="random:timm:resnet50"),
    Row(name="random-vit", source="random:timm:vit_small_patch16_224", settings=SMALL_IMAGES),
)


def build() -> Bench:
    """The bench."""
    return Bench(
        rows=ROWS,
        measurements=tuple(
            Measurement(task=task, mode="frozen", protocol=f"compact_{task}", data="voc")
            for task in ("cls", "linear", "knn")
        ),
        data={"voc": "shapes"},
    )
