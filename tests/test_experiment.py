"""The verbs as library calls: what runs leave behind, that they resume exactly, and that test is kept apart."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ssl_inpaint import checkpoint, runlog, train
from ssl_inpaint.batches import FeatureBatches, ImageBatches
from ssl_inpaint.checkpoint import Card
from ssl_inpaint.core import Encoder, Stage
from ssl_inpaint.data import shapes
from ssl_inpaint.data.store import ImageStore
from ssl_inpaint.errors import Failure, UsageError
from ssl_inpaint.experiment import calibration, data, patches, pretrain, retrieval, transfer
from ssl_inpaint.plans import PretrainPlan, TransferPlan, read_plan
from ssl_inpaint.records import Ledger
from ssl_inpaint.runtime import Runtime, claimed

CPU = Runtime(torch.device("cpu"), is_bf16=False)
NARROW = {"channels": "8,8,8,8,8"}
WHOLE = {"size": "64", "store_size": "64", "smallest_share": "1", "largest_share": "1"}
COLOURS = {"blue": (20, 40, 200), "green": (30, 180, 40), "red": (200, 30, 30)}
Settings = Mapping[str, Mapping[str, str]]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("SSL_INPAINT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = shapes.Config(train=20, val=10, test=10)
    return shapes.make_shapes(tmp_path_factory.mktemp("data") / "shapes", config)


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy flat colours, a class each: anything that sees colour tells them apart."""
    return put_textures(tmp_path_factory.mktemp("data") / "textures", COLOURS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shapes_folder: Path) -> Path:
    """A finished pretraining run."""
    return run_pretraining(f"shapes:{shapes_folder}", tmp_path_factory.mktemp("runs") / "ours").folder


def put_textures(
    root: Path, colours: Mapping[str, tuple[int, int, int]], counts: tuple[int, int, int] = (8, 4, 4)
) -> Path:
    generator = np.random.default_rng(0)
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        for name, colour in colours.items():
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(np.array(colour) + generator.normal(0, 12, (24, 24, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{i}.png")
    return root


def run_pretraining(
    spec: str,
    folder: Path,
    pretext: str = "inpainting",
    encoder: str | None = None,
    settings: Settings | None = None,
    steps: int = 3,
    ledger: Ledger | None = None,
    resume: bool = False,
) -> pretrain.Pretrained:
    loop = {"steps": str(steps), "batch_size": "8", "log_every_steps": "1"}
    plain: dict[str, Mapping[str, str]] = {"encoder": NARROW, "crops": WHOLE, "train": loop}
    plan = pretrain.plan_pretraining(spec, pretext, "compact", encoder, {**plain, **(settings or {})}, 0)
    return pretrain.pretrain(plan, folder, CPU, ledger, resume)


def run_transfer(
    spec: str,
    folder: Path,
    source: str = "random:compact_alexnet",
    mode: str = "frozen",
    settings: Settings | None = None,
    steps: int = 3,
    ledger: Ledger | None = None,
    resume: bool = False,
) -> transfer.Transferred:
    plain: dict[str, Mapping[str, str]] = {
        "crops": WHOLE,
        "train": {"steps": str(steps), "batch_size": "8"},
        "head": {"hidden": "[]", "grid": "1"},
        "protocol": {"cached_views": "1", "test_views": "centre"} if mode == "frozen" else {"test_views": "centre"},
    }
    if source.startswith("random:"):
        plain["encoder"] = NARROW
    plan = transfer.plan_transfer(spec, source, "cls", mode, "quick_cls", {**plain, **(settings or {})}, 0)
    return transfer.transfer(plan, folder, CPU, ledger, resume)


def run_retrieval(
    spec: str, folder: Path, *descriptors: str, ledger: Ledger | None = None, seed: int = 0, **settings: str
) -> retrieval.Retrieved:
    small = {"queries": "10", "gallery": "20", "store_size": "96", "patch_size": "64"}
    small |= {"shown_queries": "1", "shown_neighbours": "2"}
    plan = retrieval.plan_retrieval(spec, descriptors, {"retrieval": {**small, **settings}}, seed)
    return retrieval.nn_retrieval(plan, folder, CPU, ledger)


def stopping_at(
    step: int, batches: type[ImageBatches] | type[FeatureBatches], occasion: int = 1
) -> Callable[..., object]:
    """`batches.at`, which has this process asked to stop when that step's batch is made for the n-th time."""
    plain, occasions = batches.at, iter(range(1, 100))

    def at(self: ImageBatches | FeatureBatches, asked: int, part: int = 0, parts: int = 1) -> object:
        if asked == step and next(occasions) == occasion:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, asked, part, parts)  # type: ignore[arg-type]

    return at


def weights(folder: Path) -> str:
    return checkpoint.weights_sha256(checkpoint.open_encoder(str(folder), {}, 0)[0])


def altered_copy(shapes_folder: Path, target: Path, split: str) -> Path:
    """The data set with that split's images drawn over and every object of theirs called a star."""
    shutil.copytree(shapes_folder, target)
    root = target / "VOCdevkit" / "VOC2007"
    for name in (root / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
        Image.new("RGB", (96, 96), (int(name) % 256, 0, 90)).save(root / "JPEGImages" / f"{name}.jpg")
        tree = ElementTree.parse(root / "Annotations" / f"{name}.xml")
        for found in tree.iter("object"):
            found.find("name").text = "star"  # type: ignore[union-attr]
        tree.write(root / "Annotations" / f"{name}.xml")
    return target


# Pretraining


@pytest.mark.parametrize(
    ("pretext", "encoder", "own"),
    [
        ("inpainting", None, {"holes": "centre", "loss": "joint"}),
        ("inpainting", "alexnet", {"holes": "blocks", "loss": "adversarial"}),
        ("inpainting", "dcgan", {"holes": "region", "overlap_pixels": "3"}),
        ("inpainting", "timm:resnet18", {"holes": "noise", "distance": "l1"}),
        ("autoencoder", None, {}),
        ("supervised", "torchvision_alexnet", {}),
    ],
)
def test_a_finished_run_holds_every_file_and_its_encoder_opens(
    pretext: str, encoder: str | None, own: dict[str, str], shapes_folder: Path, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "measured.jsonl")
    has_widths = encoder in (None, "alexnet", "dcgan")
    settings = {"pretext": own, "encoder": NARROW if has_widths else {}}
    made = run_pretraining(
        f"shapes:{shapes_folder}", tmp_path / "run", pretext, encoder, settings, steps=2, ledger=ledger
    )
    found = {entry.name for entry in made.folder.iterdir()}
    wanted = {"config.json", "log.jsonl", "validation.jsonl", "events", "checkpoint.pt", "learning_curve.png"}
    assert wanted | {"encoder.safetensors"} <= found
    assert (made.folder / "samples" / "0000002.png").exists() == (pretext != "supervised")
    assert [line["step"] for line in runlog.read_log(made.folder / "log.jsonl")] == [1, 2]
    assert read_plan(PretrainPlan, made.folder).pretext == pretext
    opened, card = checkpoint.open_encoder(str(made.folder), {}, 0)
    assert card == made.card and card.encoder == (encoder or "compact_alexnet") and card.steps == 2
    records = ledger.read()
    assert {record.metric: record.value for record in records} == made.validation
    assert {record.weights_sha256 for record in records} == {checkpoint.weights_sha256(opened)}


def test_an_interrupted_run_resumes_to_the_same_weights_and_records(
    shapes_folder: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, ledger = f"shapes:{shapes_folder}", Ledger(tmp_path / "measured.jsonl")
    whole = run_pretraining(spec, tmp_path / "whole", steps=7)
    with monkeypatch.context() as patch, pytest.raises(train.Interrupted, match="SIGTERM"):
        patch.setattr(ImageBatches, "at", stopping_at(4, ImageBatches))
        run_pretraining(spec, tmp_path / "halves", steps=7, ledger=ledger)
    assert not (tmp_path / "halves" / "encoder.safetensors").exists() and not ledger.read()
    half = len(runlog.read_log(tmp_path / "halves" / "log.jsonl"))
    resumed = run_pretraining(spec, tmp_path / "halves", steps=7, ledger=ledger, resume=True)
    assert 0 < half < 7
    assert weights(tmp_path / "halves") == weights(tmp_path / "whole") != weights(run)
    assert resumed.validation == whole.validation and len(ledger.read()) == len(whole.validation)
    losses = [
        [line["loss/generator"] for line in runlog.read_log(tmp_path / name / "log.jsonl")]
        for name in ("whole", "halves")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 7


def test_pretraining_never_reads_test_nor_labels(shapes_folder: Path, run: Path, tmp_path: Path) -> None:
    """The same weights where test is other images, and where the labels of all that is read are others."""
    other = altered_copy(shapes_folder, tmp_path / "other", "test")
    for file in (other / "VOCdevkit" / "VOC2007" / "Annotations").glob("1*.xml"):
        file.write_text(file.read_text().replace("<name>star</name>", "<name>leaf</name>"))
    assert weights(run_pretraining(f"shapes:{other}", tmp_path / "run").folder) == weights(run)


def test_what_is_held_out_is_not_trained_on(shapes_folder: Path, run: Path, tmp_path: Path) -> None:
    """Other pixels in a held-out image change its score and not the weights."""
    examples = data.open_examples(f"shapes:{shapes_folder}", "pretrain", {}, 64)
    members, held_out = data.hold_out(examples)
    assert sorted([*members.tolist(), *held_out.tolist()]) == list(range(30))
    other = tmp_path / "other"
    shutil.copytree(shapes_folder, other)
    image = other / "VOCdevkit" / "VOC2007" / examples.split.images.name(int(held_out[0]))
    Image.new("RGB", Image.open(image).size, (250, 10, 10)).save(image)
    made = run_pretraining(f"shapes:{other}", tmp_path / "run")
    before = runlog.read_log(run / "validation.jsonl")[-1]
    assert weights(made.folder) == weights(run)
    assert made.validation["mean_fill_mse"] != before["mean_fill_mse"]


def test_a_set_of_silhouettes_is_part_of_the_identity(shapes_folder: Path, run: Path, tmp_path: Path) -> None:
    for name, box in (("a", (8, 8, 30, 40)), ("b", (20, 4, 60, 30))):
        (tmp_path / name).mkdir()
        mask = np.zeros((64, 64), np.uint8)
        mask[box[1] : box[3], box[0] : box[2]] = 255
        Image.fromarray(mask).save(tmp_path / name / "mask.png")
    hashes = {
        run_pretraining(
            f"shapes:{shapes_folder}",
            tmp_path / f"run {name}",
            settings={"pretext": {"silhouettes": str(tmp_path / name)}},
        ).card.config_hash
        for name in ("a", "b")
    }
    assert len(hashes | {checkpoint.open_encoder(str(run), {}, 0)[1].config_hash}) == 3


@pytest.mark.parametrize(
    ("pretext", "own", "sentence"),
    [
        ("autoencoder", {"holes": "region"}, "hides nothing"),
        ("supervised", {"silhouettes": "masks"}, "hides nothing"),
        ("inpainting", {"holes": "centre", "silhouettes": "masks"}, "for region holes"),
    ],
)
def test_settings_that_a_pretext_would_not_use_are_refused(pretext: str, own: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        pretrain.plan_pretraining("shapes", pretext, "compact", None, {"pretext": own}, 0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"crops": {"size": "48"}}, "takes 64 pixels or more"),
        ({"train": {"batch_size": "1"}}, "2 or more images a step"),
        ({"encoder": {"channels": "8,8"}}, "encoder.channels"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    settings: Settings, sentence: str, shapes_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=sentence):
        run_pretraining(f"shapes:{shapes_folder}", tmp_path / "run", settings=settings)
    assert not (tmp_path / "run").exists()


def test_one_image_is_too_few_to_pretrain_on_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "photos" / "only.png")
    with pytest.raises(UsageError, match="2 or more"):
        run_pretraining(f"folder:{tmp_path / 'photos'}", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_taken_while_images_are_decoded_is_not_written_over(
    shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = pretrain.open_examples

    def slowly(*arguments: object) -> data.Examples:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.json").write_text("another process's")
        return plain(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pretrain, "open_examples", slowly)
    with pytest.raises(UsageError, match="holds a run already"):
        run_pretraining(f"shapes:{shapes_folder}", tmp_path / "run")
    assert (tmp_path / "run" / "config.json").read_text() == "another process's"


# Transfer


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_several_labels_an_image_give_one_record_of_map(
    mode: str, shapes_folder: Path, run: Path, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "measured.jsonl")
    made = run_transfer(f"shapes:{shapes_folder}", tmp_path / "cls", str(run), mode, ledger=ledger)
    assert ledger.read() == made.records
    (record,) = made.records
    assert (record.metric, record.split, record.mode, record.n_examples) == ("mAP (step)", "test", mode, 10)
    assert record.weights_sha256 == weights(run) and record.protocol == "quick-cls/v1 (changed)"
    scores = json.loads((tmp_path / "cls" / "scores.json").read_text(), parse_constant=pytest.fail)["scores"]
    each = [value for name, value in scores.items() if name != "mAP (step)"]
    assert 0 < len(each) <= 10 and np.mean(each) == pytest.approx(record.value)  # over the classes that test has


@pytest.mark.parametrize(("mode", "steps"), [("frozen", 60), ("finetune", 30)])
def test_what_any_eye_can_separate_scores_one_exactly(mode: str, steps: int, textures: Path, tmp_path: Path) -> None:
    loop = {"train": {"steps": str(steps), "batch_size": "8", "learning_rate": "0.01"}}
    made = run_transfer(f"imagefolder:{textures}", tmp_path / "cls", mode=mode, settings=loop)
    assert made.scores["accuracy"] == made.scores["mean class accuracy"] == 1.0


def test_labels_that_say_nothing_stay_near_chance(tmp_path: Path) -> None:
    spec = f"imagefolder:{put_textures(tmp_path / 'data', dict.fromkeys('ab', (120, 120, 120)), (15, 5, 50))}"
    made = run_transfer(spec, tmp_path / "cls", settings={"train": {"steps": "60", "batch_size": "16"}})
    assert abs(made.scores["accuracy"] - 0.5) < 0.2  # four standard deviations of 100 fair coins


def test_test_is_read_once_after_all_training(
    shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, seen = f"shapes:{shapes_folder}", list[str]()
    test = data.open_examples(spec, "test", {}, 64).store.digest
    plain_crops, plain_fit = ImageStore.crops, train.fit

    def crops(self: ImageStore, positions: Tensor, *rest: object) -> Tensor:
        if self.digest == test:
            seen.append(f"test {len(positions)}")
        return plain_crops(self, positions, *rest)  # type: ignore[arg-type]

    def fit(*arguments: object, label: str, **others: object) -> train.Fit:
        found = plain_fit(*arguments, label=label, **others)  # type: ignore[arg-type]
        seen.append(label)
        return found

    monkeypatch.setattr(ImageStore, "crops", crops)
    monkeypatch.setattr(train, "fit", fit)
    run_transfer(spec, tmp_path / "cls")
    assert seen == ["cls tune-0.001", "cls tune-0.003", "cls final", "test 10"]


def test_no_choice_depends_on_test(shapes_folder: Path, run: Path, tmp_path: Path) -> None:
    """Other test images and labels leave tuning and the final head as they are, and only the score differs."""
    other = altered_copy(shapes_folder, tmp_path / "other data", "test")
    made = {}
    for name, folder in (("plain", shapes_folder), ("other", other)):
        scores = run_transfer(f"shapes:{folder}", tmp_path / name, str(run)).scores
        heads = [
            torch.load(tmp_path / name / label / "checkpoint.pt", weights_only=True)["modules"]["classifier"]
            for label in ("tune-0.001", "tune-0.003", "final")
        ]
        tuned = json.loads((tmp_path / name / "scores.json").read_text())
        made[name] = (scores, heads, tuned["tuning"], tuned["choices"])
    assert made["plain"][0] != made["other"][0]
    assert made["plain"][2:] == made["other"][2:]
    for plain, changed in zip(made["plain"][1], made["other"][1], strict=True):
        assert all(torch.equal(plain[key], changed[key]) for key in plain)


def test_the_learning_rate_is_the_best_on_val(shapes_folder: Path, tmp_path: Path) -> None:
    rates = {"learning_rates": "1e-5,1e-2,1e-4", "cached_views": "1", "test_views": "centre"}
    made = run_transfer(f"shapes:{shapes_folder}", tmp_path / "cls", settings={"protocol": rates}, steps=20)
    tuning = json.loads((tmp_path / "cls" / "scores.json").read_text())["tuning"]
    assert set(tuning) == {"1e-05", "0.01", "0.0001"}
    by_rate = {float(rate): scores["mAP (step)"] for rate, scores in tuning.items()}
    assert by_rate[made.learning_rate] == max(by_rate.values()) > min(by_rate.values())


def test_an_interrupted_measurement_resumes_to_the_same_scores(
    shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, ledger = f"shapes:{shapes_folder}", Ledger(tmp_path / "measured.jsonl")
    whole = run_transfer(spec, tmp_path / "whole", steps=6)
    with monkeypatch.context() as patch, pytest.raises(train.Interrupted, match=r"The run folder is .*halves\."):
        patch.setattr(FeatureBatches, "at", stopping_at(3, FeatureBatches, occasion=3))  # tuning twice, then the last
        run_transfer(spec, tmp_path / "halves", steps=6, ledger=ledger)
    assert (tmp_path / "halves" / "final" / "checkpoint.pt").exists() and not ledger.read()
    resumed = run_transfer(spec, tmp_path / "halves", steps=6, ledger=ledger, resume=True)
    assert resumed.scores == whole.scores and resumed.learning_rate == whole.learning_rate
    assert [r.weights_sha256 for r in ledger.read()] == [r.weights_sha256 for r in whole.records]


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


def test_a_frozen_encoder_that_drifts_is_caught(
    textures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card(encoder="drifting", encoder_config={}, method="Drifting", pretext="unknown")
    monkeypatch.setattr(checkpoint, "open_encoder", lambda *_: (Drifting(), card))
    ledger, spec = Ledger(tmp_path / "measured.jsonl"), f"imagefolder:{textures}"
    with pytest.raises(Failure, match="frozen encoder"):
        run_transfer(spec, tmp_path / "frozen", "drifting", ledger=ledger)
    assert not ledger.read() and not (tmp_path / "frozen" / "scores.json").exists()
    run_transfer(spec, tmp_path / "finetune", "drifting", "finetune", ledger=ledger)  # there it may
    assert len(ledger.read()) == 2


class Normed(Encoder):
    """One BatchNorm after a dropout that would spoil its statistics."""

    stages = {"norm": Stage(3, 1)}
    smallest_input = 1

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"norm": self.norm(self.dropout(images))}


def test_calibration_averages_mean_and_variance_over_the_batches() -> None:
    batches = torch.rand(4, 6, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    encoder = Normed().train()
    calibration.calibrate(encoder, batches)
    values = batches.transpose(1, 2).flatten(2)  # batch, channel, values
    assert torch.allclose(encoder.norm.running_mean, values.mean(2).mean(0), atol=1e-6)
    assert torch.allclose(encoder.norm.running_var, values.var(2).mean(0), atol=1e-6)
    assert not encoder.training and not encoder.norm.training and encoder.norm.momentum == 0.1


def test_a_random_encoder_is_calibrated_on_images_alone(shapes_folder: Path, tmp_path: Path) -> None:
    """Its statistics are set, are the same whatever the labels, and a trained encoder's stay as they are."""
    plain, _ = checkpoint.open_encoder("random:compact_alexnet", NARROW, 0)
    other = tmp_path / "data"
    shutil.copytree(shapes_folder, other)
    swap = {"<name>star</name>": "<name>leaf</name>", "<name>leaf</name>": "<name>star</name>"}
    for file in (other / "VOCdevkit" / "VOC2007" / "Annotations").glob("*.xml"):
        file.write_text(re.sub("|".join(swap), lambda found: swap[found[0]], file.read_text()))
    found = {
        run_transfer(f"shapes:{folder}", tmp_path / name).records[0].weights_sha256
        for name, folder in (("plain", shapes_folder), ("relabelled", other))
    }
    assert len(found) == 1 and checkpoint.weights_sha256(plain) not in found


def test_a_learning_rate_set_by_hand_is_the_one_used(textures: Path, tmp_path: Path) -> None:
    loop = {"steps": "2", "batch_size": "8", "learning_rate": "0.02"}
    made = run_transfer(f"imagefolder:{textures}", tmp_path / "cls", settings={"train": loop})
    assert made.learning_rate == 0.02
    assert {entry.name for entry in (tmp_path / "cls").iterdir() if entry.is_dir()} == {"final"}  # nothing to tune


@pytest.mark.parametrize(
    ("mode", "settings", "sentence"),
    [
        ("frozen", {"protocol": {"task": "det"}}, "task"),
        ("frozen", {"protocol": {"version": "2"}}, "version"),
        ("finetune", {"protocol": {"cached_views": "2"}}, "fine-tuned"),
        ("finetune", {"protocol": {"learning_rates": "1,2"}}, "fine-tuned"),
        ("frozen", {"protocol": {"learning_rates": "1,2"}, "train": {"learning_rate": "1"}}, "exclude each other"),
    ],
)
def test_protocol_settings_without_effect_are_refused(mode: str, settings: Settings, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        transfer.plan_transfer("shapes", "random:alexnet", "cls", mode, "quick_cls", settings, 0)


def test_an_untouched_protocol_keeps_its_label_and_a_changed_one_says_so() -> None:
    def label(settings: Settings) -> str:
        plan = transfer.plan_transfer("shapes", "random:alexnet", "cls", "frozen", "compact_cls", settings, 0)
        return plan.protocol_label

    assert label({}) == label({"run": {"workers": "2"}}) == "compact-cls/v1"
    assert label({"train": {"steps": "7"}}) == label({"head": {"grid": "2"}}) == "compact-cls/v1 (changed)"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"head": {"stage": "conv9"}}, "conv9"),
        ({"train": {"batch_size": "1"}}, "2 or more images a step"),
        ({"crops": {"size": "40"}}, "takes 64 pixels or more"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_written(
    settings: Settings, sentence: str, textures: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=sentence):
        run_transfer(f"imagefolder:{textures}", tmp_path / "cls", settings=settings)
    assert not (tmp_path / "cls").exists()


def test_data_without_anything_to_tell_apart_are_refused(textures: Path, shapes_folder: Path, tmp_path: Path) -> None:
    one_class = put_textures(tmp_path / "one", {"red": (200, 0, 0)})
    empty = tmp_path / "empty"
    shutil.copytree(shapes_folder, empty)
    for file in (empty / "VOCdevkit" / "VOC2007" / "Annotations").glob("3*.xml"):  # test has nothing in it
        file.write_text("<annotation></annotation>")
    for spec, sentence in (
        (f"folder:{textures / 'train'}", "has no labels"),
        (f"imagefolder:{one_class}", "one class only, 'red'"),
        (f"shapes:{empty}", "split test"),
    ):
        with pytest.raises(UsageError, match=sentence):
            run_transfer(spec, tmp_path / "cls")
    assert not (tmp_path / "cls").exists()


def test_the_plan_beside_the_scores_repeats_the_run(textures: Path, tmp_path: Path) -> None:
    made = run_transfer(f"imagefolder:{textures}", tmp_path / "first")
    again = transfer.transfer(read_plan(TransferPlan, tmp_path / "first"), tmp_path / "second", CPU)
    assert again.scores == made.scores


# Retrieval


def test_retrieval_draws_two_figures_and_records_every_score(shapes_folder: Path, run: Path, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "measured.jsonl")
    names = ("hog", "random:compact_alexnet", str(run), f"{run}@conv3")
    made = run_retrieval(f"shapes:{shapes_folder}", tmp_path / "nn", *names, ledger=ledger)
    assert [path.name for path in made.figures] == ["neighbours-context.png", "neighbours-whole.png"]
    for path in made.figures:
        with Image.open(path) as figure:
            assert figure.width > figure.height > 100
    assert set(made.scores["context"]) == {
        "HOG",
        "Random",
        "Context encoder (region)",
        "Context encoder (region) conv3",
    }
    shown = {
        (way, name, metric): value
        for way, by_descriptor in made.scores.items()
        for name, scores in by_descriptor.items()
        for metric, value in scores.items()
    }
    assert {(r.mode, r.method, r.metric): r.value for r in ledger.read()} == shown
    assert len(made.records) == 2 * 4 * 4  # ways, descriptors, precision at 1, 5, 10 and mAP
    assert json.loads((tmp_path / "nn" / "scores.json").read_text())["scores"] == made.scores


def test_hidden_pixels_decide_nothing_in_the_context_ranking(
    shapes_folder: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, plain = f"shapes:{shapes_folder}", patches.Patches.cut
    clean = run_retrieval(spec, tmp_path / "clean", "hog", str(run))

    def poisoned(self: patches.Patches, chosen: Tensor) -> Tensor:
        cut = plain(self, chosen)
        cut[:, :, 16:48, 16:48] = torch.rand(cut[:, :, 16:48, 16:48].shape)
        return cut

    monkeypatch.setattr(patches.Patches, "cut", poisoned)
    dirty = run_retrieval(spec, tmp_path / "dirty", "hog", str(run))
    assert dirty.scores["context"] == clean.scores["context"]
    assert dirty.scores["whole"] != clean.scores["whole"]


@pytest.mark.parametrize("kind", ["shapes", "imagefolder", "folder"])
def test_no_query_finds_its_own_image(kind: str, shapes_folder: Path, textures: Path) -> None:
    spec = f"shapes:{shapes_folder}" if kind == "shapes" else f"{kind}:{textures}"
    config = retrieval.RetrievalConfig(queries=6, gallery=8, store_size=64, patch_size=32)
    queries, gallery = patches.open_patches(spec, {}, config, 0)
    seen = [
        {part.split.images.name(int(part.store.kept[p])) for p in part.positions.tolist()}
        for part in (queries, gallery)
    ]
    assert (len(queries), len(gallery)) == (6, 8) and not seen[0] & seen[1]
    assert (queries.labels is None) == (kind == "folder")


def test_a_patch_is_its_object_with_a_rim(shapes_folder: Path) -> None:
    config = retrieval.RetrievalConfig(queries=50, gallery=50, store_size=96, context=1.25, smallest_object=1)
    _, gallery = patches.open_patches(f"shapes:{shapes_folder}", {}, config, 0)
    objects = gallery.split.objects or ()
    assert len(gallery) == min(50, sum(int((~o.is_difficult).sum()) for o in objects))
    for position, window, label in zip(gallery.positions, gallery.windows, gallery.labels, strict=True):
        kept = objects[int(gallery.store.kept[position])]
        boxes = gallery.store.boxes(int(position), kept.boxes)
        x, y, side, _ = window.tolist()
        fits = [
            abs(min(1.25 * max(x2 - x1, y2 - y1), 96) - side) <= 1 and x <= (x1 + x2) / 2 <= x + side
            for (x1, y1, x2, y2), own in zip(boxes, kept.labels, strict=True)
            if own == label
        ]
        assert any(fits) and 0 <= x <= gallery.store.widths[position] - side and y >= 0


def test_identity_follows_annotations_and_not_the_draw(shapes_folder: Path, tmp_path: Path) -> None:
    """Another seed draws from the same data; another box makes them other data."""

    def identity(folder: Path, seed: int) -> list[str]:
        config = retrieval.RetrievalConfig(queries=5, gallery=5, store_size=96)
        return [part.digest for part in patches.open_patches(f"shapes:{folder}", {}, config, seed)]

    other = tmp_path / "other"
    shutil.copytree(shapes_folder, other)
    file = sorted((other / "VOCdevkit" / "VOC2007" / "Annotations").glob("3*.xml"))[0]
    tree = ElementTree.parse(file)
    corner = next(tree.iter("xmax"))
    corner.text = str(int(float(corner.text or 0)) - 1)
    tree.write(file)
    assert identity(shapes_folder, 0) == identity(shapes_folder, 1) != identity(other, 0)


def test_unlabelled_images_are_shown_and_not_scored(textures: Path, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "measured.jsonl")
    made = run_retrieval(f"folder:{textures}", tmp_path / "nn", "hog", ledger=ledger)
    assert made.scores == {"context": {}, "whole": {}} and made.records == ledger.read() == []
    assert all(path.exists() for path in made.figures)


def test_two_runs_of_one_method_are_told_apart_by_their_folders(shapes_folder: Path, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    made = run_retrieval(f"shapes:{shapes_folder}", tmp_path / "nn", str(run), str(other), "hog")
    methods = [f"Context encoder (region) ({run.name})", "Context encoder (region) (other)", "HOG"]
    assert list(made.scores["whole"]) == methods
    assert made.scores["whole"][methods[0]] == made.scores["whole"][methods[1]]


@pytest.mark.parametrize(
    ("names", "settings", "sentence"),
    [
        (("hog", "hog"), {}, "named twice"),
        (("hgo",), {}, "Did you mean 'hog'"),
        (("alexnet",), {}, "Did you mean 'random:alexnet'"),
        (("random:compact_alexnet@conv55",), {}, "Did you mean 'conv5'"),
        (("hog",), {"k": "0"}, "1 neighbour or more"),
        (("hog",), {"k": "1,500"}, "500 neighbours"),
        (("hog",), {"hole_fraction": "0.9"}, "HOG blocks"),
        (("hog",), {"smallest_object": "5000"}, "gives no queries"),
    ],
)
def test_comparisons_that_cannot_be_made_are_refused_and_leave_nothing(
    names: tuple[str, ...], settings: dict[str, str], sentence: str, shapes_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=sentence):
        run_retrieval(f"shapes:{shapes_folder}", tmp_path / "nn", *names, **settings)
    assert not (tmp_path / "nn").exists()


def test_a_stopped_comparison_begins_anew_and_others_are_left_alone(
    shapes_folder: Path, run: Path, tmp_path: Path
) -> None:
    spec, folder = f"shapes:{shapes_folder}", tmp_path / "nn"
    run_retrieval(spec, folder, "hog")
    with pytest.raises(UsageError, match="finished run"):
        run_retrieval(spec, folder, "hog")
    (folder / "scores.json").unlink()  # as if it had been stopped
    with pytest.raises(UsageError, match="another run"):
        run_retrieval(spec, folder, "hog", queries="4")
    run_retrieval(spec, folder, "hog")
    before = (run / "config.json").read_text()
    with pytest.raises(UsageError, match="another run"):
        run_retrieval(spec, run, "hog")
    assert (run / "config.json").read_text() == before


def test_a_random_encoder_has_the_statistics_of_the_gallery(shapes_folder: Path, tmp_path: Path) -> None:
    plain, _ = checkpoint.open_encoder("random:compact_alexnet", {}, 0)
    made = run_retrieval(f"shapes:{shapes_folder}", tmp_path / "nn", "random:compact_alexnet")
    assert {r.weights_sha256 for r in made.records} != {checkpoint.weights_sha256(plain)}
    assert len({r.weights_sha256 for r in made.records}) == 1


# All of them


@pytest.mark.parametrize(
    "verb", [run_pretraining, run_transfer, lambda spec, folder: run_retrieval(spec, folder, "hog")]
)
def test_a_folder_in_use_or_with_other_things_is_left_alone(
    verb: Callable[[str, Path], object], shapes_folder: Path, tmp_path: Path
) -> None:
    spec = f"shapes:{shapes_folder}"
    with claimed(tmp_path / "busy"), pytest.raises(UsageError, match="in use"):
        verb(spec, tmp_path / "busy")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    with pytest.raises(UsageError, match="not empty"):
        verb(spec, tmp_path / "mine")
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
