"""Class masks: VOC's and SBD's, folders of masks, and that nothing in them is taken for what it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ssl_inpaint.data import maskfolder, shapes, voc, voc_masks
from ssl_inpaint.data.mask_files import MaskFiles, plain_table, read_values
from ssl_inpaint.data.specs import open_data
from ssl_inpaint.errors import UsageError
from ssl_inpaint.images import voc_palette

VALUES = np.array([[0, 1, 8, 255], [12, 15, 20, 0]], np.uint8)  # background, aeroplane, cat, void; dog, person, tv


def put_image(file: Path, size: tuple[int, int] = (4, 2)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(file)


def put_mask(file: Path, values: np.ndarray = VALUES, palette: np.ndarray | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette is not None:
        image.putpalette(palette.tobytes())
    image.save(file)


def put_voc(root: Path, year: str = "2007", **lists: tuple[str, ...]) -> Path:
    base = root / "VOCdevkit" / f"VOC{year}"
    for part, names in lists.items():
        listed = base / "ImageSets" / "Segmentation" / f"{part}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("".join(f"{name}\n" for name in names))
        for name in names:
            put_image(base / "JPEGImages" / f"{name}.jpg")
            put_mask(base / "SegmentationClass" / f"{name}.png", palette=voc_palette())
    return base


def numbered(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{i}" for i in range(count))


def names(split: object) -> list[str]:
    images = split.images  # type: ignore[attr-defined]
    return [Path(images.name(i)).stem for i in range(len(images))]


def opened(root: Path, split: str = "train", part: str = "", **settings: str) -> object:
    return open_data(f"{part}:{root}" if part else str(root), split, settings, needs="masks")


def mask_of(split: object, position: int = 0) -> list[list[int]]:
    return split.masks.read(position).tolist()  # type: ignore[attr-defined]


# VOC


def test_voc_masks_are_the_values_of_the_palette_image(tmp_path: Path) -> None:
    put_voc(tmp_path, train=("a", "b"), val=("c",), test=("d",))
    found = opened(tmp_path)
    assert names(found) == ["a", "b"] and len(found.masks) == 2
    assert mask_of(found) == VALUES.tolist() and found.masks.read(0).dtype == np.uint8
    assert found.mask_classes == ("background", *voc.CLASSES)
    assert found.labels is None and found.objects is None
    assert (found.dataset, found.masks.name(0)) == ("VOC07-resplit, 4 px", "SegmentationClass/a.png")


def test_voc_without_masks_reads_main_as_before(tmp_path: Path) -> None:
    put_voc(tmp_path, train=("a",), val=("b",))
    with pytest.raises(UsageError, match="ImageSets/Main"):
        open_data(str(tmp_path), "train")


def test_voc_without_segmentation_lists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "VOC2007" / "ImageSets" / "Main").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"no VOC devkit with class masks: .*VOC2007/ImageSets/Segmentation"):
        opened(tmp_path)


def test_chosen_classes_are_renumbered_and_the_others_become_background(tmp_path: Path) -> None:
    put_voc(tmp_path, train=("a",), val=("b",), test=("c",))
    found = opened(tmp_path, classes="person,cat")
    assert mask_of(found) == [[0, 0, 2, 255], [0, 1, 0, 0]]
    assert found.mask_classes == ("background", "person", "cat")
    assert found.dataset == "VOC07-resplit, 4 px, 2 classes"
    with pytest.raises(UsageError, match="Did you mean 'cat'"):
        opened(tmp_path, classes="catt")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_masks_saved_in_the_colours_of_the_palette_are_read_back(mode: str, tmp_path: Path) -> None:
    base = put_voc(tmp_path, train=("a",), val=("b",))
    Image.open(base / "SegmentationClass" / "a.png").convert(mode).save(base / "SegmentationClass" / "a.png")
    assert mask_of(opened(tmp_path)) == VALUES.tolist()


def test_every_colour_of_the_palette_is_its_own_index(tmp_path: Path) -> None:
    put_mask(tmp_path / "all.png", voc_palette()[None])
    assert read_values(tmp_path / "all.png", voc_palette()).tolist() == [list(range(256))]


def test_other_colours_and_values_without_a_class_are_refused_by_name(tmp_path: Path) -> None:
    base = put_voc(tmp_path, train=("a", "b", "c", "d", "e"), val=("v",))
    put_mask(base / "SegmentationClass" / "a.png", np.full((2, 4, 3), (1, 2, 3), np.uint8))
    put_mask(base / "SegmentationClass" / "b.png", np.full((2, 4), 21, np.uint8))
    (base / "SegmentationClass" / "c.png").write_bytes(b"no PNG")
    (base / "SegmentationClass" / "d.png").write_bytes((base / "SegmentationClass" / "e.png").read_bytes()[:-30])
    masks = opened(tmp_path).masks
    for position, words in enumerate(
        [r"a\.png.*\(1, 2, 3\)", r"b\.png holds the value 21.*labels\.txt", "c.png: not an"]
    ):
        with pytest.raises(OSError, match=words):
            masks.read(position)
    with pytest.raises(OSError, match=r"d\.png"):
        masks.read(3)
    (base / "SegmentationClass" / "e.png").unlink()
    with pytest.raises(OSError, match=r"e\.png"):
        masks.read(4)


def test_missing_voc_masks_are_counted(tmp_path: Path) -> None:
    base = put_voc(tmp_path, train=numbered("a", 5), val=("b",))
    for name in numbered("a", 4):
        (base / "SegmentationClass" / f"{name}.png").unlink()
    with pytest.raises(UsageError, match=r"misses 4 files that ImageSets/Segmentation lists: .*a2\.png, \.\.\.;"):
        opened(tmp_path)
    with pytest.raises(UsageError, match="no test images in ImageSets/Segmentation"):
        opened(tmp_path, "test")


def test_labels_txt_names_the_values_of_other_data_sets(tmp_path: Path) -> None:
    base = put_voc(tmp_path / "street", train=("a",), val=("b",))
    put_mask(base / "SegmentationClass" / "a.png", np.array([[0, 1, 2]], np.uint8))
    (base / "labels.txt").write_text("background\nwindow\ndoor\n")
    found = opened(tmp_path / "street")
    assert (found.dataset, found.mask_classes) == ("voc:street", ("background", "window", "door"))
    assert mask_of(found) == [[0, 1, 2]]
    (base / "labels.txt").write_text("\n")
    with pytest.raises(UsageError, match=r"labels\.txt names 0 classes: name 1 to 254"):
        opened(tmp_path / "street")


def test_without_labels_txt_the_values_follow_the_classes_of_the_boxes(tmp_path: Path) -> None:
    base = put_voc(tmp_path / "street", train=("a",), val=("b",))
    (base / "Annotations").mkdir()
    for file, name in (("a", "window"), ("b", "door")):
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>"
        annotation = f"<annotation><object><name>{name}</name>{box}</object></annotation>"
        (base / "Annotations" / f"{file}.xml").write_text(annotation)
    assert opened(tmp_path / "street").mask_classes == ("background", "door", "window")


def test_official_counts_of_masks_earn_the_official_name(tmp_path: Path) -> None:
    lists = tmp_path / "VOC2012" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for part, count in {"train": 1464, "val": 1449}.items():
        (lists / f"{part}.txt").write_text("".join(f"{part}{i}\n" for i in range(count)))
    assert voc.display_name(tmp_path, "2012", voc.SEGMENTATION) == "voc2012"


def test_val_of_2012_serves_as_test_and_a_share_of_train_is_held_out(tmp_path: Path) -> None:
    put_voc(tmp_path, "2012", train=numbered("t", 30), val=numbered("v", 4), test=())
    parts = {split: set(names(opened(tmp_path, split))) for split in ("train", "val", "test", "trainval")}
    assert parts["test"] == set(numbered("v", 4))
    assert parts["train"] | parts["val"] == parts["trainval"] == set(numbered("t", 30))
    assert parts["train"] and parts["val"] and not parts["train"] & parts["val"]


# SBD


def put_sbd(folder: Path, train: tuple[str, ...], val: tuple[str, ...], with_images: bool = True) -> None:
    for name in (*train, *val):
        (folder / "cls").mkdir(parents=True, exist_ok=True)
        savemat(folder / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": np.array([[0, 15, 20]], np.uint8)}})
        if with_images:
            put_image(folder / "img" / f"{name}.jpg", (3, 1))
    for part, listed in (("train", train), ("val", val)):
        (folder / f"{part}.txt").write_text("".join(f"{name}\n" for name in listed))


def voc_and_sbd(root: Path, place: str = "VOCdevkit/SBD") -> Path:
    base = put_voc(root, "2012", train=numbered("t", 20), val=numbered("v", 3))
    # t0 has a finer mask in VOC, v0 and v1 are tested on
    put_sbd(root / place, ("t0", "v0", "s0"), ("v1", "s1"))
    return base


@pytest.mark.parametrize("place", ["benchmark_RELEASE/dataset", "VOCdevkit/SBD", "VOCdevkit/sbd/dataset"])
def test_sbd_beside_voc_adds_to_train_what_is_not_tested_on(place: str, tmp_path: Path) -> None:
    voc_and_sbd(tmp_path, place)
    found, val, test = (opened(tmp_path, split) for split in ("trainval", "val", "test"))
    assert set(names(found)) == {*numbered("t", 20), "s0", "s1"}
    assert set(names(val)) <= set(numbered("t", 20)) and names(test) == list(numbered("v", 3))
    assert {found.dataset, val.dataset, test.dataset} == {"VOC12-resplit, 4 px, with SBD"}
    masks = {name: mask_of(found, position) for position, name in enumerate(names(found))}
    assert masks["s0"] == [[0, 15, 20]] and masks["t0"] == VALUES.tolist()
    assert found.images.read(names(found).index("s1")) == (tmp_path / place / "img" / "s1.jpg").read_bytes()


@pytest.mark.parametrize("place", ["far", "far/dataset", "far/benchmark_RELEASE/dataset"])
def test_sbd_is_found_where_the_setting_says(place: str, tmp_path: Path) -> None:
    voc_and_sbd(tmp_path, place)
    assert opened(tmp_path).dataset == "VOC12-resplit, 4 px"
    assert "s0" in names(opened(tmp_path, "trainval", sbd=str(tmp_path / "far")))
    chosen = opened(tmp_path, sbd=str(tmp_path / "far"), classes="person")
    assert mask_of(chosen, names(chosen).index("s0")) == [[0, 1, 0]]
    assert chosen.dataset == "VOC12-resplit, 4 px, 1 classes, with SBD"
    with pytest.raises(UsageError, match=r"is no SBD: data\.sbd takes"):
        opened(tmp_path, sbd=str(tmp_path))


def test_sbd_can_be_left_out(tmp_path: Path) -> None:
    voc_and_sbd(tmp_path)
    found = opened(tmp_path, "trainval", sbd="none")
    assert set(names(found)) == set(numbered("t", 20)) and found.dataset == "VOC12-resplit, 4 px"


def test_another_list_is_tested_on_and_enters_the_name(tmp_path: Path) -> None:
    base = voc_and_sbd(tmp_path)
    (base / "ImageSets" / "Segmentation" / "seg11valid.txt").write_text("v0\nt3\n")
    found, test = (opened(tmp_path, split, test_list="seg11valid") for split in ("trainval", "test"))
    assert names(test) == ["t3", "v0"] and "v1" in names(found)  # v1 is SBD's and no longer tested on
    assert not set(names(found)) & {"t3", "v0"}
    assert test.dataset == "VOC12-resplit, 4 px, with SBD, seg11valid"
    with pytest.raises(UsageError, match=r"no list in ImageSets/Segmentation 'seg11vaild'.*Did you mean 'seg11valid'"):
        opened(tmp_path, test_list="seg11vaild")


@pytest.mark.parametrize("settings", [{"sbd": "x"}, {"test_list": "seg11valid"}])
def test_settings_of_masks_are_refused_without_masks(settings: dict[str, str], tmp_path: Path) -> None:
    voc_and_sbd(tmp_path)
    with pytest.raises(UsageError, match=r"set data\.masks=true"):
        open_data(str(tmp_path), "train", settings)
    assert open_data(str(tmp_path), "train", {"masks": "true"}).masks is not None
    with pytest.raises(UsageError, match="ImageSets/Main"):
        opened(tmp_path, masks="false")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"no MATLAB", r"s0\.mat: no mask of SBD's"),
        ({"GTinst": 1}, r"s0\.mat: no mask of SBD's.*GTcls"),
        ({"GTcls": {"Segmentation": 1.5}}, "float64"),
    ],
)
def test_broken_masks_of_sbd_are_refused(content: object, words: str, tmp_path: Path) -> None:
    voc_and_sbd(tmp_path)
    found = opened(tmp_path, "trainval")
    file = tmp_path / "VOCdevkit" / "SBD" / "cls" / "s0.mat"
    file.unlink()
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        savemat(file, content)
    with pytest.raises(OSError, match=words):
        found.masks.read(names(found).index("s0"))


def test_missing_images_and_lists_of_sbd_are_refused(tmp_path: Path) -> None:
    put_voc(tmp_path, "2012", train=("a",), val=("b",))
    put_sbd(tmp_path / "SBD", ("s0",), (), with_images=False)
    with pytest.raises(UsageError, match="misses 1 files that ImageSets/Segmentation or SBD lists: s0"):
        opened(tmp_path, "trainval")
    (tmp_path / "SBD" / "val.txt").unlink()
    with pytest.raises(UsageError, match=r"Cannot read .*val\.txt"):
        opened(tmp_path, "trainval")


def test_sbd_is_not_mixed_with_other_classes(tmp_path: Path) -> None:
    base = voc_and_sbd(tmp_path)
    (base / "labels.txt").write_text("window\n")
    assert "SBD" not in opened(tmp_path).dataset
    with pytest.raises(UsageError, match=r"data\.sbd=none"):
        opened(tmp_path, sbd=str(tmp_path / "VOCdevkit" / "SBD"))


# Shapes


def test_shapes_have_masks_whatever_is_needed(tmp_path: Path) -> None:
    base = put_voc(tmp_path, train=("a",), val=("b",), test=("c", "d"))
    (base / "ImageSets" / "Segmentation").rename(base / "ImageSets" / "Main")
    (base / "Annotations").mkdir()
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>"
    objects = "".join(f"<object><name>{name}</name>{box}</object>" for name in shapes.CLASSES)
    for name in "abcd":
        (base / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    (tmp_path / "shapes.json").write_text("{}")
    put_mask(base / "SegmentationClass" / "d.png", np.array([[0, 1, 10, 255]], np.uint8))
    found = open_data(str(tmp_path), "test")
    assert found.dataset == "shapes" and found.objects is not None and found.labels is not None
    assert mask_of(found, 1) == [[0, 1, 10, 255]]
    assert found.mask_classes == ("background", *shapes.CLASSES)
    assert mask_of(opened(tmp_path, "test"), 1) == mask_of(found, 1)


# Folders of masks


def put_pairs(root: Path, images: str, masks: str, count: int, suffix: str = "", top: int = 2) -> None:
    for i in range(count):
        put_image(root / images / f"{i}.jpg")
        put_mask(root / masks / f"{i}{suffix}.png", np.full((2, 4), i % (top + 1), np.uint8))


def camvid(root: Path, parts: tuple[str, ...] = ("train", "val", "test"), top: int = 11, count: int = 12) -> None:
    for part in parts:
        for i in range(count):
            put_image(root / part / f"0001TP_{part}{i}.png", (8, 6))
            put_mask(root / f"{part}annot" / f"0001TP_{part}{i}.png", np.array([[i * top // 11, 0, top]], np.uint8))


def parted(images: str, masks: str) -> object:
    def put(root: Path) -> None:
        for part in ("train", "valid", "test"):
            put_pairs(root, images.format(part), masks.format(part), 6)

    return put


FOLDERS = {
    "camvid": (camvid, "CamVid, 8 px"),
    "flat": (lambda root: put_pairs(root, "images", "masks", 24), "maskfolder:photos"),
    "nested": (lambda root: put_pairs(root, "images/a", "labels/a", 24), "maskfolder:photos"),
    "suffixes": (lambda root: put_pairs(root, "images", "annotations", 24, "_mask"), "maskfolder:photos"),
    "inside": (parted("images/{}", "annot/{}"), "maskfolder:photos"),
    "outside": (parted("{}/images", "{}/masks"), "maskfolder:photos"),
    "beside": (parted("{}", "{}annot"), "maskfolder:photos"),
}


@pytest.mark.parametrize("layout", FOLDERS)
def test_folders_of_masks_are_recognised_and_their_splits_never_leak(layout: str, tmp_path: Path) -> None:
    make, dataset = FOLDERS[layout]
    make(tmp_path / "photos")
    found = {split: opened(tmp_path / "photos", split) for split in ("train", "val", "test", "trainval")}
    assert {split.dataset for split in found.values()} == {dataset}
    assert len({split.mask_classes for split in found.values()}) == 1
    images = {s: {split.images.name(i) for i in range(len(split.images))} for s, split in found.items()}
    assert images["train"] and images["val"] and images["test"]
    assert images["train"] | images["val"] == images["trainval"]
    assert not (images["trainval"] & images["test"] or images["train"] & images["val"])
    for split in found.values():
        assert split.labels is None and split.objects is None and len(split.masks) == len(split.images)
        for i in range(len(split.images)):
            image, mask = Path(split.images.name(i)), Path(split.masks.name(i))
            assert mask.stem.removesuffix("_mask") == image.stem


def test_without_a_test_folder_val_serves_as_test(tmp_path: Path) -> None:
    camvid(tmp_path, ("train", "val"), count=24)
    assert all("val" in name for name in names(opened(tmp_path, "test")))
    assert all("train" in name for name in names(opened(tmp_path, "val")))


def test_camvid_has_its_eleven_classes_and_void_is_not_counted(tmp_path: Path) -> None:
    camvid(tmp_path)
    found = opened(tmp_path, "test")
    assert found.mask_classes == maskfolder.CAMVID_CLASSES and len(found.mask_classes) == 11
    assert mask_of(found, names(found).index("0001TP_test10")) == [[10, 0, 255]]
    assert mask_of(found, names(found).index("0001TP_test11")) == [[255, 0, 255]]


def test_more_values_or_other_frames_are_not_camvid(tmp_path: Path) -> None:
    camvid(tmp_path / "more", top=12)
    assert opened(tmp_path / "more").mask_classes == tuple(map(str, range(13)))
    FOLDERS["beside"][0](tmp_path / "other")
    assert opened(tmp_path / "other").mask_classes == ("0", "1", "2")


def test_classes_are_named_by_file_or_setting(tmp_path: Path) -> None:
    put_pairs(tmp_path, "images", "masks", 30)
    (tmp_path / "classes.txt").write_text("sky\nwall\nroof\n", encoding="utf-8-sig")
    assert opened(tmp_path).mask_classes == ("sky", "wall", "roof")
    assert opened(tmp_path, classes="a,b,c,d").mask_classes == ("a", "b", "c", "d")
    (tmp_path / "classes.txt").write_text("sky\nsky\n")
    for settings in ({}, {"classes": "one"}):
        with pytest.raises(UsageError, match=r"names for . values.*2 to 255"):
            opened(tmp_path, **settings)


def test_an_ignored_value_is_not_counted_and_needs_no_class(tmp_path: Path) -> None:
    put_pairs(tmp_path, "images", "masks", 30)
    found = opened(tmp_path, "trainval", ignore="2")
    assert found.mask_classes == ("0", "1")
    values = {name: mask_of(found, i)[0][0] for i, name in enumerate(names(found))}
    assert {values[n] for n in values} == {0, 1, 255}
    assert all(value == {0: 0, 1: 1, 2: 255}[int(name) % 3] for name, value in values.items())


def test_a_value_without_a_class_is_refused_with_its_remedy(tmp_path: Path) -> None:
    put_pairs(tmp_path, "images", "masks", 30)
    found = opened(tmp_path, "trainval", classes="a,b")
    with pytest.raises(OSError, match=r"masks/\d+\.png holds the value 2,.*classes\.txt.*data\.ignore=VALUE"):
        found.masks.read(next(i for i, name in enumerate(names(found)) if int(name) % 3 == 2))


def test_black_and_white_masks_are_refused_and_not_left_uncounted(tmp_path: Path) -> None:
    put_pairs(tmp_path, "images", "masks", 30, top=0)
    put_mask(tmp_path / "masks" / "1.png", np.full((2, 4), 255, np.uint8))
    with pytest.raises(UsageError, match=r"1 values to tell apart.*255 is never counted"):
        opened(tmp_path)


def test_images_and_masks_without_the_other_are_counted_and_named(tmp_path: Path) -> None:
    put_pairs(tmp_path, "images", "masks", 6)
    for i in range(4):
        (tmp_path / "masks" / f"{i}.png").unlink()
    put_mask(tmp_path / "masks" / "x.png")
    words = (
        r"4 images without a mask \(images/0.jpg, images/1.jpg, images/2.jpg, \.\.\.\) and 1 masks without an image \("
    )
    with pytest.raises(UsageError, match=words):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda r: put_image(r / "images" / "train" / "0.png"), r"0\.jpg, .*0\.png, which have one name"),
        (lambda r: put_mask(r / "masks" / "train" / "0_gt.png"), r"0_gt\.png.*one name"),
        (lambda r: put_image(r / "images" / "loose.png"), "in none of its folders: move"),
        (lambda r: (r / "images" / "train").rename(r / "images" / "test2"), "no train beside"),
        (lambda r: (r / "masks" / "train").rename(r / "masks" / "other"), "6 images without a mask"),
        (lambda r: put_image(r / "images" / "val" / "0.jpg"), "both of them for val: keep one"),
        (
            lambda r: put_mask(r / "masks" / "train" / "0.png", np.zeros((2, 4, 3), np.uint8)),
            r"0\.png: a mask of colours",
        ),
        (lambda r: put_mask(r / "masks" / "train" / "0.png", np.full((2, 4), 300, np.uint16)), "from 300 to 300"),
    ],
)
def test_damaged_folders_of_masks_are_refused(damage: object, words: str, tmp_path: Path) -> None:
    parted("images/{}", "masks/{}")(tmp_path)  # type: ignore[operator]
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(UsageError, match=words):
        opened(tmp_path, part="maskfolder")


def test_folders_without_masks_are_not_recognised(tmp_path: Path) -> None:
    put_image(tmp_path / "images" / "1.png")
    put_image(tmp_path / "labels" / "other.png")
    assert not maskfolder.recognises(tmp_path)
    with pytest.raises(UsageError, match="no pairs of images and masks: maskfolder expects"):
        opened(tmp_path / "images", part="maskfolder")
    with pytest.raises(UsageError, match="needs a folder"):
        open_data("maskfolder", "train")


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    put_pairs(tmp_path, "images", "masks", 3)
    splits = {}
    for split in ("train", "val", "test"):
        try:
            splits[split] = len(opened(tmp_path, split).images)
        except UsageError as error:
            assert f"The split {split} of" in str(error)
    assert sum(splits.values()) == 3


# Files of masks


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, bool])
def test_values_are_read_as_they_are_at_every_depth(kind: type, tmp_path: Path) -> None:
    values = np.array([[0, 1], [1, 0]], kind)
    Image.fromarray(values).save(tmp_path / "mask.tif")
    table = MaskFiles(tmp_path, ["mask.tif"], plain_table(2), "", read_values)
    assert table.read(0).tolist() == [[0, 1], [1, 0]] and table.read(0).dtype == np.uint8


@pytest.mark.parametrize(
    ("mode", "file", "words"),
    [
        ("L", "mask.jpg", "saved as JPEG has lost its values"),
        ("RGB", "mask.png", r"colours \(RGB\): save class numbers"),
        ("LA", "mask.png", r"colours \(LA\)"),
        ("F", "mask.tif", r"colours \(F\)"),
    ],
)
def test_files_that_hold_no_class_numbers_are_refused(mode: str, file: str, words: str, tmp_path: Path) -> None:
    Image.new(mode, (4, 2)).save(tmp_path / file)
    with pytest.raises(OSError, match=words):
        read_values(tmp_path / file)


def test_sixteen_bit_values_beyond_the_table_are_refused(tmp_path: Path) -> None:
    put_mask(tmp_path / "mask.png", np.array([[0, 300]], np.uint16))
    with pytest.raises(OSError, match="holds the value 300, which stands for no class: name it"):
        MaskFiles(tmp_path, ["mask.png"], plain_table(2), "name it", read_values).read(0)


def test_unknown_classes_of_masks_are_refused() -> None:
    with pytest.raises(UsageError, match="Did you mean 'dog'"):
        voc_masks.class_masks(Path(), [], ("cat", "dog"), ("dogg",))
