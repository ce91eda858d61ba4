"""COCO's format: boxes, outlines painted as masks, run lengths, layouts, and errors a user can act on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image

from ssl_inpaint.data import coco
from ssl_inpaint.data.coco_json import count_images, peek_classes
from ssl_inpaint.data.coco_outlines import Outlined, OutlinedMasks, decompressed, in_polygon, inside
from ssl_inpaint.data.specs import open_data
from ssl_inpaint.errors import UsageError

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 90, "name": "bird"}]  # cat is 0, dog 1, bird 2
SQUARE = [[1, 1, 3, 1, 3, 3, 1, 3]]  # pixels 1 and 2 of rows 1 and 2


def annotation(image: int, category: int = 3, **fields: object) -> dict[str, object]:
    return {"image_id": image, "category_id": category, "bbox": [1, 2, 3, 4], **fields}


def contents(names: list[str], annotations: list[dict[str, object]], **fields: object) -> dict[str, object]:
    images = [{"id": 100 + i, "file_name": name, "width": 6, "height": 4} for i, name in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES, **fields}


def put(file: Path, content: object, *image_folders: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    for folder in image_folders:
        for image in content["images"]:  # type: ignore[index]
            (folder / image["file_name"]).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (6, 4)).save(folder / image["file_name"])
    return file


def one_file(root: Path, annotations: list[dict[str, object]], count: int = 30, **fields: object) -> Path:
    return put(root / "mine.json", contents([f"{i}.jpg" for i in range(count)], annotations, **fields), root)


def everything(file: Path, needs: str = "objects") -> dict[str, tuple[object, int]]:
    """Every image by name: the split that it is in and its place there."""
    splits = [open_data(str(file), split, needs=needs) for split in ("train", "val", "test")]  # type: ignore[arg-type]
    return {split.images.name(i): (split, i) for split in splits for i in range(len(split.images))}


def painted(tmp_path: Path, *annotations: dict[str, object], **fields: object) -> list[list[int]]:
    file = one_file(tmp_path, list(annotations), **fields)
    split, place = everything(file, "masks")["0.jpg"]
    return split.masks.read(place).tolist()  # type: ignore[attr-defined]


# Boxes and labels


def test_boxes_become_corners_and_classes_follow_the_category_ids(tmp_path: Path) -> None:
    entries = [annotation(100, 7), annotation(101, 90, bbox=[0.5, 0, 2, 1.5]), annotation(100, 3, iscrowd=1)]
    found = everything(one_file(tmp_path, entries))
    split, place = found["0.jpg"]
    objects = split.objects[place]
    assert split.classes == ("cat", "dog", "bird") and split.dataset == "coco:mine.json"
    assert objects.boxes.tolist() == [[1, 2, 4, 6]] * 2 and objects.boxes.dtype == np.float32
    assert objects.labels.tolist() == [1, 0] and objects.is_difficult.tolist() == [False, True]
    assert split.labels[place].tolist() == [255, 1, 0] and split.is_multilabel
    other, place = found["1.jpg"]
    assert other.objects[place].boxes.tolist() == [[0.5, 0, 2.5, 1.5]] and other.labels[place].tolist() == [0, 0, 1]
    split, place = found["2.jpg"]
    assert split.objects[place].boxes.shape == (0, 4) and split.labels[place].tolist() == [0, 0, 0]
    assert split.masks is None and split.mask_classes == ()


def test_a_crowd_beside_one_of_its_class_leaves_the_label_present(tmp_path: Path) -> None:
    split, place = everything(one_file(tmp_path, [annotation(100, iscrowd=1), annotation(100)]))["0.jpg"]
    assert split.labels[place].tolist() == [1, 0, 0]


def test_boxes_without_size_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boxes = [[0, 0, 0, 3], [0, 0, 3, -1], [0, 0, float("nan"), 3], [0, 0, 3, 3]]
    split, place = everything(one_file(tmp_path, [annotation(100, bbox=box) for box in boxes]))["0.jpg"]
    assert split.objects[place].boxes.tolist() == [[0, 0, 3, 3]]
    assert "mine.json: 3 boxes without width or height are left out." in capsys.readouterr().err


def test_categories_of_one_name_are_one_class(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    entries = [annotation(100, category) for category in (0, 1, 2)]
    split, place = everything(one_file(tmp_path, entries, categories=categories))["0.jpg"]
    assert split.classes == ("cat", "dog") and split.objects[place].labels.tolist() == [0, 0, 1]


# Layouts


def official(root: Path, year: str = "2017", parts: tuple[str, ...] = ("train", "val"), folder: str = "") -> None:
    for part in parts:
        names = [f"{part}{i}.jpg" for i in range(20)]
        content = contents(names, [annotation(100 + i) for i in range(20)])
        put(root / "annotations" / f"instances_{part}{year}.json", content, root / (folder or f"{part}{year}"))


def roboflow(root: Path) -> None:
    for part in ("train", "valid", "test"):
        names = [f"{part}{i}.jpg" for i in range(5)]
        put(root / part / "_annotations.coco.json", contents(names, [annotation(100)]), root / part)


LAYOUTS = {
    "official": official,
    "three": lambda root: official(root, "", ("train", "val", "test"), "images"),
    "no_val": lambda root: official(root, "2014", ("train", "test")),
    "roboflow": roboflow,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_recognised_and_their_splits_never_leak(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout](tmp_path / "photos")
    splits = {part: open_data(str(tmp_path / "photos"), part) for part in ("train", "val", "test", "trainval")}
    names = {part: {split.images.name(i) for i in range(len(split.images))} for part, split in splits.items()}
    assert names["train"] and names["val"] and names["test"]
    assert names["train"] | names["val"] == names["trainval"] and not names["trainval"] & names["test"]
    assert not names["train"] & names["val"]
    assert {split.dataset for split in splits.values()} == {"coco:photos"}
    for split in splits.values():
        assert all(len(split.images.read(i)) for i in range(len(split.images)))
        assert len(split.objects or ()) == len(split.labels if split.labels is not None else ()) == len(split.images)


def test_without_a_test_file_val_serves_as_test(tmp_path: Path) -> None:
    official(tmp_path)
    test, train = (open_data(str(tmp_path), split) for split in ("test", "trainval"))
    assert {test.images.name(i) for i in range(20)} == {f"val2017/val{i}.jpg" for i in range(20)}
    assert len(train.images) == 20


def test_the_images_of_one_file_may_lie_elsewhere(tmp_path: Path) -> None:
    file = put(tmp_path / "a" / "mine.json", contents([f"x/{i}.jpg" for i in range(30)], []), tmp_path / "b")
    with pytest.raises(
        UsageError, match=r"30 of the 30 images .*x/0\.jpg, x/1\.jpg, x/2\.jpg, \.\.\.; .*data\.images="
    ):
        open_data(f"coco:{file}", "train")
    assert len(open_data(f"coco:{file}", "train", {"images": str(tmp_path / "b")}).images.read(0))
    (tmp_path / "b" / "x" / "3.jpg").unlink()
    with pytest.raises(UsageError, match="1 of the 30 images"):
        open_data(f"coco:{file}", "train", {"images": str(tmp_path / "b")})


def test_added_images_move_no_others(tmp_path: Path) -> None:
    few = {name: split.name for name, (split, _) in everything(one_file(tmp_path, [], 20)).items()}
    more = {name: split.name for name, (split, _) in everything(one_file(tmp_path, [], 40)).items()}
    assert {name: more[name] for name in few} == few


def test_official_counts_earn_the_official_name(tmp_path: Path) -> None:
    files = {part: put(tmp_path / name, '"file_name"' * count) for part, (name, count) in coco.OFFICIAL_COUNTS.items()}
    sources = [coco._Source(part, file, ()) for part, file in files.items()]
    assert coco._dataset(tmp_path, sources) == "coco2017"
    put(files["val"], '"file_name"' * 4999)
    assert coco._dataset(tmp_path / "photos", sources) == "coco:photos" and count_images(files["val"]) == 4999


# Masks


def test_a_polygon_is_painted_as_by_hand(tmp_path: Path) -> None:
    hand = [[0, 0, 0, 0, 0, 0], [0, 2, 2, 0, 0, 0], [0, 2, 2, 0, 0, 0], [0, 0, 0, 0, 0, 0]]
    assert painted(tmp_path, annotation(100, 7, segmentation=SQUARE)) == hand
    split = open_data(str(tmp_path / "mine.json"), "train", needs="masks")
    assert split.mask_classes == ("background", "cat", "dog", "bird") and split.objects is not None
    assert split.masks is not None and split.masks.name(0) == f"mine.json: {split.images.name(0)}"


def test_smaller_objects_lie_over_larger_ones_and_crowds_are_not_counted(tmp_path: Path) -> None:
    large = annotation(100, 3, segmentation=[[0, 0, 4, 0, 4, 4, 0, 4]], area=16)
    small = annotation(100, 7, segmentation=[[1, 1, 2, 1, 2, 2, 1, 2]], area=1)
    crowd = {"size": [4, 6], "counts": [20, 4]}  # the last column
    entries = [small, large, annotation(100, 90, segmentation=crowd, iscrowd=1, area=4)]
    assert painted(tmp_path, *entries) == [[1, 1, 1, 1, 0, 255], [1, 2, 1, 1, 0, 255], *[[1, 1, 1, 1, 0, 255]] * 2]


def test_without_area_the_box_decides(tmp_path: Path) -> None:
    large = annotation(100, 3, segmentation=[[0, 0, 6, 0, 6, 4, 0, 4]], bbox=[0, 0, 6, 4])
    small = annotation(100, 7, segmentation=[[0, 0, 1, 0, 1, 1, 0, 1]], bbox=[0, 0, 1, 1], area=None)
    assert painted(tmp_path, small, large)[0] == [2, 1, 1, 1, 1, 1]


def test_several_polygons_are_one_object_and_may_leave_the_image(tmp_path: Path) -> None:
    outline = [[-2, -2, 1, -2, 1, 1, -2, 1], [5, 3, 9, 3, 9, 9, 5, 9], [50, 50, 60, 50, 60, 60]]
    found = np.array(painted(tmp_path, annotation(100, 3, segmentation=outline)))
    assert np.argwhere(found).tolist() == [[0, 0], [3, 5]]


def test_a_box_without_outline_beside_outlines_is_not_counted(tmp_path: Path) -> None:
    entries = [annotation(100, 3, segmentation=[], bbox=[0, 0, 2, 1]), annotation(101, segmentation=SQUARE)]
    assert painted(tmp_path, *entries) == [[255, 255, 0, 0, 0, 0], *[[0] * 6] * 3]


def test_boxes_alone_give_no_masks(tmp_path: Path) -> None:
    split, _ = everything(one_file(tmp_path, [annotation(100, segmentation=[])]), "masks")["0.jpg"]
    assert split.masks is None


@pytest.mark.parametrize("seed", range(4))
def test_polygons_agree_with_a_second_implementation(seed: int) -> None:
    corners = np.random.default_rng(seed).uniform(-3, 16, (7, 2))
    centres = np.stack(np.meshgrid(np.arange(13) + 0.5, np.arange(11) + 0.5), -1).reshape(-1, 2)
    # Even-odd: a centre is in where a ray to the right crosses the outline an odd number of times.
    crossings = np.zeros(len(centres), int)
    for (x, y), (next_x, next_y) in zip(corners, np.roll(corners, -1, 0), strict=True):
        is_between = (centres[:, 1] < y) != (centres[:, 1] < next_y)
        at = x + (centres[:, 1] - y) / (next_y - y) * (next_x - x)
        crossings += is_between & (at > centres[:, 0])
    assert (in_polygon(corners, 11, 13).ravel() == (crossings % 2 == 1)).all()
    assert (inside([corners.ravel().tolist()], 11, 13) == in_polygon(corners, 11, 13)).all()
    hull = corners[np.argsort(np.arctan2(*(corners - corners.mean(0)).T))]  # without crossings, as matplotlib fills
    assert (in_polygon(hull, 11, 13).ravel() == Outline(hull).contains_points(centres)).all()


def compressed(counts: list[int]) -> str:
    """What COCO writes for run lengths: the encoder, which the suite itself has no use for."""
    text = ""
    for i, count in enumerate(counts):
        left = count - counts[i - 2] if i > 2 else count
        is_more = True
        while is_more:
            code = left & 31
            left >>= 5
            is_more = left != (-1 if code & 16 else 0)
            text += chr(code + (32 if is_more else 0) + 48)
    return text


def test_run_lengths_are_decompressed_as_by_hand() -> None:
    # 5 is one character, 5 + 48; 40 is 8 with more to come (8 + 32 + 48), then 1; 16 needs a second one, for 16 alone
    # would be a negative number; the fourth is a difference to the second, 38 - 40 = -2, in five bits 30.
    assert decompressed("5") == [5]
    assert decompressed("5X1@") == [5, 40, -16]
    assert decompressed("5X1`0N") == [5, 40, 16, 38]
    assert decompressed("") == []


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_survive_compression(seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 10 ** (seed + 1), 40).tolist()
    assert decompressed(compressed(counts)) == counts


@pytest.mark.parametrize("is_compressed", [False, True])
def test_run_lengths_go_down_the_columns(is_compressed: bool, tmp_path: Path) -> None:
    counts = [1, 2, 3, 4, 14]
    outline = {"size": [4, 6], "counts": compressed(counts) if is_compressed else counts}
    flat = np.repeat([0, 1, 0, 1, 0], counts)
    assert painted(tmp_path, annotation(100, segmentation=outline)) == flat.reshape(6, 4).T.tolist()


@pytest.mark.parametrize(
    ("outline", "words"),
    [
        ([[1, 1, 2]], "three or more corners"),
        ([[1, 1, 2, 2, 3, 3, 4]], "three or more corners"),
        ([[1, 1, 2, 2, 3, None]], "broken outline"),
        ("polygon", "neither polygons nor run lengths but str"),
        (5, "but int"),
        ({"counts": [24]}, "size"),
        ({"counts": [24], "size": [6, 4]}, r"size \[6, 4\] in an image of size \[4, 6\]"),
        ({"counts": [20], "size": [4, 6]}, "20 pixels in an image of 24"),
        ({"counts": [-1, 25], "size": [4, 6]}, "run lengths"),
        ({"counts": "X", "size": [4, 6]}, "ends within a number"),
        ({"counts": "5\n", "size": [4, 6]}, "strange character"),
        ({"counts": ["a"], "size": [4, 6]}, "broken outline"),
    ],
)
def test_broken_outlines_are_refused_by_name(outline: object, words: str) -> None:
    masks = OutlinedMasks(["mine.json: 0.jpg"], [(4, 6)], [[Outlined(1, 1.0, outline)]])
    with pytest.raises(OSError, match=rf"mine\.json: 0\.jpg.*{words}"):
        masks.read(0)


# Errors


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "Cannot read .*mine.json as JSON"),
        ("[1]", "no list of images, annotations, categories"),
        ({"images": [], "categories": 1}, "no list of annotations, categories"),
        ({"images": [1], "annotations": [], "categories": []}, "images holds 1, which has no fields"),
        (
            contents(["a.jpg"], [annotation(100, 8), annotation(100, 9)]),
            "2 annotations have an unknown category_id, 8, 9",
        ),
        (contents(["a.jpg"], [annotation(7)]), "1 annotations have an unknown image_id, 7"),
        (contents(["a.jpg"], [annotation(100, bbox=[1, 2, 3])]), "bbox of four numbers"),
        (contents(["a.jpg"], [annotation(100, bbox="box")]), "bbox of four numbers"),
        (contents(["a.jpg"], [{"image_id": 100, "category_id": 3}]), "bbox of four numbers"),
        (contents(["a.jpg"], [{"image_id": 100}]), "1 of 1 annotations have no proper category_id"),
        (contents([], [], images=[{"id": 1}]), "1 of 1 images have no proper file_name"),
        (contents([], [], images=[{"id": 1, "file_name": "a.jpg"}] * 2), "2 images share 1 ids"),
        (contents(["a.jpg"], [], categories=[]), "there must be some"),
        (contents(["a.jpg"], [], categories=[{"id": "x", "name": "cat"}]), "whole numbers as id"),
        (
            contents(["a.jpg"], [], categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]),
            "2 categories share 1 ids",
        ),
    ],
)
def test_broken_files_are_refused(content: object, words: str, tmp_path: Path) -> None:
    put(tmp_path / "mine.json", content)
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg")
    with pytest.raises(UsageError, match=words):
        open_data(f"coco:{tmp_path / 'mine.json'}", "train")


def test_masks_need_the_size_of_images_and_few_enough_classes(tmp_path: Path) -> None:
    file = one_file(tmp_path, [annotation(100, segmentation=SQUARE)])
    content = json.loads(file.read_text())
    for image in content["images"]:
        del image["height"]
    put(file, content)
    with pytest.raises(UsageError, match="jpg has height None and width 6: add them"):
        open_data(str(file), "train", needs="masks")
    assert len(open_data(str(file), "train").images)
    many = [{"id": i, "name": str(i)} for i in range(255)]
    with pytest.raises(UsageError, match="255 classes and masks hold 254 at most"):
        open_data(
            str(one_file(tmp_path, [annotation(100, segmentation=SQUARE)], categories=many)), "train", needs="masks"
        )


def test_different_categories_in_other_files_are_refused(tmp_path: Path) -> None:
    official(tmp_path)
    file = tmp_path / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    put(file, {**content, "categories": [*CATEGORIES[:2], {"id": 91, "name": "cow", "skeleton": [[1, 2]]}]})
    assert peek_classes(file) == ("cat", "dog", "cow")
    for split in ("train", "test"):
        with pytest.raises(UsageError, match=r"different categories \(bird, cow\): make them the same"):
            open_data(str(tmp_path), split)
    put(file, {**content, "categories": [{"id": 1, "name": "dog"}, *CATEGORIES[1:]]})
    with pytest.raises(UsageError, match="the same in another order"):
        open_data(str(tmp_path), "train")
    put(file, "")
    with pytest.raises(UsageError, match="Cannot read"):
        open_data(str(tmp_path), "train")
    put(file, '{"images": []}')
    assert peek_classes(file) is None


def test_two_files_for_one_part_or_none_at_all_are_refused(tmp_path: Path) -> None:
    official(tmp_path)
    official(tmp_path, "2014", ("train",))
    words = r"instances_train2014\.json, annotations/instances_train2017\.json, all of them for train: keep one"
    with pytest.raises(UsageError, match=words):
        open_data(str(tmp_path), "train")
    with pytest.raises(UsageError, match=r"no annotations in COCO's format: coco expects"):
        open_data(f"coco:{tmp_path / 'train2014'}", "train")
    with pytest.raises(UsageError, match="needs a folder or a JSON file"):
        open_data("coco", "train")


def test_a_file_without_images_in_the_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"The split train of coco:mine\.json holds no images"):
        open_data(str(one_file(tmp_path, [], 0)), "train")
