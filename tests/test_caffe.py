"""Caffe's files, written here byte by byte, and its AlexNet against Caffe's own arithmetic."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ssl_inpaint.caffe import alexnet_state, read_caffemodel
from ssl_inpaint.checkpoint import build_encoder, open_encoder
from ssl_inpaint.errors import UsageError

SMALL = {"channels": "4,6,6,6,4"}
SHAPES = {"conv1": (4, 3, 11, 11), "conv2": (6, 2, 5, 5), "conv3": (6, 6, 3, 3), "conv4": (6, 3, 3, 3)}
SHAPES |= {"conv5": (4, 3, 3, 3)}
Layers = dict[str, list[np.ndarray]]


# The wire format: https://protobuf.dev/programming-guides/encoding


def varint(value: int) -> bytes:
    rest, low = divmod(value, 128)
    return bytes([low]) if rest == 0 else bytes([low | 128]) + varint(rest)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def length_delimited(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def new_blob(array: np.ndarray) -> bytes:
    shape = length_delimited(7, length_delimited(1, b"".join(varint(size) for size in array.shape)))
    return length_delimited(5, array.astype("<f4").tobytes()) + length_delimited(6, b"\0" * 8) + shape


def legacy_blob(array: np.ndarray) -> bytes:
    sizes = (1,) * (4 - array.ndim) + array.shape
    return b"".join(number(i, s) for i, s in enumerate(sizes, 1)) + length_delimited(5, array.astype("<f4").tobytes())


def new_file(layers: Layers) -> bytes:
    """NetParameter.layer = 100: name 1, type 2, blobs 7."""
    content = length_delimited(1, b"AlexNet")
    for name, blobs in {"data": [], **layers, "relu": []}.items():
        body = length_delimited(1, name.encode()) + length_delimited(2, b"Convolution")
        content += length_delimited(100, body + b"".join(length_delimited(7, new_blob(blob)) for blob in blobs))
    return content


def legacy_file(layers: Layers) -> bytes:
    """NetParameter.layers = 2: bottom 2, name 4, type 5, blobs 6, blobs_lr 7."""
    content = length_delimited(1, b"CaffeNet")
    for name, blobs in layers.items():
        body = length_delimited(2, b"data") + length_delimited(4, name.encode()) + number(5, 4)
        body += b"".join(length_delimited(6, legacy_blob(blob)) for blob in blobs)
        content += length_delimited(2, body + varint(7 << 3 | 5) + np.float32(1).tobytes())
    return content


FORMS = {"layer": new_file, "layers": legacy_file}


def network(seed: int = 0, template: str = "{}") -> Layers:
    rng = np.random.default_rng(seed)
    layers = {}
    for name, shape in SHAPES.items():
        weight = rng.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)
        layers[template.format(name)] = [weight, rng.normal(0, 1, shape[0]).astype(np.float32)]
    return layers


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def as_blobs(layers: Layers) -> dict[str, list[Tensor]]:
    return {name: [torch.from_numpy(blob) for blob in blobs] for name, blobs in layers.items()}


# Files


@pytest.mark.parametrize("form", FORMS)
def test_blobs_come_back_bit_for_bit_and_only_layers_that_have_any(form: str, tmp_path: Path) -> None:
    layers = network()
    found = read_caffemodel(written(tmp_path / "net.caffemodel", FORMS[form](layers)))
    assert list(found) == list(layers)
    for name, (weight, bias) in layers.items():
        assert np.array_equal(found[name][0], weight) and np.array_equal(found[name][1].flatten(), bias)
        assert found[name][1].shape == ((1, 1, 1, len(bias)) if form == "layers" else bias.shape)
        assert found[name][0].dtype == torch.float32


def test_doubles_and_scalars_are_read(tmp_path: Path) -> None:
    doubles = np.array([[0.5, -2.0]])
    blob = length_delimited(7, length_delimited(1, b"\1\2")) + length_delimited(8, doubles.tobytes())
    scalar = length_delimited(7, b"") + length_delimited(5, np.float32(999).tobytes())
    body = length_delimited(1, b"bn1") + length_delimited(7, blob) + length_delimited(7, scalar)
    found = read_caffemodel(written(tmp_path / "net.caffemodel", length_delimited(100, body)))["bn1"]
    assert found[0].tolist() == doubles.tolist() and found[1].shape == () and found[1] == 999


PROTOTXT = b'name: "AlexNet"\nlayer {\n  name: "conv1"\n  type: "Convolution"\n}\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (PROTOTXT, "is a prototxt, which has no weights"),
        (new_file(network())[:-30], "is truncated or holds no weights"),
        (legacy_file(network())[:2000], "is truncated or holds no weights"),
        (new_file({}), "is truncated or holds no weights"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "is truncated or holds no weights"),
        (b"PK\3\4" + b"\0" * 40, "is truncated or holds no weights"),
    ],
)
def test_what_is_no_caffemodel_is_refused_in_one_sentence(content: bytes, words: str, tmp_path: Path) -> None:
    path = written(tmp_path / "net.caffemodel", content)
    with pytest.raises(UsageError, match=words) as caught:
        read_caffemodel(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_any_damage_ends_in_a_usage_error_or_in_tensors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = np.frombuffer(new_file({"conv1": [np.ones((2, 3), np.float32)], "fc6": [np.ones(3, np.float32)]}), np.uint8)
    for _ in range(300):
        damaged = whole.copy()
        damaged[rng.integers(0, len(whole), 2)] = rng.integers(0, 256, 2)
        try:
            read_caffemodel(written(tmp_path / "net.caffemodel", damaged.tobytes()))
        except UsageError:
            continue


@pytest.mark.parametrize(("sizes", "values"), [((2, 3), 5), ((-2, -3), 6), ((), 0)])
def test_a_blob_of_another_size_than_its_shape_is_refused(sizes: tuple[int, ...], values: int, tmp_path: Path) -> None:
    shape = length_delimited(1, b"".join(varint(size % 2**64) for size in sizes))
    blob = length_delimited(7, shape) + length_delimited(5, bytes(4 * values))
    content = length_delimited(100, length_delimited(1, b"conv1") + length_delimited(7, blob))
    with pytest.raises(UsageError, match=f"layer 'conv1' holds {4 * values} bytes, which is not the size of a blob of"):
        read_caffemodel(written(tmp_path / "net.caffemodel", content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Cannot read .*none\.caffemodel"):
        read_caffemodel(tmp_path / "none.caffemodel")


# AlexNet


def caffe_conv1(images: np.ndarray, weight: np.ndarray, bias: np.ndarray, mean: Sequence[float]) -> np.ndarray:
    """Caffe's Convolution of stride 4 and its ReLU, in float64: H x W x 3 RGB in [0, 1] to C x h x w."""
    image = images[:, :, ::-1] * 255.0 - np.asarray(mean)  # B, G, R
    windows = np.lib.stride_tricks.sliding_window_view(image, (11, 11), axis=(0, 1))[::4, ::4]  # h x w x 3 x 11 x 11
    maps = np.einsum("hwikl,oikl->ohw", windows, weight.astype(np.float64)) + bias[:, None, None]
    return np.maximum(maps, 0)


@pytest.mark.parametrize("mean", [(104.0, 117.0, 123.0), (102.9801, 115.9465, 122.7717), (0.0, 0.0, 0.0)])
def test_conv1_is_caffes_on_its_own_input(mean: tuple[float, float, float]) -> None:
    layers = network()
    encoder, _ = build_encoder("alexnet", SMALL, seed=0)
    encoder.load_state_dict(alexnet_state(as_blobs(layers), mean))
    image = np.random.default_rng(1).random((67, 83, 3))
    expected = caffe_conv1(image, *layers["conv1"], mean)
    tensor = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    found = encoder(tensor)["conv1"][0].detach().numpy()
    # Sums of 363 products of values up to 255 in float32.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    assert (expected > 1).mean() > 0.2


def test_later_layers_are_caffes_unchanged() -> None:
    layers = network()
    encoder, _ = build_encoder("alexnet", SMALL, seed=0)
    encoder.load_state_dict(alexnet_state(as_blobs(layers)))
    stages = encoder(torch.rand(1, 3, 99, 99, generator=torch.Generator().manual_seed(1)))
    weight, bias = as_blobs(layers)["conv4"]
    # In Caffe the first half of the outputs sees the first half of the inputs.
    halves = [
        functional.conv2d(x, w, padding=1) for x, w in zip(stages["conv3"].chunk(2, 1), weight.chunk(2), strict=True)
    ]
    expected = torch.relu(torch.cat(halves, 1) + bias[:, None, None])
    torch.testing.assert_close(stages["conv4"], expected, rtol=1e-4, atol=1e-4)


def test_a_family_of_names_with_one_prefix_or_suffix_is_found() -> None:
    plain = alexnet_state(as_blobs(network()))
    for template in ("alexnet/{}", "{}_s1", "{}"):
        found = alexnet_state(as_blobs(network(template=template)))
        assert found.keys() == plain.keys() and all(torch.equal(found[k], plain[k]) for k in plain)
    two = {**as_blobs(network(template="a/{}")), **as_blobs(network(template="b/{}"))}
    assert "conv1.weight" not in alexnet_state(two)


def test_what_follows_conv5_is_left_out_and_normalisation_never() -> None:
    layers = network()
    rest = {
        "fc6": [np.ones((8, 16), np.float32), np.ones(8, np.float32)],
        "deconv1": [np.ones((4, 2, 5, 5), np.float32)],
    }
    assert alexnet_state(as_blobs({**layers, **rest})).keys() == alexnet_state(as_blobs(layers)).keys()
    norm = {"bn5": [np.ones(4, np.float32), np.ones(4, np.float32), np.ones(1, np.float32)]}
    assert {"bn5.0", "bn5.1", "bn5.2"} <= alexnet_state(as_blobs({**layers, **norm})).keys()
    assert "stem.0" in alexnet_state(as_blobs({"stem": rest["deconv1"], **layers}))


def test_another_first_layer_is_refused() -> None:
    with pytest.raises(UsageError, match="conv1 is 4 x 3 x 7 x 7, where an AlexNet's is N x 3 x 11 x 11"):
        alexnet_state({"conv1": [torch.ones(4, 3, 7, 7), torch.ones(4)]})


def test_a_convolution_without_bias_has_bias_zero() -> None:
    layers = {name: blobs[:1] for name, blobs in network().items()}
    assert not alexnet_state(as_blobs(layers))["conv2.bias"].any()


# As an encoder


@pytest.mark.parametrize("form", FORMS)
def test_a_caffemodel_opens_as_alexnet(form: str, tmp_path: Path) -> None:
    layers = {**network(), "fc6": [np.ones((8, 16), np.float32), np.ones(8, np.float32)]}
    path = written(tmp_path / "ce_features.caffemodel", FORMS[form](layers))
    encoder, card = open_encoder(f"alexnet={path}", SMALL, seed=0)
    assert (card.method, card.encoder) == ("alexnet from ce_features.caffemodel", "alexnet")
    assert all(torch.equal(v, encoder.state_dict()[k]) for k, v in alexnet_state(as_blobs(network())).items())


def test_a_caffemodel_of_other_layers_or_for_another_encoder_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path / "net.caffemodel", new_file(network()))
    short = written(tmp_path / "short.caffemodel", new_file({k: v for k, v in network().items() if k != "conv3"}))
    with pytest.raises(UsageError, match=r"missing 2 \(conv3\.bias, conv3\.weight\)"):
        open_encoder(f"alexnet={short}", SMALL, seed=0)
    with pytest.raises(UsageError, match="of another shape 10"):
        open_encoder(f"alexnet={whole}", {}, seed=0)
    with pytest.raises(UsageError, match="is of another encoder"):
        open_encoder(f"dcgan={whole}", {}, seed=0)
    with pytest.raises(UsageError, match="write --from ENCODER="):
        open_encoder(str(whole), {}, seed=0)
