"""Every pretext task with one small network on the embedded data set, each beside random: classification, frozen.

Command: ssl-inpaint bench pretexts
Each row is trained by the `quick` recipe but for the masked autoencoder, whose encoder is a transformer (`mae`) and
which stands beside a random one of its own. Egomotion has four times as many steps, of twice as many images: it is at
chance for some hundred of them. Pretraining took 3 to 12 minutes a row of 250 steps, where it was run, on one CPU core
that was shared. `ssl-inpaint bench probes` measures the same runs by probes.
"""

from __future__ import annotations

from ssl_inpaint.rows import Bench, Measurement, Row

HOLES = ("centre", "blocks", "region")
OTHERS: dict[str, dict[str, dict[str, str]]] = {  # pretext task to its settings, where the recipe's do not suit it
    "autoencoder": {},
    "relative_position": {},
    "rotation": {},
    "jigsaw": {},
    "egomotion": {"train": {"steps": "1000", "batch_size": "64", "learning_rate": "1e-3"}},  # slow to begin
    "tracking": {},
    "simclr": {"crops": {"smallest_share": "1"}},  # the task crops by itself
    "supervised": {},
}
GREY = {"encoder": {"settings": '{"channels": [48, 128, 192, 192, 128]}'}}
PATCHES = {  # 64 of them, in images of the protocol's size
    "encoder": {"image_size": "64", "patch_size": "8"},
    "crops": {"size": "64", "store_size": "80"},
    "train": {"steps": "250", "warmup_steps": "40"},
}
NARROW = {"encoder": {"channels": "48,128,192,192,128"}}  # the encoder of `quick`


def build() -> Bench:
    """The bench."""
    inpainting = [
        Row(name=f"inpainting-{kind}", pretext="inpainting", recipe="quick", settings={"pretext": {"holes": kind}})
        for kind in HOLES
    ]
    joint = {"pretext": {"loss": "joint", "discriminator_channels": "16"}, "train": {"beta1": "0.5"}}
    return Bench(
        rows=(
            Row(name="random", source="random:compact_alexnet", settings=NARROW),
            Row(name="kmeans", source="kmeans:compact_alexnet", settings=NARROW),
            Row(name="pca", source="pca:compact_alexnet", settings=NARROW),
            *inpainting,
            Row(name="inpainting-joint", pretext="inpainting", recipe="quick", settings=joint),
            *(Row(name=name, pretext=name, recipe="quick", settings=settings) for name, settings in OTHERS.items()),
            Row(
                name="colorization",
                pretext="colorization",
                recipe="quick",
                encoder="grey:compact_alexnet",
                settings=GREY,
            ),
            Row(name="masked-autoencoder", pretext="masked_autoencoder", recipe="mae", settings=PATCHES),
            Row(name="random-vit", source="random:{masked-autoencoder}"),
        ),
        measurements=(Measurement(task="cls", mode="frozen", protocol="quick_cls", data="voc"),),
        data={"photos": "shapes", "voc": "shapes"},
    )
