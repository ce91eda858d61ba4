"""The command line as a person meets it: every verb, every mistake one sentence, and the README's own commands."""

from __future__ import annotations

import io
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from ssl_inpaint import checkpoint
from ssl_inpaint.batches import ImageBatches
from ssl_inpaint.cli import main
from ssl_inpaint.data import shapes
from ssl_inpaint.experiment import data_initialisation
from ssl_inpaint.plans import PretrainPlan, read_plan
from ssl_inpaint.records import Ledger

README = Path(__file__).parents[1] / "README.md"
WHOLE = "--set crops.size=64 --set crops.store_size=64 --set crops.smallest_share=1 --set crops.largest_share=1"
NARROW = "--set encoder.channels=8,8,8,8,8"
PRETRAIN = f"pretrain --data shapes:data {WHOLE} {NARROW} --set train.steps=2 --set train.batch_size=8"
HEAD = "--set head.hidden=[] --set protocol.cached_views=1 --set protocol.test_views=centre"
TRANSFER = f"transfer --data shapes:data --protocol quick_cls {WHOLE} {HEAD} --set train.steps=2"
RETRIEVE = "nn-retrieval --data shapes:data --set retrieval.queries=10 --set retrieval.gallery=20"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_INPAINT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = shapes.Config(train=20, val=10, test=10)
    return shapes.make_shapes(tmp_path_factory.mktemp("data") / "shapes", config)


@pytest.fixture
def desk(tmp_path: Path, shapes_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the small data set as `data`."""
    (tmp_path / "data").symlink_to(shapes_folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def type_in(line: str) -> Result:
    """What a command line gives; whatever is neither success nor a refusal is raised here."""
    found = CliRunner().invoke(main, shlex.split(line))
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def done(line: str) -> str:
    found = type_in(line)
    assert found.exit_code == 0, found.stderr
    return found.stdout


def refused(line: str) -> str:
    """The one sentence of a refusal: exit code 2, nothing on stdout, one line on stderr, nothing left behind."""
    before = sorted(Path().iterdir())
    found = type_in(line)
    assert found.exit_code == 2 and not found.stdout
    assert found.stderr.startswith("Error: ") and found.stderr.count("\n") == 1 and "Traceback" not in found.stderr
    assert sorted(Path().iterdir()) == before
    return found.stderr


def put_photo(folder: Path, name: str, size: tuple[int, int] = (40, 32), mode: str = "RGB") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(name)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(folder / name)


# The verbs


def test_the_verbs_work_one_after_the_other(desk: Path) -> None:
    out = done(f"{PRETRAIN} --output runs/ours")
    assert "held out, hidden_mse" in out and "encoder     runs/ours/encoder.safetensors" in out
    out = done(f"{TRANSFER} --from runs/ours")
    assert re.search(r"frozen, shapes test \(10 images\): mAP \(step\) \d+\.\d\d %", out)
    assert (
        "run folder  runs/cls-frozen-ours-0" in out and (desk / "runs" / "cls-frozen-ours-0" / "scores.json").exists()
    )
    out = done(f"{RETRIEVE} --descriptor runs/ours@conv4 --descriptor hog")
    assert "whole, HOG: precision@1" in out and "figure      runs/nn-retrieval-0/neighbours-context.png" in out
    assert len(Ledger(desk / "results" / "measured.jsonl").read()) == 4 + 1 + 16
    assert done("tables").split() == [f"results/tables.{kind}" for kind in ("md", "tex", "csv")]
    assert "Context encoder (region)" in (desk / "results" / "tables.md").read_text()


def test_tables_are_checked_against_the_ledger(desk: Path) -> None:
    done(f"{PRETRAIN} --output runs/one")
    stale = type_in("tables --check")
    assert stale.exit_code == 1 and stale.stderr.startswith("Not up to date: results/tables.md")
    assert not (desk / "results" / "tables.md").exists()  # a check writes nothing
    done("tables")
    assert done("tables --check") == "up to date\n"
    done(f"{PRETRAIN} --output runs/two --seed 1")
    assert type_in("tables --check").exit_code == 1
    assert type_in("tables --ledger measured.jsonl").exit_code == 2  # a mistyped ledger empties no tables


def test_runs_without_a_name_get_one_each(desk: Path) -> None:
    for name in ("inpainting-compact_alexnet-0", "inpainting-compact_alexnet-0-2"):
        assert f"run folder  runs/{name}\n" in done(PRETRAIN)
    assert sorted(entry.name for entry in (desk / "runs").iterdir()) == [name[:-2], name]


def test_every_choice_of_holes_reaches_the_plan(desk: Path) -> None:
    for holes in ("centre", "blocks", "region", "noise"):
        done(f"{PRETRAIN} --holes {holes} --output runs/{holes}")
        assert read_plan(PretrainPlan, desk / "runs" / holes).pretext_config["holes"] == holes


def test_list_answers_within_a_second_and_without_torch() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = "import sys; from ssl_inpaint.cli import main; main(['list'], standalone_mode=False); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    *shown, modules = found.stdout.splitlines()
    assert {"data", "encoders", "pretext", "  inpainting           The context encoder's own task"} <= {
        line.split(":")[0] for line in shown
    }
    assert not {"torch", "numpy", "pydantic", "click.testing"} & set(modules.split())
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_info_says_what_is_there(desk: Path) -> None:
    first, *splits = done("data info shapes:data").splitlines()
    assert first.startswith("shapes: 10 classes, several an image: butterfly, ")
    assert [line.split()[:2] for line in splits] == [["train", "20"], ["val", "10"], ["test", "10"], ["pretrain", "30"]]
    put_photo(desk / "photos", "a.png")
    assert done("data info photos").startswith("folder:photos: no labels\n")


def test_make_shapes_takes_settings(desk: Path) -> None:
    done("data make-shapes --output other --set data.train=10 --set data.val=1 --set data.test=1 --seed 3")
    assert "train     10 images" in done("data info shapes:other")
    assert "not empty" in refused("data make-shapes --output other")
    assert "There is no part" in refused("data make-shapes --output third --set train.steps=1")


# Stopping and going on


def test_a_stopped_run_says_so_in_a_sentence_and_resumes_to_the_same_weights(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = PRETRAIN.replace("steps=2", "steps=8")
    plain = ImageBatches.at

    def at(self: ImageBatches, step: int, part: int = 0, parts: int = 1) -> object:
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, step, part, parts)

    with monkeypatch.context() as patch:
        patch.setattr(ImageBatches, "at", at)
        stopped = type_in(f"{line} --output runs/halves")
    assert stopped.exit_code == 1 and not stopped.stdout
    assert re.fullmatch(r"Stopped by SIGTERM after step \d of 8: .*runs/halves.*--resume.*\.\n", stopped.stderr)
    done("pretrain --resume runs/halves --set run.workers=2")
    done(f"{line} --output runs/whole")
    encoders = [checkpoint.open_encoder(f"runs/{name}", {}, 0)[0] for name in ("halves", "whole")]
    assert checkpoint.weights_sha256(encoders[0]) == checkpoint.weights_sha256(encoders[1])


def test_a_finished_run_may_be_resumed_and_stays_as_it_is(desk: Path) -> None:
    done(f"{PRETRAIN} --output runs/ours")
    done(f"{TRANSFER} --from runs/ours --output runs/cls")
    ledger = Ledger(desk / "results" / "measured.jsonl")
    before = {(r.metric, r.value, r.weights_sha256) for r in ledger.read()}
    done("pretrain --resume runs/ours")
    done("transfer --resume runs/cls")
    assert {(r.metric, r.value, r.weights_sha256) for r in ledger.read()} == before and len(before) == 4 + 1


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("--data shapes", "--data"),
        ("--holes region", "--holes"),
        ("--seed 0", "--seed"),
        ("--output runs/other", "--output"),
        ("--set train.steps=9", "--set train.steps=9"),
    ],
)
def test_resume_takes_no_other_option(more: str, named: str, desk: Path) -> None:
    assert f"so {named} cannot apply" in refused(f"pretrain --resume runs/ours {more}")


# Mistakes


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (f"{PRETRAIN} --pretext inpaintin", "Did you mean 'inpainting'?"),
        (f"{PRETRAIN} --encoder alexnt", "Did you mean 'alexnet'?"),
        ("pretrain --data shapes:data --encoder timm:resnet1888", "Did you mean"),
        (f"{PRETRAIN} --encoder alexnet:big", "takes no argument"),
        (f"{PRETRAIN} --recipe compct", "Did you mean 'compact'?"),
        (f"{PRETRAIN} --holes center", "Did you mean 'centre'?"),
        (f"{PRETRAIN} --pretext autoencoder --holes region", "hides nothing"),
        (f"{PRETRAIN} --set train.stps=3", "Did you mean 'steps'?"),
        (f"{PRETRAIN} --set trian.steps=3", "Did you mean 'train'?"),
        (f"{PRETRAIN} --set train.steps=0", "greater than or equal to 1"),
        (f"{PRETRAIN} --set train.steps=many", "many"),
        (f"{PRETRAIN} --set train.learning_rate=nan", "finite"),
        (f"{PRETRAIN} --set train.steps", "--set part.field=value"),
        (f"{PRETRAIN} --set run.device=gpu", "device"),
        (f"{PRETRAIN} --set crops.size=48", "takes 64 pixels or more"),
        (f"{PRETRAIN} --set pretext.silhouettes=nowhere", "nowhere"),
        (f"{PRETRAIN} --set run.ledger=data/VOCdevkit", "ledger"),
        (f"{TRANSFER} --mode freeze", "Did you mean 'frozen'?"),
        (f"{TRANSFER} --task clss", "Did you mean 'cls'?"),
        (f"{TRANSFER} --from random:alexnt", "Did you mean 'alexnet'?"),
        (f"{TRANSFER} --from random", "random:ENCODER"),
        (f"{TRANSFER} --from runs/ours", "There are no weights at 'runs/ours'"),
        (f"{TRANSFER} --set head.stage=conv55", "Did you mean 'conv5'?"),
        (f"{TRANSFER} --set protocol.task=det", "task"),
        (f"{TRANSFER} --protocol compact_clss", "Did you mean 'compact_cls'?"),
        (f"{RETRIEVE} --descriptor hogg", "Did you mean 'hog'?"),
        (f"{RETRIEVE} --descriptor hog --descriptor hog", "is named twice"),
        (f"{RETRIEVE} --descriptor random:compact_alexnet@conv55", "Did you mean 'conv5'?"),
        (f"{RETRIEVE} --set retrieval.k=0", "1 neighbour or more"),
        ("list encoder", "Did you mean 'encoders'?"),
        ("data info shape", "Did you mean 'shapes'?"),
        ("pretrain --resume runs/ours", "no run folder"),
        ("transfer --resume data", "no run folder"),
    ],
)
def test_a_mistake_gets_one_sentence_and_leaves_nothing(line: str, sentence: str, desk: Path) -> None:
    assert sentence in refused(line)


def test_a_wrong_layer_is_found_before_the_network_sees_any_image(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(data_initialisation, "prepare", lambda *arguments: seen.append(arguments))
    assert "Did you mean 'conv5'?" in refused(f"{TRANSFER} --set head.stage=conv55")
    assert not seen


@pytest.mark.parametrize("line", ["pretrain --seed -1", "pretrain --bogus", "pretrian", "pretrain --output thesis.txt"])
def test_what_click_refuses_itself_has_the_same_exit_code(line: str, desk: Path) -> None:
    (desk / "thesis.txt").write_text("words")
    found = type_in(line)
    assert found.exit_code == 2 and "Error: " in found.stderr and not (desk / "runs").exists()


def test_folders_that_are_no_data_set_are_refused(desk: Path) -> None:
    pretrain = PRETRAIN.replace("shapes:data", "{}")
    (desk / "empty").mkdir()
    (desk / "letters").mkdir()
    (desk / "letters" / "a.txt").write_text("words")
    put_photo(desk / "classes" / "cat", "1.png")
    put_photo(desk / "classes", "loose.png")
    for spec, sentence in (
        ("folder:nowhere", "nowhere"),
        ("./nowhere", "nowhere"),
        ("folder:empty", "no images"),
        ("folder:letters", "no images"),
        ("imagefolder:classes", "beside class folders"),
        ("shapes:empty", "VOCdevkit"),
        ("voc2007:classes", "VOC2007"),
        ("shaps", "Did you mean 'shapes'?"),
    ):
        assert sentence in refused(pretrain.format(spec))
    put_photo(desk / "photos", "1.png")
    assert "no labels" in refused(TRANSFER.replace("shapes:data", "photos"))
    assert "needs labels" in refused(f"{pretrain.format('photos')} --pretext supervised")


def test_many_broken_photos_are_refused_and_few_are_left_out(desk: Path) -> None:
    for i in range(12):
        put_photo(desk / "photos", f"{i}.jpg")
    for i in range(3):
        data = (desk / "photos" / f"{i}.jpg").read_bytes()
        (desk / "photos" / f"{i}.jpg").write_bytes(data[: len(data) // 3])
    line = PRETRAIN.replace("shapes:data", "folder:photos")
    found = type_in(f"{line} --output runs/few")
    assert found.exit_code == 0 and "3 of 12 images cannot be read: 0.jpg" in found.stderr
    (desk / "photos" / "3.jpg").write_bytes(b"")
    assert "4 of 12 images cannot be read" in refused(line)


def test_odd_photos_are_simply_read(desk: Path) -> None:
    for i in range(6):
        put_photo(desk / "photos", f"plain {i}.png")
    put_photo(desk / "photos", "grey.png", mode="L")
    put_photo(desk / "photos", "print.jpg", mode="CMYK")
    put_photo(desk / "photos", "dot.png", size=(1, 1))
    put_photo(desk / "photos" / "näher", "strip.png", size=(400, 3))
    Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 70).save(desk / "photos" / "deep.png")
    found = type_in(PRETRAIN.replace("shapes:data", "folder:photos"))
    assert found.exit_code == 0 and "cannot be read" not in found.stderr
    assert "11 images" in done("data info folder:photos")


def test_weights_that_do_not_fit_are_refused(desk: Path) -> None:
    done(f"{PRETRAIN} --output runs/ours")
    (desk / "words.pt").write_text("words")
    (desk / "words.safetensors").write_text("words")
    assert "another encoder" in refused(f"{TRANSFER} --from alexnet=runs/ours")
    for file in ("words.pt", "words.safetensors"):
        assert "no weights that can be read" in refused(f"{TRANSFER} --from alexnet={file}")
        assert "no weights that can be read" in refused(f"{TRANSFER} --from {file}")
    assert "architecture of its own" in refused(f"{TRANSFER} --from runs/ours --set encoder.groups=1")


def test_taken_folders_are_refused(desk: Path) -> None:
    done(f"{PRETRAIN} --output runs/ours")
    for line in (PRETRAIN, TRANSFER):
        assert "go on with it by --resume runs/ours" in refused(f"{line} --output runs/ours")
    assert "another run" in refused(f"{RETRIEVE} --descriptor hog --output runs/ours")
    for line in (PRETRAIN, TRANSFER, f"{RETRIEVE} --descriptor hog"):
        assert "not empty" in refused(f"{line} --output data")
    holder = "import sys; from pathlib import Path; from ssl_inpaint.runtime import claimed\n"
    holder += "with claimed(Path('busy')): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert isinstance(other.stdout, io.TextIOBase) and other.stdout.readline() == "held\n"
        assert "in use by another process" in refused(f"{PRETRAIN} --output busy")
        other.communicate()


def test_places_that_cannot_be_written_are_named(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (desk / "file").write_text("words")
    assert "Cannot write" in refused(f"{PRETRAIN} --output file/run")
    monkeypatch.setenv("SSL_INPAINT_CACHE", str(desk / "file"))
    assert "SSL_INPAINT_CACHE" in refused(PRETRAIN)


def test_a_broken_ledger_is_found_before_the_work_and_not_after(desk: Path) -> None:
    (desk / "results").mkdir()
    (desk / "results" / "measured.jsonl").write_text("not a record\n")
    for line in (PRETRAIN, TRANSFER, f"{RETRIEVE} --descriptor hog", "tables"):
        assert "measured.jsonl, line 1" in refused(line)


# What is written for people


def commands(group: click.Group, name: str = "ssl-inpaint") -> Iterator[tuple[str, click.Command]]:
    for key, command in group.commands.items():
        yield f"{name} {key}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {key}")


def parse(line: str) -> None:
    """Has click read a command line as it would, without running it; its errors name what does not exist."""
    words = shlex.split(line, comments=True)
    assert words[0] == "ssl-inpaint"
    command, context, rest = main, None, words[1:]
    while isinstance(command, click.Group):
        context = command.make_context(command.name, rest, parent=context, ignore_unknown_options=False)
        if not [*context._protected_args, *context.args]:
            return
        _, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command = found
    command.make_context(command.name, rest, parent=context)


def readme_blocks() -> list[str]:
    return re.findall(r"^```[^\n]*\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def readme_lines() -> list[str]:
    """Every call of ssl-inpaint in the README's code blocks, continued lines joined."""
    parts = re.split(r"\n|&&|\||;|>", "\n".join(readme_blocks()).replace("\\\n", " "))
    return [part.strip().removeprefix("$ ") for part in parts if re.match(r"\s*(\$ )?ssl-inpaint\b", part)]


def test_the_readme_shows_commands() -> None:
    assert len(readme_lines()) == len(re.findall(r"\bssl-inpaint ", "\n".join(readme_blocks()))) > 0


@pytest.mark.parametrize("line", readme_lines())
def test_a_command_line_of_the_readme_is_understood(line: str, desk: Path) -> None:
    (desk / "results").mkdir()
    (desk / "results" / "measured.jsonl").touch()
    parse(line)


@pytest.mark.parametrize(("name", "command"), list(commands(main)))
def test_help_shows_an_example_that_is_understood(name: str, command: click.Command, desk: Path) -> None:
    (desk / "results").mkdir()
    (desk / "results" / "measured.jsonl").touch()
    out = done(f"{name.removeprefix('ssl-inpaint ')} --help")
    assert all(option in out for parameter in command.params for option in parameter.opts if option.startswith("--"))
    if not isinstance(command, click.Group):
        (example,) = re.findall(r"Example:\n\s+(ssl-inpaint [^\n]*)", out)
        assert example.startswith(name)
        parse(example)


@pytest.mark.parametrize("line", ["ssl-inpaint pretrian", "ssl-inpaint pretrain --dat x", "ssl-inpaint data inf x"])
def test_the_check_of_written_commands_sees_mistakes(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse(line)
