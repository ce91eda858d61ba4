"""A store whose pixels lie on the GPU: crops of a whole batch cut there at once, with nothing sent over.

One core cuts a few thousand crops a second, and a large GPU trains on many times that. Windows are drawn where they
always are, so both stores show the same crops.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ssl_inpaint.data.store import ImageStore

LARGEST_SHARE = 0.4  # of the GPU's free memory that pixels may take
UNIT = 1 << 22  # Pillow's weights are whole multiples of one over this
ROWS_AT_A_TIME = 256  # crops cut at once: each byte of one is addressed by eight


class Cuttable(Protocol):
    """Decoded images that crops are cut from."""

    @property
    def heights(self) -> np.ndarray: ...  # noqa: D102 (as of ImageStore)

    @property
    def widths(self) -> np.ndarray: ...  # noqa: D102

    def __len__(self) -> int: ...

    def crops(self, positions: Tensor, windows: Tensor, size: int, is_flipped: Tensor) -> Tensor:
        """Windows of images as B x 3 x size x size uint8, channels last in memory."""
        ...


def near(store: ImageStore, device: torch.device) -> Cuttable:
    """The store on that GPU, if its pixels take at most LARGEST_SHARE of the free memory; else the store as it is."""
    if device.type != "cuda":
        return store
    free, _ = torch.cuda.mem_get_info(device)
    return DeviceStore(store, device) if pixels_of(store) <= LARGEST_SHARE * free else store


def near_maps(maps: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Cached features on that GPU, on the same condition."""
    if device.type != "cuda":
        return dict(maps)
    free, _ = torch.cuda.mem_get_info(device)
    fits = sum(one.numel() * one.element_size() for one in maps.values()) <= LARGEST_SHARE * free
    return {name: one.to(device) if fits else one for name, one in maps.items()}


def pixels_of(store: ImageStore) -> int:
    """Bytes of all its images."""
    return int(3 * (store.heights * store.widths).sum())


class DeviceStore:
    """An `ImageStore` copied to a device.

    Its crops equal that store's bit for bit where Pillow resizes columns before rows; where it turns that round, as
    recent versions do for some sizes, about one value in four differs, by one of 255 levels as a rule.
    """

    def __init__(self, store: ImageStore, device: torch.device) -> None:
        self.heights, self.widths, self.device = store.heights, store.widths, device
        lengths = 3 * store.heights * store.widths
        self.offsets = torch.from_numpy(np.cumsum(lengths) - lengths).to(device)
        self.sides = torch.from_numpy(np.stack([store.widths, store.heights], 1)).to(device)
        self.pixels = torch.empty(int(lengths.sum()), dtype=torch.uint8, device=device)
        for piece, begin, stop, target in _runs(store, lengths):
            # memory-mapped, hence read-only, which from_numpy warns of
            self.pixels[target : target + stop - begin] = torch.from_numpy(
                np.array(store.pixels[piece][begin:stop])
            ).to(device)

    def __len__(self) -> int:
        return len(self.heights)

    def crops(self, positions: Tensor, windows: Tensor, size: int, is_flipped: Tensor) -> Tensor:
        """Windows of images as B x 3 x size x size uint8 on the device, channels last in memory.

        `windows` is B x 4: x, y, width, height in pixels of the store, within the image. One of size x size whole
        pixels is copied, any other resized (bilinear, antialiased).
        """
        chosen = torch.as_tensor(positions)
        corners = torch.as_tensor(windows, dtype=torch.float64).view(-1, 4)
        is_slice = (corners == corners.round()).all(1) & (corners[:, 2:] == size).all(1)
        is_simple = bool(is_slice.all())  # of tensors on the CPU: nothing waits for the GPU
        found = []
        for rows in torch.arange(len(chosen)).split(ROWS_AT_A_TIME):
            images = chosen[rows].to(self.device, non_blocking=True)
            places = corners[rows].to(self.device, non_blocking=True)
            mirrored = torch.as_tensor(is_flipped)[rows].to(self.device, non_blocking=True)
            cut = (
                self._sliced(images, places, size) if is_simple else self._resized(images, places, size, corners[rows])
            )
            found.append(torch.where(mirrored[:, None, None, None], cut.flip(2), cut))
        joined = torch.cat(found) if found else torch.empty(0, size, size, 3, dtype=torch.uint8, device=self.device)
        return joined.permute(0, 3, 1, 2)

    def _sliced(self, images: Tensor, places: Tensor, size: int) -> Tensor:
        ticks = torch.arange(size, device=self.device)
        left, top = places[:, 0].long(), places[:, 1].long()
        return self._at(images, top[:, None] + ticks, left[:, None] + ticks)

    def _resized(self, images: Tensor, places: Tensor, size: int, corners: Tensor) -> Tensor:
        """As Pillow resizes a box of an image: columns first, then rows, each rounded to bytes.

        Weights are whole multiples of 2^-22, as Pillow's, and double precision adds up their products exactly.
        """
        scale = (corners[:, 2:] / size).clamp(min=1)
        reach = int((corners[:, 2:] + 2 * scale).max().ceil()) + 2  # pixels that a window's crop may look at
        limits = self.sides[images]
        across, columns = _weights(places[:, 0], places[:, 2], limits[:, 0], size, reach)
        down, rows = _weights(places[:, 1], places[:, 3], limits[:, 1], size, reach)
        looked_at = self._at(images, rows, columns).double()  # B x reach x reach x 3
        wide = torch.einsum("bsc,brck->brsk", across, looked_at).add_(0.5).floor_().clamp_(0, 255)
        return torch.einsum("btr,brsk->btsk", down, wide).add_(0.5).floor_().clamp_(0, 255).byte()

    def _at(self, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """B x rows x columns x 3 of `pixels`."""
        across = 3 * self.sides[images, 0]
        begin = self.offsets[images, None] + rows * across[:, None]
        inside = 3 * columns[:, :, None] + torch.arange(3, device=self.device)
        return self.pixels[begin[:, :, None, None] + inside[:, None]]


def _weights(start: Tensor, length: Tensor, limit: Tensor, size: int, reach: int) -> tuple[Tensor, Tensor]:
    """What each of `size` outputs takes of `reach` pixels, B x size x reach, and which these are, B x reach.

    A triangle as wide as the pixels that become one, and two pixels at least, cut off at the image's edges: the
    coefficients of Pillow's Resample.c.
    """
    scale = (length / size)[:, None]
    support = scale.clamp(min=1)
    middle = start[:, None] + (torch.arange(size, device=start.device) + 0.5) * scale
    first = (middle - support + 0.5).floor().clamp(min=0)
    last = torch.minimum((middle + support + 0.5).floor(), limit[:, None].double())  # excluded
    places = (start - support[:, 0]).floor().clamp(min=0)[:, None] + torch.arange(reach, device=start.device)
    seen = places[:, None, :]
    inside = (seen >= first[:, :, None]) & (seen < last[:, :, None])
    raw = (1 - ((seen - middle[:, :, None] + 0.5) * (1 / support)[:, :, None]).abs()).clamp(min=0) * inside
    weights = (raw * (1 / raw.sum(2, keepdim=True)) * UNIT + 0.5).floor() / UNIT
    return weights, torch.minimum(places, limit[:, None].double() - 1).long()


def _runs(store: ImageStore, lengths: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Stretches of images that lie behind one another: piece, begin and end there, and where they go."""
    targets = np.cumsum(lengths) - lengths
    ends = store.offsets + lengths
    is_new = np.ones(len(lengths), bool)
    is_new[1:] = (store.pieces[1:] != store.pieces[:-1]) | (store.offsets[1:] != ends[:-1])
    first = np.flatnonzero(is_new)
    last = np.append(first[1:], len(lengths)) - 1
    return [
        (int(store.pieces[a]), int(store.offsets[a]), int(ends[b]), int(targets[a]))
        for a, b in zip(first, last, strict=True)
    ]
