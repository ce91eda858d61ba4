"""What every part of every folder keeps, so that a new file is held to it without a new test."""

import ast
import inspect
from pathlib import Path
from typing import get_args

import pydantic
import pytest
import torch

from ssl_inpaint import catalog, checkpoint, holes, metrics
from ssl_inpaint.config import Settings, hash_of
from ssl_inpaint.core import Encoder, TrainingFacts, TransferFacts
from ssl_inpaint.encoders.alexnet import AlexNet
from ssl_inpaint.encoders.alexnet import Config as AlexNetConfig
from ssl_inpaint.errors import UsageError
from ssl_inpaint.plans import Protocol, Recipe
from ssl_inpaint.rows import Bench

ALL = [(kind, name) for kind in catalog.KINDS for name in catalog.parts(kind)]
CONFIGURED = [(kind, name) for kind, name in ALL if kind not in ("recipes", "protocols", "benches")]


def folder_of(kind: str) -> Path:
    return Path(catalog.__file__).parent / kind


def test_every_kind_has_parts_and_a_folder_of_its_name() -> None:
    for kind in catalog.KINDS:
        assert catalog.parts(kind), kind
        assert (folder_of(kind) / "__init__.py").read_text(encoding="utf-8").startswith('"""')


@pytest.mark.parametrize("kind", catalog.KINDS)
def test_every_file_that_defines_build_is_a_part(kind: str) -> None:
    files = {f.stem for f in folder_of(kind).glob("*.py") if "\ndef build(" in f.read_text(encoding="utf-8")}
    assert set(catalog.parts(kind)) == files


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_every_part_is_described_in_one_line(kind: str, name: str) -> None:
    line = catalog.parts(kind)[name]
    assert line.endswith(".") or line.endswith("?")
    assert 10 < len(line) <= 120
    assert (catalog.load(kind, name).__doc__ or "").startswith(line)


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_build_and_what_it_takes_are_documented_and_typed(kind: str, name: str) -> None:
    build = catalog.load(kind, name).build
    assert build.__doc__
    signature = inspect.signature(build)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values())


@pytest.mark.parametrize(("kind", "name"), CONFIGURED)
def test_every_part_has_a_frozen_config_with_all_defaults(kind: str, name: str) -> None:
    part = catalog.load(kind, name)
    assert issubclass(part.Config, Settings)
    assert part.Config.__doc__ != Settings.__doc__
    config = part.Config()
    for field in type(config).model_fields:
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            setattr(config, field, getattr(config, field))
    with pytest.raises(pydantic.ValidationError, match="Extra inputs"):
        part.Config(no_such_setting=1)
    assert "config" in inspect.signature(part.build).parameters


@pytest.mark.parametrize(("kind", "name"), CONFIGURED)
def test_every_config_comes_back_from_json_with_the_same_hash(kind: str, name: str) -> None:
    config = catalog.load(kind, name).Config()
    again = type(config)(**config.model_dump(mode="json"))
    assert again == config
    assert hash_of(again) == hash_of(config)


@pytest.mark.parametrize(("kind", "made"), [("recipes", Recipe), ("protocols", Protocol), ("benches", Bench)])
def test_recipes_and_protocols_are_settings_for_parts_that_exist(kind: str, made: type[Settings]) -> None:
    for name in catalog.parts(kind):
        found = catalog.load(kind, name).build()
        assert isinstance(found, made)
        plain = found.model_dump(mode="json")
        assert made(**plain).model_dump(mode="json") == plain
        if isinstance(found, Recipe):
            encoder, _ = checkpoint.build_encoder(found.encoder, found.encoder_settings, seed=0)
            assert found.crops.size >= encoder.smallest_input
        if isinstance(found, Protocol):
            catalog.load("transfer", found.task).Config(**found.head)
            assert found.label == f"{found.name}/v{found.version}"


def test_protocols_are_told_apart_by_their_labels() -> None:
    labels = [catalog.load("protocols", name).build().label for name in catalog.parts("protocols")]
    assert len(set(labels)) == len(labels)


def test_a_new_file_is_a_new_part_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "encoders").mkdir()
    monkeypatch.setattr(catalog, "__file__", str(tmp_path / "catalog.py"))
    assert catalog.parts("encoders") == {}
    (tmp_path / "encoders" / "mine.py").write_text('"""My encoder.\n\nMore."""\n\n\ndef build(config): ...\n')
    (tmp_path / "encoders" / "plain.py").write_text('"""No part: it builds nothing."""\n\nbuild = 3\n')
    (tmp_path / "encoders" / "bare.py").write_text("def build(config): ...\n")
    assert catalog.parts("encoders") == {"bare": "", "mine": "My encoder."}


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("encoders", "alexnt", "There is no encoder 'alexnt': known are alexnet.*Did you mean 'alexnet'"),
        ("pretext", "in-painting", "no pretext task.*Did you mean 'inpainting'"),
        ("transfer", "clss", "no transfer task.*Did you mean 'cls'"),
        ("protocols", "voc07-cls", "no protocol.*Did you mean 'voc07_cls'"),
        ("recipes", "xyzzy", "There is no recipe 'xyzzy': known are [^?]*$"),  # nothing is near
        ("encoders", "__init__", "There is no encoder"),
    ],
)
def test_an_unknown_name_lists_the_known_and_suggests_the_nearest(kind: str, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        catalog.load(kind, name)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [("timm:resnet18", ("timm", "resnet18")), ("shapes", ("shapes", "")), ("folder:C:/x", ("folder", "C:/x"))],
)
def test_a_spec_is_a_name_and_an_argument(spec: str, expected: tuple[str, str]) -> None:
    assert catalog.split_argument(spec) == expected


def test_a_spec_without_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match="':resnet18' names no part"):
        catalog.split_argument(":resnet18")


FOLDERS = ("data", "encoders", "pretext", "transfer", "descriptors", "inpainters")


@pytest.mark.parametrize("own", FOLDERS)
def test_folders_of_parts_never_import_one_another(own: str) -> None:
    for file in folder_of(own).glob("*.py"):
        tree = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        modules = [node.module or "" for node in tree if isinstance(node, ast.ImportFrom)]
        imported = {module.split(".")[1] for module in modules if module.startswith("ssl_inpaint.")}
        assert not imported & (set(FOLDERS) - {own}), file.name


def tiny_encoder() -> AlexNet:
    return AlexNet(AlexNetConfig(channels=(2, 2, 2, 2, 2), stem="7x7/2", normalization="none"))


@pytest.mark.parametrize("name", catalog.parts("pretext"))
def test_a_pretext_has_the_members_of_its_contract(name: str) -> None:
    part = catalog.load("pretext", name)
    encoder: Encoder = tiny_encoder()
    if getattr(part, "NEEDS", "stages") == "patches":  # no convolutional network will do
        encoder, _ = checkpoint.build_encoder("timm:test_vit", {"image_size": "64", "depth": "3"}, seed=0)
    made = part.build(part.Config(), encoder, TrainingFacts(64, classes=2))
    for member in ("players", "losses", "preview", "validate", "encoder"):
        assert hasattr(made, member), member
    for player in made.players().values():
        assert isinstance(player.module, torch.nn.Module)
        assert all(group.learning_rate_ratio > 0 for group in player.groups)


@pytest.mark.parametrize("name", catalog.parts("transfer"))
def test_a_transfer_task_has_the_members_of_its_contract(name: str) -> None:
    part = catalog.load("transfer", name)
    made = part.build(part.Config(), tiny_encoder(), TransferFacts(64, ("a", "b"), False, True))
    assert part.NEEDS in ("labels", "objects", "masks", "features")
    own = ("players", "losses", "top", "outputs" if part.NEEDS == "labels" else "predict", "score")
    if part.NEEDS == "features":  # nothing is trained by the loop
        own = ("measure",)
    for member in ("features", *own, *(["choose"] if getattr(part, "IS_PROBE", False) else [])):
        assert hasattr(made, member), member


def test_choices_in_configs_are_those_of_the_arithmetic() -> None:
    from ssl_inpaint.pretext import inpainting
    from ssl_inpaint.transfer import cls

    assert get_args(inpainting.Config.model_fields["holes"].annotation) == holes.KINDS
    kinds = get_args(cls.Config.model_fields["average_precision"].annotation)
    assert set(kinds) == set(get_args(metrics.ApKind))
