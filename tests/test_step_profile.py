"""The profile of a step: what it counts is what was run, and shares are of the time by the clock."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from click.testing import CliRunner

FEW = ["--device", "cpu", "--steps", "2", "--set", "train.batch_size=2", "--set", "train.precision=fp32"]


def profiled(load: Any, *arguments: str) -> Any:
    return CliRunner().invoke(load("step_profile").step_profile, [*FEW, *arguments])


def test_every_convolution_of_a_step_is_in_the_table(load: Any) -> None:
    """A forward and a backward pass of each of the encoder's five."""
    found = profiled(load, "--recipe", "quick", "--rows", "500")
    assert found.exit_code == 0, found.output
    convolutions = [line for line in found.output.splitlines() if "aten::mkldnn_convolution " in line]
    backward = [line for line in found.output.splitlines() if "aten::convolution_backward " in line]
    assert "64 px, batch 2, float32" in found.output
    assert {float(line.split()[2]) for line in convolutions} == {1.0} and len(convolutions) == 5
    assert sum(float(line.split()[2]) for line in backward) >= 5


def test_what_is_left_out_is_summed_up(load: Any) -> None:
    spent = [load("step_profile").Spent(name, seconds, 4) for name, seconds in (("a", 0.1), ("b", 0.3), ("c", 0.2))]
    lines = list(load("step_profile").table("operator", spent, seconds=1.2, steps=2, rows=1))
    assert [line.split() for line in lines[1:]] == [
        ["150.00", "25.0%", "2.0", "b"],
        ["150.00", "25.0%", "4.0", "2", "others"],
        ["300.00", "50.0%", "6.0", "all", "of", "these"],
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "pretext.hole=region"], "Did you mean 'holes'"),
        (["--set", "trian.steps=1"], "Did you mean 'train'"),
        (["--set", "crops.size=96"], "crops"),
        (["--set", "train.parts=2"], "comes in one part"),
        (["--recipe", "quik"], "Did you mean 'quick'"),
        *([] if torch.cuda.is_available() else [(["--device", "cuda"], "CUDA")]),
    ],
)
def test_what_is_not_there_is_one_sentence_and_exit_2(load: Any, arguments: list[str], said: str) -> None:
    found = profiled(load, *arguments)
    assert found.exit_code == 2 and said in found.output
