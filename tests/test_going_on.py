"""Pretraining that goes on from weights: a run's, a library's, or filters made of the images; and what it is called."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from ssl_inpaint import batches, checkpoint, config, train
from ssl_inpaint.cli import main
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment import bench_cells, bench_plans, calibration, data_initialisation, pretrain, rescaling
from ssl_inpaint.experiment.data import hold_out, open_examples
from ssl_inpaint.records import Ledger
from ssl_inpaint.rows import Bench, Row
from ssl_inpaint.runtime import Runtime

CPU = Runtime(torch.device("cpu"), is_bf16=False)
NARROW = {"channels": "8,8,8,8,8"}
CROPS = {"size": "64", "store_size": "64"}
STILL = "1e-12"  # a learning rate by which no weight moves as far as it is rounded
FAST = {"learning_rate": "0.1", "warmup_steps": "0"}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_INPAINT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(data_initialisation, "PATCH_VALUES", 2**18)  # few patches of few images: filters in no time
        patch.setattr(rescaling, "BATCHES", 2)
        patch.setattr(calibration, "BATCHES", 2)
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Noise of two colours in folders of two classes."""
    root, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 4), ("test", 4)):
        for name, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(generator.normal(0, 40, (64, 64, 3)) + colour, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return f"imagefolder:{root}"


@pytest.fixture(scope="module")
def labelled(pictures: str, tmp_path_factory: pytest.TempPathFactory) -> pretrain.Pretrained:
    """A run that learned from labels."""
    folder = tmp_path_factory.mktemp("runs") / "labelled"
    return trained(pictures, folder, "", "supervised", {"encoder": NARROW}, **FAST)


def trained(
    data: str,
    folder: Path,
    start: str,
    pretext: str = "rotation",
    settings: Mapping[str, Mapping[str, str]] | None = None,
    seed: int = 0,
    ledger: Ledger | None = None,
    is_resumed: bool = False,
    **loop: str,
) -> pretrain.Pretrained:
    told = {"crops": CROPS, "train": {"steps": "2", "batch_size": "4", **loop}, **(settings or {})}
    plan = pretrain.plan_pretraining(data, pretext, "compact", None, told, seed, start)
    return pretrain.pretrain(plan, folder, CPU, ledger, is_resumed)


def encoder_in(folder: Path) -> dict[str, torch.Tensor]:
    return dict(checkpoint.open_encoder(str(folder), {}, 0)[0].named_parameters())


def test_it_begins_at_the_weights_of_a_run(pictures: str, labelled: pretrain.Pretrained, tmp_path: Path) -> None:
    found = trained(pictures, tmp_path / "on", str(labelled.folder), learning_rate=STILL)
    other = trained(pictures, tmp_path / "other", "", settings={"encoder": NARROW}, learning_rate=STILL)
    begun, after, drawn = (encoder_in(made.folder) for made in (labelled, found, other))
    assert all(torch.allclose(after[name], values, atol=1e-7) for name, values in begun.items())
    assert not all(torch.allclose(after[name], values, atol=1e-3) for name, values in drawn.items())


def test_it_begins_at_filters_of_its_own_training_images(pictures: str, tmp_path: Path) -> None:
    found = trained(pictures, tmp_path / "on", "pca:compact_alexnet", settings={"encoder": NARROW}, learning_rate=STILL)
    examples = open_examples(pictures, "pretrain", {}, 64)
    members, held_out = hold_out(examples)
    assert len(members) + len(held_out) == 56
    expected, _ = checkpoint.open_encoder("random:compact_alexnet", NARROW, 0)
    crops = config.override(pretrain.catalog.load("recipes", "compact").build().crops, "crops", CROPS)
    images = data_initialisation.random_crops(examples.store, crops, 0, CPU, members)
    data_initialisation.initialise(expected, "pca", list(images(2, rescaling.BATCH_SIZE)), 0)
    for name, values in encoder_in(found.folder).items():
        assert torch.allclose(values, dict(expected.named_parameters())[name], atol=1e-6), name


def test_first_images_are_those_of_training_alone(pictures: str) -> None:
    """Drawn from one image they are all of its colour; drawn from all, of two."""
    examples = open_examples(pictures, "pretrain", {}, 64)
    crops = batches.Crops(size=64, store_size=64)
    chosen = torch.tensor([3])
    images = data_initialisation.random_crops(examples.store, crops, 0, CPU, chosen)
    (alone,) = images(1, 8)
    assert float((alone.mean(dim=(2, 3)) - alone[0].mean(dim=(1, 2))).abs().max()) < 0.1
    (mixed,) = data_initialisation.random_crops(examples.store, crops, 0, CPU)(1, 8)
    assert float((mixed.mean(dim=(2, 3)) - mixed[0].mean(dim=(1, 2))).abs().max()) > 0.3


def test_labels_that_its_weights_had_read_are_not_forgotten(
    pictures: str, labelled: pretrain.Pretrained, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "measured.jsonl")
    made = trained(pictures, tmp_path / "on", str(labelled.folder), ledger=ledger)
    assert (made.card.method, made.card.pretext) == ("Rotation, from Supervised", "rotation")
    assert made.card.supervision == "labels" and {record.supervision for record in ledger.read()} == {"labels"}
    plain = trained(pictures, tmp_path / "plain", "", settings={"encoder": NARROW})
    assert (plain.card.method, plain.card.supervision) == ("Rotation", "none")


def test_its_time_counts_that_of_what_it_goes_on_from(
    pictures: str, labelled: pretrain.Pretrained, tmp_path: Path
) -> None:
    made = trained(pictures, tmp_path / "on", str(labelled.folder))
    assert made.card.pretraining_seconds == pytest.approx(labelled.fit.seconds + made.fit.seconds)


def test_rows_are_told_apart_by_what_they_go_on_from_and_not_by_their_seed(
    pictures: str, labelled: pretrain.Pretrained, tmp_path: Path
) -> None:
    narrow = {"encoder": NARROW}
    plain = trained(pictures, tmp_path / "plain", "", settings=narrow).card
    found = [
        trained(pictures, tmp_path / f"pca-{seed}", "pca:compact_alexnet", settings=narrow, seed=seed).card
        for seed in (0, 1)
    ]
    on = trained(pictures, tmp_path / "on", str(labelled.folder)).card
    assert found[0].config_hash == found[1].config_hash and [card.seed for card in found] == [0, 1]
    assert len({card.config_hash for card in (plain, found[0], on)}) == 3


def test_runs_of_other_seeds_are_other_starts_unless_each_goes_on_by_its_own(
    pictures: str, labelled: pretrain.Pretrained, tmp_path: Path
) -> None:
    other = trained(pictures, tmp_path / "other", "", "supervised", {"encoder": NARROW}, 1, **FAST).folder
    hashes = [
        trained(pictures, tmp_path / f"{number}", str(start), seed=seed).card.config_hash
        for number, (start, seed) in enumerate(((labelled.folder, 0), (other, 0), (other, 1)))
    ]
    assert hashes[0] == hashes[2] != hashes[1]


def test_files_of_one_name_are_told_apart_by_their_weights(
    pictures: str, labelled: pretrain.Pretrained, tmp_path: Path
) -> None:
    hashes = set[str]()
    for number in range(2):
        state = dict(checkpoint.open_encoder(str(labelled.folder), {}, 0)[0].state_dict())
        name = next(iter(state))
        (tmp_path / str(number)).mkdir()
        torch.save(state | {name: state[name] + number}, tmp_path / str(number) / "weights.pth")
        start = f"compact_alexnet={tmp_path / str(number) / 'weights.pth'}"
        made = trained(pictures, tmp_path / f"on {number}", start, settings={"encoder": NARROW})
        assert made.card.method == "Rotation, from compact_alexnet from weights.pth"
        assert made.card.supervision == "unknown"
        hashes.add(made.card.config_hash)
    assert len(hashes) == 2


def test_the_architecture_of_a_run_at_random_weights_is_called_by_the_task_alone(
    pictures: str, labelled: pretrain.Pretrained, tmp_path: Path
) -> None:
    made = trained(pictures, tmp_path / "on", f"random:{labelled.folder}")
    assert made.card.method == "Rotation" and made.card.encoder_config["channels"] == [8] * 5


def test_a_folder_that_is_called_as_an_encoder_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = list[object]()
    for folder in ("empty", "taken"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        if folder == "taken":
            Path("compact_alexnet").mkdir()
        for start in ("random:compact_alexnet", "pca:compact_alexnet"):
            plans.append(pretrain.plan_pretraining("shapes", "rotation", "quick", None, {}, 0, start))
    assert plans[:2] == plans[2:]


def test_random_weights_by_name_are_no_start_of_their_own(pictures: str) -> None:
    told = {"crops": CROPS, "encoder": NARROW}
    plans = [
        pretrain.plan_pretraining(pictures, "rotation", "compact", None, told, 0, start)
        for start in ("", "random:compact_alexnet")
    ]
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("start", "has_widths"),
    [("pca:compact_alexnet", True), ("pca:alexnet", False), ("timm:resnet18", False), ("alexnet=FILE", False)],
)
def test_the_widths_of_a_recipe_are_for_its_own_encoder(start: str, has_widths: bool) -> None:
    plan = pretrain.plan_pretraining("shapes", "rotation", "quick", None, {}, 0, start)
    assert ("channels" in plan.encoder_settings) == has_widths


@pytest.mark.parametrize("start", ["pca:compact_alexnet", "RUN"])
def test_it_resumes_to_the_same_weights_and_identity_without_what_it_started_from(
    start: str, pictures: str, labelled: pretrain.Pretrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    if start == "RUN":
        shutil.copytree(labelled.folder, source)
    told = {} if start == "RUN" else {"encoder": NARROW}
    start = str(source) if start == "RUN" else start
    whole = trained(pictures, tmp_path / "whole", start, settings=told, steps="5")
    plain = batches.ImageBatches.at

    def at(self: batches.ImageBatches, step: int, part: int = 0, parts: int = 1) -> object:
        if step == 3 and self.batch_size == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, step, part, parts)

    with monkeypatch.context() as patch, pytest.raises(train.Interrupted, match="SIGTERM"):
        patch.setattr(batches.ImageBatches, "at", at)
        trained(pictures, tmp_path / "halves", start, settings=told, steps="5")
    shutil.rmtree(source, ignore_errors=True)
    monkeypatch.setattr(data_initialisation, "initialise", None)  # what is in the checkpoint is not made again
    resumed = trained(pictures, tmp_path / "halves", start, settings=told, steps="5", is_resumed=True)
    found, expected = encoder_in(resumed.folder), encoder_in(whole.folder)
    assert all(torch.equal(values, expected[name]) for name, values in found.items())
    times = {"pretraining_seconds": 0.0}
    assert resumed.card.model_copy(update=times) == whole.card.model_copy(update=times)
    assert resumed.card.pretraining_seconds > resumed.fit.seconds


def test_a_damaged_note_of_the_start_is_one_sentence(pictures: str, tmp_path: Path) -> None:
    made = trained(pictures, tmp_path / "run", "pca:compact_alexnet", settings={"encoder": NARROW})
    (made.folder / "start.json").write_text("{")
    found = CliRunner().invoke(main, ["pretrain", "--resume", str(made.folder)])
    assert found.exit_code == 2 and "start.json is damaged" in found.output


def test_an_architecture_beside_a_start_is_refused(pictures: str, tmp_path: Path) -> None:
    told = ["pretrain", "--data", pictures, "--output", str(tmp_path / "run")]
    found = CliRunner().invoke(main, [*told, "--from", "pca:compact_alexnet", "--encoder", "alexnet"])
    assert found.exit_code == 2 and "--encoder cannot apply" in found.output and not (tmp_path / "run").exists()
    found = CliRunner().invoke(main, [*told, "--from", str(tmp_path / "nothing")])
    assert found.exit_code == 2 and "There are no weights at" in found.output and not (tmp_path / "run").exists()


def test_a_row_of_a_bench_goes_on_from_weights(pictures: str, tmp_path: Path) -> None:
    row = Row(name="on", pretext="rotation", recipe="quick", start="pca:compact_alexnet")
    (cell,) = bench_cells.cells_of(Bench(rows=(row,), data={"photos": pictures}), tmp_path)
    assert cell.plan == pretrain.plan_pretraining(pictures, "rotation", "quick", None, {}, 0, "pca:compact_alexnet")
    data, changes = {"photos": pictures, "voc": pictures}, {"rotation": {"start": "kmeans:compact_alexnet"}}
    (changed,) = bench_plans.plan_bench("pretexts", data, 1, changes, rows=["rotation"]).rows
    assert changed.start == "kmeans:compact_alexnet"
    changes = {"colorization": {"start": "pca:alexnet"}}
    (grey,) = bench_plans.plan_bench("pretexts", data, 1, changes, rows=["colorization"]).rows
    assert (grey.start, grey.encoder, grey.settings) == ("pca:alexnet", None, {})
    with pytest.raises(UsageError, match=r"by --set rotation\.start="):
        nowhere = {"rotation": {"start": str(tmp_path / "nothing")}}
        bench_plans.refuse_missing(bench_plans.plan_bench("pretexts", data, 1, nowhere, rows=["rotation"]))
    with pytest.raises(ValueError, match="other rows are for `source` alone"):
        Row(name="on", pretext="rotation", recipe="quick", start="{pca}")
    with pytest.raises(UsageError, match="Row 'pca' is not pretrained, so nothing starts from 'pca:alexnet'"):
        bench_plans.plan_bench("pretexts", data, 1, {"pca": {"start": "pca:alexnet"}})
    with pytest.raises(UsageError, match="There is no encoder 'alexnot'"):
        strange = row.model_copy(update={"start": "pca:alexnot"})
        bench_plans.refuse_missing(Bench(rows=(strange,), data={"photos": pictures}))
    with pytest.raises(ValueError, match="not pretrained"):
        Row(name="on", source="random:alexnet", start="pca:alexnet")
