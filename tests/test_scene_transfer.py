"""Detection and segmentation as whole runs: what they leave behind, that they resume, and that test is kept apart."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor, nn

from ssl_inpaint import catalog, checkpoint, metrics, segmentation_metrics, train
from ssl_inpaint.checkpoint import Card
from ssl_inpaint.cli import main
from ssl_inpaint.core import Batch, Detections, Encoder, Objects, Split, Stage, TransferFacts
from ssl_inpaint.data import proposals, shapes
from ssl_inpaint.data.specs import open_data
from ssl_inpaint.data.store import ImageStore
from ssl_inpaint.detection_metrics import mean_average_precision_of_detections
from ssl_inpaint.errors import Failure, UsageError
from ssl_inpaint.experiment import data, scene_feed, transfer
from ssl_inpaint.experiment.scene_feed import SceneFeed
from ssl_inpaint.plans import TransferPlan, read_plan
from ssl_inpaint.records import Ledger, Record
from ssl_inpaint.runtime import Runtime
from ssl_inpaint.scenes import SceneBatches, SceneFeatureBatches, groups_of_one_size

CPU = Runtime(torch.device("cpu"), is_bf16=False)
NARROW = {"channels": "8,8,8,8,8"}
CLASSES = ("boat", "bus")  # of the data sets made here
MAPS = ["mAP (11-point)", "mAP (area)"]
IOUS = ["mIoU", "pixel accuracy", "mean class accuracy"]
KINDS = {"fast": ("det", {"detector": "fast"}), "faster": ("det", {"detector": "faster"}), "seg": ("seg", {})}
STEPS = 6
Settings = Mapping[str, Mapping[str, str]]


@pytest.fixture(scope="module", autouse=True)
def quiet_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of its own, and one thread, as these networks are too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_INPAINT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = shapes.Config(train=20, val=10, test=10)
    return shapes.make_shapes(tmp_path_factory.mktemp("data") / "shapes", config)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a narrow encoder with BatchNorm that calls itself pretrained, so that nothing is calibrated."""
    encoder, card = checkpoint.build_encoder("compact_alexnet", NARROW, 0)
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    checkpoint.save_weights(path, encoder, card.model_copy(update={"method": "Ours", "pretext": "inpainting"}))
    return path


def plan_of(
    kind: str,
    spec: str,
    source: Path | str,
    mode: str = "frozen",
    settings: Settings | None = None,
    seed: int = 0,
    has_predictions: bool = False,
) -> TransferPlan:
    task, head = KINDS[kind]
    plain: dict[str, Mapping[str, str]] = {
        "head": {"hidden": "8", **head},
        "train": {"steps": str(STEPS), "batch_size": "4"},
    }
    if str(source).startswith("random:"):
        plain["encoder"] = NARROW
    merged = plain | {part: {**plain.get(part, {}), **fields} for part, fields in (settings or {}).items()}
    return transfer.plan_transfer(spec, str(source), task, mode, f"quick_{task}", merged, seed, has_predictions)


def run(plan: TransferPlan, folder: Path, ledger: Ledger | None = None, resume: bool = False) -> transfer.Transferred:
    return transfer.transfer(plan, folder, CPU, ledger, resume)


def checkpoint_of(folder: Path, label: str = "final") -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / label / "checkpoint.pt", weights_only=True)
    return found


def means(scores: Mapping[str, float]) -> dict[str, float]:
    """The scores that become records: those of no single class."""
    return {name: value for name, value in scores.items() if ":" not in name}


@dataclass(frozen=True)
class Finished:
    """A run that was left to end."""

    plan: TransferPlan
    made: transfer.Transferred
    ledger: Ledger
    encoder: Encoder  # as it was opened, looked at after the run


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, shapes_folder: Path, source: Path
) -> Callable[[str, str], Finished]:
    """One run of each kind and mode, made when first asked for."""
    plain = checkpoint.open_encoder

    @cache
    def of(kind: str, mode: str) -> Finished:
        root, opened = tmp_path_factory.mktemp(f"{kind}-{mode}"), []

        def open_encoder(*arguments: Any) -> tuple[Encoder, Card]:
            opened.append(plain(*arguments))
            return opened[-1]

        plan = plan_of(kind, f"shapes:{shapes_folder}", source, mode)
        ledger = Ledger(root / "measured.jsonl")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint, "open_encoder", open_encoder)
            made = run(plan, root / "run", ledger)
        return Finished(plan, made, ledger, opened[0][0])

    return of


# Small data sets of other layouts

WIDE = (200, 40)  # width and height: longer than 3:1, so that the store keeps columns 40 to 160
SIZES = ((60, 44), WIDE, (48, 64), (60, 44))
BOXES = ((6, 8, 40, 36), (64, 6, 98, 34), (4, 20, 40, 60), (20, 4, 56, 40))  # one object an image, inside what is kept


def picture(number: int) -> tuple[Image.Image, np.ndarray, int]:
    """A noisy image with one flat object, its class mask with a rim that is not counted, and the object's class."""
    (width, height), (x1, y1, x2, y2) = SIZES[number % 4], BOXES[number % 4]
    label = number // 2 % 2
    pixels = np.random.default_rng(number).integers(80, 140, (height, width, 3), dtype=np.uint8)
    pixels[y1:y2, x1:x2] = ((220, 40, 30), (30, 60, 220))[label]
    mask = np.zeros((height, width), np.uint8)
    mask[y1:y2, x1:x2] = 255
    mask[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] = label + 1
    return Image.fromarray(pixels), mask, label


def save(image: Image.Image | np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)


def put_voc(root: Path) -> str:
    """Four images a split in VOC's layout, with boxes (from 1, ends included) and masks."""
    base = root / "VOCdevkit" / "VOC2007"
    for task in ("Main", "Segmentation"):
        (base / "ImageSets" / task).mkdir(parents=True)
    (base / "Annotations").mkdir()
    for part, first in (("train", 100), ("val", 200), ("test", 300)):
        names = [str(first + i) for i in range(4)]
        for task in ("Main", "Segmentation"):
            (base / "ImageSets" / task / f"{part}.txt").write_text("\n".join(names))
        for i, name in enumerate(names):
            image, mask, label = picture(first + i)
            save(image, base / "JPEGImages" / f"{name}.png")
            save(mask, base / "SegmentationClass" / f"{name}.png")
            x1, y1, x2, y2 = BOXES[i]
            box = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
            text = f"<annotation><object><name>{CLASSES[label]}</name><bndbox>{box}</bndbox></object></annotation>"
            (base / "Annotations" / f"{name}.xml").write_text(text)
    (base / "labels.txt").write_text("\n".join(CLASSES))
    return f"voc2007:{root}"


def put_coco(root: Path) -> str:
    """Boxes alone, in COCO's format: beside each object a crowd, and nothing at all in the last image of a split."""
    for part, first in (("train", 100), ("val", 200), ("test", 300)):
        images, annotations = [], []
        for i in range(4):
            image, _, label = picture(first + i)
            save(image, root / part / f"{first + i}.png")
            x1, y1, x2, y2 = BOXES[i]
            size = {"width": image.width, "height": image.height}
            images.append({"id": first + i, "file_name": f"{first + i}.png", **size})
            own = {"image_id": first + i, "category_id": label + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            annotations += [own, {**own, "bbox": [x1, y1, 8, 8], "iscrowd": 1}] if i < 3 else []
        categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return f"coco:{root}"


def put_camvid(root: Path) -> str:
    """Images beside masks in CamVid's layout, with its void."""
    for part, first in (("train", 100), ("val", 200), ("test", 300)):
        for i in range(4):
            image, mask, _ = picture(first + i)
            mask[mask == 255] = 11
            save(image, root / part / f"0001TP_{first + i}.png")
            save(mask, root / f"{part}annot" / f"0001TP_{first + i}.png")
    return f"maskfolder:{root}"


def put_labelled(root: Path) -> str:
    """Class folders, without boxes and masks."""
    for part in ("train", "val", "test"):
        for i in range(4):
            image, _, label = picture(i)
            save(image, root / part / CLASSES[label] / f"{i}.png")
    return f"imagefolder:{root}"


def altered_copy(shapes_folder: Path, target: Path) -> Path:
    """The data set with other test images, whose objects are all called stars and whose masks hold them alone."""
    shutil.copytree(shapes_folder, target)
    root = target / "VOCdevkit" / "VOC2007"
    for name in (root / "ImageSets" / "Main" / "test.txt").read_text().split():
        image = root / "JPEGImages" / f"{name}.jpg"
        Image.new("RGB", Image.open(image).size, (int(name) % 256, 0, 90)).save(image)
        tree = ElementTree.parse(root / "Annotations" / f"{name}.xml")
        for found in tree.iter("name"):
            found.text = "star"
        tree.write(root / "Annotations" / f"{name}.xml")
        mask = np.array(Image.open(root / "SegmentationClass" / f"{name}.png"))
        star = np.where((mask > 0) & (mask < 255), 1 + shapes.CLASSES.index("star"), mask)
        save(star.astype(np.uint8), root / "SegmentationClass" / f"{name}.png")
    return target


# What a run leaves behind


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
@pytest.mark.parametrize(("kind", "names"), [("fast", MAPS), ("faster", MAPS), ("seg", IOUS)])
def test_a_run_records_its_metrics_and_leaves_its_source_as_it_was(
    kind: str, names: list[str], mode: str, finished: Callable[[str, str], Finished], source: Path
) -> None:
    end = finished(kind, mode)
    task = KINDS[kind][0]
    assert [record.metric for record in end.made.records] == names and end.ledger.read() == end.made.records
    weights = checkpoint.weights_sha256(checkpoint.open_encoder(str(source), {}, 0)[0])
    shared = {(r.task, r.mode, r.protocol, r.dataset, r.split, r.n_examples, r.method) for r in end.made.records}
    assert shared == {(task, mode, f"quick-{task}/v1 (changed)", "shapes", "test", 10, "Ours")}
    assert {r.weights_sha256 for r in end.made.records} == {weights} == {checkpoint.weights_sha256(end.encoder)}
    assert {r.metric: r.value for r in end.made.records} == means(end.made.scores)
    assert all(0 <= value <= 1 for value in end.made.scores.values())
    assert read_plan(TransferPlan, end.made.folder) == end.plan


@pytest.mark.parametrize("kind", ["fast", "faster"])
def test_the_mean_of_the_classes_that_test_has_is_the_map(
    kind: str, finished: Callable[[str, str], Finished], shapes_folder: Path
) -> None:
    folder = finished(kind, "frozen").made.folder
    scores = json.loads((folder / "scores.json").read_text(), parse_constant=pytest.fail)["scores"]
    objects = open_data(f"shapes:{shapes_folder}", "test").objects or ()
    there = {shapes.CLASSES[k] for one in objects for k in one.labels[~one.is_difficult]}
    for way in ("11-point", "area"):
        each = {name.split(": ")[1]: v for name, v in scores.items() if name.startswith(f"AP ({way}): ")}
        assert each.keys() == there and np.mean(list(each.values())) == pytest.approx(scores[f"mAP ({way})"])


def test_the_mean_of_the_classes_in_the_truth_is_the_miou(
    finished: Callable[[str, str], Finished], shapes_folder: Path
) -> None:
    folder = finished("seg", "frozen").made.folder
    scores = json.loads((folder / "scores.json").read_text(), parse_constant=pytest.fail)["scores"]
    split = open_data(f"shapes:{shapes_folder}", "test", needs="masks")
    assert split.masks is not None
    values = {int(v) for i in range(10) for v in np.unique(split.masks.read(i))} - {255}
    each = [scores[f"IoU: {split.mask_classes[value]}"] for value in values]
    assert 0 in values and np.mean(each) == pytest.approx(scores["mIoU"])


def test_only_fine_tuning_changes_the_encoder_it_trains(finished: Callable[[str, str], Finished], source: Path) -> None:
    given, _ = checkpoint.read_weights(source)
    for kind in KINDS:
        for mode in ("frozen", "finetune"):
            (trained,) = checkpoint_of(finished(kind, mode).made.folder)["modules"].values()
            own = {name.removeprefix("encoder."): v for name, v in trained.items() if name.startswith("encoder.")}
            assert own.keys() == (given.keys() if mode == "finetune" else set())
            assert mode == "frozen" or not torch.equal(own["conv1.weight"], given["conv1.weight"])


def test_an_untouched_protocol_keeps_its_label() -> None:
    for task in ("det", "seg"):
        plan = transfer.plan_transfer("shapes", "random:alexnet", task, "frozen", f"quick_{task}", {}, 0)
        assert plan.protocol_label == f"quick-{task}/v1"
        plan = transfer.plan_transfer("shapes", "random:alexnet", task, "frozen", None, {}, 0)
        assert plan.protocol_label == f"compact-{task}/v1"


class Drifting(Encoder):
    """Counts how often it was called, in a buffer, even in eval mode."""

    stages = {"mean": Stage(3, 1)}
    smallest_input = 1

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.calls: Tensor = self.calls + 1
        return {"mean": images * self.weight}


def test_a_frozen_encoder_that_drifts_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(encoder="drifting", encoder_config={}, method="Drifting", pretext="unknown")
    monkeypatch.setattr(checkpoint, "open_encoder", lambda *_: (Drifting(), card))
    ledger, plan = Ledger(tmp_path / "measured.jsonl"), plan_of("seg", put_voc(tmp_path / "data"), "drifting")
    with pytest.raises(Failure, match="frozen encoder"):
        run(plan, tmp_path / "run", ledger)
    assert not ledger.read() and not (tmp_path / "run" / "scores.json").exists()


# Repeating, stopping and going on


@pytest.mark.parametrize(
    ("kind", "mode", "batches"),
    [
        ("fast", "frozen", SceneFeatureBatches),
        ("faster", "finetune", SceneBatches),
        ("seg", "frozen", SceneFeatureBatches),
        ("seg", "finetune", SceneBatches),
    ],
)
def test_a_stopped_measurement_resumes_to_the_scores_of_one_left_alone(
    kind: str,
    mode: str,
    batches: type[SceneFeatureBatches] | type[SceneBatches],
    finished: Callable[[str, str], Finished],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which is also that one seed gives the same numbers twice."""
    whole, ledger = finished(kind, mode), Ledger(tmp_path / "measured.jsonl")
    plain = batches.at

    def at(self: Any, step: int, part: int = 0, parts: int = 1) -> Batch:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, step, part, parts)

    with monkeypatch.context() as patch, pytest.raises(train.Interrupted, match=r"The run folder is .*halves\."):
        patch.setattr(batches, "at", at)
        run(whole.plan, tmp_path / "halves", ledger)
    half = checkpoint_of(tmp_path / "halves")["step"]
    assert 0 < half < STEPS and not ledger.read()
    resumed = run(whole.plan, tmp_path / "halves", ledger, resume=True)
    assert resumed.scores == whole.made.scores
    assert [r.config_hash for r in ledger.read()] == [r.config_hash for r in whole.made.records]
    assert not (tmp_path / "halves" / "predictions").exists()  # nobody asked for them


def test_maps_that_do_not_fit_into_memory_are_made_anew(
    finished: Callable[[str, str], Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finished("fast", "frozen")
    monkeypatch.setattr(scene_feed, "CACHE_GIB", 0.0)
    made = run(whole.plan, tmp_path / "run")
    assert made.scores == pytest.approx(whole.made.scores, abs=1e-3)  # images described one by one: other rounding
    assert [r.config_hash for r in made.records] == [r.config_hash for r in whole.made.records]


# Test is kept apart

RATES = {"protocol": {"learning_rates": "1e-3,1e-2"}}
FITS = ("tune-0.001", "tune-0.01", "final")


@pytest.mark.parametrize("kind", ["fast", "seg"])
def test_test_is_read_once_after_all_training_and_decides_nothing(
    kind: str, shapes_folder: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other test images and annotations leave tuning and all heads as they are, and only the scores differ."""
    specs = {"plain": f"shapes:{shapes_folder}", "other": f"shapes:{altered_copy(shapes_folder, tmp_path / 'data')}"}
    tests = {data.open_examples(spec, "test", {}, 80).store.digest for spec in specs.values()}
    seen, made = list[str](), dict[str, list[Any]]()
    plain_image, plain_fit = ImageStore.image, train.fit

    def image(self: ImageStore, position: int) -> np.ndarray:
        if self.digest in tests:
            seen.append(f"test {position}")
        return plain_image(self, position)

    def fit(*arguments: Any, label: str, **others: Any) -> train.Fit:
        found = plain_fit(*arguments, label=label, **others)
        seen.append(label)
        return found

    monkeypatch.setattr(ImageStore, "image", image)
    monkeypatch.setattr(train, "fit", fit)
    for name, spec in specs.items():
        seen.clear()
        result = run(plan_of(kind, spec, source, settings=RATES), tmp_path / name)
        assert seen[:3] == [f"{KINDS[kind][0]} {label}" for label in FITS]
        assert sorted(seen[3:]) == [f"test {position}" for position in range(10)]
        heads = [checkpoint_of(tmp_path / name, label)["modules"] for label in FITS]
        tuning = json.loads((tmp_path / name / "scores.json").read_text())["tuning"]
        made[name] = [result.scores, result.learning_rate, tuning, heads]
    assert made["plain"][0] != made["other"][0] and made["plain"][1:3] == made["other"][1:3]
    assert set(made["plain"][2]) == {"0.001", "0.01"}
    for plain, other in zip(made["plain"][3], made["other"][3], strict=True):
        torch.testing.assert_close(plain, other, rtol=0, atol=0)


# What is known exactly


class Knowing:
    """Predicts the truth: boxes from the batch's own in pixels of what is shown, masks from a list in the feed's order.

    Its one map says nothing. Scores are those of the task itself.
    """

    def __init__(self, task: Any, masks: Iterator[np.ndarray]) -> None:
        self.task, self.masks = task, masks
        self.sizes: list[tuple[int, int]] = []

    def features(self, images: Tensor) -> dict[str, Tensor]:
        return {"map": images[:, :1, ::8, ::8]}

    def predict(self, batch: Batch, sizes: Sequence[tuple[int, int]]) -> list[Any]:
        self.sizes += sizes
        if batch.truths is None:
            return [next(self.masks) for _ in sizes]
        assert batch.sizes is not None
        found = []
        for truth, shown, (height, width) in zip(batch.truths, batch.sizes.tolist(), sizes, strict=True):
            boxes = truth.boxes.numpy() * np.array([width / shown[1], height / shown[0]] * 2, np.float32)
            found.append(Detections(boxes, truth.labels.numpy(), np.ones(len(boxes), np.float32)))
        return found

    def score(self, pairs: Any) -> dict[str, float]:
        scores: dict[str, float] = self.task.score(pairs)
        return scores


def knowing_feed(kind: str, spec: str, mode: str) -> tuple[SceneFeed, Knowing]:
    """A feed that has admitted test, and who knows it."""
    plan, task = plan_of(kind, spec, "random:alexnet", mode), KINDS[kind][0]
    part = catalog.load("transfer", task)
    assert plan.protocol.scenes is not None
    feed = SceneFeed(plan, plan.protocol.scenes, part.NEEDS, False, CPU)
    test = feed.open("test")
    feed.admit("test")
    order = [
        position
        for positions, _ in groups_of_one_size(test.images, feed.scenes.test_side, feed.scenes.longest, 16)
        for position in positions
    ]
    masks = []
    for position in order if test.split.masks is not None else ():
        place = int(test.images.store.kept[position])
        mask, (height, width) = test.split.masks.read(place).copy(), test.original_size(position)
        across, down = max(0, width - 3 * height) // 2, max(0, height - 3 * width) // 2
        mask[mask == 255] = 3  # wrong, where nothing is counted
        masks.append(mask[down : height - down, across : width - across])
    facts: TransferFacts = feed.facts()
    encoder, _ = checkpoint.open_encoder("random:alexnet", NARROW, 0)
    return feed, Knowing(part.build(part.Config(), encoder, facts), iter(masks))


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
@pytest.mark.parametrize("kind", ["faster", "seg"])
@pytest.mark.parametrize("layout", ["shapes", "voc", "damaged"])
def test_who_knows_the_truth_scores_one_exactly(
    layout: str, kind: str, mode: str, shapes_folder: Path, tmp_path: Path
) -> None:
    spec = f"shapes:{shapes_folder}" if layout == "shapes" else put_voc(tmp_path)
    if layout == "damaged":  # one image cannot be read, and is left out with its annotation
        (tmp_path / "VOCdevkit" / "VOC2007" / "JPEGImages" / "300.png").write_bytes(b"")
    feed, knowing = knowing_feed(kind, spec, mode)
    scores = feed.score(knowing, "test").values  # type: ignore[arg-type]
    present = {name: value for name, value in scores.items() if not np.isnan(value)}
    assert present == dict.fromkeys(present, 1.0) and [*present][: len(MAPS)] == (IOUS if kind == "seg" else MAPS)[:2]
    if layout != "shapes":
        readable = [(44, 60), (44, 60)] if layout == "voc" else [(44, 60)]
        assert sorted(knowing.sizes) == [(40, 120), *readable, (64, 48)]  # of the wide one its middle


def test_boxes_come_back_in_pixels_of_the_file(tmp_path: Path) -> None:
    feed, knowing = knowing_feed("faster", put_voc(tmp_path), "finetune")
    for found, box in zip(feed._predictions(knowing, "test"), BOXES, strict=True):  # type: ignore[arg-type]
        np.testing.assert_allclose(found.boxes, [box], atol=1e-3)  # float32, there and back


def test_an_object_in_the_part_that_is_cut_off_counts_as_missed(tmp_path: Path) -> None:
    spec = put_voc(tmp_path)
    file = tmp_path / "VOCdevkit" / "VOC2007" / "Annotations" / "301.xml"  # the wide one
    file.write_text(re.sub(r"<xmin>65</xmin>(.*)<xmax>98<", r"<xmin>1</xmin>\1<xmax>34<", file.read_text()))
    feed, knowing = knowing_feed("faster", spec, "finetune")
    scores = feed.score(knowing, "test").values  # type: ignore[arg-type]
    # Of either class there are two objects; the boat that is cut off is missed, and what is left of its box is wrong.
    each = {name: value for name, value in scores.items() if name.startswith("AP (area)") and not np.isnan(value)}
    assert each == {"AP (area): boat": 0.25, "AP (area): bus": 1.0}


# What random features can do


@dataclass(frozen=True)
class Learned:
    scores: dict[str, float]
    predictions: Path
    split: Split


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Learned]:
    """Random frozen features on easy scenes: one large upright object on a drawn background."""
    look = {"most_objects": 1, "smallest_side": 0.5, "largest_side": 0.7, "most_turn_degrees": 10.0, "size": 80}
    plain = {"strange_texture_share": 0.0, "photograph_share": 0.0, "most_occluders": 0}
    config = shapes.Config(train=150, val=10, test=30, **look, **plain)
    folder = shapes.make_shapes(tmp_path_factory.mktemp("easy") / "shapes", config)

    @cache
    def of(kind: str) -> Learned:
        stage, rate = ("pool2", "0.01") if kind == "seg" else ("conv3", "0.005")
        settings = {
            "encoder": {"channels": "16,16,16,8,8"},
            "head": {"hidden": "64", "dropout": "0", "stage": stage},
            "train": {"steps": "100", "batch_size": "8", "learning_rate": rate},
        }
        spec = f"shapes:{folder}"
        plan = plan_of(kind, spec, "random:compact_alexnet", settings=settings, has_predictions=True)
        made = run(plan, tmp_path_factory.mktemp("runs") / kind)
        needs = "masks" if kind == "seg" else "objects"
        return Learned(made.scores, made.folder / "predictions", open_data(spec, "test", needs=needs))

    return of


def test_random_features_segment_better_than_saying_background(learned: Callable[[str], Learned]) -> None:
    """Of seeds 0 to 5 the mIoU was 0.123, 0.141, 0.115, 0.125, 0.138 and 0.170; who sees background only has 0.067."""
    found = learned("seg")
    assert found.split.masks is not None
    matrix = np.zeros((11, 11), np.int64)
    for i in range(len(found.split.masks)):
        truth = found.split.masks.read(i)
        matrix += segmentation_metrics.confusion(np.zeros_like(truth), truth, 11)
    trivial = segmentation_metrics.mean_iou(matrix)  # the background's share of 0.74, over 11 classes
    assert trivial == pytest.approx(0.067, abs=5e-4)
    assert 0.09 < found.scores["mIoU"] < 0.4


def test_random_features_detect_something(learned: Callable[[str], Learned]) -> None:
    """Of seeds 0 to 5 the mAP was 0.244, 0.255, 0.106, 0.197, 0.213 and 0.278; who finds nothing has 0."""
    assert 0.08 < learned("fast").scores["mAP (11-point)"] < 0.6


# Predictions, for others to score


def read_detections(folder: Path) -> tuple[list[Detections], list[Objects], list[str]]:
    """What the two files hold, image by image."""
    found = json.loads((folder / "detections.json").read_text())
    truth = json.loads((folder / "ground_truth.json").read_text())

    def of(lines: list[dict[str, Any]], image: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
        own = [line for line in lines if line["image_id"] == image["id"]]
        boxes = np.array([line["bbox"] for line in own], np.float64).reshape(-1, 4)
        labels = np.array([line["category_id"] - 1 for line in own], np.int64)
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1), labels, own

    detections, objects = [], []
    for image in truth["images"]:
        boxes, labels, own = of(found, image)
        detections.append(Detections(boxes, labels, np.array([line["score"] for line in own], np.float32)))
        boxes, labels, own = of(truth["annotations"], image)
        objects.append(Objects(boxes, labels, np.array([line["difficult"] == 1 for line in own], bool)))
    return detections, objects, [image["file_name"] for image in truth["images"]]


def test_boxes_that_were_kept_give_the_recorded_map(learned: Callable[[str], Learned]) -> None:
    found = learned("fast")
    files = {file.name for file in found.predictions.iterdir()}
    assert files == {"detections.json", "ground_truth.json", "gallery.png"}
    detections, objects, names = read_detections(found.predictions)
    for way in ("11-point", "area"):
        mean, _ = mean_average_precision_of_detections(detections, objects, 10, way)  # type: ignore[arg-type]
        # Scores are kept to five decimals: where that makes two equal, the order in the ranking may change.
        assert mean == pytest.approx(found.scores[f"mAP ({way})"], abs=2e-3)
    assert names == [found.split.images.name(i) for i in range(len(found.split.images))]
    assert sum(len(one.labels) for one in detections) > len(names)
    for kept, true in zip(objects, found.split.objects or (), strict=True):
        np.testing.assert_allclose(kept.boxes, true.boxes, atol=0.01)
        assert kept.labels.tolist() == true.labels.tolist() and kept.is_difficult.tolist() == true.is_difficult.tolist()


def test_masks_that_were_kept_give_the_recorded_miou(learned: Callable[[str], Learned]) -> None:
    found = learned("seg")
    masks, folder = found.split.masks, found.predictions
    assert {entry.name for entry in folder.iterdir()} == {"masks", "gallery.png"} and masks is not None
    assert len(list(folder.rglob("masks/**/*.png"))) == len(masks)
    matrix = np.zeros((11, 11), np.int64)
    for i in range(len(masks)):
        file = (folder / "masks" / found.split.images.name(i)).with_suffix(".png")
        matrix += segmentation_metrics.confusion(np.array(Image.open(file)), masks.read(i), 11)
    assert segmentation_metrics.mean_iou(matrix) == found.scores["mIoU"]
    assert segmentation_metrics.pixel_accuracy(matrix) == found.scores["pixel accuracy"]


def test_galleries_are_pictures(learned: Callable[[str], Learned]) -> None:
    for kind in ("fast", "seg"):
        with Image.open(learned(kind).predictions / "gallery.png") as gallery:
            gallery.load()
            assert min(gallery.size) > 200


def test_scores_that_were_kept_give_the_recorded_map_of_classification(
    shapes_folder: Path, source: Path, tmp_path: Path
) -> None:
    settings = {
        "train": {"steps": "3", "batch_size": "8", "learning_rate": "0.001"},
        "head": {"hidden": "8", "grid": "1"},
        "protocol": {"cached_views": "1", "test_views": "centre"},
    }
    spec = f"shapes:{shapes_folder}"
    plan = transfer.plan_transfer(spec, str(source), "cls", "frozen", "quick_cls", settings, 0, True)
    made = run(plan, tmp_path / "run")
    header, *rows = csv.reader((tmp_path / "run" / "predictions" / "scores.csv").read_text().splitlines())
    split = open_data(spec, "test")
    assert header == ["name", *shapes.CLASSES] and [row[0] for row in rows] == [split.images.name(i) for i in range(10)]
    mean, _ = metrics.mean_average_precision(np.array(rows)[:, 1:].astype(float), split.labels, "step")  # type: ignore[arg-type]
    assert mean == pytest.approx(made.scores["mAP (step)"], abs=1e-6)
    assert [entry.name for entry in (tmp_path / "run" / "predictions").iterdir()] == ["scores.csv"]


# Rescaling

PLAIN_HEAD = {"head": {"standardize": "false"}}
RESCALED = {**PLAIN_HEAD, "protocol": {"rescale": "both"}}


@pytest.mark.parametrize("kind", ["fast", "seg"])
def test_rescaling_is_another_method_that_trains_other_weights(kind: str, tmp_path: Path) -> None:
    spec, found, first = put_voc(tmp_path / "data"), list[list[Record]](), list[Tensor]()
    for name, settings in (("plain", PLAIN_HEAD), ("rescaled", RESCALED)):
        found.append(run(plan_of(kind, spec, "random:alexnet", "finetune", settings), tmp_path / name).records)
        first += [w["encoder.conv1.weight"] for w in checkpoint_of(tmp_path / name)["modules"].values()]
    plain, rescaled = found
    assert [r.method for r in plain] == ["Random"] * len(plain) and len(plain) == len(rescaled)
    assert [r.method for r in rescaled] == ["Random, rescaled"] * len(plain)
    assert {r.config_hash for r in plain}.isdisjoint(r.config_hash for r in rescaled)
    assert not torch.allclose(first[0], first[1], rtol=0.1)
    assert {r.weights_sha256 for r in plain} == {r.weights_sha256 for r in rescaled}  # of the encoder that was measured


# Mistakes


def refused(make: Callable[[], TransferPlan], folder: Path, sentence: str) -> None:
    """The refusal is one sentence that says so much, and nothing is left behind."""
    ledger = Ledger(folder.parent / "measured.jsonl")
    with pytest.raises(UsageError, match=sentence) as error:
        run(make(), folder, ledger)
    assert "\n" not in str(error.value) and str(error.value).endswith((".", "?"))
    assert not folder.exists() and not ledger.path.exists()


@pytest.mark.parametrize(
    ("encoder", "mode", "settings", "sentence"),
    [
        ("ours", "finetune", RESCALED, "networks without BatchNorm2d and 'compact_alexnet' has it"),
        ("random:alexnet", "frozen", RESCALED, "this encoder is frozen"),
        ("random:alexnet", "finetune", {"protocol": {"rescale": "both"}}, "head.standardize=false"),
        ("random:alexnet", "finetune", {"protocol": {"rescale": "some"}}, "'none', 'between', 'within' or 'both'"),
    ],
)
@pytest.mark.parametrize("kind", ["faster", "seg"])
def test_what_cannot_be_rescaled_is_refused(
    kind: str, encoder: str, mode: str, settings: Settings, sentence: str, source: Path, tmp_path: Path
) -> None:
    spec, encoder = put_voc(tmp_path / "data"), str(source) if encoder == "ours" else encoder
    refused(lambda: plan_of(kind, spec, encoder, mode, settings), tmp_path / "run", sentence)


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        ("faster", {"scenes": {"sides": "40"}}, r"scenes.sides.* = 40: encoder 'compact_alexnet' takes 64 pixels"),
        ("seg", {"scenes": {"sides": "80,48"}}, r"scenes.sides.* = 48: encoder 'compact_alexnet' takes 64 pixels"),
        ("seg", {"scenes": {"test_side": "48"}}, r"scenes.test_side.* = 48: encoder 'compact_alexnet' takes 64"),
        ("seg", {"scenes": {"longest": "150"}}, r"scenes.longest / 3 = 50: encoder 'compact_alexnet' takes 64"),
        ("seg", {"scenes": {"longest": "79"}}, "longest 79 is below the short side 80"),
        ("seg", {"scenes": {"sides": "8"}}, "8 pixels is below 16"),
        ("faster", {"crops": {"size": "64"}}, "no part to --set 'crops'.* scenes"),
        ("seg", {"proposals": {"mode": "fast"}}, "no part to --set 'proposals'"),
        ("faster", {"proposals": {"mode": "fst"}}, "proposals.mode = 'fst'"),
        ("faster", {"head": {"stage": "conv55"}}, "Did you mean 'conv5'"),
        ("seg", {"head": {"stage": "conv55"}}, "Did you mean 'conv5'"),
        ("seg", {"head": {"largest_stride": "1"}}, "head.largest_stride = 1: the encoder's strides are"),
        ("seg", {"head": {"skips": "4"}}, "head.skips = 4: the encoder has 2 finer stages"),
        ("seg", {"head": {"detector": "fast"}}, "no head setting 'detector'"),
        ("faster", {"head": {"detector": "slow"}}, "'fast' or 'faster'"),
        ("seg", {"head": {"fixed": "conv1"}}, "for fine-tuning"),
        ("seg", {"protocol": {"test_views": "corners"}}, "protocol.test_views is for crops"),
        ("faster", {"proposals": {"most": "50"}}, "Faster R-CNN proposes by itself"),
        ("fast", {"proposals": {"file": "nowhere.npz"}}, "Cannot read the proposals nowhere.npz"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(
    kind: str, settings: Settings, sentence: str, source: Path, tmp_path: Path
) -> None:
    spec = put_voc(tmp_path / "data")
    refused(lambda: plan_of(kind, spec, source, settings=settings), tmp_path / "run", sentence)


def test_what_is_to_be_fixed_must_exist(source: Path, tmp_path: Path) -> None:
    spec, settings = put_voc(tmp_path / "data"), {"head": {"fixed": "conv9"}}
    sentence = "no parameter of the encoder 'conv9'"
    refused(lambda: plan_of("seg", spec, source, "finetune", settings), tmp_path / "run", sentence)


@pytest.mark.parametrize(
    ("task", "protocol", "sentence"),
    [
        ("det", "quick_cls", "is for task 'cls' and 'det' was asked for"),
        ("seg", "quick_det", "is for task 'det' and 'seg' was asked for"),
        ("seg", "quick_sge", "Did you mean 'quick_seg'"),
    ],
)
def test_a_protocol_of_another_task_is_refused(task: str, protocol: str, sentence: str, tmp_path: Path) -> None:
    def plan() -> TransferPlan:
        return transfer.plan_transfer("shapes", "random:alexnet", task, "frozen", protocol, {}, 0)

    refused(plan, tmp_path / "run", sentence)


@pytest.mark.parametrize("kind", ["fast", "seg"])
@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_a_vision_transformer_is_shown_whole_images_of_any_shape(kind: str, mode: str, tmp_path: Path) -> None:
    plan = plan_of(kind, put_voc(tmp_path / "data"), "random:timm:test_vit", mode)
    of_small_images = {"image_size": "64", "patch_size": "8", "depth": "3"}
    made = run(plan.model_copy(update={"encoder_settings": of_small_images}), tmp_path / "run")
    assert all(0 <= value <= 1 for value in means(made.scores).values())


def test_a_network_for_squares_of_one_size_is_refused(tmp_path: Path) -> None:
    def plan() -> TransferPlan:
        found = plan_of("faster", put_voc(tmp_path / "data"), "random:timm:swin_tiny_patch4_window7_224")
        return found.model_copy(update={"encoder_settings": {}})

    refused(plan, tmp_path / "run", "square images of 224 pixels only")  # and not that 80 pixels are too few


def empty_test(root: Path) -> None:
    for file in (root / "VOCdevkit" / "VOC2007" / "Annotations").glob("3*.xml"):
        file.write_text("<annotation></annotation>")


def mask_of_another_size(root: Path) -> None:
    save(np.zeros((44, 61), np.uint8), root / "VOCdevkit" / "VOC2007" / "SegmentationClass" / "300.png")


def mask_with_another_value(root: Path) -> None:
    save(np.full((44, 60), 9, np.uint8), root / "VOCdevkit" / "VOC2007" / "SegmentationClass" / "300.png")


def mask_cut_short(root: Path) -> None:
    file = root / "VOCdevkit" / "VOC2007" / "SegmentationClass" / "300.png"
    file.write_bytes(file.read_bytes()[:60])


def mask_missing(root: Path) -> None:
    (root / "VOCdevkit" / "VOC2007" / "SegmentationClass" / "300.png").unlink()


@pytest.mark.parametrize(
    ("kind", "put", "damage", "sentence"),
    [
        ("fast", put_labelled, None, "has no boxes and detection needs them"),
        ("faster", put_camvid, None, "has no boxes and detection needs them"),
        ("seg", put_labelled, None, "has no masks and segmentation needs them"),
        ("seg", put_coco, None, "has no masks and segmentation needs them"),
        ("faster", put_voc, empty_test, "No image of the split test of .* has an object"),
        ("seg", put_voc, mask_of_another_size, r"300.png has 61 x 44 pixels and its image 60 x 44"),
        ("seg", put_voc, mask_with_another_value, r"300.png holds the value 9, which stands for no class"),
        ("seg", put_voc, mask_cut_short, r"300.png"),
        ("seg", put_voc, mask_missing, r"300.png"),
    ],
)
def test_data_that_cannot_be_measured_are_refused(
    kind: str,
    put: Callable[[Path], str],
    damage: Callable[[Path], None] | None,
    sentence: str,
    source: Path,
    tmp_path: Path,
) -> None:
    """The damage is in test alone, and still found before the work."""
    spec = put(tmp_path / "data")
    if damage is not None:
        damage(tmp_path / "data")
    refused(lambda: plan_of(kind, spec, source), tmp_path / "run", sentence)


def test_masks_with_values_above_the_named_classes_are_refused(source: Path, tmp_path: Path) -> None:
    spec = put_camvid(tmp_path / "data")
    settings = {"data": {"classes": "sky,building,pole", "ignore": "10"}}  # void, which is 11, is none of them
    refused(
        lambda: plan_of("seg", spec, source, settings=settings), tmp_path / "run", r"holds the value 11.*data.classes="
    )


def test_a_test_without_a_counted_pixel_is_refused(source: Path, tmp_path: Path) -> None:
    spec = put_voc(tmp_path / "data")
    for file in (tmp_path / "data" / "VOCdevkit" / "VOC2007" / "SegmentationClass").glob("3*.png"):
        save(np.full_like(np.array(Image.open(file)), 255), file)
    refused(lambda: plan_of("seg", spec, source), tmp_path / "run", "split test")


# Proposals from a file


def write_all(spec: str, folder: Path, plan: TransferPlan, shifted: str = "") -> str:
    """What the search finds in each split, as files; in the split `shifted` one box of one image is another."""
    folder.mkdir()
    assert plan.protocol.proposals is not None
    for part in ("train", "val", "test"):
        split = open_data(spec, part, needs="objects")
        found = proposals.open_proposals(split.images, plan.protocol.proposals)
        if part == shifted:
            first, *others = found.boxes
            found = replace(found, boxes=(first - np.array([0, 0, 1, 0], np.float32), *others))
        proposals.write_proposals(folder / f"{part}.npz", split.images, found)
    return ",".join(str(folder / f"{part}.npz") for part in ("train", "val", "test"))


def test_proposals_read_from_files_give_the_scores_of_the_search_and_count_by_content(
    finished: Callable[[str, str], Finished], shapes_folder: Path, source: Path, tmp_path: Path
) -> None:
    """Wherever the files lie; other boxes are another identity, also where they are only trained on."""
    searched, spec, made = finished("fast", "frozen"), f"shapes:{shapes_folder}", dict[str, list[Record]]()
    for name, shifted in (("here", ""), ("there", ""), ("others", "train")):
        listed = write_all(spec, tmp_path / name, searched.plan, shifted)
        plan = plan_of("fast", spec, source, settings={"proposals": {"file": listed}})
        made[name] = run(plan, tmp_path / f"run {name}").records
    known = [(r.metric, r.value, r.config_hash) for r in searched.made.records]
    for name in ("here", "there"):
        assert [(r.metric, r.value, r.config_hash) for r in made[name]] == known
    assert {r.config_hash for r in made["others"]}.isdisjoint(r.config_hash for r in made["here"])


# Other layouts, end to end


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_folders_of_masks_are_segmented(mode: str, source: Path, tmp_path: Path) -> None:
    """Also by one image a step: its maps have values enough for BatchNorm."""
    settings, has_predictions = {"train": {"batch_size": "1"}}, mode == "frozen"
    plan = plan_of("seg", put_camvid(tmp_path / "data"), source, mode, settings, has_predictions=has_predictions)
    made = run(plan, tmp_path / "run")
    assert [(r.dataset, r.n_examples, r.metric) for r in made.records] == [("CamVid, 60 px", 4, m) for m in IOUS]
    assert {"IoU: sky", "IoU: building", "IoU: pole"} <= made.scores.keys()
    kept = {file.stem: Image.open(file).size for file in (tmp_path / "run").rglob("0001TP*.png")}
    assert len(kept) == 4 * has_predictions and (not kept or kept["0001TP_300"] == SIZES[0])


@pytest.mark.parametrize(("kind", "mode"), [("fast", "frozen"), ("faster", "finetune")])
def test_boxes_in_cocos_format_are_detected(kind: str, mode: str, source: Path, tmp_path: Path) -> None:
    """Shown in two sizes, mirrored too."""
    spec, settings = put_coco(tmp_path / "mine"), {"scenes": {"sides": "72,80", "flip": "true"}}
    made = run(plan_of(kind, spec, source, mode, settings, has_predictions=True), tmp_path / "run")
    assert [(r.dataset, r.n_examples, r.metric) for r in made.records] == [("coco:mine", 4, name) for name in MAPS]
    _, objects, names = read_detections(tmp_path / "run" / "predictions")
    assert [one.is_difficult.tolist() for one in objects] == [[False, True]] * 3 + [[]]
    assert [Path(name).name for name in names] == [f"{300 + i}.png" for i in range(4)]


# The command line


@pytest.fixture
def desk(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a data set as `data` and the encoder as `ours`."""
    put_voc(tmp_path / "data")
    (tmp_path / "ours").symlink_to(source.parent)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def type_in(line: str) -> Result:
    """What a command line gives; whatever is neither success nor a refusal is raised here."""
    found = CliRunner().invoke(main, shlex.split(line))
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


FEW = "--from ours --data voc2007:data --set train.steps=2 --set train.batch_size=4 --set head.hidden=8"


def test_help_tells_of_predictions() -> None:
    assert "--predictions" in type_in("transfer --task det --help").stdout


def test_a_run_says_where_its_predictions_are(desk: Path) -> None:
    found = type_in(f"transfer --task seg --protocol quick_seg {FEW} --predictions")
    assert found.exit_code == 0, found.stderr
    assert re.search(r"Ours, frozen, .* test \(4 images\): mIoU \d+\.\d\d %", found.stdout)
    assert "predictions runs/seg-frozen-ours-0/predictions\n" in found.stdout and "IoU:" not in found.stdout
    assert len(list((desk / "runs/seg-frozen-ours-0/predictions/masks").rglob("*.png"))) == 4
    before = Ledger(desk / "results" / "measured.jsonl").read()
    again = type_in("transfer --resume runs/seg-frozen-ours-0")
    assert again.exit_code == 0 and "predictions runs/seg-frozen-ours-0/predictions\n" in again.stdout
    after = Ledger(desk / "results" / "measured.jsonl").read()
    assert [(r.metric, r.value) for r in after] == [(r.metric, r.value) for r in before] and len(after) == 3


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--task det --protocol quick_cls", "'quick_cls' is for task 'cls' and 'det' was asked for"),
        ("--task det --protocol quick_det --set crops.size=64", "no part to --set 'crops'"),
        ("--task seg --protocol quick_seg --set proposals.mode=fast", "no part to --set 'proposals'"),
        ("--task seg --protocol quick_seg --set head.stage=conv55", "Did you mean 'conv5'"),
        ("--task seg --protocol quick_seg --set scenes.sides=48", "takes 64 pixels or more"),
        ("--task seg --protocol quick_seg --set scenes.side=80", "Did you mean 'sides'"),
        ("--task det --protocol quick_det --set protocol.rescale=both", "this encoder is frozen"),
        ("--task detection", "Did you mean 'det'"),
        ("--resume runs/ours --predictions", "so --predictions cannot apply"),
    ],
)
def test_a_mistake_gets_one_sentence_and_leaves_nothing(line: str, sentence: str, desk: Path) -> None:
    before = sorted(desk.iterdir())
    found = type_in(f"transfer {line}" if "--resume" in line else f"transfer {line} {FEW}")
    assert found.exit_code == 2 and not found.stdout
    assert re.search(sentence, found.stderr), found.stderr
    assert found.stderr.startswith("Error: ") and found.stderr.count("\n") == 1
    assert sorted(desk.iterdir()) == before
