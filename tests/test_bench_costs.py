"""What is said of the time that cells will take: by cells like them, scaled by steps, or nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ssl_inpaint.data import shapes
from ssl_inpaint.experiment import bench, bench_costs
from ssl_inpaint.experiment.bench_cells import Cell, cells_of
from ssl_inpaint.experiment.bench_costs import Timings
from ssl_inpaint.experiment.bench_plans import plan_bench
from ssl_inpaint.experiment.bench_words import describe
from ssl_inpaint.experiment.pretrain import plan_pretraining, pretrain
from ssl_inpaint.records import Ledger, Record
from ssl_inpaint.runtime import open_runtime

HERE = "a card"


def record(**changes: object) -> Record:
    values: dict[str, object] = {
        **{"method": "m", "pretext": "inpainting", "encoder": "compact_alexnet", "weights_sha256": "w"},
        **{"supervision": "none", "task": "cls", "protocol": "quick-cls/v1", "mode": "frozen", "dataset": "d"},
        **{"dataset_sha256": "s", "split": "test", "metric": "mAP", "seed": 0, "recipe": "quick", "config_hash": "h"},
        **{"value": 0.5, "higher_is_better": True, "n_examples": 3, "source": "measured", "commit": "c"},
        **{"versions": {}, "device": HERE, "workers": 1, "seconds": 5.0, "pretraining_seconds": 60.0},
        "created_at": "2026-01-01",
    }
    return Record(**values | changes)  # type: ignore[arg-type]


def cells(**settings: dict[str, str]) -> dict[str, Cell]:
    return {cell.name: cell for cell in cells_of(plan_bench("quick", {}, None, settings), Path("runs/quick"))}


def noted(cell: Cell, seconds: float, training: float, device: str = HERE) -> dict[str, object]:
    return bench_costs.note(cell, device, seconds, []) | {"training_seconds": training}


def seconds(timings: Timings, cell: Cell) -> float | None:
    found = timings.estimates([cell], HERE)[cell.name]
    return None if found is None else found.seconds


def test_of_what_a_cell_took_only_training_grows_with_its_steps() -> None:
    """100 s, 60 of them for 250 steps: 1,000 steps take 40 + 240."""
    timings = Timings([noted(cells()["inpainting-0"], 100.0, 60.0)], [])
    assert seconds(timings, cells()["inpainting-0"]) == pytest.approx(100)
    assert seconds(timings, cells(inpainting={"train.steps": "1000"})["inpainting-0"]) == pytest.approx(280)
    longer = cells(det={"train.steps": "300"})["det-voc-frozen-random-0"]
    timings = Timings([noted(cells()["det-voc-frozen-random-0"], 100.0, 60.0)], [])
    assert seconds(timings, longer) == pytest.approx(40 + 120)


def test_the_median_counts() -> None:
    cell = cells()["inpainting-0"]
    assert seconds(Timings([noted(cell, value, 1.0) for value in (10.0, 90.0, 20.0)], []), cell) == pytest.approx(20)


def test_where_nothing_like_a_cell_ran_nothing_is_said() -> None:
    some = cells()
    timings = Timings([noted(some["inpainting-0"], 100.0, 60.0)], [])
    assert seconds(timings, some["supervised-0"]) is None
    assert seconds(timings, some["cls-voc-frozen-inpainting-0"]) is None


def test_images_a_second_of_the_same_encoder_and_task_stand_in() -> None:
    """Another decoder, twice the batch: the images shown decide."""
    timings = Timings([noted(cells()["inpainting-0"], 100.0, 60.0)], [])
    other = cells(inpainting={"pretext.decoder_channels": "32,16,8,8", "train.batch_size": "64"})["inpainting-0"]
    found = timings.estimates([other], HERE)[other.name]
    assert found is not None and (found.basis, found.seconds) == ("throughput", pytest.approx(160))
    assert seconds(timings, cells(inpainting={"crops.size": "80"})["inpainting-0"]) is None


def test_what_another_device_took_counts_only_where_there_is_nothing_else_and_is_called_so() -> None:
    cell = cells()["inpainting-0"]
    elsewhere = noted(cell, 10.0, 5.0, "another card")
    assert seconds(Timings([elsewhere, noted(cell, 100.0, 60.0)], []), cell) == pytest.approx(100)
    timings = Timings([elsewhere], [])
    outlook = bench.Outlook([], {}, [cell], timings.estimates([cell], HERE))
    lines = describe([cell], outlook, HERE)
    assert lines[0].endswith("left, about 10 s on another device (another card) as cells like it took")
    assert lines[1] == "0 of 1 cells are done; about 10 s on another device (another card) for 1 cell more."


def test_records_of_measurements_tell_their_training() -> None:
    """quick_cls tries two learning rates and trains once more: three times the seconds of a record."""
    some = cells()
    timings = Timings([], [record(), record(metric="other")])  # of one run
    assert seconds(timings, some["cls-voc-frozen-random-0"]) == pytest.approx(15)
    assert seconds(timings, cells(cls={"train.steps": "500"})["cls-voc-frozen-random-0"]) == pytest.approx(30)
    assert seconds(timings, cells(cls={"head.grid": "2"})["cls-voc-frozen-random-0"]) is None
    assert seconds(timings, some["det-voc-frozen-random-0"]) is None
    assert seconds(Timings([], [record(encoder="alexnet")]), some["cls-voc-frozen-random-0"]) is None


def test_runs_that_go_on_from_others_are_alike_only_where_those_are_the_same() -> None:
    plans = [plan_pretraining("shapes", "rotation", "quick", None, {}, 0, start) for start in ("runs/a", "runs/b", "")]
    keys = [bench_costs._throughput(plan) for plan in plans]
    assert len(set(keys)) == 3 and bench_costs._throughput(plans[0]) == keys[0]
    likes = [bench_costs._like(Cell("a", plan)) for plan in plans]
    assert len(set(likes)) == 3
    # Notes of before there was anything to start from are still found.
    left_out = {"seed", "data", "data_settings", "recipe", "train", "start"}
    before = plans[2].model_dump(mode="json", exclude=left_out)
    assert likes[2] == bench_costs.config.hash_of(before, bench_costs._without_length(plans[2].train))


def test_records_of_pretraining_tell_by_their_hash_how_long_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash that pretraining writes is the one that is looked for: of the recipe's steps, or of the cell's own."""
    monkeypatch.setenv("SSL_INPAINT_CACHE", str(tmp_path / "cache"))
    data = f"shapes:{shapes.make_shapes(tmp_path / 'shapes', shapes.Config(train=20, val=10, test=10))}"
    few = {"train": {"steps": "2", "batch_size": "4"}, "encoder": {"channels": "8,8,8,8,8"}}
    ledger = Ledger(tmp_path / "measured.jsonl")
    plan = plan_pretraining(data, "autoencoder", "quick", None, few, 0)
    pretrain(plan, tmp_path / "run", open_runtime("cpu"), ledger)
    made = [replace(one, device=HERE, pretraining_seconds=8.0) for one in ledger.read()]
    assert seconds(Timings([], made), Cell("a", plan, encoder=plan.encoder)) == pytest.approx(8)
    longer = plan.model_copy(update={"train": plan.train.model_copy(update={"steps": 6})})
    assert seconds(Timings([], made), Cell("a", longer, encoder=plan.encoder)) is None  # of neither length
    recipe = plan_pretraining(data, "autoencoder", "quick", None, {}, 0)
    of_recipe = [replace(made[0], config_hash=bench_costs._settings_hash(recipe, recipe.train))]
    half = plan_pretraining(data, "autoencoder", "quick", None, {"train": {"steps": "125"}}, 0)
    assert seconds(Timings([], of_recipe), Cell("a", half, encoder=half.encoder)) == pytest.approx(4)
