"""Pretraining that goes on from weights: a run's, a library's, or filters made of the images; and what it is called."""

from __future__ import annotations

import os
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
from ssl_inpaint.experiment import bench_cells, bench_plans, data_initialisation, pretrain
from ssl_inpaint.experiment.data import hold_out, open_examples
from ssl_inpaint.records import Ledger
from ssl_inpaint.rows import Bench, Row
from ssl_inpaint.runtime import Runtime

CPU = Runtime(torch.device("cpu"), is_bf16=False)
NARROW = {"channels": "8,8,8,8,8"}
CROPS = {"size": "64", "store_size": "64"}
STILL = "1e-12"  # a learning rate by which no weight moves as far as it is rounded


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_INPAINT_CACHE", str(tmp_path_factory.mktemp("cache")))
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
    folder, fast = tmp_path_factory.mktemp("runs") / "labelled", {"learning_rate": "0.1", "warmup_steps": "0"}
    return trained(pictures, folder, "", "supervised", {"encoder": NARROW}, **fast)


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
    data_initialisation.initialise(expected, "pca", list(images(10, 16)), 0)
    for name, values in encoder_in(found.folder).items():
        assert torch.allclose(values, dict(expected.named_parameters())[name], atol=1e-6), name


def test_first_images_are_those_of_training_alone(pictures: str) -> None:
    """Drawn from two of the images, which are made of one value each, they hold no other."""
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
    centroids = trained(pictures, tmp_path / "kmeans", "kmeans:compact_alexnet", settings=narrow).card
    on = trained(pictures, tmp_path / "on", str(labelled.folder)).card
    assert found[0].config_hash == found[1].config_hash and [card.seed for card in found] == [0, 1]
    assert len({card.config_hash for card in (plain, found[0], centroids, on)}) == 4


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


def test_it_resumes_to_the_same_weights(pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, narrow = "pca:compact_alexnet", {"encoder": NARROW}
    whole = trained(pictures, tmp_path / "whole", start, settings=narrow, steps="5")
    plain = batches.ImageBatches.at

    def at(self: batches.ImageBatches, step: int, part: int = 0, parts: int = 1) -> object:
        if step == 3 and self.batch_size == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, step, part, parts)

    with monkeypatch.context() as patch, pytest.raises(train.Interrupted, match="SIGTERM"):
        patch.setattr(batches.ImageBatches, "at", at)
        trained(pictures, tmp_path / "halves", start, settings=narrow, steps="5")
    resumed = trained(pictures, tmp_path / "halves", start, settings=narrow, steps="5", is_resumed=True)
    found, expected = encoder_in(resumed.folder), encoder_in(whole.folder)
    assert all(torch.equal(values, expected[name]) for name, values in found.items())


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
    with pytest.raises(UsageError, match="Row 'pca' is not pretrained, so nothing starts from 'pca:alexnet'"):
        bench_plans.plan_bench("pretexts", data, 1, {"pca": {"start": "pca:alexnet"}})
    with pytest.raises(UsageError, match="There is no encoder 'alexnot'"):
        strange = row.model_copy(update={"start": "pca:alexnot"})
        bench_plans.refuse_missing(Bench(rows=(strange,), data={"photos": pictures}))
    with pytest.raises(ValueError, match="not pretrained"):
        Row(name="on", source="random:alexnet", start="pca:alexnet")
