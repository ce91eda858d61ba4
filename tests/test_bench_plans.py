"""What a bench is told by its file and the command line, and what is refused before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from ssl_inpaint import catalog, checkpoint
from ssl_inpaint.benches import quick
from ssl_inpaint.data import shapes
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment.bench_cells import cells_of
from ssl_inpaint.experiment.bench_plans import plan_bench, refuse_missing, refuse_sizes
from ssl_inpaint.rows import Bench, Measurement, Row


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_INPAINT_CACHE", str(folder / "cache"))
        yield f"shapes:{shapes.make_shapes(folder / 'shapes', shapes.Config(train=20, val=10, test=10))}"


def small(spec: str, **changes: object) -> Bench:
    values: dict[str, object] = {
        "rows": (Row(name="ours", pretext="inpainting", recipe="quick"), Row(name="random", source="random:{ours}")),
        "measurements": (Measurement(task="cls", mode="frozen", protocol="quick_cls", data="voc"),),
        "data": {"photos": spec, "voc": spec},
    }
    return Bench(**values | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rows": (Row(name="a", source="random:alexnet"), Row(name="a", source="random:alexnet"))},
            "not all different",
        ),
        ({"measurements": (Measurement(task="cls", mode="frozen", protocol="x", data="elsewhere"),)}, "elsewhere"),
        (
            {"measurements": (Measurement(task="cls", mode="frozen", protocol="x", data="voc", rows=("none",)),)},
            "rows that do not exist: none",
        ),
    ],
)
def test_a_bench_that_contradicts_itself_is_refused(data: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small(data, **changes)


def test_a_row_is_pretrained_or_has_a_source() -> None:
    for values in ({}, {"pretext": "inpainting", "source": "random:alexnet"}):
        with pytest.raises(ValidationError, match="one of the two"):
            Row(name="row", **values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"measurements": (Measurement(task="cls", mode="frozen", protocol="quik_cls", data="voc"),)},
            "Did you mean 'quick_cls'",
        ),
        ({"rows": (Row(name="a", pretext="inpainting", recipe="quik"),)}, "Did you mean 'quick'"),
        ({"rows": (Row(name="a", pretext="inpaintin", recipe="quick"),)}, "Did you mean 'inpainting'"),
        (
            {"rows": (Row(name="a", pretext="inpainting", recipe="quick", encoder="alexnot"),)},
            "There is no encoder 'alexnot'",
        ),
        ({"rows": (Row(name="a", source="random:alexnot"),)}, "There is no encoder 'alexnot'"),
        ({"rows": (Row(name="a", source="alexnet=no.pt"),)}, "no weights at 'no.pt' for row 'a'"),
        ({"rows": (Row(name="a", source="runs/none"),)}, "no weights at 'runs/none' for row 'a'"),
        ({"data": {"photos": "nowhere/at/all", "voc": "shapes"}}, "no folder or file nowhere/at/all"),
    ],
)
def test_names_that_do_not_exist_stop_a_bench_before_it_begins(
    data: str, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        chosen = small(data, **changes)
        cells_of(chosen, tmp_path)
        refuse_missing(chosen, is_thorough=False)
    assert not list(tmp_path.iterdir())


def test_images_of_a_size_that_a_trained_encoder_cannot_take_stop_a_bench_before_it_begins(tmp_path: Path) -> None:
    few = Measurement(task="cls", mode="frozen", protocol="quick_cls", data="voc", settings={"crops": {"size": "32"}})
    with pytest.raises(UsageError, match=r"Cell cls-voc-frozen-ours-0: crops\.size = 32: .*takes 64 pixels or more"):
        refuse_sizes(cells_of(small("shapes", measurements=(few,)), tmp_path))


def test_an_encoder_that_only_a_real_device_can_hold_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, devices = checkpoint.build_encoder, []

    def build_encoder(*arguments: Any) -> Any:
        devices.append(torch.empty(0).device.type)
        if devices[-1] == "meta":
            raise RuntimeError("Tensor.item() cannot be called on meta tensors")
        return plain(*arguments)

    monkeypatch.setattr(checkpoint, "build_encoder", build_encoder)
    refuse_sizes(cells_of(small("shapes"), tmp_path))
    assert devices == ["meta", "cpu"]


@pytest.mark.parametrize("name", catalog.parts("benches"))
def test_every_bench_shows_its_encoders_images_that_they_take(name: str, tmp_path: Path) -> None:
    data = dict.fromkeys(catalog.load("benches", name).build().data, "shapes")
    refuse_sizes(cells_of(plan_bench(name, data, 1), tmp_path))


def test_data_without_what_a_measurement_reads_stop_a_bench_before_it_begins(data: str, tmp_path: Path) -> None:
    photos = Path(data.partition(":")[2]) / "VOCdevkit" / "VOC2007" / "JPEGImages"
    wanted = {"photos": data, "voc": f"folder:{photos}"}
    with pytest.raises(UsageError, match=r"'voc' \(folder:.*\) has no labels in train, which task 'cls' needs"):
        refuse_missing(small(data, data=wanted))
    supervised = (Row(name="a", pretext="supervised", recipe="quick"),)
    with pytest.raises(UsageError, match="has no labels in pretrain, which row 'a' needs"):
        refuse_missing(small(data, rows=supervised, data={"photos": wanted["voc"], "voc": data}))
    refuse_missing(small(data, rows=supervised))


def test_data_sets_are_named_as_the_bench_names_them_and_given_where_it_has_none() -> None:
    with pytest.raises(UsageError, match="has no data set 'vox': name one of photos, voc"):
        plan_bench("quick", {"vox": "shapes"}, None)
    with pytest.raises(UsageError, match=r"by --data imagenet=SPEC --data voc12=SPEC\."):
        plan_bench("table2", {"voc07": "shapes"}, None)


def test_rows_and_tasks_can_be_chosen_and_bring_what_they_need(tmp_path: Path) -> None:
    def names(**chosen: tuple[str, ...]) -> list[str]:
        return [cell.name for cell in cells_of(plan_bench("compact", {}, 1, **chosen), tmp_path)]

    assert names(rows=("random",), tasks=("seg",)) == [  # a random one has the architecture of the one it is random to
        *("inpainting-0", "seg-masks-frozen-random-0", "seg-masks-finetune-random-0")
    ]
    assert names(rows=("supervised", "random")) == [
        name
        for name in names()
        if "autoencoder" not in name and not name.endswith(("frozen-inpainting-0", "finetune-inpainting-0"))
    ]
    whole = names()
    assert names(tasks=("cls", "det", "seg")) == whole
    assert sorted(names(tasks=("cls",)) + names(tasks=("det", "seg"))) == sorted([*whole, *whole[:3]])  # the trainings


def test_a_chosen_part_of_a_bench_wants_its_own_data_only() -> None:
    chosen = plan_bench("table2", {"voc12": "shapes"}, None, rows=("pca", "random"), tasks=("seg",))
    assert chosen.data == {"voc12": "shapes"} and [row.name for row in chosen.rows] == ["random", "pca"]
    more = plan_bench(
        "table2", {"voc12": "shapes", "imagenet": "nowhere"}, None, rows=("pca", "random"), tasks=("seg",)
    )
    assert more == chosen


def test_what_is_set_of_rows_that_are_not_chosen_changes_nothing_and_a_source_needs_no_photographs() -> None:
    settings = {"inpainting": {"source": "random:alexnet"}, "pca": {"encoder.groups": "1"}}
    chosen = plan_bench("table2", {"voc12": "shapes"}, None, settings, rows=("inpainting",), tasks=("seg",))
    assert [(row.name, row.source) for row in chosen.rows] == [("inpainting", "random:alexnet")]
    assert chosen.data == {"voc12": "shapes"}


def test_rows_that_no_chosen_task_measures_are_neither_trained_nor_an_empty_bench(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns = (
        Measurement(task="cls", mode="frozen", protocol="quick_cls", data="voc", rows=("ours",)),
        Measurement(task="knn", mode="frozen", protocol="compact_knn", data="voc", rows=("random",)),
    )
    rows = (Row(name="ours", pretext="inpainting", recipe="quick"), Row(name="random", source="random:alexnet"))
    monkeypatch.setattr(quick, "build", lambda: small("shapes", rows=rows, measurements=columns))
    assert [row.name for row in plan_bench("quick", {}, None, tasks=("knn",)).rows] == ["random"]
    with pytest.raises(UsageError, match="measures none of ours by knn"):
        plan_bench("quick", {}, None, rows=("ours",), tasks=("knn",))


@pytest.mark.parametrize(
    ("chosen", "said"), [({"rows": ("randon",)}, "row 'randon'.*random"), ({"tasks": ("knn",)}, "task 'knn'")]
)
def test_rows_and_tasks_that_a_bench_does_not_have_are_refused(chosen: dict[str, tuple[str, ...]], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan_bench("compact", {}, None, **chosen)


def test_settings_reach_the_rows_and_the_measurements_that_they_name(tmp_path: Path) -> None:
    settings = {"supervised": {"train.steps": "7", "pretext.rings": "1"}, "det": {"train.steps": "9"}}
    with pytest.raises(UsageError, match="no pretext setting 'rings'"):
        cells_of(plan_bench("quick", {}, None, settings), tmp_path)
    settings["supervised"] = {"train.steps": "7"}
    plans = {cell.name: cell.plan for cell in cells_of(plan_bench("quick", {}, None, settings), tmp_path)}
    assert (plans["supervised-0"].train.steps, plans["inpainting-0"].train.steps) == (7, 250)  # type: ignore[union-attr]
    steps = {name: plan.protocol.frozen_train.steps for name, plan in plans.items() if plan.verb == "transfer"}
    assert {name.partition("-")[0]: count for name, count in steps.items()} == {"cls": 250, "det": 9, "seg": 120}
    for wrong, message in (
        ({"inpaintin": {"train.steps": "1"}}, "Did you mean 'inpainting'"),
        ({"inpainting": {"steps": "1"}}, "write --set inpainting.PART.FIELD=VALUE, inpainting.source=SOURCE or"),
        ({"random": {"train.steps": "1"}}, "'random' is not pretrained, so --set random.train.FIELD cannot apply"),
    ):
        with pytest.raises(UsageError, match=message):
            plan_bench("quick", {}, None, wrong)


def test_an_encoder_that_is_there_takes_the_place_of_a_row_that_would_be_trained(tmp_path: Path) -> None:
    """Also where another row speaks of it."""
    chosen = plan_bench("quick", {}, None, {"inpainting": {"source": "runs/mine"}})
    cells = {cell.name: cell for cell in cells_of(chosen, tmp_path)}
    assert "inpainting-0" not in cells
    measured = [cells[f"cls-voc-frozen-{row}-0"] for row in ("inpainting", "random", "supervised")]
    assert [(c.plan.source, c.needs) for c in measured] == [  # type: ignore[union-attr]
        ("runs/mine", ""),
        ("random:runs/mine", ""),
        (str(tmp_path / "runs" / "supervised-0"), "supervised-0"),
    ]


def test_probes_are_measured_on_the_runs_of_the_bench_of_pretexts(tmp_path: Path) -> None:
    of_pretexts, of_probes = (plan_bench(name, {}, None) for name in ("pretexts", "probes"))
    assert of_probes.folder == "pretexts"
    trained = [cell for cell in cells_of(of_pretexts, tmp_path) if cell.plan.verb == "pretrain"]
    assert trained == [cell for cell in cells_of(of_probes, tmp_path) if cell.plan.verb == "pretrain"]


def test_sources_speak_of_rows_that_exist_and_measurements_do_not_share_folders() -> None:
    with pytest.raises(ValidationError, match="sources name rows that do not exist: theirs"):
        small("shapes", rows=(Row(name="a", source="random:{theirs}"),))
    twice = (
        small("shapes").measurements[0],
        Measurement(task="cls", mode="frozen", protocol="compact_cls", data="voc"),
    )
    with pytest.raises(ValidationError, match="two measurements have a row, task, data and mode in common"):
        small("shapes", measurements=twice)
    apart = tuple(m.model_copy(update={"rows": (row,)}) for m, row in zip(twice, ("ours", "random"), strict=True))
    assert len(cells_of(small("shapes", measurements=apart), Path("runs"))) == 3


def test_a_file_takes_the_place_of_library_weights(tmp_path: Path) -> None:
    file = tmp_path / "alexnet.pth"
    chosen = plan_bench("library", {}, None, {"alexnet": {"source": f"torchvision_alexnet={file}"}})
    with pytest.raises(UsageError, match=r"no weights at .* for row 'alexnet'"):
        refuse_missing(chosen, is_thorough=False)
    file.touch()
    refuse_missing(chosen, is_thorough=False)
    cell = cells_of(chosen, tmp_path)[0]
    assert (cell.name, cell.encoder) == ("cls-voc-frozen-alexnet-0", "torchvision_alexnet")


@pytest.mark.parametrize("name", list(catalog.parts("benches")))
def test_every_bench_names_what_exists(name: str, tmp_path: Path, data: str) -> None:
    chosen = plan_bench(name, dict.fromkeys(_data_names(name), data), None)
    cells = cells_of(chosen, tmp_path)
    refuse_missing(chosen)
    assert len({cell.name for cell in cells}) == len(cells)


def _data_names(name: str) -> list[str]:
    built: Bench = catalog.load("benches", name).build()
    return list(built.data)
