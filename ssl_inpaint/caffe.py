"""Weights that Caffe saved: a .caffemodel as tensors, and its AlexNet in the terms of `encoders.alexnet`.

The paper's feature model and those it is compared with were released in this format.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_inpaint.errors import UsageError
from ssl_inpaint.images import IMAGENET_MEAN

CAFFE_MEAN = (104.0, 117.0, 123.0)  # of B, G, R in 0..255, as voc-classification and magic_init subtract it
CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5")
# Of caffe.proto (BVLC/caffe, src/caffe/proto), what weights need: number, type and label of each field. Names, floats
# and doubles are declared as bytes, which is how they lie in the file, packed: 240 MB are then not read one by one.
_MESSAGES = {
    "BlobShape": {"dim": (1, "INT64", "REPEATED")},
    "BlobProto": {
        "num": (1, "INT64", "OPTIONAL"),
        "channels": (2, "INT64", "OPTIONAL"),
        "height": (3, "INT64", "OPTIONAL"),
        "width": (4, "INT64", "OPTIONAL"),
        "data": (5, "BYTES", "REPEATED"),
        "shape": (7, "BlobShape", "OPTIONAL"),
        "double_data": (8, "BYTES", "REPEATED"),
    },
    "V1LayerParameter": {"name": (4, "BYTES", "OPTIONAL"), "blobs": (6, "BlobProto", "REPEATED")},
    "LayerParameter": {"name": (1, "BYTES", "OPTIONAL"), "blobs": (7, "BlobProto", "REPEATED")},
    "NetParameter": {"layers": (2, "V1LayerParameter", "REPEATED"), "layer": (100, "LayerParameter", "REPEATED")},
}
_LEGACY_SHAPE = ("num", "channels", "height", "width")


def read_caffemodel(path: Path) -> dict[str, list[Tensor]]:
    """The blobs of every layer that has any, float32, by layer name and in the file's order.

    Shapes as stored: 1 x 1 x 1 x N for the vectors of old files. UsageError where the file is no .caffemodel, is
    truncated or has no weights in it.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        content = path.read_bytes()
        network = _network_class().FromString(content)
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror or error}.") from None
    except DecodeError:
        raise UsageError(f"{path} {_what_it_is(content)}: give a whole .caffemodel as Caffe saves it.") from None
    layers = [layer for layer in (*network.layers, *network.layer) if layer.blobs]
    if not layers:
        raise UsageError(f"{path} {_what_it_is(content)}: give a .caffemodel whose layers have blobs.")
    found = {}
    for layer in layers:
        name = layer.name.decode(errors="replace")
        found[name] = [_tensor(blob, f"{path}, layer '{name}'") for blob in layer.blobs]
    return found


def alexnet_state(
    blobs: Mapping[str, Sequence[Tensor]], mean: tuple[float, float, float] = CAFFE_MEAN
) -> dict[str, Tensor]:
    """The state dict of `encoders.alexnet` from Caffe's conv1..conv5, which may share one prefix or suffix.

    Caffe's input is B, G, R in 0..255 less `mean`: conv1's channels are turned round, and its bias takes up the
    difference to the encoder's own mean, exactly, for conv1 is not padded. Of the other layers those that follow conv5
    and have a matrix (fc6, a decoder) are left out; the rest (normalisation) stays under its own name, for a strict
    loader to refuse. UsageError where conv1 is not 11 x 11 on three channels.
    """
    names = convolution_names(blobs)
    order = list(blobs)
    last = max((order.index(name) for name in names), default=len(order))
    state = {}
    for position, (name, values) in enumerate(blobs.items()):
        if name in names:
            state.update(_convolution(names[name], values))
        elif position < last or not _is_matrix(values[0]):
            state.update({f"{name}.{i}": value for i, value in enumerate(values)})
    if "conv1.weight" in state:
        _absorb_input(state, mean)
    return state


def convolution_names(names: Mapping[str, object]) -> dict[str, str]:
    """Caffe's names to ours: exactly ours, or the one family that a single prefix or suffix sets apart; else none."""
    families: list[tuple[str, ...]] = [CONVOLUTIONS]
    for name in names:
        before, found, after = name.partition(CONVOLUTIONS[0])
        if found and name != CONVOLUTIONS[0]:
            families.append(tuple(f"{before}{ours}{after}" for ours in CONVOLUTIONS))
    whole = [family for family in families if all(name in names for name in family)]
    if not whole or (len(whole) > 1 and whole[0] != CONVOLUTIONS):
        return {name: name for name in CONVOLUTIONS if name in names}
    return dict(zip(whole[0], CONVOLUTIONS, strict=True))


def _absorb_input(state: dict[str, Tensor], mean: tuple[float, float, float]) -> None:
    """W (255 x - mean) + b = W (255 x - ours) + b', all in R, G, B, gives b' = b + sum of W (ours - mean)."""
    weight = state["conv1.weight"]
    if weight.shape[1:] != (3, 11, 11):
        raise UsageError(
            f"conv1 is {_by(weight.shape)}, where an AlexNet's is N x 3 x 11 x 11: give the file of an AlexNet."
        )
    weight = weight.flip(1)
    ours = 255 * torch.tensor(IMAGENET_MEAN, dtype=torch.float64)
    theirs = torch.tensor(mean, dtype=torch.float64).flip(0)
    shift = torch.einsum("oihw,i->o", weight.double(), ours - theirs)
    state["conv1.weight"], state["conv1.bias"] = weight, (state["conv1.bias"].double() + shift).float()


def _convolution(name: str, values: Sequence[Tensor]) -> dict[str, Tensor]:
    bias = values[1].flatten() if len(values) > 1 else torch.zeros(len(values[0]))
    return {f"{name}.weight": values[0], f"{name}.bias": bias}


def _is_matrix(tensor: Tensor) -> bool:
    return sum(size > 1 for size in tensor.shape) > 1


def _tensor(blob: Any, where: str) -> Tensor:
    is_legacy = any(blob.HasField(name) for name in _LEGACY_SHAPE)
    shape = [getattr(blob, name) for name in _LEGACY_SHAPE] if is_legacy else list(blob.shape.dim)
    kind, chunks = ("<f8", blob.double_data) if blob.double_data else ("<f4", blob.data)
    values = b"".join(chunks)
    if any(size < 0 for size in shape) or len(values) != math.prod(shape) * np.dtype(kind).itemsize:
        raise UsageError(
            f"{where} holds {len(values)} bytes, which is not the size of a blob of {_by(shape)}: get the file again."
        )
    return torch.from_numpy(np.frombuffer(values, kind).astype(np.float32)).view(shape)


def _what_it_is(content: bytes) -> str:
    if not content:
        return "is empty"
    try:
        is_text = b"\0" not in content and "layer" in content.decode()
    except UnicodeDecodeError:
        is_text = False
    return "is a prototxt, which has no weights" if is_text else "is truncated or holds no weights of Caffe's"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "one number"


@functools.cache
def _network_class() -> Any:
    """The class of NetParameter, built here so that no generated code is needed."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, (number, kind, label) in fields.items():
            field = message.field.add(name=name, number=number, label=kinds.Label.Value(f"LABEL_{label}"))
            if kind in _MESSAGES:
                field.type_name = f".caffe.{kind}"
            field.type = kinds.Type.Value("TYPE_MESSAGE" if kind in _MESSAGES else f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()  # of its own: Caffe's real definitions may be in the default one
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))
