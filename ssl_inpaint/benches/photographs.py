"""Every pretext task on photographs, 6,000 steps of 64 by the recipe `compact`, beside what is not trained at all.

Command: ssl-inpaint bench photographs --data photos=folder:PHOTOS --data labels=imagefolder:LABELLED
         --data voc=voc2007:VOCdevkit --data masks=maskfolder:MASKS
Columns: classification and detection on `voc`, frozen and fine-tuned, segmentation on `masks`, fine-tuned, and nearest
neighbours. It is for a GPU, which many small processes may share:
         torchrun --nproc-per-node 14 -m ssl_inpaint bench photographs ...
Cost: not run to its end. On an H200 fourteen processes trained on about 11,000 images a second together, of 5 million a
seed.
"""

from __future__ import annotations

from ssl_inpaint.benches.pretexts import HOLES
from ssl_inpaint.rows import Bench, Measurement, Row

STEPS = {"steps": "6000"}
OTHERS: dict[str, dict[str, dict[str, str]]] = {  # pretext task to its settings, where the recipe's do not suit it
    "autoencoder": {},
    "relative_position": {},
    "rotation": {},
    "jigsaw": {},
    "egomotion": {},
    "tracking": {},
    "simclr": {"crops": {"smallest_share": "1"}, "train": {"batch_size": "256", "steps": "1500"}},  # crops by itself
}
JOINT = {"pretext": {"loss": "joint"}, "train": {"beta1": "0.5"}}
COLUMNS = (
    *(("cls", mode, "voc") for mode in ("frozen", "finetune")),
    *(("det", mode, "voc") for mode in ("frozen", "finetune")),
    ("seg", "finetune", "masks"),
    ("knn", "frozen", "voc"),
)


def build() -> Bench:
    """The bench."""
    rows = [Row(name=name, source=f"{name}:compact_alexnet") for name in ("random", "kmeans", "pca")]
    for kind in HOLES:
        rows.append(_trained(f"inpainting-{kind}", "inpainting", {"pretext": {"holes": kind}}))
    rows.append(_trained("inpainting-joint", "inpainting", JOINT))
    rows += [_trained(name, name, settings) for name, settings in OTHERS.items()]
    rows.append(_trained("colorization", "colorization", {}, encoder="grey:compact_alexnet"))
    rows.append(_trained("supervised", "supervised", {}, data="labels"))
    return Bench(
        rows=tuple(rows),
        measurements=tuple(
            Measurement(task=task, mode=mode, protocol=f"compact_{task}", data=data) for task, mode, data in COLUMNS
        ),
        data={"photos": "shapes", "labels": "shapes", "voc": "shapes", "masks": "shapes"},
        seeds=2,
    )


def _trained(
    name: str, pretext: str, settings: dict[str, dict[str, str]], encoder: str | None = None, data: str = "photos"
) -> Row:
    changed = {**settings, "train": {**STEPS, **settings.get("train", {})}}
    return Row(name=name, pretext=pretext, recipe="compact", settings=changed, encoder=encoder, data=data)
