import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ssl_inpaint import config as settings
from ssl_inpaint.data import scene_silhouettes, scene_surfaces, shapes
from ssl_inpaint.data.scene_backgrounds import TEST_COLUMNS, TRAIN_COLUMNS, piece
from ssl_inpaint.data.scene_files import presence
from ssl_inpaint.data.scene_objects import CLASSES, KINDS
from ssl_inpaint.data.scenes import VOID, Look, SceneObject, render
from ssl_inpaint.errors import UsageError
from ssl_inpaint.images import voc_palette

SMALL = shapes.Config(train=10, val=3, test=4, size=96)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return shapes.make_shapes(tmp_path_factory.mktemp("shapes") / "out", SMALL, workers=1)


@pytest.fixture(scope="module")
def scenes():
    return [render(Look(size=96), split, index) for split in ("train", "test") for index in range(30)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def colour_histogram_features(images: np.ndarray) -> np.ndarray:
    """N x H x W x 3 uint8 to N x 64: the share of each of 4 x 4 x 4 colours."""
    bins = (images // 64).astype(np.int64) @ [16, 4, 1]
    return np.stack([np.bincount(b.ravel(), minlength=64) / b.size for b in bins])


def test_a_scene_depends_only_on_seed_split_and_index():
    again = render(Look(size=96), "train", 7)
    assert np.array_equal(render(Look(size=96), "train", 7).image, again.image)
    others = (("val", 7, 0), ("train", 8, 0), ("train", 7, 1))
    for split, index, seed in others:
        assert not np.array_equal(render(Look(size=96, seed=seed), split, index).image, again.image)


def test_neither_workers_nor_counts_change_a_byte_of_an_image(written, tmp_path):
    more = shapes.make_shapes(tmp_path / "more", SMALL.model_copy(update={"train": 12, "val": 4}), workers=3)
    first, second = contents(written), contents(more)
    scene_files = [name for name in first if re.search(r"\d{6}\.(jpg|png|xml)$", name)]
    assert len(scene_files) == 4 * 17
    assert all(first[name] == second[name] for name in scene_files)


def test_images_have_the_longer_side_asked_for_and_lie_both_ways(scenes):
    shapes_seen = {scene.image.shape[:2] for scene in scenes}
    assert {max(s) for s in shapes_seen} == {96}
    assert all(min(s) >= 0.8 * 96 - 1 for s in shapes_seen)
    assert any(h > w for h, w in shapes_seen) and any(w > h for h, w in shapes_seen)


def test_every_scene_has_an_object_and_every_box_encloses_its_pixels_tightly(scenes):
    for scene in scenes:
        assert 1 <= len(scene.objects) <= 3
        assert set(np.unique(scene.instances)) <= {0, VOID, *range(1, len(scene.objects) + 1)}
        for number, thing in enumerate(scene.objects, start=1):
            x1, y1, x2, y2 = thing.box
            rows, columns = np.nonzero(scene.instances == number)
            if not len(rows):  # all of it is border
                continue
            assert x1 <= columns.min() and columns.max() < x2 and y1 <= rows.min() and rows.max() < y2
            outer = np.argwhere(scene.instances[y1:y2, x1:x2] >= number)  # its pixels, its border included
            assert (outer.min(axis=0) == 0).all() and (outer.max(axis=0) == [y2 - y1 - 1, x2 - x1 - 1]).all()


def test_the_class_mask_repeats_the_labels_of_the_objects(scenes):
    for scene in scenes:
        classes = scene.classes()
        assert np.array_equal(classes == VOID, scene.instances == VOID)
        for number, thing in enumerate(scene.objects, start=1):
            assert (classes[scene.instances == number] == 1 + thing.label).all()
        assert (classes[scene.instances == 0] == 0).all()


def test_void_parts_any_two_different_regions(scenes):
    for scene in scenes:
        for a, b in ((scene.instances[1:], scene.instances[:-1]), (scene.instances[:, 1:], scene.instances[:, :-1])):
            assert ((a == b) | (a == VOID) | (b == VOID)).all()


def test_without_occluders_a_lone_object_in_the_image_is_wholly_visible():
    look = Look(most_objects=1, most_occluders=0, size=96)
    things = [render(look, "train", index).objects[0] for index in range(40)]
    assert not any(thing.is_occluded for thing in things)
    assert {thing.is_truncated for thing in things} == {True, False}
    for thing in things:  # the truncated touch the edge of the image, and lose area
        assert thing.is_truncated == (thing.visible_share < 0.96)


def test_difficult_means_mostly_unseen_and_happens():
    crowded = Look(most_objects=6, most_occluders=8, size=96)
    things = [t for i in range(25) for t in render(crowded, "train", i).objects]
    assert {t.is_difficult for t in things} == {True, False}
    assert all(t.is_difficult == (t.visible_share < crowded.difficult_below) for t in things)
    assert all(t.is_truncated or t.is_occluded for t in things if t.is_difficult)


@pytest.mark.parametrize("name", CLASSES)
def test_the_light_share_of_a_texture_is_the_one_asked_for(name):
    random = np.random.default_rng(0)
    outline, texture = KINDS[name]
    matrix = np.array([[70.0, 0, 100], [0, 70, 100]])
    inside = scene_silhouettes.coverage(outline(random), matrix, 200, 200) > 0.5
    y, x = ((np.mgrid[:200, :200] - 99.5) / 70).astype(np.float32)
    for share in (0.4, 0.5, 0.6):
        light = scene_surfaces.light_part(texture(x, y, random), inside, share)
        # 0.03: fields of few distinct values cannot be cut anywhere (the rib of a leaf is one value)
        assert abs(light[inside].mean() - share) < 0.03


@pytest.mark.parametrize("name", ["butterfly", "leaf", "vase", "star", "shell"])
def test_objects_that_should_be_are_alike_left_and_right(name):
    silhouette = KINDS[name][0](np.random.default_rng(1))
    cover = scene_silhouettes.coverage(silhouette, np.array([[60.0, 0, 100], [0, 60, 100]]), 200, 200)
    assert np.abs(cover - cover[:, ::-1]).mean() < 0.005  # antialiasing may round the two sides differently


def test_the_area_of_an_annulus_is_known():
    silhouette = scene_silhouettes.ring(np.random.default_rng(0))
    inner = np.abs(silhouette.holes[0]).max()
    assert scene_silhouettes.area(silhouette) == pytest.approx(np.pi * (1 - inner**2), rel=0.03)  # its raster is coarse


def test_training_and_test_backgrounds_come_from_disjoint_columns_of_a_photograph():
    photograph = np.zeros((90, 200, 3), np.uint8) + np.arange(200, dtype=np.uint8)[:, None]  # each column its number
    random = np.random.default_rng(0)
    seen = {
        columns: np.concatenate([piece(random, photograph, 40, 40, columns).ravel() for _ in range(60)])
        for columns in (TRAIN_COLUMNS, TEST_COLUMNS)
    }
    assert seen[TRAIN_COLUMNS].max() < seen[TEST_COLUMNS].min()
    assert seen[TRAIN_COLUMNS].min() < 10 and seen[TEST_COLUMNS].max() > 189  # all of it is used


@pytest.mark.parametrize("name", CLASSES)
def test_no_outline_leaves_the_raster_on_which_its_area_is_measured(name):
    random = np.random.default_rng(0)
    for _ in range(50):
        assert max(np.abs(part).max() for part in KINDS[name][0](random).parts) < scene_silhouettes.AREA_REACH


def test_the_palette_is_the_one_of_voc():
    palette = voc_palette().tolist()  # known colours: background, aeroplane, bicycle, tv monitor, void
    assert [palette[i] for i in (0, 1, 2, 20, 255)] == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [0, 64, 128],
        [224, 224, 192],
    ]


def test_a_class_with_only_difficult_objects_is_marked_nought():
    def thing(label: int, is_difficult: bool) -> SceneObject:
        return SceneObject(label, (0, 0, 1, 1), 1.0, False, False, is_difficult)

    objects = [thing(1, True), thing(2, True), thing(2, False)]
    assert [presence(objects, label) for label in (0, 1, 2)] == [-1, 0, 1]


def test_torchvision_reads_boxes_as_drawn(written):
    from torchvision.datasets import VOCDetection

    data = VOCDetection(str(written), year="2007", image_set="train")
    assert len(data) == SMALL.train
    for index in range(len(data)):
        image, annotation = data[index]
        scene = render(SMALL, "train", index)
        size = annotation["annotation"]["size"]
        assert image.size == (int(size["width"]), int(size["height"])) == scene.image.shape[1::-1]
        found = annotation["annotation"]["object"]
        assert [o["name"] for o in found] == [CLASSES[thing.label] for thing in scene.objects]
        for o, thing in zip(found, scene.objects, strict=True):
            x1, y1, x2, y2 = (int(o["bndbox"][key]) for key in ("xmin", "ymin", "xmax", "ymax"))
            assert (x1 - 1, y1 - 1, x2, y2) == thing.box
            assert o["difficult"] == str(int(thing.is_difficult))


def test_torchvision_reads_masks_as_drawn(written):
    from torchvision.datasets import VOCSegmentation

    data = VOCSegmentation(str(written), year="2007", image_set="trainval")
    assert len(data) == SMALL.train + SMALL.val
    for index in range(SMALL.val):
        image, mask = data[SMALL.train + index]  # trainval lists train first
        scene = render(SMALL, "val", index)
        assert mask.mode == "P" and np.array_equal(np.asarray(mask), scene.classes())
        assert np.abs(np.asarray(image).astype(float) - scene.image).mean() < 8  # what JPEG loses


def test_the_lists_agree_with_the_annotations(written):
    folder = written / "VOCdevkit" / "VOC2007"
    main = folder / "ImageSets" / "Main"
    assert (folder / "labels.txt").read_text().split() == list(CLASSES)
    for split, count in (("train", 10), ("val", 3), ("trainval", 13), ("test", 4)):
        names = (main / f"{split}.txt").read_text().split()
        assert len(set(names)) == count
        assert (folder / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split() == names
        for class_name in CLASSES:
            marks = dict(line.split() for line in (main / f"{class_name}_{split}.txt").read_text().splitlines())
            for name in names:
                root = ElementTree.parse(folder / "Annotations" / f"{name}.xml").getroot()
                is_present = any(o.findtext("name") == class_name for o in root.iter("object"))
                assert (marks[name] != "-1") == is_present
                assert np.asarray(Image.open(folder / "SegmentationObject" / f"{name}.png")).ndim == 2


def test_build_reads_every_split_from_a_folder(written):
    for split, count in (("train", 10), ("val", 3), ("trainval", 13), ("pretrain", 13), ("test", 4)):
        found = shapes.build(written, split, SMALL)
        assert len(found.images) == count and found.classes == CLASSES and found.is_multilabel
    first = shapes.build(written, "train", SMALL)
    drawn = render(SMALL, "train", 0).objects
    assert first.objects is not None
    assert first.objects[0].boxes.tolist() == [list(thing.box) for thing in drawn]
    assert first.objects[0].labels.tolist() == [thing.label for thing in drawn]


def test_build_draws_once_into_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_INPAINT_CACHE", str(tmp_path))
    tiny = shapes.Config(train=10, val=1, test=1, size=64)
    shapes.build(None, "train", tiny)
    (folder,) = (tmp_path / "shapes").iterdir()
    before = (folder / "shapes.json").stat().st_mtime_ns
    shapes.build(None, "test", tiny)
    assert [p.name for p in (tmp_path / "shapes").iterdir()] == [folder.name]
    assert (folder / "shapes.json").stat().st_mtime_ns == before


def test_of_two_processes_that_draw_at_once_the_second_to_end_leaves_the_first(tmp_path):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    assert shapes._publish(theirs, tmp_path / "out") and not shapes._publish(mine, tmp_path / "out")
    assert (tmp_path / "out" / "file").read_text() == "theirs"


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path):
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(UsageError, match="choose another folder"):
        shapes.make_shapes(tmp_path, SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["keep.txt"]


def test_only_a_folder_of_shapes_is_recognised(written, tmp_path):
    assert shapes.recognises(written)
    assert not shapes.recognises(written / "VOCdevkit") and not shapes.recognises(tmp_path)


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    tiny = shapes.Config(train=10, val=1, test=1, size=64)
    assert (shapes.make_shapes(tmp_path / "out", tiny) / "VOCdevkit").is_dir()


def test_an_interrupted_drawing_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), shapes._beside(tmp_path / "out") as temporary:
        (temporary / "half").write_text("")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="Cannot write"):
        shapes.make_shapes(tmp_path / "file" / "out", SMALL)


def test_unknown_splits_and_folders_without_data_are_refused(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'train'"):
        shapes.build(tmp_path, "trian", SMALL)
    with pytest.raises(UsageError, match="make-shapes"):
        shapes.build(tmp_path, "train", SMALL)


def test_sides_in_the_wrong_order_are_refused():
    with pytest.raises(UsageError, match="smallest_side"):
        settings.check(shapes.Config, "shapes", {"smallest_side": 0.6, "largest_side": 0.5})


def accuracy_by_colour(images: list[np.ndarray], labels: np.ndarray) -> float:
    """Logistic regression on colour histograms, fitted to the first 200 images and scored on the others."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = np.sqrt(np.concatenate([colour_histogram_features(image[None]) for image in images]))  # sizes vary
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200)).fit(features[:200], labels[:200])
    return float(model.score(features[200:], labels[200:]))


def test_colour_does_not_tell_the_classes_apart_but_would_if_it_leaked():
    look = Look(most_objects=1, size=64)
    drawn = [render(look, "train", index) for index in range(300)]
    labels = np.array([scene.objects[0].label for scene in drawn])
    # chance is 0.1, with a standard deviation of 0.03 over 100 scenes
    assert accuracy_by_colour([scene.image for scene in drawn], labels) < 0.2
    tints = (
        np.random.default_rng(0).permutation(64)[:10, None] // [16, 4, 1] % 4 * 64 + 32
    )  # one cell of the histogram each
    tinted = [np.where(s.instances[..., None] == 1, tints[k], s.image) for s, k in zip(drawn, labels, strict=True)]
    assert accuracy_by_colour(tinted, labels) > 0.5


def test_ten_images_are_enough_to_see_every_class():
    for split in ("train", "val", "test"):
        for start in (0, 50):
            drawn = [render(Look(size=64, most_occluders=0), split, index) for index in range(start, start + 10)]
            assert {thing.label for scene in drawn for thing in scene.objects} == set(range(len(CLASSES)))
