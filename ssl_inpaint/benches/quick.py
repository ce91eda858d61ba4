"""The three transfers of a small network in minutes: what `quickstart` runs, on the embedded data set.

Command: ssl-inpaint bench quick
"""

from __future__ import annotations

from ssl_inpaint.rows import Bench, Measurement, Row

RECIPE = "quick"


def build() -> Bench:
    """The bench."""
    return Bench(
        rows=(
            Row(name="inpainting", pretext="inpainting", recipe=RECIPE),
            Row(name="supervised", pretext="supervised", recipe=RECIPE),
            Row(name="random", source="random:{inpainting}"),
        ),
        measurements=tuple(
            Measurement(task=task, mode="frozen", protocol=f"quick_{task}", data="voc", has_predictions=task != "cls")
            for task in ("cls", "det", "seg")
        ),
        data={"photos": "shapes", "voc": "shapes"},
    )
