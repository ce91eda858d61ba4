"""Several processes on one run: as one process that goes through the same parts in turn."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from ssl_inpaint import distributed
from ssl_inpaint.batches import ImageBatches, rows_of
from ssl_inpaint.cli import main
from ssl_inpaint.core import Batch, ParameterGroup, Player
from ssl_inpaint.data import shapes
from ssl_inpaint.distributed import ALONE, Group
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment import crop_feed, scene_feed
from ssl_inpaint.records import Ledger
from ssl_inpaint.runtime import Runtime
from ssl_inpaint.train import FitConfig, NotFinite, fit, shared

CPU = Runtime(torch.device("cpu"), is_bf16=False)
WHOLE = "--set crops.size=64 --set crops.store_size=64 --set crops.smallest_share=1 --set crops.largest_share=1"
# Two players, BatchNorm, dropout and holes of chance: whatever two processes could do otherwise than one.
PRETRAIN = (
    f"pretrain --data shapes:data {WHOLE} --set encoder.channels=8,8,8,8,8 --set encoder.normalization=batch "
    "--set pretext.loss=joint --set pretext.discriminator_channels=4 --set pretext.dropout=0.3 --holes blocks "
    "--set train.steps=6 --set train.batch_size=8 --set train.log_every_steps=2 --set train.learning_rate=1e-2"
)
HEAD = "--set head.hidden=[] --set protocol.test_views=centre --set train.steps=3"
FROZEN = f"transfer --data shapes:data --protocol quick_cls {WHOLE} {HEAD} --set protocol.cached_views=2"
FINETUNED = f"transfer --data shapes:data --protocol quick_cls --mode finetune {WHOLE} {HEAD} --set train.batch_size=8"
SCENES = (
    "transfer --task seg --data shapes:data --protocol quick_seg --predictions "
    "--set train.steps=3 --set train.batch_size=4 --set head.hidden=8"
)
BOXES = (
    "transfer --task det --mode finetune --data shapes:data --protocol quick_det --predictions "
    "--set train.steps=3 --set train.batch_size=4 --set head.hidden=8 --set head.grid=2"
)
VIEW_BATCH = 8  # images described at a time, so that a small set has batches for both
SCENE_BATCH = 6  # of 30 and of 10 images: an odd and an even number of batches
EVERY_LINE = f"""
import json, sys
from ssl_inpaint.cli import main
from ssl_inpaint.experiment import crop_feed, scene_feed
crop_feed.VIEW_BATCH, scene_feed.VIEW_BATCH = {VIEW_BATCH}, {SCENE_BATCH}
for line in json.loads(sys.argv[1]):
    main(line.split(), standalone_mode=False)
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder in which one and two processes have done the same."""
    folder = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_INPAINT_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        patch.setattr(crop_feed, "VIEW_BATCH", VIEW_BATCH)
        patch.setattr(scene_feed, "VIEW_BATCH", SCENE_BATCH)
        shapes.make_shapes(folder / "data", shapes.Config(train=30, val=10, test=30))
        in_parts = f"{PRETRAIN} --set train.parts=2 --set run.ledger=one.jsonl"
        typed(f"{in_parts} --output one")
        stopped_at(4, f"{in_parts} --output resumed")
        typed(f"{FROZEN} --from one --set run.ledger=one.jsonl --output frozen-one")
        typed(f"{FINETUNED} --from one --set train.parts=2 --set run.ledger=one.jsonl --output tuned-one")
        typed(f"{SCENES} --from one --set run.ledger=one.jsonl --output scenes-one")
        typed(f"{BOXES} --from one --set train.parts=2 --set run.ledger=one.jsonl --output boxes-one")
        together(
            f"{PRETRAIN} --set run.ledger=two.jsonl --output two",
            "pretrain --resume resumed --set run.ledger=three.jsonl",
            f"{FROZEN} --from one --set run.ledger=two.jsonl --output frozen-two",
            f"{FINETUNED} --from one --set run.ledger=two.jsonl --output tuned-two",
            f"{SCENES} --from one --set run.ledger=two.jsonl --output scenes-two",
            f"{BOXES} --from one --set run.ledger=two.jsonl --output boxes-two",
        )
        yield folder


def typed(line: str) -> None:
    result = CliRunner().invoke(main, line.split(), catch_exceptions=False)
    assert result.exit_code == 0, result.output


def stopped_at(step: int, line: str) -> None:
    plain = ImageBatches.at

    def at(self: ImageBatches, asked: int, part: int = 0, parts: int = 1) -> Batch:
        if (asked, part) == (step, 0):  # once: a second signal ends the process
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, asked, part, parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageBatches, "at", at)
        assert CliRunner().invoke(main, line.split()).exit_code == 1


def together(*lines: str) -> None:
    """Every line by two processes of torchrun."""
    Path("lines.py").write_text(EVERY_LINE)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "lines.py"]
    done = subprocess.run([*torchrun, json.dumps(lines)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("run folder") == len(lines)  # one process speaks


def assert_close(folder: Path, one: str, other: str, file: str) -> None:
    here, there = load_file(folder / one / file), load_file(folder / other / file)
    assert here.keys() == there.keys()
    for name in here:  # sums in another order, through six steps of Adam at a high rate
        torch.testing.assert_close(
            here[name], there[name], rtol=1e-3, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("file", ["encoder.safetensors", "generator.safetensors"])
@pytest.mark.parametrize("run", ["two", "resumed"])
def test_two_processes_end_where_one_does(desk: Path, run: str, file: str) -> None:
    assert_close(desk, "one", run, file)


def test_the_parts_of_two_processes_are_kept_in_their_plan(desk: Path) -> None:
    assert json.loads((desk / "two" / "config.json").read_text())["train"]["parts"] == 2


def test_two_processes_log_the_losses_of_all_parts(desk: Path) -> None:
    lines = [
        [json.loads(line) for line in (desk / run / "log.jsonl").read_text().splitlines()] for run in ("one", "two")
    ]
    for here, there in zip(*lines, strict=True):
        for name in ("loss/generator", "loss/discriminator", "loss/reconstruction"):
            assert here[name] == pytest.approx(there[name], rel=1e-3)


def test_two_processes_record_what_one_does(desk: Path) -> None:
    one, two = (Ledger(desk / name).read() for name in ("one.jsonl", "two.jsonl"))
    assert [(r.method, r.metric, r.mode, r.config_hash) for r in one] == [
        (r.method, r.metric, r.mode, r.config_hash) for r in two
    ]
    for here, there in zip(one, two, strict=True):
        assert here.value == pytest.approx(there.value, abs=0.05), here.metric  # a rank or two of 30 may be swapped
        assert there.device.startswith("2 x cpu")


def test_two_processes_predict_the_masks_that_one_does(desk: Path) -> None:
    one, two = (sorted((desk / run / "predictions").rglob("*.png")) for run in ("scenes-one", "scenes-two"))
    assert len(one) > 30 and [path.name for path in one] == [path.name for path in two]
    assert all(here.read_bytes() == there.read_bytes() for here, there in zip(one, two, strict=True))


def test_two_processes_fine_tune_to_the_boxes_that_one_does(desk: Path) -> None:
    one, two = (
        json.loads((desk / run / "predictions" / "detections.json").read_text()) for run in ("boxes-one", "boxes-two")
    )
    assert len(one) > 30 and len(one) == pytest.approx(len(two), rel=0.02)
    best = [{line["image_id"]: line for line in sorted(lines, key=lambda line: line["score"])} for lines in (one, two)]
    assert best[0].keys() == best[1].keys() and len(best[0]) == 30
    for image, here in best[0].items():
        assert here["score"] == pytest.approx(best[1][image]["score"], abs=5e-3)


class Sum:
    """A loss whose mean over a batch is the mean over its parts: no BatchNorm, no draws."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3))
        self.broken = False

    def players(self) -> dict[str, Player]:
        return {"network": Player(self.network, [ParameterGroup(list(self.network.parameters()))])}

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        loss = (self.network(batch.images) - 1).square().mean()
        yield "network", loss / 0 if self.broken else loss


class Noise:
    batch_size = 8

    def at(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        pixels = torch.randint(0, 256, (8, 3, 6, 6), generator=torch.Generator().manual_seed(step), dtype=torch.uint8)
        return Batch(pixels[rows_of(8, part, parts)])


def test_parts_change_nothing_where_examples_do_not_meet() -> None:
    found = []
    for parts in (1, 2, 4, 8):
        objective = Sum()
        made = fit(objective, Noise(), FitConfig(steps=5, batch_size=8, parts=parts), seed=0, runtime=CPU)
        found.append((made.losses["network"], [p.detach().clone() for p in objective.network.parameters()]))
    for loss, parameters in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        torch.testing.assert_close(parameters, found[0][1], rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_lost_in_parts_names_its_step() -> None:
    objective = Sum()
    objective.broken = True
    with pytest.raises(NotFinite, match="'network' is inf in step 1"):
        fit(objective, Noise(), FitConfig(steps=2, batch_size=8, parts=2), seed=0, runtime=CPU)


def test_shares_are_whole_and_even() -> None:
    for count in (1, 2, 3, 5):
        for things in (0, 1, 7, 16):
            shares = Group(0, count).shares(things)
            assert [thing for share in shares for thing in share] == list(range(things))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_processes_that_cannot_share_the_parts_are_refused() -> None:
    with pytest.raises(UsageError, match=r"3 processes cannot share train\.parts = 4"):
        fit(Sum(), Noise(), FitConfig(batch_size=8, parts=4), seed=0, runtime=Runtime(CPU.device, False, Group(0, 3)))
    with pytest.raises(ValidationError, match="batch_size 8 does not come in 3 equal parts"):
        FitConfig(batch_size=8, parts=3)
    with pytest.raises(ValueError, match="7 rows"):
        rows_of(7, 0, 2)


def test_a_batch_has_as_many_parts_as_processes_where_nothing_else_is_said() -> None:
    assert shared(FitConfig(), ALONE) == FitConfig()
    assert shared(FitConfig(), Group(0, 4)).parts == 4
    assert shared(FitConfig(parts=8), Group(0, 4)).parts == 8


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert distributed.join() is ALONE and ALONE.is_first
    rows = torch.arange(4)
    assert ALONE.joined(rows, [4]) is rows


@pytest.mark.parametrize("verb", ["nn-retrieval", "tables", "quickstart"])
def test_what_is_not_shared_is_refused_to_several_processes(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(main, [verb])
    assert (
        result.exit_code == 2
        and result.stderr == f"Error: '{verb}' is work for one process: start it without torchrun.\n"
    )
