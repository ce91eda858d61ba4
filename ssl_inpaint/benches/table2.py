"""The paper's Table 2 at full scale: its controls, rivals and the context encoder, fine-tuned on VOC by its protocols.

Command: ssl-inpaint bench table2 --data imagenet=imagefolder:IMAGENET --data voc07=voc2007:VOCdevkit
         --data voc12=voc2012:VOCdevkit --dry-run
Rows: Gaussian random weights; k-means and PCA of unlabelled VOC images (Krähenbühl et al. 2016); the autoencoder;
motion (Agrawal), tracking (Wang) and relative position (Doersch) as they are here, the first two from synthetic motion
and not from video; inpainting of random regions; ImageNet's labels. What is trained takes the recipe `paper`: 100,000
steps of 256. Columns: voc07_cls, voc07_det and voc12_seg; `--set seg.data.test_list=seg11valid` is the published list
of test images, where the folder has it.
None of it was run here. Pretraining by inpainting would take 38 minutes of an H200, at the rate measured there for
recipe `paper`; of the rest the cost is not known. A short trial on the same device tells it, after which --dry-run says
it row by row: --output runs/trial --set inpainting.train.steps=200 --set cls.train.steps=200, and so for the others.
"""

from __future__ import annotations

from ssl_inpaint.rows import Bench, Measurement, Row

RECIPE = "paper"
TRAINED = {  # row to pretext task
    "autoencoder": "autoencoder",
    "egomotion": "egomotion",
    "tracking": "tracking",
    "relative-position": "relative_position",
    "inpainting": "inpainting",
    "supervised": "supervised",
}
COLUMNS = (("cls", "voc07_cls", "voc07"), ("det", "voc07_det", "voc07"), ("seg", "voc12_seg", "voc12"))


def build() -> Bench:
    """The bench."""
    untrained = (Row(name=name, source=f"{name}:alexnet") for name in ("random", "kmeans", "pca"))
    trained = (
        Row(name=name, pretext=pretext, recipe=RECIPE, data="imagenet", settings=_holes(pretext))
        for name, pretext in TRAINED.items()
    )
    return Bench(
        rows=(*untrained, *trained),
        measurements=tuple(
            Measurement(task=task, mode="finetune", protocol=protocol, data=data) for task, protocol, data in COLUMNS
        ),
        data={"imagenet": "", "voc07": "", "voc12": ""},
    )


def _holes(pretext: str) -> dict[str, dict[str, str]]:
    return {"pretext": {"holes": "region"}} if pretext == "inpainting" else {}
