"""On a GPU: every task and measurement runs there, and its shortcuts change nothing. Skipped where there is none."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ssl_inpaint import catalog, images
from ssl_inpaint.batches import Crops, ImageBatches
from ssl_inpaint.data import shapes
from ssl_inpaint.data.device_store import DeviceStore, near
from ssl_inpaint.experiment import evaluation, pretrain, retrieval, transfer
from ssl_inpaint.experiment.data import open_examples
from ssl_inpaint.holes import KINDS
from ssl_inpaint.plans import PretrainPlan, read_plan
from ssl_inpaint.records import Ledger
from ssl_inpaint.runtime import Runtime, open_runtime
from ssl_inpaint.train import Interrupted

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

CUDA = torch.device("cuda")
CROPS = {"size": "64", "store_size": "80", "smallest_share": "0.6", "largest_share": "1"}
STEPS = {"steps": "6", "batch_size": "8", "log_every_steps": "1", "warmup_steps": "0"}
NARROW = {"channels": "8,16,16,16,16"}


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("cuda")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_INPAINT_CACHE", str(folder / "cache"))
        shapes.make_shapes(folder / "data", shapes.Config(train=60, val=20, test=20))
        yield f"shapes:{folder / 'data'}"


def pretrained(
    data: str, folder: Path, task: str = "inpainting", runtime: Runtime | None = None, **more: dict[str, str]
) -> list[dict[str, float]]:
    """The lines of its log."""
    settings = {"crops": CROPS, "encoder": NARROW, **more, "train": {**STEPS, **more.get("train", {})}}
    recipe = "quick"
    if task == "masked_autoencoder":
        recipe, settings = "mae", {"train": STEPS}
    plan = pretrain.plan_pretraining(data, task, recipe, None, settings, 0)
    pretrain.pretrain(plan, folder, runtime or open_runtime("cuda", "fp32"))
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("pretext", catalog.parts("pretext"))
def test_every_task_trains_there(data: str, tmp_path: Path, pretext: str, precision: str) -> None:
    lines = pretrained(data, tmp_path / "run", pretext, open_runtime("cuda", precision))  # type: ignore[arg-type]
    assert len(lines) == 6 and (tmp_path / "run" / "encoder.safetensors").exists()


@pytest.mark.parametrize("holes", KINDS)
@pytest.mark.parametrize("loss", ["reconstruction", "joint"])
def test_a_captured_step_has_the_losses_of_the_eager_one(data: str, tmp_path: Path, holes: str, loss: str) -> None:
    settings = {"holes": holes, "loss": loss, "dropout": "0.3"}
    lines = [
        pretrained(data, tmp_path / graph, pretext=settings, train={"steps": "12", "cuda_graph": graph})
        for graph in ("false", "true")
    ]
    for eager, captured in zip(*lines, strict=True):
        for name in eager:
            if name.startswith("loss/"):
                assert captured[name] == pytest.approx(eager[name], rel=2e-3), (eager["step"], name)


@pytest.mark.parametrize("size", [64, 80, 48])
def test_crops_cut_there_are_those_of_the_file(data: str, size: int) -> None:
    store = open_examples(data, "train", {}, 80).store
    assert isinstance(near(store, CUDA), DeviceStore)
    crops = Crops(size=size, store_size=80, smallest_share=0.5, largest_share=1.0)
    there, here = (ImageBatches(s, None, crops, 40, seed=0).at(3).images for s in (near(store, CUDA), store))
    differences = (there.cpu().int() - here.int()).abs()
    assert differences.max() <= 2 and (differences > 0).float().mean() < 0.2
    whole = images.fixed_windows(torch.full((3,), 80.0), torch.full((3,), 80.0), size / 80, (0.0, 1.0))
    places, flips = torch.tensor([0, 5, 9]), torch.tensor([True, False, True])
    assert torch.equal(
        DeviceStore(store, CUDA).crops(places, whole, size, flips).cpu(), store.crops(places, whole, size, flips)
    )


@pytest.mark.parametrize(
    ("task", "protocol", "mode"),
    [
        *[(task, f"quick_{task}", mode) for task in ("cls", "det", "seg") for mode in ("frozen", "finetune")],
        *[(task, f"compact_{task}", "frozen") for task in ("linear", "knn", "svm")],
    ],
)
def test_every_measurement_runs_there(data: str, tmp_path: Path, task: str, protocol: str, mode: str) -> None:
    settings = {"encoder": NARROW} | ({"train": {"steps": "3"}} if task not in ("knn", "svm") else {})
    if task == "knn":
        settings["head"] = {"k": "5,10"}
    plan = transfer.plan_transfer(data, "random:compact_alexnet", task, mode, protocol, settings, 0)
    ledger = Ledger(tmp_path / "measured.jsonl")
    made = transfer.transfer(plan, tmp_path / "run", open_runtime("cuda"), ledger)
    assert made.scores and all(record.device == torch.cuda.get_device_name() for record in ledger.read())


def test_retrieval_and_inpainting_are_measured_there(data: str, tmp_path: Path) -> None:
    runtime, ledger = open_runtime("cuda"), Ledger(tmp_path / "measured.jsonl")
    settings = {
        "retrieval": {"patch_size": "64", "store_size": "96", "queries": "8", "gallery": "40"},
        "encoder": NARROW,
    }
    plan = retrieval.plan_retrieval(data, ["hog", "random:compact_alexnet"], settings, 0)
    assert retrieval.nn_retrieval(plan, tmp_path / "retrieval", runtime, ledger).records
    pretrained(data, tmp_path / "run")
    few = {"evaluation": {"images": "6", "has_others": "false"}}
    asked = evaluation.plan_evaluation(data, [str(tmp_path / "run"), "mean_colour"], None, None, few, 0)
    assert evaluation.evaluate(asked, tmp_path / "evaluation", runtime, ledger).records


@pytest.mark.parametrize("graph", ["false", "true"])
def test_a_run_goes_on_there_where_it_stopped(
    data: str, tmp_path: Path, graph: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = {"steps": "14", "cuda_graph": graph}
    whole = pretrained(data, tmp_path / "whole", train=dict(train))
    plain = ImageBatches.at

    def at(self: ImageBatches, step: int, part: int = 0, parts: int = 1) -> object:
        if step == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, step, part, parts)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(ImageBatches, "at", at)
        pretrained(data, tmp_path / "halves", train=dict(train))
    plan = read_plan(PretrainPlan, tmp_path / "halves")
    pretrain.pretrain(plan, tmp_path / "halves", open_runtime("cuda", "fp32"), resume=True)
    resumed = [json.loads(line) for line in (tmp_path / "halves" / "log.jsonl").read_text().splitlines()]
    for here, there in zip(whole, resumed, strict=True):
        assert here["loss/generator"] == pytest.approx(there["loss/generator"], rel=2e-3), here["step"]
