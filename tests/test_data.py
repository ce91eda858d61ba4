"""Data sets: decoding, layouts, splits that never leak, and errors a user can act on."""

from __future__ import annotations

import hashlib
import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_inpaint import catalog
from ssl_inpaint.data import filelist, folder, imagefolder, silhouettes, voc
from ssl_inpaint.data.listing import PARTS_OF_SPLIT, find_images, part_by_hash
from ssl_inpaint.data.sources import ArrayImages, FileImages, decode, open_image
from ssl_inpaint.data.specs import open_data
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment.data import describe_data

RAMP = np.linspace(0, 255, 12 * 9 * 3).reshape(9, 12, 3).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def put_image(file: Path, value: int = 0, size: tuple[int, int] = (12, 9)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value % 256, value // 256 % 256, 77)).save(file)


def names(split: object) -> list[str]:
    images = split.images  # type: ignore[attr-defined]
    return [images.name(i) for i in range(len(images))]


# Decoding


def test_png_decodes_to_the_very_pixels() -> None:
    assert (decode(encoded(Image.fromarray(RAMP))) == RAMP).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA", "YCbCr"])
def test_every_mode_becomes_rgb_of_the_same_look(mode: str) -> None:
    original = Image.fromarray(RAMP).convert("L").convert("RGB").convert(mode)
    pixels = decode(encoded(original, "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"))
    assert pixels.shape == (9, 12, 3) and pixels.dtype == np.uint8
    # YCbCr loses a little to its rounding.
    assert np.abs(pixels.astype(int) - np.asarray(original.convert("RGB")).astype(int)).max() <= 2


def test_cmyk_jpeg_is_not_inverted() -> None:
    pixels = decode(encoded(Image.new("RGB", (16, 16), (250, 250, 250)).convert("CMYK"), "JPEG"))
    assert pixels.mean() > 240


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    assert decode(encoded(Image.fromarray(values)))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 51.0, 255.0]], np.float32), [0, 51, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, np.nan, 1.0]], np.float32), [0, 0, 255]),
        (np.array([[0, 65535, 0]], np.int32), [0, 255, 0]),
        (np.array([[0, 500000, 1000000]], np.int32), [0, 128, 255]),
        (np.zeros((1, 3), np.int32), [0, 0, 0]),
    ],
)
def test_thirty_two_bit_grey_uses_the_whole_range(values: np.ndarray, expected: list[int]) -> None:
    assert decode(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(RAMP), exif=exif)
    image, size = open_image(data)
    assert (decode(data) == np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))).all()
    assert image.size == size == ((12, 9) if orientation < 5 else (9, 12))


def test_transparent_pixels_lie_on_mid_grey() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    assert decode(encoded(image)).tolist() == [[[255, 0, 0], [128, 128, 128]]]


def test_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data)[0, 0].tolist() == [255, 0, 0]


def test_one_pixel_image_decodes() -> None:
    assert decode(encoded(Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_truncated_files_raise_oserror(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for length in (0, 1, 20, len(data) // 2):
        with pytest.raises(OSError):
            decode(data[:length])


def test_decompression_bomb_raises_oserror() -> None:
    png = bytearray(encoded(Image.new("RGB", (1, 1))))
    png[16:24] = struct.pack(">II", 60000, 60000)
    with pytest.raises(OSError):
        decode(bytes(png))


def test_large_jpeg_is_decoded_smaller_but_not_below_twice_the_target() -> None:
    image, size = open_image(encoded(Image.new("RGB", (800, 600)), "JPEG"), short_side=40)
    assert size == (800, 600)
    assert 80 <= min(image.size) < 600


# Sources


def test_the_stamp_is_a_hash_of_names_sizes_and_times_in_order(tmp_path: Path) -> None:
    names = [f"{place}.png" for place in range(5)]
    for place, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes(place))
    names[3] = str(tmp_path / names[3])  # an absolute path stands for itself
    files = [tmp_path / name for name in names]
    files[1].unlink()
    text = str(tmp_path)
    for name, file in zip(names, files, strict=True):
        text += f"\n{name}\0" + (f"{file.stat().st_size}\0{file.stat().st_mtime_ns}" if file.exists() else "missing")
    assert FileImages(tmp_path, names).stamp() == hashlib.sha256(text.encode()).hexdigest()


def test_a_file_written_over_in_place_changes_the_stamp_though_its_folder_keeps_its_time(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"before")
    before, folder_time = FileImages(tmp_path, ["0.png"]).stamp(), tmp_path.stat().st_mtime_ns
    with (tmp_path / "0.png").open("r+b") as stream:
        stream.write(b"behind")
    os.utime(tmp_path / "0.png", ns=(1, 1))  # the clock of a file system may be too coarse for a test
    assert tmp_path.stat().st_mtime_ns == folder_time
    assert FileImages(tmp_path, ["0.png"]).stamp() != before


def test_stamp_changes_with_content_and_names_but_not_by_reading(tmp_path: Path) -> None:
    put_image(tmp_path / "a.png")
    images = FileImages(tmp_path, ["a.png"])
    before = images.stamp()
    images.read(0)
    assert images.stamp() == before
    os.utime(tmp_path / "a.png", ns=(1, 1))
    assert images.stamp() != before
    assert FileImages(tmp_path, ["missing.png"]).stamp() != before


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 3)])
def test_array_images_read_back_as_they_were(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images = ArrayImages(pixels, ["0", "1", "2"])
    expected = pixels[1] if len(shape) == 4 else np.repeat(pixels[1][..., None], 3, 2)
    assert (decode(images.read(1)) == expected).all()
    assert images.stamp() == ArrayImages(pixels.copy(), ["0", "1", "2"]).stamp()
    assert images.stamp() != ArrayImages(pixels + 1, ["0", "1", "2"]).stamp()


def test_listing_finds_nested_images_and_skips_hidden_files(tmp_path: Path) -> None:
    for name in ("b/c/2.JPG", "a/1.png", ".hidden.png", "__MACOSX/x.png", ".git/y.png"):
        put_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert find_images(tmp_path) == ["a/1.png", "b/c/2.JPG"]


# Splits


def test_hash_split_is_stable_across_versions() -> None:
    # Written down once: a change here would move images between train and test of every user.
    parts = [part_by_hash(f"cat/{i}.jpg", 0.2, 0.2) for i in range(30)]
    assert [i for i, part in enumerate(parts) if part == "val"] == [2, 21]
    assert [i for i, part in enumerate(parts) if part == "test"] == [9, 13, 18, 24, 26, 27]
    assert part_by_hash("cafe\u0301.jpg", 0.3, 0.3) == part_by_hash("caf\u00e9.jpg", 0.3, 0.3)


def test_hash_split_meets_its_shares() -> None:
    parts = [part_by_hash(str(i), 0.1, 0.3) for i in range(4000)]
    # Four standard deviations of a binomial share of 4,000.
    assert abs(parts.count("test") / 4000 - 0.3) < 0.03
    assert abs(parts.count("val") / 4000 - 0.1) < 0.02


def flat_classes(root: Path) -> None:
    for i in range(60):
        put_image(root / ("cat" if i % 2 else "dog") / f"{i}.png", i)


def three_splits(root: Path) -> None:
    for i, part in enumerate(("train", "valid", "test")):
        for j in range(4):
            put_image(root / part / ("cat" if j % 2 else "dog") / f"{j}.png", 10 * i + j)


def train_and_test(root: Path) -> None:
    for i in range(40):
        put_image(root / ("test" if i % 4 == 0 else "train") / f"class{i % 2}" / f"{i}.png", i)
    put_image(root / "train" / "class1" / "x.png")
    put_image(root / "test" / "class1" / "x.png")


def train_and_val(root: Path) -> None:
    train_and_test(root)
    (root / "test").rename(root / "val")


def nested_photos(root: Path) -> None:
    for i in range(40):
        put_image(root / "a" / "b" / f"{i}.png", i)


def tiny_imagenet(root: Path) -> None:
    lines = []
    for i in range(60):
        put_image(root / "train" / f"n{i % 3}" / "images" / f"n{i % 3}_{i}.JPEG", i)
    for i in range(6):
        put_image(root / "val" / "images" / f"val_{i}.JPEG", i)
        lines.append(f"val_{i}.JPEG\tn{i % 3}\t0\t0\t9\t9")
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (root / "words.txt").write_text("n0\tfrog\nn2\tnewt, eft\nn9\tunused\n")


OBJECTS = (
    "<object><name>{name}</name><part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax>"
    "<ymax>2</ymax></bndbox></part><difficult>{difficult}</difficult><bndbox><xmin>1</xmin><ymin>2.0</ymin>"
    "<xmax>12</xmax><ymax>9</ymax></bndbox></object>"
)


def put_voc(root: Path, year: str = "2007", lists: tuple[str, ...] = ("train", "val", "test"), name: str = "") -> None:
    base = root / "VOCdevkit" / f"VOC{year}"
    for folder_name in ("Annotations", "ImageSets/Main"):
        (base / folder_name).mkdir(parents=True, exist_ok=True)
    for i in range(60):
        put_image(base / "JPEGImages" / f"{i:06}.jpg", i)
        objects = OBJECTS.format(name=name or ("train" if i % 2 else "dog"), difficult=int(i % 3 == 0))
        objects += OBJECTS.format(name=name or "cat", difficult=int(i % 5 == 0)) * (i % 4 > 1)
        size = "<size><width>12</width><height>9</height><depth>3</depth></size>"
        (base / "Annotations" / f"{i:06}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    for part, some in zip(lists, np.array_split(np.arange(60), len(lists)), strict=True):
        (base / "ImageSets" / "Main" / f"{part}.txt").write_text("".join(f"{i:06}\n" for i in some))


def voc_2012(root: Path) -> None:
    put_voc(root, "2012", ("train", "val"))


LAYOUTS = {
    "voc2007": (put_voc, "VOC07-resplit, 12 px"),
    "voc2012": (voc_2012, "VOC12-resplit, 12 px"),
    "tinyimagenet": (tiny_imagenet, "tinyimagenet:photos"),
    "flat": (flat_classes, "imagefolder:photos"),
    "three": (three_splits, "imagefolder:photos"),
    "train_test": (train_and_test, "imagefolder:photos"),
    "train_val": (train_and_val, "imagefolder:photos"),
    "folder": (nested_photos, "folder:photos"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bare_path_is_recognised_and_splits_never_leak(layout: str, tmp_path: Path) -> None:
    make, dataset = LAYOUTS[layout]
    root = tmp_path / "photos"
    make(root)
    settings = {"test_fraction": "0.3"} if layout == "folder" else {}
    splits = {split: open_data(str(root), split, settings) for split in PARTS_OF_SPLIT}
    assert {split.dataset for split in splits.values()} == {dataset}
    train, val, test = (set(names(splits[part])) for part in ("train", "val", "test"))
    assert train and val and test
    assert not (train & val or train & test or val & test)
    assert set(names(splits["trainval"])) == set(names(splits["pretrain"])) == train | val
    assert len({split.classes for split in splits.values()}) == 1
    for split in splits.values():
        assert split.labels is None or len(split.labels) == len(split.images) == len(set(names(split)))


def test_added_images_move_no_others(tmp_path: Path) -> None:
    flat_classes(tmp_path)
    before = names(open_data(f"imagefolder:{tmp_path}", "test"))
    for i in range(20):
        put_image(tmp_path / "cat" / f"new{i}.png", i)
    after = names(open_data(f"imagefolder:{tmp_path}", "test"))
    assert set(before) == {name for name in after if "new" not in name}


@pytest.mark.parametrize("layout", ["train_val", "voc2012"])
def test_val_serves_as_test_where_there_is_none(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout][0](tmp_path)
    official = {f"JPEGImages/{i:06}.jpg" for i in range(30, 60)} if layout == "voc2012" else set()
    test = set(names(open_data(str(tmp_path), "test")))
    assert test == (official or {n for n in find_images(tmp_path) if n.startswith("val/")})


# Class folders


def test_labels_follow_the_class_folders(tmp_path: Path) -> None:
    three_splits(tmp_path)
    split = open_data(f"imagefolder:{tmp_path}", "val")
    assert split.classes == ("cat", "dog")
    assert split.labels is not None
    assert [split.classes[label] for label in split.labels] == [name.split("/")[1] for name in names(split)]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("loose.png", "beside class folders"),
        ("train/loose.png", "beside class folders"),
        ("birds/1.png", "birds beside test, train"),
        ("test/bird/1.png", "unknown to train: bird"),
    ],
)
def test_mixed_layouts_are_refused(wrong: str, words: str, tmp_path: Path) -> None:
    three_splits(tmp_path)
    put_image(tmp_path / wrong)
    with pytest.raises(UsageError, match=words):
        imagefolder.build(tmp_path, "train", imagefolder.Config())


def test_plain_split_folders_are_not_taken_for_classes_or_read_whole(tmp_path: Path) -> None:
    put_image(tmp_path / "train" / "1.png")
    put_image(tmp_path / "test" / "2.png")
    with pytest.raises(UsageError, match="not recognised"):
        open_data(str(tmp_path), "pretrain")


# Unlabelled images


def test_folder_gives_everything_to_pretraining_and_no_test_by_default(tmp_path: Path) -> None:
    nested_photos(tmp_path)
    assert len(folder.build(tmp_path, "pretrain", folder.Config()).images) == 40
    with pytest.raises(UsageError, match=r"test_fraction=0\.2"):
        folder.build(tmp_path, "test", folder.Config())


@pytest.mark.parametrize("prefix", ["", "a/", "ABSOLUTE"])
def test_filelist_paths_are_found_from_its_folder_or_above(prefix: str, tmp_path: Path) -> None:
    base = tmp_path / "photos"
    for i in range(3):
        put_image(base / "a" / f"{i}.png", i)
    listed = base / "a" / "lists" / "mine.txt"
    listed.parent.mkdir()
    paths = [
        f"{base / 'a' if prefix == 'ABSOLUTE' else ''}/{i}.png".lstrip("/" if prefix != "ABSOLUTE" else "")
        for i in (2, 0)
    ]
    lines = ["# chosen", "", *(prefix * (prefix == "a/") + path for path in paths), paths[0] if prefix != "a/" else ""]
    listed.write_text("\r\n".join(lines), encoding="utf-8-sig")
    split = open_data(str(listed), "pretrain")
    assert split.dataset == "filelist:mine.txt"
    assert [Path(name).name for name in names(split)] == ["2.png", "0.png"]
    assert decode(split.images.read(0))[0, 0].tolist() == [2, 0, 77]


def test_filelist_counts_and_names_missing_files(tmp_path: Path) -> None:
    put_image(tmp_path / "1.png")
    (tmp_path / "list.txt").write_text("1.png\n" + "".join(f"gone{i}.png\n" for i in range(5)))
    with pytest.raises(UsageError, match=r"5 of the 6 .*gone0.png, gone1.png, gone2.png, \.\.\."):
        filelist.build(tmp_path / "list.txt", "pretrain", filelist.Config())


@pytest.mark.parametrize("content", [b"", b"# only words\n", b"\xff\xfe\x00"])
def test_filelist_without_readable_lines_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UsageError):
        filelist.build(tmp_path / "list.txt", "pretrain", filelist.Config())


# VOC


def test_voc_boxes_are_zero_based_with_open_ends_and_parts_are_ignored(tmp_path: Path) -> None:
    put_voc(tmp_path)
    split = open_data(f"voc2007:{tmp_path}", "trainval")
    assert split.objects is not None and split.classes == voc.CLASSES
    assert len(split.objects[0].boxes) == 1 and len(split.objects[2].boxes) == 2
    assert split.objects[0].boxes.tolist() == [[0, 1, 12, 9]]
    assert split.objects[0].is_difficult.tolist() == [True]


def test_voc_labels_equal_the_official_class_lists_by_their_rule(tmp_path: Path) -> None:
    put_voc(tmp_path)
    split = open_data(f"voc2007:{tmp_path}", "train")
    assert split.labels is not None and split.labels.shape == (20, 20)
    for i, label in enumerate(split.labels):
        # VOC's own lists: 1 present, -1 absent, 0 only difficult; `train` is a class and a split.
        dog = 255 if i % 3 == 0 else 1
        cat = 0 if i % 4 < 2 else (255 if i % 5 == 0 else 1)
        expected = {"dog": 0 if i % 2 else dog, "train": dog if i % 2 else 0, "cat": cat}
        assert {name: label[voc.CLASSES.index(name)] for name in expected} == expected
        assert label.sum() == sum(expected.values())


def test_voc_label_is_one_where_an_easy_object_stands_beside_a_difficult_one(tmp_path: Path) -> None:
    put_voc(tmp_path)
    file = tmp_path / "VOCdevkit" / "VOC2007" / "Annotations" / "000000.xml"
    file.write_text(
        f"<annotation>{OBJECTS.format(name='dog', difficult=0)}{OBJECTS.format(name='dog', difficult=1)}</annotation>"
    )
    labels = open_data(f"voc2007:{tmp_path}", "train").labels
    assert labels is not None and labels[0, voc.CLASSES.index("dog")] == 1


@pytest.mark.parametrize("inner", ["", "VOCdevkit", "VOCdevkit/VOC2007"])
def test_voc_is_found_from_any_of_its_folders(inner: str, tmp_path: Path) -> None:
    put_voc(tmp_path)
    assert len(open_data(str(tmp_path / inner), "test").images) == 20


def test_official_counts_alone_earn_the_official_name(tmp_path: Path) -> None:
    main = tmp_path / "VOC2007" / "ImageSets" / "Main"
    main.mkdir(parents=True)
    for part, count in {"train": 2501, "val": 2510, "test": 4952}.items():
        (main / f"{part}.txt").write_text("".join(f"{part}{i}\n" for i in range(count)))
    assert voc.display_name(tmp_path, "2007") == "voc2007"
    (main / "val.txt").write_text("val0\n")
    assert voc.display_name(tmp_path, "2007") == "VOC07-resplit, 0 px"


def test_other_classes_in_voc_layout_get_their_own_names(tmp_path: Path) -> None:
    put_voc(tmp_path / "street", name="window")
    split = open_data(str(tmp_path / "street"), "train")
    assert (split.dataset, split.classes) == ("voc:street", ("window",))


def test_voc_classes_can_be_chosen_and_misspelt_ones_are_refused(tmp_path: Path) -> None:
    put_voc(tmp_path)
    split = open_data(f"voc2007:{tmp_path}", "train", {"classes": "dog,cat"})
    assert (split.dataset, split.classes) == ("VOC07-resplit, 12 px, 2 classes", ("dog", "cat"))
    with pytest.raises(UsageError, match="Did you mean 'dog'"):
        open_data(f"voc2007:{tmp_path}", "train", {"classes": "dogg"})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: (root / "JPEGImages" / "000003.jpg").unlink(), "misses 1 files.*000003"),
        (lambda root: (root / "Annotations" / "000003.xml").unlink(), "misses 1 files.*000003"),
        (lambda root: (root / "Annotations" / "000003.xml").write_text("<annotation>"), "000003.xml"),
        (lambda root: (root / "Annotations" / "000003.xml").write_text("<a><object/></a>"), "000003.xml"),
        (lambda root: (root / "ImageSets" / "Main" / "train.txt").unlink(), "no train images"),
    ],
)
def test_damaged_voc_is_refused(damage: object, words: str, tmp_path: Path) -> None:
    put_voc(tmp_path)
    damage(tmp_path / "VOCdevkit" / "VOC2007")  # type: ignore[operator]
    with pytest.raises(UsageError, match=words):
        open_data(f"voc2007:{tmp_path}", "train")


# Tiny ImageNet and torchvision


def test_tiny_imagenet_names_its_classes(tmp_path: Path) -> None:
    tiny_imagenet(tmp_path)
    split = open_data(str(tmp_path), "test")
    assert split.classes == ("frog", "n1", "newt, eft")
    assert split.labels is not None and split.labels.tolist() == [0, 1, 2, 0, 1, 2]


def put_mnist(root: Path, count: int = 30) -> np.ndarray:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        header = struct.pack(">IIII", 2051, count, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())
    return pixels


@pytest.mark.parametrize("spec", ["mnist:{}", "torchvision:mnist:{}"])
def test_torchvision_arrays_become_images_and_labels(spec: str, tmp_path: Path) -> None:
    pixels = put_mnist(tmp_path)
    train, val = (open_data(spec.format(tmp_path), split) for split in ("train", "val"))
    assert not set(names(train)) & set(names(val)) and len(train.images) + len(val.images) == 30
    for position, name in enumerate(names(val)):
        assert (decode(val.images.read(position))[..., 0] == pixels[int(name)]).all()
        assert val.labels is not None and val.labels[position] == int(name) % 10
    assert (val.dataset, len(val.classes)) == ("mnist", 10)


def test_torchvision_files_are_split_by_hash(tmp_path: Path) -> None:
    for i in range(30):
        put_image(tmp_path / "eurosat" / "2750" / ("River" if i % 2 else "Forest") / f"{i}.jpg", i)
    train, test = (open_data(f"eurosat:{tmp_path}", split) for split in ("trainval", "test"))
    assert test.classes == ("Forest", "River")
    assert not set(names(train)) & set(names(test)) and len(train.images) + len(test.images) == 30


def test_missing_torchvision_set_says_how_to_ask_for_the_download(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--set data.download=true"):
        open_data(f"cifar10:{tmp_path}", "train")


# Specs


def test_every_data_part_keeps_the_contract() -> None:
    for name, first_line in catalog.parts("data").items():
        part = catalog.load("data", name)
        assert first_line and part.Config() == part.Config()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("voc2077:x", "Did you mean 'voc2007'"),
        ("cifar11", "Did you mean 'cifar10"),
        ("torchvision:cifar11:x", "Did you mean 'cifar10"),
        ("/nowhere/at/all", "no folder or file"),
        ("folder:/nowhere/at/all", "no folder or file"),
        ("voc2007", "needs a folder"),
        ("folder", "needs a folder"),
        ("", "No data set"),
        ("filelist", "takes a text file"),
    ],
)
def test_bad_specs_are_explained(spec: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        open_data(spec, "train")


@pytest.mark.parametrize("part", ["voc2007", "voc2012", "tinyimagenet", "imagefolder", "folder"])
def test_empty_folders_and_files_are_refused(part: str, tmp_path: Path) -> None:
    (tmp_path / "file.jpg").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for path in ("file.jpg", "empty"):
        with pytest.raises(UsageError):
            open_data(f"{part}:{tmp_path / path}", "train")
    with pytest.raises(UsageError, match="not recognised"):
        open_data(str(tmp_path / "file.jpg"), "train")


def test_unknown_splits_and_settings_are_refused(tmp_path: Path) -> None:
    nested_photos(tmp_path)
    with pytest.raises(UsageError, match="Did you mean 'trainval'"):
        open_data(str(tmp_path), "trainvall")
    with pytest.raises(UsageError, match="data setting 'fraction'"):
        open_data(str(tmp_path), "train", {"fraction": "0.1"})
    with pytest.raises(UsageError, match="below 1"):
        open_data(str(tmp_path), "train", {"test_fraction": "0.95"})


@pytest.mark.parametrize("layout", ["tinyimagenet", "three", "folder"])
def test_needing_masks_or_objects_changes_nothing_where_there_are_none(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout][0](tmp_path)
    plain = open_data(str(tmp_path), "train")
    for needs in ("objects", "masks"):
        found = open_data(str(tmp_path), "train", needs=needs)  # type: ignore[arg-type]
        assert names(found) == names(plain) and found.masks is None and found.objects is None


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    three_splits(tmp_path)
    put_image(tmp_path / "validation" / "cat" / "1.png")
    with pytest.raises(UsageError, match="holds valid and validation, both of them for val: keep one"):
        open_data(f"imagefolder:{tmp_path}", "train")


def test_masks_are_described_beside_what_is_read_without_them(tmp_path: Path) -> None:
    put_voc(tmp_path)
    assert describe_data(str(tmp_path))[-1].startswith("masks     - (")
    root = tmp_path / "VOCdevkit" / "VOC2007"
    (root / "ImageSets" / "Segmentation").mkdir()
    for part, name in {"train": "000001", "val": "000021", "test": "000041"}.items():
        (root / "ImageSets" / "Segmentation" / f"{part}.txt").write_text(f"{name}\n")
        (root / "SegmentationClass").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((9, 12), np.uint8)).save(root / "SegmentationClass" / f"{name}.png")
    lines = describe_data(str(tmp_path))
    assert lines[1].startswith("train     20 images, ") and "masks" not in lines[1]
    assert lines[-1].startswith("masks     1 train, 1 val, 1 test; 21 classes: background, aeroplane, ")


def test_folders_of_masks_are_described(tmp_path: Path) -> None:
    for i in range(24):
        put_image(tmp_path / "images" / f"{i}.png", i)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.full((9, 12), i % 2, np.uint8)).save(tmp_path / "masks" / f"{i}.png")
    lines = describe_data(str(tmp_path))
    assert lines[0] == f"maskfolder:{tmp_path.name}: 2 mask classes: 0, 1"
    count = len(open_data(str(tmp_path), "train").images)
    assert lines[1] == f"train     {count} images, {count} masks" and len(lines) == 5


# Silhouettes


def test_each_value_of_a_label_image_is_one_silhouette(tmp_path: Path) -> None:
    values = np.zeros((60, 40), np.uint8)
    values[5:25, 5:15] = 3
    values[30:50, 10:30] = 7
    values[55:58, 1:5] = 9  # 12 pixels: a speck
    values[25, :] = 255  # void
    Image.fromarray(values).save(tmp_path / "1.png")
    found = silhouettes.load_silhouettes(tmp_path, size=44)
    assert found.shape == (2, 44, 44) and found.dtype == bool
    # 20 x 10 and 20 x 20 pixels in squares of 22 pixels, at twice the size.
    assert found.sum((1, 2)).tolist() == [800, 1600]
    assert not (found[:, 0].any() or found[:, -1].any() or found[:, :, 0].any() or found[:, :, -1].any())


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_plain_masks_of_any_mode_are_one_object(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray((np.indices((30, 30)).sum(0) < 20).astype(np.uint8) * 255)
    if mode == "P":
        image.putpalette([0, 0, 0] * 255 + [255, 255, 255])
    else:
        image = image.convert(mode)
    image.save(tmp_path / "mask.png")
    assert len(silhouettes.load_silhouettes(tmp_path)) == 1


def test_silhouettes_stop_at_the_limit_and_refuse_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no object masks"):
        silhouettes.load_silhouettes(tmp_path)
    values = np.repeat(np.repeat(np.arange(9, dtype=np.uint8).reshape(3, 3), 8, 0), 8, 1)
    Image.fromarray(values).save(tmp_path / "many.png")
    assert len(silhouettes.load_silhouettes(tmp_path)) == 8
    assert len(silhouettes.load_silhouettes(tmp_path, limit=3)) == 3
    (tmp_path / "broken.png").write_bytes(b"not a PNG")
    with pytest.raises(UsageError, match=r"broken\.png"):
        silhouettes.load_silhouettes(tmp_path)
