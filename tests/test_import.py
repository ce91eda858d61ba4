"""Weights made elsewhere, taken in by the verb: they compute what they did, and what is of another make is refused."""

from __future__ import annotations

import shlex
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint import checkpoint
from ssl_inpaint.cli import main
from ssl_inpaint.experiment.generators import open_generator
from ssl_inpaint.images import RELEASED_FILL

UNITS = 10
SETTINGS = "--set encoder.channels=4,4,8,16,32 --set pretext.bottleneck_units=10 --set pretext.decoder_channels=16,8,4"
CAFFE_SETTINGS = "--set encoder.channels=4,6,6,6,4"
CAFFE_SHAPES = ((4, 3, 11, 11), (6, 2, 5, 5), (6, 6, 3, 3), (6, 3, 3, 3), (4, 3, 3, 3))


@pytest.fixture(scope="module", autouse=True)
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with a port's weights, Caffe's and a photograph."""
    folder = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_INPAINT_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        torch.save({f"module.{name}": tensor for name, tensor in port().state_dict().items()}, "netG.pth")
        Path("ce.caffemodel").write_bytes(caffemodel(*caffe_layers()))
        pixels = np.random.default_rng(0).integers(0, 256, (90, 150, 3), dtype=np.uint8)
        Image.fromarray(pixels).save("photo.png")
        yield folder


@pytest.fixture(scope="module")
def imported(desk: Path) -> str:
    done(f"import netG.pth {SETTINGS} --output runs/imported")
    return "runs/imported"


@pytest.fixture(scope="module")
def features(desk: Path) -> str:
    done(f"import ce.caffemodel {CAFFE_SETTINGS} --output runs/features")
    return "runs/features"


def port(units: int = UNITS) -> nn.Module:
    """The layout of most ports, one Sequential `main`, at a sixteenth of the channels; with lived-in BatchNorms."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((3, 4), (4, 4), (4, 8), (8, 16), (16, 32)):
        norm = [nn.BatchNorm2d(after)] if before > 3 else []
        layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), *norm, nn.LeakyReLU(0.2)]
    layers += [nn.Conv2d(32, units, 4, bias=False), nn.BatchNorm2d(units), nn.LeakyReLU(0.2)]
    for before, after, stride, padding in ((units, 32, 1, 0), (32, 16, 2, 1), (16, 8, 2, 1), (8, 4, 2, 1)):
        up = nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False)
        layers += [up, nn.BatchNorm2d(after), nn.ReLU()]
    layers += [nn.ConvTranspose2d(4, 3, 4, 2, 1, bias=False), nn.Tanh()]
    network = nn.Sequential(OrderedDict(main=nn.Sequential(*layers)))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return network.eval()


def caffe_layers() -> tuple[list[np.ndarray], list[np.ndarray]]:
    generator = np.random.default_rng(1)
    weights = [generator.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32) for shape in CAFFE_SHAPES]
    return weights, [generator.normal(0, 1, len(weight)).astype(np.float32) for weight in weights]


def caffemodel(weights: list[np.ndarray], biases: list[np.ndarray]) -> bytes:
    """The bytes that Caffe writes: NetParameter.layer = 100, each with a name (1) and blobs (7); fc6 behind them."""

    def varint(value: int) -> bytes:
        rest, low = divmod(value, 128)
        return bytes([low]) if rest == 0 else bytes([low | 128]) + varint(rest)

    def field(number: int, content: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(content)) + content

    def blob(array: np.ndarray) -> bytes:
        shape = field(7, field(1, b"".join(varint(size) for size in array.shape)))
        return field(7, field(5, array.astype("<f4").tobytes()) + shape)

    layers = [(f"conv{i}", pair) for i, pair in enumerate(zip(weights, biases, strict=True), 1)]
    layers.append(("fc6", (np.zeros((8, 4 * 6 * 6)), np.zeros(8))))
    return b"".join(field(100, field(1, name.encode()) + b"".join(map(blob, pair))) for name, pair in layers)


def done(line: str) -> str:
    found = CliRunner().invoke(main, shlex.split(line))
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.stderr
    return found.stdout


def refused(line: str) -> str:
    """The one sentence of a refusal: exit code 2, nothing on stdout, nothing left behind."""
    before = set(Path().rglob("*"))
    found = CliRunner().invoke(main, shlex.split(line))
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 2 and not found.stdout and set(Path().rglob("*")) == before
    assert found.stderr.startswith("Error: ") and found.stderr.count("\n") == 1 and "Traceback" not in found.stderr
    return found.stderr


def test_an_imported_generator_computes_what_the_port_does(imported: str) -> None:
    """The port sees and gives [-1, 1], and the middle 64 of 128 pixels."""
    trained = open_generator(imported)
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = trained.network(images), (port()(images * 2 - 1) + 1) / 2
    assert torch.allclose(ours[:, :, 32:96, 32:96], theirs, atol=1e-5)  # float32, layer by layer
    assert trained.config.fill_colour == RELEASED_FILL and trained.frame.is_central
    assert trained.card.supervision == "unknown" and trained.card.dataset == "unknown"


def test_the_report_counts_what_fits(tmp_path: Path) -> None:
    lines = done(f"import netG.pth {SETTINGS} --output {tmp_path}/run").splitlines()
    assert lines[0] == "56 of 57 tensors come from the file"
    assert "convolutions written as matrices: 2 (bottleneck.squeeze.weight, bottleneck.expand.weight)" in lines
    assert "set to zero, as the file has none: 1 (decoder.9.bias)" in lines
    assert lines[-2:] == [f"written     {tmp_path}/run/{name}.safetensors" for name in ("generator", "encoder")]


@pytest.mark.parametrize("layout", ["bare", "wrapped", "safetensors", "half", "discriminator"])
def test_the_same_weights_come_from_every_layout(layout: str, imported: str, tmp_path: Path) -> None:
    state = {name: tensor.contiguous() for name, tensor in port().state_dict().items()}
    file = tmp_path / ("net.safetensors" if layout == "safetensors" else "net.pth")
    if layout == "safetensors":
        save_file(state, file)
    elif layout == "wrapped":
        torch.save({"epoch": 3, "state_dict": state}, file)
    elif layout == "discriminator":
        other = {"main.0.weight": torch.zeros(4, 3, 4, 4), "main.2.weight": torch.zeros(1, 4, 4, 4)}
        named = [(f"netG.{name}", tensor) for name, tensor in state.items()]
        torch.save(dict([*named, *((f"netD.{name}", tensor) for name, tensor in other.items())]), file)
    else:
        torch.save(
            {name: t.half() if layout == "half" and t.is_floating_point() else t for name, t in state.items()}, file
        )
    done(f"import {file} {SETTINGS} --seed 5 --output {tmp_path}/run")
    known, found = (open_generator(str(run)).network.state_dict() for run in (imported, tmp_path / "run"))
    tolerance = 1e-3 if layout == "half" else 0.0
    assert all(torch.allclose(found[name], known[name], rtol=tolerance, atol=tolerance) for name in known)


def test_an_imported_network_fills_photographs_and_is_compared(imported: str, tmp_path: Path) -> None:
    done(f"inpaint photo.png --with {imported} --hole box:40,20,50,30 --output {tmp_path}/filled")
    before, after = (np.array(Image.open(path)) for path in ("photo.png", tmp_path / "filled" / "filled" / "photo.png"))
    hole = np.zeros((90, 150), bool)
    hole[20:50, 40:90] = True
    assert np.array_equal(before[~hole], after[~hole]) and (before[hole] != after[hole]).mean() > 0.9
    (tmp_path / "photos").mkdir()
    Image.open("photo.png").save(tmp_path / "photos" / "photo.png")
    only = f"--set evaluation.has_others=false --set run.ledger={tmp_path}/ledger.jsonl"
    out = done(f"inpaint --evaluate folder:{tmp_path}/photos --with {imported} {only} --output {tmp_path}/compared")
    assert "Context encoder (centre, joint) from netG.pth" in out and "56x56 centre of 128x128/v1" in out


def test_the_encoder_of_an_import_serves_like_any_run(imported: str, features: str, tmp_path: Path) -> None:
    encoder, card = checkpoint.open_encoder(imported, {}, 0)
    assert torch.equal(encoder.state_dict()["convolutions.0.weight"], port().state_dict()["main.0.weight"])
    assert (card.encoder, card.image_size, card.recipe) == ("dcgan", 128, "released_centre")
    pixels = np.random.default_rng(2).integers(0, 256, (6, 70, 70, 3), dtype=np.uint8)
    (tmp_path / "gallery").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "gallery" / f"{i}.png")
    gallery = f"--gallery folder:{tmp_path}/gallery --set filling.size=64"
    for number, run in enumerate((imported, features)):
        done(f"inpaint photo.png --with nearest:{run} {gallery} --output {tmp_path}/{number}")
    retrieve = "--set retrieval.queries=2 --set retrieval.k=1 --set retrieval.shown_neighbours=1"
    described = f"--descriptor {imported} --descriptor {features}@conv5 --set run.ledger={tmp_path}/ledger.jsonl"
    out = done(f"nn-retrieval --data folder:{tmp_path}/gallery {described} {retrieve} --output {tmp_path}/near")
    assert "neighbours-context.png" in out


def test_a_caffemodel_becomes_an_alexnet_that_computes_what_caffe_does(features: str) -> None:
    """conv1 and conv2 by hand: B, G, R in 0 ... 255 less Caffe's mean, pooled and normalised as CaffeNet."""
    encoder, card = checkpoint.open_encoder(features, {}, 0)
    assert (card.encoder, card.method, card.supervision) == ("alexnet", "alexnet from ce.caffemodel", "unknown")
    images = torch.rand(1, 3, 99, 99, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = encoder.eval()(images)
    weights, biases = ([torch.from_numpy(array) for array in arrays] for arrays in caffe_layers())
    seen = 255 * images.flip(1) - torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)
    maps: Tensor = torch.relu(functional.conv2d(seen, weights[0], biases[0], stride=4))
    assert torch.allclose(found["conv1"], maps, rtol=1e-3, atol=1e-2)  # of values up to hundreds
    maps = functional.local_response_norm(functional.max_pool2d(maps, 3, 2, ceil_mode=True), 5, 1e-4, 0.75)
    maps = torch.relu(functional.conv2d(maps, weights[1], biases[1], padding=2, groups=2))
    assert torch.allclose(found["conv2"], maps, rtol=1e-3, atol=1e-2)


def test_what_a_caffemodel_gives_is_said(tmp_path: Path) -> None:
    lines = done(f"import ce.caffemodel {CAFFE_SETTINGS} --output {tmp_path}/run").splitlines()
    assert lines == [
        "all 5 convolutions come from the file: conv1, conv2, conv3, conv4, conv5",
        "not of the encoder, left out: fc6",
        f"written     {tmp_path}/run/encoder.safetensors",
    ]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("netG.pth", "9 of 57 tensors come from the file; of another shape 47"),
        (f"netG.pth {SETTINGS} --recipe paper", "missing 24"),
        (f"netG.pth {SETTINGS} --recipe papr", "Did you mean 'paper'?"),
        (f"wide.pth {SETTINGS}", "bottleneck.squeeze.weight: 12 x 32 x 4 x 4 there, 10 x 512 here"),
        (f"part.pth {SETTINGS}", "3 convolutions and matrices there, 11 here"),
        (f"more.pth {SETTINGS}", "unexpected 9 (extra.0"),
        (f"infinite.pth {SETTINGS}", "not finite, in 1 of our tensors, encoder.convolutions.0.weight"),
        (f"netG.pth {SETTINGS} --set crops.size=16", "crops.size = 16: encoder 'dcgan' takes 32 pixels or more"),
        (f"netG.pth {SETTINGS} --set crops.size=64", "of another shape 2"),
        (f"netG.pth {SETTINGS} --set train.steps=5", "There is no part to --set 'train'"),
        (f"netG.pth {SETTINGS} --set pretext.bottlneck=full", "Did you mean 'bottleneck'?"),
        (f"netG.pth {SETTINGS} --output runs/imported", "choose another --output"),
        ("noise.pth", "holds no weights that can be read safely"),
        ("noise.safetensors", "holds no weights that can be read safely"),
        ("noise.caffemodel", "is truncated or holds no weights of Caffe's"),
        ("empty.pth", "holds no weights that can be read safely"),
        ("list.pth", "is not a state dict"),
        ("runs/imported/generator.safetensors", "written by this suite and needs no import"),
        ("runs/imported/encoder.safetensors", "written by this suite and needs no import"),
        ("ce.caffemodel", "of another encoder: 0 of 10 tensors fit"),
        ("cut.caffemodel", "truncated"),
        (f"ce.caffemodel {CAFFE_SETTINGS} --set pretext.fill=mean", "There is no part to --set 'pretext'"),
    ],
)
def test_bad_input_to_an_import_gets_a_sentence(line: str, sentence: str, imported: str, desk: Path) -> None:
    if not Path("wide.pth").exists():
        put_bad_files(desk)
    assert sentence in refused(f"import {line}")


def put_bad_files(folder: Path) -> None:
    state = port().state_dict()
    torch.save(port(units=12).state_dict(), folder / "wide.pth")
    torch.save(dict(list(state.items())[:8]), folder / "part.pth")
    torch.save({**state, **{f"extra.{i}": torch.zeros(3) for i in range(9)}}, folder / "more.pth")
    torch.save({**state, "main.0.weight": state["main.0.weight"] / 0}, folder / "infinite.pth")
    torch.save([1, 2], folder / "list.pth")
    (folder / "empty.pth").touch()
    for suffix in ("pth", "safetensors", "caffemodel"):
        (folder / f"noise.{suffix}").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "cut.caffemodel").write_bytes((folder / "ce.caffemodel").read_bytes()[:-100])
