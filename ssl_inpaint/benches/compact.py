"""Table 2's columns on a small machine: three controls and the context encoder, frozen and fine-tuned, three seeds.

Command: ssl-inpaint bench compact --data photos=folder:PHOTOS --data labels=imagefolder:LABELLED
         --data voc=voc2007:VOCdevkit --data masks=maskfolder:MASKS
"""

from __future__ import annotations

from ssl_inpaint.rows import Bench, Measurement, Row

SETTINGS = {"train": {"steps": "1500"}}


def build() -> Bench:
    """The bench."""
    rows = (
        Row(name="inpainting", pretext="inpainting", recipe="compact", settings=SETTINGS),
        Row(name="autoencoder", pretext="autoencoder", recipe="compact", settings=SETTINGS),
        Row(name="supervised", pretext="supervised", recipe="compact", settings=SETTINGS, data="labels"),
        Row(name="random", source="random:{inpainting}"),
    )
    columns = (("cls", "voc"), ("det", "voc"), ("seg", "masks"))
    return Bench(
        rows=rows,
        measurements=tuple(
            Measurement(task=task, mode=mode, protocol=f"compact_{task}", data=data, has_predictions=task != "cls")
            for mode in ("frozen", "finetune")
            for task, data in columns
        ),
        data={"photos": "shapes", "labels": "shapes", "voc": "shapes", "masks": "shapes"},
        seeds=3,
    )
