from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_inpaint import images
from ssl_inpaint.data.device_store import DeviceStore, near, pixels_of
from ssl_inpaint.data.specs import open_data
from ssl_inpaint.data.store import ImageStore, join, open_store

CPU = torch.device("cpu")


def stores(tmp_path, sizes=((70, 91), (64, 64), (120, 80), (81, 64))) -> ImageStore:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for place, (height, width) in enumerate(sizes):
        small = random.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        noise = random.integers(-20, 20, (height, width, 3))
        pixels = np.asarray(Image.fromarray(small).resize((width, height))).astype(int) + noise
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{place}.png")
    return open_store(open_data(f"folder:{folder}", "pretrain").images, 64, tmp_path / "cache")


def windows_of(store: ImageStore, count: int, shares: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    positions = torch.randint(len(store), (count,), generator=generator)
    heights, widths = torch.from_numpy(store.heights), torch.from_numpy(store.widths)
    return positions, images.random_windows(heights[positions], widths[positions], shares, generator)


def test_slices_are_equal_bit_for_bit(tmp_path):
    store = stores(tmp_path)
    positions, windows = windows_of(store, 40, (0.5, 0.5))
    flips = torch.arange(40) % 3 == 0
    ours = DeviceStore(store, CPU).crops(positions, windows, 32, flips)
    assert torch.equal(ours, store.crops(positions, windows, 32, flips))
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [24, 32, 47, 96])
def test_resized_windows_are_pillows_but_for_its_order_of_passes(tmp_path, size):
    store = stores(tmp_path)
    positions, windows = windows_of(store, 60, (0.3, 1.0))
    flips = torch.arange(60) % 2 == 0
    ours = DeviceStore(store, CPU).crops(positions, windows, size, flips).int()
    differences = (ours - store.crops(positions, windows, size, flips).int()).abs()
    is_equal = (differences == 0).flatten(1).all(1)
    assert is_equal.float().mean() > 0.5  # whole crops, bit for bit
    assert differences.max() <= 2  # where rows come first: each pass rounds to bytes
    assert (differences > 0).float().mean() < 0.1


def test_windows_between_pixels_and_oblong_ones_are_pillows_to_one_level(tmp_path):
    store = stores(tmp_path)
    windows = torch.tensor([[0.0, 0.0, 83.0, 64.0], [3.25, 1.5, 40.75, 60.5], [0.5, 0.5, 20.0, 63.0]])
    positions, flips = torch.tensor([0, 0, 2]), torch.zeros(3, dtype=torch.bool)
    windows[0, 2] = float(store.widths[0])
    ours = DeviceStore(store, CPU).crops(positions, windows, 30, flips).int()
    assert (ours - store.crops(positions, windows, 30, flips).int()).abs().max() <= 1


def test_joined_stores_keep_their_order(tmp_path):
    store = stores(tmp_path)
    both = join([store, store])
    positions = torch.tensor([0, 4, 3, 7])
    windows = torch.tensor([[1.0, 2.0, 32.0, 32.0]]).repeat(4, 1)
    cut = DeviceStore(both, CPU).crops(positions, windows, 32, torch.zeros(4, dtype=torch.bool))
    assert torch.equal(cut[0], cut[1])
    assert torch.equal(cut[2], cut[3])
    assert torch.equal(cut, both.crops(positions, windows, 32, torch.zeros(4, dtype=torch.bool)))


def test_no_crops_are_no_crops(tmp_path):
    cut = DeviceStore(stores(tmp_path), CPU).crops(
        torch.empty(0, dtype=torch.int64), torch.empty(0, 4), 32, torch.empty(0, dtype=torch.bool)
    )
    assert cut.shape == (0, 3, 32, 32)


def test_a_cpu_reads_the_file_itself(tmp_path):
    store = stores(tmp_path)
    assert near(store, CPU) is store
    assert pixels_of(store) == sum(store.image(position).size for position in range(len(store)))
