"""The benchmark of throughput: what it times is equal, and what it keeps and prints is what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from ssl_inpaint import catalog
from ssl_inpaint.runtime import Runtime
from ssl_inpaint.train import FitConfig, fit

CPU = torch.device("cpu")


def line_of(measuring: ModuleType, **changes: Any) -> Any:
    line = measuring.Compared((1.0, 2.0, 4.0), (2.0, 8.0, 4.0)).measured(
        "a step", "8 px", "the plain way", 10, "images/s", 2.0, "equal", "cpu, 1 threads"
    )
    return replace(line, **changes)


# What is timed


def test_two_steps_of_ours_and_of_the_port_have_the_same_losses(load: Any) -> None:
    training, port_module, fitting = load("rows.training"), load("rows.released_port"), load("fitting")
    widths, images = port_module.Widths(8, 32), training._photographs(4)
    recipe = training._recipe(widths)
    torch.manual_seed(0)
    port, objective = port_module.Port(CPU, widths), fitting.objective_of(recipe, 128, fill="released")
    training._copy_weights(port.generator, objective.generator)
    training._copy_weights(port.discriminator, objective.discriminator)
    found = [port.step(images.float() / 255 * 2 - 1) for _ in range(2)][1]
    config = recipe.train.model_copy(update={"steps": 2, "batch_size": 4, "log_every_steps": 1})
    losses = fit(objective, fitting.InMemory(images), config, seed=0, runtime=Runtime(CPU, False)).losses
    # Adam's first step divides each gradient by its own size, so rounding of the smallest shows in the second loss.
    assert losses["discriminator"] == pytest.approx(found["discriminator"], rel=1e-2)
    assert losses["reconstruction"] == pytest.approx(found["reconstruction"], rel=1e-2)
    assert losses["generator"] == pytest.approx(found["generator"], rel=1e-2)


def test_losses_that_differ_are_not_timed(load: Any) -> None:
    training = load("rows.training")
    ours = {"discriminator": 1.0, "generator": 2.0, "reconstruction": 3.0}
    assert "equal to 0" in training._agreement(ours, ours | {"adversarial": 4.0}, 1e-5)
    with pytest.raises(ValueError, match="differ"):
        training._agreement(ours, ours | {"generator": 2.1}, 1e-5)


def test_the_flops_of_an_image_do_not_depend_on_how_many_there_are(load: Any) -> None:
    paper, fitting = load("rows.paper"), load("fitting")
    objective = fitting.objective_of(catalog.load("recipes", "paper").build(), 64)
    few, many = (torch.zeros(n, 3, 64, 64, dtype=torch.uint8) for n in (1, 3))
    runtime = Runtime(CPU, False)
    assert paper.flops_of(objective, many, runtime) == 3 * paper.flops_of(objective, few, runtime)
    conv1 = 2 * 96 * 3 * 11 * 11 * 14 * 14  # forward: a multiply and an add for each weight and place
    assert paper.flops_of(objective, few, runtime) > 2 * conv1  # and once more for the weights' gradient


def test_steps_and_calls_take_turns_and_only_rounds_are_counted(load: Any) -> None:
    fitting = load("fitting")
    objective = fitting.objective_of(catalog.load("recipes", "compact").build(), 64)
    calls: list[int] = []
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    train = FitConfig(batch_size=2, warmup_steps=0)
    found = fitting.timed_beside(lambda: calls.append(1), objective, images, train, Runtime(CPU, False), 3, 2)
    assert len(found.ours) == len(found.other) == 3
    assert len(calls) == 2 * (1 + 3)  # a warm-up round, then three
    assert min(found.ours) > 0


def test_a_store_is_built_of_jpegs_that_differ(load: Any, tmp_path: Path) -> None:
    names = load("jpegs").write_jpegs(tmp_path, 3, 40, 30)
    assert names == ["0000/0000000.jpg", "0000/0000001.jpg", "0000/0000002.jpg"]
    assert len({(tmp_path / name).read_bytes() for name in names}) == 3


# What is kept and printed


def test_the_ratio_is_the_median_of_the_rounds_own(load: Any) -> None:
    line = line_of(load("measuring"))  # rounds of 2, 4 and 1 times
    assert (line.ratio, line.lowest, line.highest) == (2.0, 1.0, 4.0)
    assert (line.ours, line.other, line.rounds) == (10 / 2.0, 10 / 4.0, 3)


def test_only_the_newest_line_of_one_thing_on_one_machine_is_kept(load: Any) -> None:
    throughput, measuring = load("throughput"), load("measuring")
    old = throughput.entry_of(line_of(measuring, ratio=1.0), "training")
    elsewhere = {**old, "hardware": "another"}
    larger = {**old, "size": "16 px"}
    new = {**old, "ratio": 3.0}
    kept = throughput.with_line([old, elsewhere, larger], new)
    assert sorted(entry["ratio"] for entry in kept) == [1.0, 1.0, 3.0]
    assert old not in kept and elsewhere in kept and larger in kept


def test_the_table_says_whether_the_aim_was_met_on_which_hardware(load: Any) -> None:
    throughput, measuring = load("throughput"), load("measuring")
    met = throughput.entry_of(line_of(measuring, ratio=2.0), "training")
    missed = {**met, "hardware": "a GPU", "ratio": 1.99}
    aimless = {**met, "what": "another step", "reach": None}
    text = throughput.render([met, missed, aimless])
    of_gpu = text[text.index("## a GPU") :]
    of_cpu = text.replace(of_gpu, "")
    assert "2, met" in of_cpu and "2, not met" in of_gpu and " – |" in of_cpu
    assert met["commit"][:12] in text and met["hardware"] in of_cpu
    assert "aim 2x: met" in throughput.sentence(line_of(measuring, ratio=2.0))
    assert "NOT met" in throughput.sentence(line_of(measuring, ratio=1.99))


def test_what_was_written_is_read_again(load: Any, tmp_path: Path) -> None:
    throughput, measuring = load("throughput"), load("measuring")
    entries = [throughput.entry_of(line_of(measuring), "training")]
    throughput.write(tmp_path, entries)
    assert throughput.read(tmp_path / "throughput.json") == json.loads(json.dumps(entries))
    assert (tmp_path / "throughput.md").read_text(encoding="utf-8") == throughput.render(entries)
    assert throughput.read(tmp_path / "missing.json") == []


def test_lines_that_another_run_wrote_meanwhile_are_kept(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    throughput, measuring = load("throughput"), load("measuring")
    other = throughput.entry_of(line_of(measuring, what="of another run"), "scores")

    def measured(*_: object) -> Iterator[Any]:
        yield line_of(measuring, what="the first")
        throughput.write(tmp_path, throughput.with_line(throughput.read(tmp_path / "throughput.json"), other))
        yield line_of(measuring, what="the second")

    monkeypatch.setattr(throughput, "_measured", measured)
    told = ["--row", "scores", "--device", "cpu", "--output", str(tmp_path)]
    assert CliRunner().invoke(throughput.throughput, told).exit_code == 0
    found = throughput.read(tmp_path / "throughput.json")
    assert {entry["what"] for entry in found} == {"the first", "of another run", "the second"}


def test_every_row_has_a_name_and_a_description(load: Any) -> None:
    known = load("row_files").known_rows()
    assert {"training", "paper", "feeding", "growth"} <= known.keys()
    assert all(row.description.endswith((".", "?")) for row in known.values())
    assert known["growth"].is_optional and not known["training"].is_optional


# The command


@pytest.mark.parametrize("row", ["training", "paper", "feeding", "growth", "streaming"])
def test_a_small_run_prints_lines_and_writes_nothing(load: Any, tmp_path: Path, row: str) -> None:
    arguments = ["--row", row, "--small", "--rounds", "1", "--device", "cpu", "--output", str(tmp_path / "results")]
    done = CliRunner().invoke(load("throughput").throughput, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "x (" in done.stdout
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--row", "trainin"], "Did you mean 'training'?"),
        pytest.param(
            ["--device", "cuda"],
            "no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_what_is_not_there_is_one_sentence_and_exit_2(load: Any, arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(load("throughput").throughput, arguments)
    assert done.exit_code == 2
    assert said in done.output and len(done.output.splitlines()) == 1


@pytest.mark.parametrize("text", ["{", '{"schema": 9, "lines": []}', '{"schema": 1}'])
def test_a_broken_file_of_results_stays_as_it_is(load: Any, tmp_path: Path, text: str) -> None:
    path = tmp_path / "throughput.json"
    path.write_text(text, encoding="utf-8")
    done = CliRunner().invoke(load("throughput").throughput, ["--row", "growth", "--output", str(tmp_path)])
    assert done.exit_code == 2
    assert "throughput.json" in done.output and len(done.output.splitlines()) == 1
    assert path.read_text(encoding="utf-8") == text
