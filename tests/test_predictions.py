import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_inpaint import predictions
from ssl_inpaint.core import Detections, Objects
from ssl_inpaint.images import voc_palette

CLASSES = ("cat", "dog")
NAMES, SIZES = ("a/1.jpg", "2.jpg"), ((60, 80), (100, 50))
FOUND = (
    Detections(
        np.array([[1.25, 2, 11.256, 22], [0, 0, 5, 5]], np.float32), np.array([1, 0]), np.array([0.9, 0.1234567])
    ),
    Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32)),
)
TRUE = (
    Objects(np.array([[1, 2, 11, 22]], np.float32), np.array([1]), np.array([False])),
    Objects(np.array([[10, 10, 20.5, 20], [30, 30, 40, 90]], np.float32), np.array([0, 1]), np.array([True, False])),
)


def _read(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


def test_detections_are_coco_results_numbered_from_one(tmp_path: Path) -> None:
    results, truth = predictions.write_detections(tmp_path / "new", NAMES, SIZES, CLASSES, FOUND, TRUE)
    assert (results.name, truth.name) == ("detections.json", "ground_truth.json")
    assert _read(results) == [
        {"image_id": 1, "category_id": 2, "bbox": [1.25, 2.0, 10.01, 20.0], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": [0.0, 0.0, 5.0, 5.0], "score": 0.12346},
    ]


def test_the_truth_is_coco_annotations_with_difficult_objects_as_crowds(tmp_path: Path) -> None:
    truth = _read(predictions.write_detections(tmp_path, NAMES, SIZES, CLASSES, FOUND, TRUE)[1])
    assert truth["images"] == [
        {"id": 1, "file_name": "a/1.jpg", "height": 60, "width": 80},
        {"id": 2, "file_name": "2.jpg", "height": 100, "width": 50},
    ]
    assert truth["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [line["id"] for line in truth["annotations"]] == [1, 2, 3]
    assert truth["annotations"][1] == {
        **{"id": 2, "image_id": 2, "category_id": 1, "bbox": [10.0, 10.0, 10.5, 10.0], "area": 105.0},
        **{"iscrowd": 1, "difficult": 1},
    }
    assert truth["info"]["schema"] == predictions.SCHEMA


def test_nothing_found_and_nothing_there_is_still_a_pair_of_files(tmp_path: Path) -> None:
    nothing = Objects(FOUND[1].boxes, FOUND[1].labels, np.zeros(0, dtype=bool))
    results, truth = predictions.write_detections(tmp_path, ["1"], [(5, 5)], CLASSES, FOUND[1:], [nothing])
    assert _read(results) == [] and _read(truth)["annotations"] == []


def test_a_coco_tool_gives_full_marks_to_the_truth_and_ignores_the_difficult(tmp_path: Path) -> None:
    tool = pytest.importorskip("faster_coco_eval")
    copies = [Detections(one.boxes, one.labels, np.full(len(one.labels), 0.5, np.float32)) for one in TRUE]
    easy = [Detections(one.boxes[:1], one.labels[:1], one.scores[:1]) for one in copies[:1]]
    easy.append(Detections(copies[1].boxes[1:], copies[1].labels[1:], copies[1].scores[1:]))
    for found, expected in ((copies, 1.0), (easy, 1.0), (FOUND, 0.5)):  # FOUND has one of two dogs and a false cat
        results, truth = predictions.write_detections(tmp_path, NAMES, SIZES, CLASSES, found, TRUE)
        reference = tool.COCO(str(truth))
        evaluation = tool.COCOeval_faster(reference, reference.loadRes(str(results)), iouType="bbox")
        evaluation.run()
        assert evaluation.stats[1] == pytest.approx(expected, abs=0.006)  # AP at 0.5; COCO reads recall in 101 steps


def _found(**changes: np.ndarray) -> Detections:
    arrays = {"boxes": np.array([[0, 0, 5, 5.0]]), "labels": np.array([0]), "scores": np.array([0.5])}
    return Detections(**(arrays | changes))


@pytest.mark.parametrize(
    ("detection", "said"),
    [
        (_found(boxes=np.zeros((2, 4))), "M x 4"),
        (_found(scores=np.zeros(2)), "M x 4"),
        (_found(labels=np.zeros((1, 1), np.int64)), "M x 4"),
        (_found(labels=np.array([2])), "from 2 to 2, where there are 2 classes"),
        (_found(labels=np.array([-1])), "from -1"),
        (_found(scores=np.array([np.nan])), "not finite"),
        (_found(boxes=np.array([[0, 0, np.inf, 1]])), "not finite"),
        (_found(boxes=np.array([[3, 0, 2, 1.0]])), "end before they begin"),
    ],
)
def test_detections_that_do_not_fit_are_refused_before_writing(
    tmp_path: Path, detection: Detections, said: str
) -> None:
    with pytest.raises(ValueError, match=f"Detections of image 1.*{said}"):
        predictions.write_detections(tmp_path, NAMES, SIZES, CLASSES, [_found(), detection], TRUE)
    assert not list(tmp_path.iterdir())


def test_all_faults_are_named_at_once() -> None:
    assert len(predictions.box_faults([_found(labels=np.array([9]))] * 3, 2)) == 3
    assert predictions.box_faults(TRUE, 2) == [] and len(predictions.box_faults(TRUE, 1)) == 2


def test_counts_that_differ_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 names, 1 sizes, 2 detections, 2 truths"):
        predictions.write_detections(tmp_path, NAMES, SIZES[:1], CLASSES, FOUND, TRUE)


def test_masks_keep_their_values_under_the_colours_of_voc(tmp_path: Path) -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(8, 32)
    (path,) = predictions.write_masks(tmp_path, ["deep/er/1.jpg"], [mask])
    with Image.open(path) as picture:
        assert path == tmp_path / "deep" / "er" / "1.png" and picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), mask)
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), voc_palette()[mask])


def test_masks_are_written_one_at_a_time(tmp_path: Path) -> None:
    def masks() -> Iterator[np.ndarray]:
        for count in range(3):
            assert len(list(tmp_path.iterdir())) == count
            yield np.zeros((2, 2), np.uint8)

    predictions.write_masks(tmp_path, ["0", "1", "2"], masks())


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/etc/x.jpg", "etc_x.png"),
        ("../../x.jpg", "x.png"),
        ("a/../../x.jpg", "a_x.png"),
        ("a/./x.jpg", "a/x.png"),
        ("x", "x.png"),
        ("x.tar.gz", "x.tar.png"),
        ("..x/y", "..x/y.png"),
    ],
)
def test_no_name_leaves_the_folder(tmp_path: Path, name: str, path: str) -> None:
    folder = tmp_path / "masks"
    assert predictions.write_masks(folder, [name], [np.zeros((2, 2), np.uint8)]) == [folder / path]
    assert [found.name for found in tmp_path.iterdir()] == ["masks"] and (folder / path).is_file()


@pytest.mark.parametrize(
    ("names", "said"), [(["a.jpg", "b.jpg", "a.png"], "same file.*a.png"), ([".."], "no file"), ([""], "no file")]
)
def test_names_without_a_file_of_their_own_are_refused_before_any_mask_is_made(
    tmp_path: Path, names: list[str], said: str
) -> None:
    masks = (pytest.fail("a mask was taken") for _ in names)
    with pytest.raises(ValueError, match=said):
        predictions.write_masks(tmp_path, names, masks)


@pytest.mark.parametrize(
    "masks",
    [[], [np.zeros((2, 2), np.uint8)] * 2, [np.zeros((2, 2), np.int64)], [np.zeros((2, 2, 3), np.uint8)]],
)
def test_masks_that_do_not_fit_are_refused(tmp_path: Path, masks: list[np.ndarray]) -> None:
    with pytest.raises(ValueError):
        predictions.write_masks(tmp_path, ["1"], masks)


def test_scores_are_a_column_a_class_of_six_digits(tmp_path: Path) -> None:
    scores = np.array([[1 / 3, -1234567.0], [1e-9, 2]])
    path = predictions.write_scores(tmp_path / "scores.csv", ["a,b.jpg", "ü"], ["cat", 'a "dog"'], scores)
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", "cat", 'a "dog"']
    assert rows == [["a,b.jpg", "0.333333", "-1.23457e+06"], ["ü", "1e-09", "2"]]


@pytest.mark.parametrize(
    ("scores", "said"),
    [(np.zeros((2, 3)), r"\(2, 3\)"), (np.zeros(2), "shape"), (np.array([[0, 1], [0, np.nan]]), "'y'")],
)
def test_scores_that_do_not_fit_are_refused(tmp_path: Path, scores: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        predictions.write_scores(tmp_path / "scores.csv", ["x", "y"], CLASSES, scores)
    assert not list(tmp_path.iterdir())
