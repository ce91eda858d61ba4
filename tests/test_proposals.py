"""Object proposals: what OpenCV finds, once for each image, in pixels of the file; and boxes from files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.io import savemat

from ssl_inpaint.config import check
from ssl_inpaint.data.proposals import ProposalConfig, Proposals, open_proposals, write_proposals
from ssl_inpaint.data.sources import ArrayImages, FileImages
from ssl_inpaint.errors import UsageError

SINGLE = ProposalConfig(mode="single")
MODES = ("single", "light", "fast", "quality")
Counter = list[int]


def scene(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """Rectangles of plain colours on a plain ground, none of whose edges touch."""
    generator = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), tuple(generator.integers(0, 60, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for left in range(4, width - 20, 20):
        top = int(generator.integers(2, height - 24))
        colour = tuple(generator.integers(100, 256, 3).tolist())
        draw.rectangle((left, top, left + 13, top + 17), fill=colour)
    return image


def put_scenes(root: Path, count: int = 5) -> FileImages:
    root.mkdir(exist_ok=True)
    for n in range(count):
        scene(n).save(root / f"{n}.png")
    return FileImages(root, [f"{n}.png" for n in range(count)])


def sorted_boxes(boxes: np.ndarray) -> list[list[float]]:
    return sorted(boxes.tolist())


def found_directly(image: Image.Image, mode: str) -> list[list[float]]:
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR))
    {"single": search.switchToSingleStrategy, "fast": search.switchToSelectiveSearchFast}[mode]()
    return sorted([float(x), float(y), float(x + w), float(y + h)] for x, y, w, h in search.process())


def overlap(box: np.ndarray, boxes: np.ndarray) -> float:
    inner = np.clip(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0, None).prod(1)
    area = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return float((inner / (area - inner)).max())


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """One entry for each search that OpenCV was asked for."""
    made: Counter = []
    create: Callable[[], object] = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation

    def counted() -> object:
        made.append(1)
        return create()

    monkeypatch.setattr(cv2.ximgproc.segmentation, "createSelectiveSearchSegmentation", counted)
    return made


# Search


@pytest.mark.parametrize("mode", ["single", "fast"])
def test_boxes_are_those_of_opencv_with_the_far_edges_excluded(mode: str, tmp_path: Path) -> None:
    images = put_scenes(tmp_path / "photos", 2)
    config = check(ProposalConfig, "proposals", {"mode": mode, "smallest_side": 0})
    boxes = open_proposals(images, config, cache=tmp_path).boxes
    assert [sorted_boxes(b) for b in boxes] == [found_directly(scene(n), mode) for n in range(2)]
    assert all(b.dtype == np.float32 for b in boxes)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_finds_a_plain_rectangle(mode: str, tmp_path: Path) -> None:
    pixels = np.full((1, 60, 80, 3), 30, np.uint8)
    pixels[0, 10:45, 20:60] = (220, 60, 40)
    config = check(ProposalConfig, "proposals", {"mode": mode})
    (boxes,) = open_proposals(ArrayImages(pixels, ["0"]), config, cache=tmp_path).boxes
    assert overlap(np.array([20, 10, 60, 45]), boxes) > 0.8  # the blur before the search moves edges by a pixel or two
    assert len(np.unique(boxes, axis=0)) == len(boxes)


def test_light_finds_small_objects_that_single_joins_to_the_ground(tmp_path: Path) -> None:
    pixels = np.full((1, 64, 64, 3), 90, np.uint8)
    pixels[0, 20:29, 30:39] = (140, 90, 90)  # 81 pixels: below OpenCV's least
    box, images = np.array([30, 20, 39, 29]), ArrayImages(pixels, ["0"])
    light, single = (open_proposals(images, ProposalConfig(mode=m), cache=tmp_path) for m in ("light", "single"))
    assert overlap(box, light.boxes[0]) > 0.5 > overlap(box, single.boxes[0])


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (40, 8), (300, 20), (20, 300)])
def test_tiny_flat_and_endless_images_are_searched(size: tuple[int, int], tmp_path: Path) -> None:
    images = ArrayImages(np.full((1, size[1], size[0], 3), 128, np.uint8), ["0"])
    (boxes,) = open_proposals(images, ProposalConfig(mode="light", smallest_side=20), cache=tmp_path).boxes
    width, height = size
    kept = {(300, 20): [[120, 0, 180, 20]], (20, 300): [[0, 120, 20, 180]]}.get(size, [])  # 3 : 1 in the middle
    assert boxes.shape == (len(kept), 4) and boxes.tolist() == kept
    assert (boxes[:, 2:] <= (width, height)).all()


def test_boxes_are_in_pixels_of_the_file_at_any_searched_size(tmp_path: Path) -> None:
    half = scene(0)
    images = ArrayImages(np.asarray(half.resize((128, 96), Image.Resampling.NEAREST))[None], ["0"])
    config = ProposalConfig(mode="single", short_side=48, smallest_side=0)
    (boxes,) = open_proposals(images, config, cache=tmp_path).boxes
    resized = Image.fromarray(np.asarray(half).repeat(2, 0).repeat(2, 1)).resize((64, 48), Image.Resampling.BILINEAR)
    assert sorted_boxes(boxes) == [[2 * side for side in box] for box in found_directly(resized, "single")]
    assert boxes.max() == 128


def test_small_images_are_enlarged_for_the_search(tmp_path: Path) -> None:
    images = ArrayImages(np.asarray(scene(0))[None], ["0"])
    config = ProposalConfig(mode="single", short_side=96, smallest_side=0)
    (boxes,) = open_proposals(images, config, cache=tmp_path).boxes
    large = scene(0).resize((128, 96), Image.Resampling.BILINEAR)
    assert sorted_boxes(boxes) == [[side / 2 for side in box] for box in found_directly(large, "single")]


def test_smallest_side_counts_pixels_of_the_searched_image(tmp_path: Path) -> None:
    images = put_scenes(tmp_path / "photos", 1)

    def sides(short_side: int, smallest: float) -> np.ndarray:
        config = ProposalConfig(mode="single", short_side=short_side, smallest_side=smallest)
        (boxes,) = open_proposals(images, config, cache=tmp_path).boxes
        return (boxes[:, 2:] - boxes[:, :2]).min(1) * short_side / 48

    everything = sides(96, 0)
    limit = float(np.median(everything))  # some side's exact length, which is kept
    assert sorted(sides(96, limit)) == sorted(everything[everything >= limit]) and everything.min() < limit


def test_boxes_follow_the_orientation_of_exif(tmp_path: Path) -> None:
    upright = scene(3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    images = FileImages(tmp_path, ["turned.png", "upright.png"])
    turned, plain = open_proposals(images, SINGLE, cache=tmp_path).boxes
    assert turned.tolist() == plain.tolist() and plain[:, 2].max() == 64


def test_unreadable_images_have_no_boxes(tmp_path: Path) -> None:
    images = put_scenes(tmp_path / "photos")
    (tmp_path / "photos" / "1.png").write_bytes(b"no image")
    (tmp_path / "photos" / "3.png").unlink()
    for _ in range(2):
        boxes = open_proposals(images, SINGLE, cache=tmp_path).boxes
        assert [b.shape for b in (boxes[1], boxes[3])] == [(0, 4)] * 2
        assert all(len(boxes[n]) for n in (0, 2, 4))
    assert open_proposals(FileImages(tmp_path, []), SINGLE, cache=tmp_path).boxes == ()


def test_any_number_of_workers_gives_the_same_boxes_in_the_same_order(tmp_path: Path) -> None:
    images = put_scenes(tmp_path / "photos")
    config = ProposalConfig(mode="fast")
    one, two = (open_proposals(images, config, workers, tmp_path / str(workers)) for workers in (1, 2))
    backwards = open_proposals(FileImages(tmp_path / "photos", ["4.png", "0.png"]), config, 1, tmp_path / "backwards")
    assert [b.tolist() for b in one.boxes] == [b.tolist() for b in two.boxes] and one.digest == two.digest
    assert [b.tolist() for b in backwards.boxes] == [one.boxes[n].tolist() for n in (4, 0)]
    assert backwards.digest != one.digest


# Cache


def test_a_stopped_search_goes_on_where_it_was(tmp_path: Path, searches: Counter) -> None:
    images = put_scenes(tmp_path / "photos")
    whole = open_proposals(images, SINGLE, cache=tmp_path / "whole")
    create = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation

    def stopped() -> object:
        if len(searches) == 5 + 2:
            raise KeyboardInterrupt
        return create()

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(cv2.ximgproc.segmentation, "createSelectiveSearchSegmentation", stopped)
        open_proposals(images, SINGLE, 1, tmp_path / "stopped")
    assert len(searches) == 5 + 2
    resumed = open_proposals(images, SINGLE, cache=tmp_path / "stopped")
    assert len(searches) == 5 + 2 + 3
    assert [b.tolist() for b in resumed.boxes] == [b.tolist() for b in whole.boxes]
    assert all(path.suffix == ".npy" and path.name[0] != "." for path in (tmp_path / "stopped").rglob("*.*"))


def test_the_cache_serves_other_splits_names_and_numbers_of_boxes(tmp_path: Path, searches: Counter) -> None:
    images = put_scenes(tmp_path / "photos")
    first = open_proposals(images, SINGLE, cache=tmp_path)
    (tmp_path / "photos" / "2.png").rename(tmp_path / "photos" / "renamed.png")
    fewer = ProposalConfig(mode="single", most=2)
    split = open_proposals(FileImages(tmp_path / "photos", ["4.png", "renamed.png"]), fewer, cache=tmp_path)
    assert [b.tolist() for b in split.boxes] == [first.boxes[n][:2].tolist() for n in (4, 2)]
    assert len(searches) == 5
    open_proposals(images, ProposalConfig(mode="single", short_side=50), cache=tmp_path)
    assert len(searches) == 5 + 4  # one file is gone


@pytest.mark.parametrize("broken", [b"", b"half", np.zeros((3, 5), np.float32), np.zeros((3, 4)), np.zeros(4)])
def test_a_broken_cache_file_is_made_again(broken: bytes | np.ndarray, tmp_path: Path, searches: Counter) -> None:
    images = put_scenes(tmp_path / "photos", 2)
    first = open_proposals(images, SINGLE, cache=tmp_path)
    cached = next((tmp_path / "proposals").rglob("*.npy"))
    whole = cached.read_bytes()
    if isinstance(broken, np.ndarray):
        np.save(cached, broken)
    else:
        cached.write_bytes(whole[:-8] if broken else b"")
    assert open_proposals(images, SINGLE, cache=tmp_path).digest == first.digest
    assert len(searches) == 3 and cached.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    with pytest.raises(UsageError, match=r"Cannot write .*Free space"):
        open_proposals(put_scenes(tmp_path / "photos"), SINGLE, cache=tmp_path / "file")


def test_opencv_without_its_contrib_modules_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "ximgproc")
    with pytest.raises(UsageError, match=r"pip install opencv-contrib-python-headless.*proposals\.file=FILE.*faster"):
        open_proposals(put_scenes(tmp_path / "photos"), SINGLE, cache=tmp_path)


# Files

NAMES = ["a/1.jpg", "a/2.jpg", "b/3.jpg"]
BOXES = {
    "a/1.jpg": [[0.0, 0.0, 10.0, 20.0], [4.5, 3.0, 5.0, 4.0]],
    "a/2.jpg": [],
    "b/3.jpg": [[1.0, 2.0, 1000.0, 4.0]],
}


def named(names: list[str] = NAMES) -> FileImages:
    return FileImages(Path("nowhere"), names)  # boxes from files need no images


def put_json(path: Path, boxes: object) -> ProposalConfig:
    path.write_text(json.dumps(boxes))
    return ProposalConfig(file=str(path))


def put_mat(path: Path, names: list[str], boxes: list[np.ndarray]) -> ProposalConfig:
    """As voc_2007_trainval.mat is laid out: boxes 1 x N and images N x 1, cell arrays."""
    cells = np.empty((2, len(names)), object)
    for n, (name, of_image) in enumerate(zip(names, boxes, strict=True)):
        cells[0, n], cells[1, n] = of_image, name
    savemat(path, {"boxes": cells[:1], "images": cells[1:].T})
    return ProposalConfig(file=str(path))


def refusal(config: ProposalConfig, names: list[str] = NAMES) -> str:
    with pytest.raises(UsageError) as refused:
        open_proposals(named(names), config)
    return str(refused.value)


def test_json_boxes_go_by_name_or_stem(tmp_path: Path) -> None:
    found = open_proposals(named(), put_json(tmp_path / "boxes.json", {**BOXES, "another": "passed over"}))
    assert [b.tolist() for b in found.boxes] == list(BOXES.values())
    assert all(b.dtype == np.float32 and b.shape[1] == 4 for b in found.boxes)
    stems = {Path(name).stem: boxes for name, boxes in BOXES.items()}
    assert open_proposals(named(), put_json(tmp_path / "stems.json", stems)).digest == found.digest


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    names = [*NAMES, "file", "ü.png", "\udcff.png"]  # numpy's savez takes no array named file; a name that is no UTF-8
    boxes = tuple(np.array(b, np.float32).reshape(-1, 4) for b in [*BOXES.values(), [[1, 2, 3, 4]], [[0, 0, 1, 1]], []])
    write_proposals(tmp_path / "boxes.npz", named(names), Proposals(boxes, "unused"))
    config = ProposalConfig(file=str(tmp_path / "boxes.npz"))
    found = open_proposals(named(names), config)
    assert [b.tolist() for b in found.boxes] == [b.tolist() for b in boxes]
    assert open_proposals(named(["a/1.jpg"]), config.model_copy(update={"most": 1})).boxes[0].shape == (1, 4)


def test_searched_boxes_are_the_same_read_from_a_file(tmp_path: Path) -> None:
    images = put_scenes(tmp_path / "photos")
    searched = open_proposals(images, SINGLE, cache=tmp_path)
    write_proposals(tmp_path / "boxes.npz", images, searched)
    assert open_proposals(images, ProposalConfig(file=str(tmp_path / "boxes.npz"))).digest == searched.digest


def test_arrays_saved_by_numpy_are_taken(tmp_path: Path) -> None:
    arrays = {"1": np.array([[0, 0, 10, 20]]), "2": np.zeros((0, 4)), "3": np.array([[1, 2, 3, 4]], np.uint16)}
    np.savez(tmp_path / "boxes.npz", **arrays)
    found = open_proposals(named(), ProposalConfig(file=str(tmp_path / "boxes.npz")))
    assert [b.tolist() for b in found.boxes] == [a.tolist() for a in arrays.values()]


@pytest.mark.parametrize("kind", [np.float64, np.uint16])
def test_the_mat_file_of_fast_rcnn_is_y_first_and_counts_from_one(kind: type, tmp_path: Path) -> None:
    first = np.array([[1, 1, 20, 10], [4, 7, 4, 7]], kind)  # y1 x1 y2 x2; the second is a single pixel
    config = put_mat(tmp_path / "voc.mat", ["3", "1", "2"], [np.zeros((0, 0), kind), first, first[:1]])
    found = open_proposals(named(), config)
    assert [b.tolist() for b in found.boxes] == [[[0, 0, 10, 20], [6, 3, 7, 4]], [[0, 0, 10, 20]], []]


def test_several_files_hold_splits_apart(tmp_path: Path) -> None:
    train = put_json(tmp_path / "train.json", {"1": [[0, 0, 1, 1]], "2": [[0, 0, 2, 2]]})
    test = put_mat(tmp_path / "test.mat", ["3"], [np.array([[1.0, 1, 3, 3]])])
    both = ProposalConfig(file=f"{train.file}, {test.file}")
    assert [b.tolist() for b in open_proposals(named(), both).boxes] == [[[0, 0, n, n]] for n in (1, 2, 3)]
    put_json(tmp_path / "train.json", {"1": [[0, 0, 1, 1]], "2": [[0, 0, 2, 2]], "3": [[0, 0, 4, 4]]})
    assert "1 of 3 images are there more than once, with different boxes: b/3.jpg" in refusal(both)


def test_missing_images_are_counted_and_named(tmp_path: Path) -> None:
    names = [f"{n}.jpg" for n in range(6)]
    config = put_json(tmp_path / "boxes.json", {"0": [], "5": []})
    assert "4 of 6 images are missing from it: 1.jpg, 2.jpg, 3.jpg, ...; add them" in refusal(config, names)


def test_a_stem_that_two_images_share_names_neither(tmp_path: Path) -> None:
    config = put_json(tmp_path / "boxes.json", {"1": []})
    assert "2 of 2 images are missing" in refusal(config, ["a/1.jpg", "b/1.jpg"])


@pytest.mark.parametrize(
    "boxes",
    [
        [[0, 0, 0, 5]],
        [[0, 5, 3, 4]],
        [[0, 0, 1]],
        [0, 0, 1, 1],
        [[0, 0, 1, float("nan")]],
        [[0, 0, 1, float("inf")]],
        [[0, 0, 1, 1e300]],
        [["a", 0, 1, 1]],
        {"x": 1},
        [[0, 0, 1, 1], [0]],
    ],
)
def test_boxes_that_are_no_rectangles_are_refused(boxes: object, tmp_path: Path) -> None:
    said = refusal(put_json(tmp_path / "boxes.json", {**BOXES, "a/2.jpg": boxes}))
    assert "1 of 3 images have boxes there that are no rectangles: a/2.jpg; each must be four finite numbers" in said


def test_mat_boxes_of_another_width_are_refused(tmp_path: Path) -> None:
    config = put_mat(tmp_path / "voc.mat", ["1", "2", "3"], [np.ones((2, 5))] * 3)
    assert "3 of 3 images have boxes there that are no rectangles" in refusal(config)


@pytest.mark.parametrize("ending", [".npz", ".json", ".mat"])
@pytest.mark.parametrize("content", [None, b"", b"broken", b"[1, 2]", b"PK\x05\x06 no archive" + bytes(200)])
def test_files_that_cannot_be_read_are_named(ending: str, content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / f"boxes{ending}"
    if content is not None:
        path.write_bytes(content)
    said = refusal(ProposalConfig(file=str(path)))
    assert said.startswith(f"Cannot read the proposals {path}: ") and said.endswith("choose another.")
    assert content is not None or "No such file" in said


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    boxes = tuple(np.random.default_rng(n).random((50, 4)) + np.array([0, 0, 1, 1]) for n in range(3))
    write_proposals(tmp_path / "boxes.npz", named(), Proposals(boxes, ""))
    put_mat(tmp_path / "voc.mat", ["1", "2", "3"], list(boxes))
    for file in ("boxes.npz", "voc.mat"):
        whole = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(whole[: len(whole) // 2])
        assert "Cannot read the proposals" in refusal(ProposalConfig(file=str(tmp_path / file)))


def test_arrays_of_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "boxes.npz", **{"1": np.array([{"a": 1}], object)})
    assert "allow_pickle" in refusal(ProposalConfig(file=str(tmp_path / "boxes.npz")))


def test_mat_files_of_another_layout_are_explained(tmp_path: Path) -> None:
    savemat(tmp_path / "other.mat", {"boxes": np.ones((2, 4))})
    assert "it has no cell arrays 'boxes' and 'images'" in refusal(ProposalConfig(file=str(tmp_path / "other.mat")))


def test_other_endings_are_refused(tmp_path: Path) -> None:
    assert "read from .npz, .json, .mat, not from 'boxes.pkl'" in refusal(ProposalConfig(file="boxes.pkl"))
    with pytest.raises(UsageError, match=r"written as \.npz, not as 'boxes\.json'"):
        write_proposals(tmp_path / "boxes.json", named(), Proposals((), ""))
