"""The three transfers of a small network in minutes: what `quickstart` runs, on the embedded data set.

Command: ssl-inpaint bench quick
"""

from __future__ import annotations

from ssl_inpaint.plans import Bench, Measurement, Row

RECIPE = "quick"


def build() -> Bench:
    """The bench."""
    rows = (
        Row(name="inpainting", pretext="inpainting", recipe=RECIPE),
        Row(name="autoencoder", pretext="autoencoder", recipe=RECIPE),
        Row(name="supervised", pretext="supervised", recipe=RECIPE),
        Row(name="random", source="random:{inpainting}"),
    )
    some = ("random", "inpainting", "supervised")  # the rows without which the others say little
    return Bench(
        rows=rows,
        measurements=(
            Measurement(task="cls", mode="frozen", protocol="quick_cls", data="voc"),
            *(
                Measurement(
                    task=task, mode="frozen", protocol=f"quick_{task}", data="voc", rows=some, has_predictions=True
                )
                for task in ("det", "seg")
            ),
        ),
        data={"photos": "shapes", "voc": "shapes"},
    )
