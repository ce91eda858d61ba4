"""4 x 4 convolutions at stride 2, padding 1, and their transposes, with 9 products in the place of 16.

Such a convolution adds up four 2 x 2 convolutions at stride 1, one for each parity of the input's rows and columns, and
of those two outputs in a row cost three products instead of four (Winograd's F(2, 2); Lavin and Gray, CVPR 2016, for
nets): with differences of inputs and sums of filters that need no product,

    y0 = (d0 - d1) g0 + d1 (g0 + g1),  y1 = d1 (g0 + g1) - (d1 - d2) g1.

In two dimensions that is 9 matrix products over all tiles of 2 x 2 outputs. The gradients are those of the same
bilinear form, so they cost 9 products too; there are none of second order. Sums of at most four terms add rounding of
the size of the products' own. Kept for the gradient of the weights is 9/4 times the memory of what went in.

It pays on a CPU in float32 where channels are many and maps small; elsewhere the modules do as torch's own do.
Measured on two cores (AVX2), batch 32, forward and backward: from 256 channels at 8 pixels a side to 512 at 4, 63 ms
became 42; from 64 at 32 to 128 at 16, 57 became 44; from 64 at 64 to 64 at 32, where it is not used, 117 became 125.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Of weights in a tap with at least so many channels on either side, and of tiles of 2 x 2 outputs in a batch; with
# fewer, torch's own are as fast.
FEWEST_WEIGHTS, FEWEST_CHANNELS, FEWEST_TILES = 64 * 128, 64, 64
GEOMETRY: dict[str, Any] = {"kernel_size": 4, "stride": 2, "padding": 1}


class Halving(nn.Conv2d):
    """A 4 x 4 convolution at stride 2, padding 1: half as many pixels a side. Its state is that of nn.Conv2d."""

    def __init__(self, before: int, after: int, bias: bool = True) -> None:
        super().__init__(before, after, **GEOMETRY, bias=bias)

    def forward(self, maps: Tensor) -> Tensor:
        """B x C x H x W to B x K x H/2 x W/2."""
        if not _pays(self, maps, 4):
            return super().forward(maps)
        return _biased(_Halved.apply(maps, self.weight), self.bias)


class Doubling(nn.ConvTranspose2d):
    """The transpose: twice as many pixels a side. Its state is that of nn.ConvTranspose2d."""

    def __init__(self, before: int, after: int, bias: bool = True) -> None:
        super().__init__(before, after, **GEOMETRY, bias=bias)

    def forward(self, maps: Tensor, output_size: list[int] | None = None) -> Tensor:
        """B x C x H x W to B x K x 2H x 2W."""
        if output_size is not None or not _pays(self, maps, 2):
            return super().forward(maps, output_size)
        return _biased(_Doubled.apply(maps, self.weight), self.bias)


def _pays(layer: Halving | Doubling, maps: Tensor, side: int) -> bool:
    """True where the tiles, of `side` x `side` pixels of the maps, are whole and many, and so are channels."""
    if maps.device.type != "cpu" or not maps.dtype == layer.weight.dtype == torch.float32:
        return False
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    if maps.ndim != 4 or maps.shape[1] != layer.in_channels or maps.shape[2] % side or maps.shape[3] % side:
        return False
    before, after = layer.weight.shape[:2]
    has_many = len(maps) * maps.shape[2] * maps.shape[3] >= FEWEST_TILES * side**2
    return has_many and min(before, after) >= FEWEST_CHANNELS and before * after >= FEWEST_WEIGHTS


def _biased(maps: Tensor, bias: Tensor | None) -> Tensor:
    return maps if bias is None else maps + bias[:, None, None]


class _Halved(torch.autograd.Function):
    """The convolution of B x C x H x W, H and W multiples of 4, by K x C x 4 x 4."""

    @staticmethod
    def forward(context: Any, maps: Tensor, weight: Tensor) -> Tensor:
        tiles, filters = _tiles(maps), _filters(weight)
        of_maps, of_weight = context.needs_input_grad
        context.save_for_backward(tiles if of_weight else None, filters if of_maps else None)
        context.shape = maps.shape
        count, _, height, width = maps.shape
        return _outputs(torch.bmm(tiles, filters.transpose(1, 2)), (count, len(weight), height // 2, width // 2))

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        tiles, filters = context.saved_tensors
        products, (of_maps, of_weight) = _products(gradient), context.needs_input_grad
        return (
            _from_tiles(torch.bmm(products, filters), context.shape) if of_maps else None,
            _from_filters(torch.bmm(products.transpose(1, 2), tiles)) if of_weight else None,
        )


class _Doubled(torch.autograd.Function):
    """The transposed convolution of B x C x H x W, H and W even, by C x K x 4 x 4: as the gradient of `_Halved`."""

    @staticmethod
    def forward(context: Any, maps: Tensor, weight: Tensor) -> Tensor:
        products, filters = _products(maps), _filters(weight)
        of_maps, of_weight = context.needs_input_grad
        context.save_for_backward(products if of_weight else None, filters if of_maps else None)
        context.shape = maps.shape
        count, _, height, width = maps.shape
        return _from_tiles(torch.bmm(products, filters), (count, weight.shape[1], 2 * height, 2 * width))

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        products, filters = context.saved_tensors
        tiles, (of_maps, of_weight) = _tiles(gradient), context.needs_input_grad
        return (
            _outputs(torch.bmm(tiles, filters.transpose(1, 2)), context.shape) if of_maps else None,
            _from_filters(torch.bmm(products.transpose(1, 2), tiles)) if of_weight else None,
        )


# Each of these is linear; those called `_from_...` and `_outputs` are the transposes of `_tiles`, `_filters` and
# `_products`. Channels lie last. The nine are rows of d0 - d1, d1, d1 - d2 times columns of the same.


def _tiles(maps: Tensor) -> Tensor:
    """B x C x H x W to 9 x tiles x 4C: the differences of the inputs of every tile of 2 x 2 outputs."""
    count, channels, height, width = maps.shape
    padded = functional.pad(maps.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    pairs = padded.view(count, height // 2 + 1, 2, width // 2 + 1, 2, channels)
    rows = maps.new_empty(3, count, height // 4, 2, width // 2 + 1, 2, channels)
    _differences(pairs[:, 0:-1:2], pairs[:, 1::2], pairs[:, 2::2], rows)
    found = maps.new_empty(3, 3, count, height // 4, width // 4, 2, 2, channels)
    columns = found.permute(1, 0, 2, 3, 5, 4, 6, 7)
    _differences(rows[..., 0:-1:2, :, :], rows[..., 1::2, :, :], rows[..., 2::2, :, :], columns)
    return found.view(9, -1, 4 * channels)


def _from_tiles(tiles: Tensor, shape: tuple[int, ...]) -> Tensor:
    """9 x tiles x 4C to B x C x H x W: each input gets back what the differences took."""
    count, channels, height, width = shape
    columns = tiles.view(3, 3, count, height // 4, width // 4, 2, 2, channels).permute(1, 0, 2, 3, 5, 4, 6, 7)
    rows = tiles.new_empty(3, count, height // 4, 2, width // 2 + 1, 2, channels)
    _taken_back(columns.movedim(5, 1), rows.movedim(4, 0))
    pairs = tiles.new_empty(count, height // 2 + 1, 2, width // 2 + 1, 2, channels)
    _taken_back(rows.movedim(2, 1), pairs.movedim(1, 0))
    padded = pairs.view(count, height + 2, width + 2, channels)
    return padded[:, 1:-1, 1:-1].contiguous().permute(0, 3, 1, 2)  # dense, as layers behind it are several times faster


def _products(outputs: Tensor) -> Tensor:
    """B x K x H x W to 9 x tiles x K: how much each of the nine products counts in the outputs."""
    count, channels, height, width = outputs.shape
    pairs = outputs.permute(0, 2, 3, 1).reshape(count, height // 2, 2, width // 2, 2, channels)
    rows = outputs.new_empty(3, count, height // 2, width // 2, 2, channels)
    _counted(pairs[:, :, 0], pairs[:, :, 1], rows)
    found = outputs.new_empty(3, 3, count, height // 2, width // 2, channels)
    _counted(rows[..., 0, :], rows[..., 1, :], found.transpose(0, 1))
    return found.view(9, -1, channels)


def _outputs(products: Tensor, shape: tuple[int, ...]) -> Tensor:
    """9 x tiles x K to B x K x H x W."""
    count, channels, height, width = shape
    columns = products.view(3, 3, count, height // 2, width // 2, channels).transpose(0, 1)
    rows = products.new_empty(3, count, height // 2, width // 2, 2, channels)
    _added_up(columns, rows[..., 0, :], rows[..., 1, :])
    pairs = products.new_empty(count, height // 2, 2, width // 2, 2, channels)
    _added_up(rows, pairs[:, :, 0], pairs[:, :, 1])
    return pairs.view(count, height, width, channels).permute(0, 3, 1, 2)


def _filters(weight: Tensor) -> Tensor:
    """K x C x 4 x 4 to 9 x K x 4C: the taps of either parity as they are, and their sums."""
    count, channels = weight.shape[:2]
    taps = weight.permute(0, 2, 3, 1).reshape(count, 2, 2, 2, 2, channels)
    rows = weight.new_empty(3, count, 2, 2, 2, channels)
    _with_sums(taps[:, 0], taps[:, 1], rows)
    found = weight.new_empty(3, 3, count, 2, 2, channels)
    _with_sums(rows[:, :, :, 0], rows[:, :, :, 1], found.transpose(0, 1))
    return found.view(9, count, 4 * channels)


def _from_filters(filters: Tensor) -> Tensor:
    """9 x K x 4C to K x C x 4 x 4."""
    count, channels = filters.shape[1], filters.shape[2] // 4
    columns = filters.view(3, 3, count, 2, 2, channels).transpose(0, 1)
    rows = filters.new_empty(3, count, 2, 2, 2, channels)
    torch.add(columns[0], columns[1], out=rows[:, :, :, 0])
    torch.add(columns[1], columns[2], out=rows[:, :, :, 1])
    taps = filters.new_empty(count, 2, 2, 2, 2, channels)
    torch.add(rows[0], rows[1], out=taps[:, 0])
    torch.add(rows[1], rows[2], out=taps[:, 1])
    return taps.view(count, 4, 4, channels).permute(0, 3, 1, 2)


def _differences(first: Tensor, middle: Tensor, last: Tensor, found: Tensor) -> None:
    torch.sub(first, middle, out=found[0])
    found[1].copy_(middle)
    torch.sub(middle, last, out=found[2])


def _taken_back(differences: Tensor, places: Tensor) -> None:
    """The transpose: each middle lies between a first and a last, which is the next tile's first."""
    places[0:-1:2] = differences[0]
    places[-1] = 0
    places[2::2] -= differences[2]
    torch.add(differences[1], differences[2], out=places[1::2])
    places[1::2] -= differences[0]


def _counted(first: Tensor, second: Tensor, found: Tensor) -> None:
    found[0].copy_(first)
    torch.add(first, second, out=found[1])
    torch.neg(second, out=found[2])


def _added_up(products: Tensor, first: Tensor, second: Tensor) -> None:
    torch.add(products[0], products[1], out=first)
    torch.sub(products[1], products[2], out=second)


def _with_sums(first: Tensor, second: Tensor, found: Tensor) -> None:
    found[0].copy_(first)
    torch.add(first, second, out=found[1])
    found[2].copy_(second)
