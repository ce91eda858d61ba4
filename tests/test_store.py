"""The image store: exact crops, honest skipping, safe files."""

from __future__ import annotations

import mmap
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_inpaint.data import store_files
from ssl_inpaint.data.sources import FileImages
from ssl_inpaint.data.store import ImageStore, join, open_store
from ssl_inpaint.errors import UsageError

SIZES = [(40, 30), (30, 40), (20, 20), (1, 1), (300, 20), (23, 31)]  # width, height


def put_photos(root: Path, sizes: list[tuple[int, int]] = SIZES) -> FileImages:
    generator = np.random.default_rng(0)
    root.mkdir(exist_ok=True)
    for i, (width, height) in enumerate(sizes):
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(root / f"{i}.png")
    return FileImages(root, [f"{i}.png" for i in range(len(sizes))])


def flat_crop(store: ImageStore, position: int, window: tuple[float, ...], size: int, flip: bool = False) -> np.ndarray:
    crop = store.crops(np.array([position]), np.array([window]), size, np.array([flip]))
    assert crop.shape == (1, 3, size, size) and crop.dtype == torch.uint8
    return crop[0].permute(1, 2, 0).numpy()


def test_short_sides_are_the_working_size_and_strips_are_cut_to_three_to_one(tmp_path: Path) -> None:
    store = open_store(put_photos(tmp_path / "photos"), 16, tmp_path)
    assert list(zip(store.widths, store.heights, strict=True)) == [
        (21, 16),
        (16, 21),
        (16, 16),
        (16, 16),
        (48, 16),
        (16, 22),
    ]
    assert list(zip(store.original_widths, store.original_heights, strict=True)) == SIZES
    assert store.kept.tolist() == [0, 1, 2, 3, 4, 5] and store.count == len(store) == 6
    assert all(store.image(i).shape == (store.heights[i], store.widths[i], 3) for i in range(6))


def test_images_are_kept_pixel_for_pixel_at_their_own_size(tmp_path: Path) -> None:
    images = put_photos(tmp_path / "photos", [(40, 30), (30, 30)])
    store = open_store(images, 30, tmp_path)
    for i in range(2):
        assert (store.image(i) == np.asarray(Image.open(tmp_path / "photos" / f"{i}.png"))).all()


def test_resizing_is_pillows_antialiased_one(tmp_path: Path) -> None:
    store = open_store(put_photos(tmp_path / "photos"), 16, tmp_path)
    whole = Image.open(tmp_path / "photos" / "0.png").resize((21, 16), Image.Resampling.BILINEAR)
    assert (store.image(0) == np.asarray(whole)).all()


def test_jpeg_decoded_small_looks_like_the_one_decoded_whole(tmp_path: Path) -> None:
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth.resize((800, 600), Image.Resampling.BICUBIC).save(tmp_path / "0.jpg", quality=95)
    store = open_store(FileImages(tmp_path, ["0.jpg"]), 30, tmp_path)
    whole = np.asarray(Image.open(tmp_path / "0.jpg").resize((40, 30), Image.Resampling.BILINEAR))
    assert store.image(0).shape == whole.shape and store.original_widths.tolist() == [800]
    # Grey levels; the smaller decoding averages blocks before the same filter does.
    assert np.abs(store.image(0).astype(int) - whole.astype(int)).mean() < 2


def test_whole_pixel_windows_are_plain_slices_and_flips_mirror_them(tmp_path: Path) -> None:
    store = open_store(put_photos(tmp_path / "photos"), 16, tmp_path)
    expected = store.image(4)[2:14, 30:42]
    assert (flat_crop(store, 4, (30, 2, 12, 12), 12) == expected).all()
    assert (flat_crop(store, 4, (30, 2, 12, 12), 12, flip=True) == expected[:, ::-1]).all()


@pytest.mark.parametrize("window", [(3.25, 1.5, 13.0, 14.5), (0, 0, 48, 16), (10, 3, 6, 6)])
def test_other_windows_are_resized_as_pillow_does(window: tuple[float, ...], tmp_path: Path) -> None:
    store = open_store(put_photos(tmp_path / "photos"), 16, tmp_path)
    x, y, width, height = window
    expected = Image.fromarray(store.image(4)).resize((8, 8), Image.Resampling.BILINEAR, (x, y, x + width, y + height))
    assert (flat_crop(store, 4, window, 8) == np.asarray(expected)).all()
    assert (flat_crop(store, 4, window, 8, flip=True) == np.asarray(expected)[:, ::-1]).all()


def test_a_batch_is_its_crops_one_by_one_in_either_kind_of_array(tmp_path: Path) -> None:
    store = open_store(put_photos(tmp_path / "photos"), 16, tmp_path)
    windows = np.array([[0, 0, 8, 8], [1.5, 2, 9, 9], [4, 4, 8, 8]], np.float32)
    flips = np.array([True, False, True])
    batch = store.crops(torch.tensor([5, 0, 5]), torch.from_numpy(windows), 8, torch.from_numpy(flips))
    for row, position in enumerate((5, 0, 5)):
        one = flat_crop(store, position, tuple(windows[row].tolist()), 8, bool(flips[row]))
        assert (batch[row].permute(1, 2, 0).numpy() == one).all()
    assert store.crops(np.zeros(0, np.int64), np.zeros((0, 4)), 8, np.zeros(0, bool)).shape == (0, 3, 8, 8)


def test_what_is_read_next_is_announced_to_the_last_byte_and_in_joined_stores(tmp_path: Path) -> None:
    stores = [open_store(put_photos(tmp_path / name, SIZES[:n]), 16, tmp_path) for name, n in (("a", 6), ("b", 2))]
    both = join(stores)
    assert all(isinstance(store_files._mapped(flat), mmap.mmap) for flat in both.pixels)
    for position in range(8):
        own = stores[position // 6].image(position % 6)[:8, :8]
        assert (flat_crop(both, position, (0, 0, 8, 8), 8) == own).all()


def test_images_that_lie_in_memory_need_no_announcement() -> None:
    store_files.announce(np.zeros(10, np.uint8), np.array([3]), np.array([7]))
    assert store_files._mapped(np.zeros(10, np.uint8)[2:]) is None


@pytest.mark.parametrize(
    "window", [(-1, 0, 8, 8), (0, 9, 8, 8), (14, 0, 8, 8), (0, 0, 0, 8), (float("nan"), 0, 8, 8), (0, 0, 8, 17)]
)
def test_windows_outside_the_image_are_an_error(window: tuple[float, ...], tmp_path: Path) -> None:
    store = open_store(put_photos(tmp_path / "photos"), 16, tmp_path)
    with pytest.raises(ValueError, match="leaves its image of 21 x 16"):
        flat_crop(store, 0, window, 8)


@pytest.mark.parametrize("position", [-1, 6])
def test_positions_outside_the_store_are_an_error(position: int, tmp_path: Path) -> None:
    store = open_store(put_photos(tmp_path / "photos"), 16, tmp_path)
    with pytest.raises(ValueError, match="within 0 to 5"):
        flat_crop(store, position, (0, 0, 8, 8), 8)


def test_windows_drawn_in_single_precision_up_to_the_edge_are_taken(tmp_path: Path) -> None:
    store = open_store(put_photos(tmp_path / "photos"), 16, tmp_path)
    assert flat_crop(store, 0, (8.0001, 3.0, 13.0, 13.0), 8).shape == (8, 8, 3)


def test_boxes_follow_scaling_and_the_cut_of_long_images(tmp_path: Path) -> None:
    store = open_store(put_photos(tmp_path / "photos"), 10, tmp_path)
    # 300 x 20 keeps columns 120 to 180 and is halved.
    assert store.boxes(4, np.array([[120, 0, 180, 20], [0, 10, 140, 20]], np.float32)).tolist() == [
        [0, 0, 30, 10],
        [0, 5, 10, 10],
    ]
    assert store.boxes(2, np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_joined_stores_count_through_both_splits(tmp_path: Path) -> None:
    first, second = put_photos(tmp_path / "a"), put_photos(tmp_path / "b", [(17, 19), (20, 18)])
    (tmp_path / "a" / "1.png").write_bytes(b"broken")
    stores = [open_store(first, 16, tmp_path), open_store(second, 16, tmp_path)]
    both = join(stores)
    assert both.kept.tolist() == [0, 2, 3, 4, 5, 6, 7] and both.count == 8
    assert (both.image(5) == stores[1].image(0)).all() and (both.image(1) == stores[0].image(1)).all()
    assert (join([both, stores[0]]).image(7) == stores[0].image(0)).all()
    assert both.digest not in {store.digest for store in stores} and both.digest == join(stores).digest
    crops = both.crops(np.array([6, 0]), np.array([[0, 0, 9, 9]] * 2), 9, np.zeros(2, bool))
    assert (crops[0].permute(1, 2, 0).numpy() == stores[1].image(1)[:9, :9]).all()


# Files


def folders(cache: Path) -> list[str]:
    return sorted(entry.name for entry in (cache / "store").iterdir())


def test_digest_tells_content_not_names_or_times(tmp_path: Path) -> None:
    images = put_photos(tmp_path / "photos")
    first = open_store(images, 16, tmp_path / "cache")
    os.utime(tmp_path / "photos" / "0.png", ns=(1, 1))
    assert open_store(images, 16, tmp_path / "cache").digest == first.digest
    assert len(folders(tmp_path / "cache")) == 2
    Image.new("RGB", (5, 5)).save(tmp_path / "photos" / "0.png")
    assert open_store(images, 16, tmp_path / "cache").digest != first.digest


def test_an_existing_store_is_read_and_not_built_again(tmp_path: Path) -> None:
    images = put_photos(tmp_path / "photos")
    open_store(images, 16, tmp_path)
    pixels = next((tmp_path / "store").glob("*/pixels.bin"))
    before = pixels.stat().st_mtime_ns
    open_store(images, 16, tmp_path)
    assert pixels.stat().st_mtime_ns == before


@pytest.mark.parametrize("file", ["pixels.bin", "table.npy", "index.json"])
@pytest.mark.parametrize("length", [None, 0, 10])
def test_an_incomplete_store_is_built_again(file: str, length: int | None, tmp_path: Path) -> None:
    images = put_photos(tmp_path / "photos")
    before = open_store(images, 16, tmp_path)
    expected = before.image(5).copy()
    (folder,) = (tmp_path / "store").iterdir()
    whole = (folder / file).read_bytes()
    (folder / file).unlink()
    if length is not None:
        (folder / file).write_bytes(whole[:length])
    after = open_store(images, 16, tmp_path)
    assert (after.image(5) == expected).all() and after.digest == before.digest
    assert folders(tmp_path) == [folder.name]


def build_store(root: str, cache: str, results: multiprocessing.Queue[str]) -> None:
    images = FileImages(Path(root), [f"{i}.png" for i in range(len(SIZES))])
    results.put(open_store(images, 16, Path(cache)).digest)


def test_two_processes_build_one_store_and_leave_nothing_behind(tmp_path: Path) -> None:
    images = put_photos(tmp_path / "photos")
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (str(tmp_path / "photos"), str(tmp_path / "cache"), results)
    processes = [context.Process(target=build_store, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    digests = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert digests == {open_store(images, 16, tmp_path / "cache").digest}
    assert len(folders(tmp_path / "cache")) == 1


def test_the_slower_of_two_processes_uses_the_others_store(tmp_path: Path) -> None:
    images = put_photos(tmp_path / "photos")
    opened = open_store(images, 16, tmp_path / "cache")
    (name,) = folders(tmp_path / "cache")
    folder = tmp_path / "cache" / "store" / name
    inode = (folder / "pixels.bin").stat().st_ino
    store_files.write(images, 16, folder, lambda index: None)
    assert (folder / "pixels.bin").stat().st_ino == inode and folders(tmp_path / "cache") == [name]
    assert opened.image(0).shape == (16, 21, 3)


def test_stale_temporary_folders_are_removed_and_live_ones_kept(tmp_path: Path) -> None:
    images = put_photos(tmp_path / "photos")
    open_store(images, 16, tmp_path)
    (folder,) = (tmp_path / "store").iterdir()
    old, live = (folder.parent / f".{folder.name}.{kind}" for kind in ("old", "live"))
    for temporary in (old, live):
        temporary.mkdir()
        (temporary / "pixels.bin").write_bytes(b"1")
    for path in (old / "pixels.bin", old):
        os.utime(path, (1, 1))
    (folder / "index.json").unlink()
    open_store(images, 16, tmp_path)
    assert folders(tmp_path) == sorted([folder.name, live.name])


def test_a_cache_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    images = put_photos(tmp_path / "photos")
    (tmp_path / "file").write_text("where a folder should be")
    with pytest.raises(UsageError, match=r"Cannot write the image store.*SSL_INPAINT_CACHE"):
        open_store(images, 16, tmp_path / "file")


def test_a_full_disk_is_explained_and_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")  # a limit on file sizes refuses writes as a full disk does
    images = put_photos(tmp_path / "photos")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(UsageError, match="Cannot write the image store"):
            open_store(images, 16, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert folders(tmp_path / "cache") == []


# Unreadable images


def test_unreadable_images_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = put_photos(tmp_path / "photos")
    whole = (tmp_path / "photos" / "0.png").read_bytes()
    (tmp_path / "photos" / "0.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photos" / "3.png").unlink()
    store = open_store(images, 16, tmp_path / "cache")
    said = capsys.readouterr().err
    assert "2 of 6 images cannot be read: 0.png (" in said and "3.png (No such file or directory)" in said
    assert store.kept.tolist() == [1, 2, 4, 5] and store.count == 6
    assert open_store(images, 16, tmp_path / "cache").kept.tolist() == [1, 2, 4, 5]


@pytest.mark.parametrize("broken", [3, 4])
def test_more_than_three_and_than_the_fraction_are_too_many(broken: int, tmp_path: Path) -> None:
    images = put_photos(tmp_path / "photos", [(8, 8)] * 10)
    for i in range(broken):
        (tmp_path / "photos" / f"{i}.png").write_bytes(b"")
    if broken == 3:
        assert len(open_store(images, 16, tmp_path / "cache")) == 7
        return
    with pytest.raises(UsageError, match=r"4 of 10 images cannot be read: 0.png \(.*, 2.png \(.*\), \.\.\."):
        open_store(images, 16, tmp_path / "cache")
    assert folders(tmp_path / "cache") == []
    open_store(images, 16, tmp_path / "cache", max_unreadable_fraction=0.5)
    with pytest.raises(UsageError, match="4 of 10"):
        open_store(images, 16, tmp_path / "cache")


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match="1 of 1 images cannot be read"):
        open_store(FileImages(tmp_path, ["0.png"]), 16, tmp_path / "cache")
    with pytest.raises(UsageError, match="no images"):
        open_store(FileImages(tmp_path, []), 16, tmp_path / "cache")
