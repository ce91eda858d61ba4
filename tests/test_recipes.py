"""Recipes, protocols and plans: they build, fit their encoders, and change only with their version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ssl_inpaint import catalog, checkpoint, config, files
from ssl_inpaint.batches import Crops
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment.pretrain import plan_pretraining
from ssl_inpaint.plans import PLAN_FILE, PretrainPlan, Protocol, Recipe, RetrievalConfig, TransferPlan, read_plan
from ssl_inpaint.train import FitConfig

RECIPES, PROTOCOLS = list(catalog.parts("recipes")), list(catalog.parts("protocols"))
# Protocol and version to the hash of all that it says: see the test of it.
PINNED = {
    "quick-cls/v1": "91b56be59c15",
    "compact-cls/v1": "c3ee4a6fd046",
    "voc07-cls/v1": "74da919efb7e",
    "patches/v1": "31fabc6b7ca8",
    "compact-det/v1": "88a5feca7b5f",
    "compact-seg/v1": "0c90a3392254",
    "quick-det/v1": "862fcc760bde",
    "quick-seg/v1": "3d8b75643667",
    "voc07-det/v1": "bdc9c948a2a6",
    "voc12-seg/v1": "9eb0ddc603c9",
    "compact-linear/v1": "4a5500a39061",
    "colorization-linear/v1": "2cd9452c4663",
    "compact-knn/v1": "3a93b194988a",
    "dino-knn/v1": "44313f5032d5",
    "compact-svm/v1": "db68ef774623",
    "voc07-svm/v1": "0a6a9059d526",
}


def _protocol(name: str) -> Protocol:
    built: Protocol = catalog.load("protocols", name).build()
    return built


def _plan() -> PretrainPlan:
    return PretrainPlan(
        **{"data": "shapes", "encoder": "alexnet", "pretext": "inpainting", "recipe": "own", "seed": 3},
        **{"crops": Crops(size=64), "train": FitConfig(steps=7), "pretext_config": {"holes": "region"}},
    )


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_build_and_their_crops_suit_the_encoder(name: str) -> None:
    recipe: Recipe = catalog.load("recipes", name).build()
    encoder, _ = checkpoint.build_encoder(recipe.encoder, recipe.encoder_settings, seed=0)
    assert encoder.smallest_input <= recipe.crops.size <= recipe.crops.store_size
    assert recipe.train.warmup_steps < recipe.train.steps


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_build_and_their_heads_are_settings_of_their_task(name: str) -> None:
    protocol = _protocol(name)
    head = config.check(catalog.load("transfer", protocol.task).Config, "head", protocol.head)
    assert {key: getattr(head, key) for key in protocol.head} == protocol.head
    assert protocol.label == f"{protocol.name}/v{protocol.version}" and protocol.name.replace("-", "_") == name


def test_the_papers_protocol_suits_alexnet_and_the_compact_one_the_compact_encoder() -> None:
    for name, spec in (("voc07_cls", "alexnet"), ("compact_cls", "compact_alexnet")):
        encoder, _ = checkpoint.build_encoder(spec, {}, seed=0)
        assert _protocol(name).crops.size >= encoder.smallest_input


def test_labels_are_unique() -> None:
    labels = [_protocol(name).label for name in PROTOCOLS]
    assert len(set(labels)) == len(labels)


def test_voc07_classification_is_that_of_the_reference_code() -> None:
    """philkr/voc-classification: 80,000 times 16, SGD 1e-3 halved every 10,000, clip 10, biases twice as fast."""
    protocol = _protocol("voc07_cls")
    for loop in (protocol.train, protocol.frozen_train):
        assert (loop.steps, loop.batch_size, loop.optimizer) == (80_000, 16, "sgd")
        assert (loop.learning_rate, loop.beta1, loop.weight_decay) == (1e-3, 0.9, 1e-6)
        assert (loop.schedule, loop.decay_every_steps, loop.decay_factor) == ("step", 10_000, 0.5)
        assert (loop.clip_norm, loop.warmup_steps) == (10.0, 0)
    head = config.check(catalog.load("transfer", "cls").Config, "head", protocol.head).model_dump()
    assert (head["hidden"], head["grid"], head["dropout"]) == ((4096, 4096), 6, 0.5)
    assert (head["initial_deviation"], head["bias_learning_rate_ratio"]) == (0.01, 2.0)
    assert protocol.crops.size == 227 and protocol.test_views == "ten" and protocol.learning_rates == ()


def test_voc07_detection_is_that_of_the_reference_code() -> None:
    """rbgirshick/fast-rcnn, CaffeNet: 40,000 times 2 images of 64 regions, SGD 1e-3 over ten after 30,000."""
    protocol = _protocol("voc07_det")
    loop, scenes = protocol.train, protocol.scenes
    assert (loop.steps, loop.batch_size, loop.optimizer) == (40_000, 2, "sgd")
    assert (loop.learning_rate, loop.beta1, loop.weight_decay) == (1e-3, 0.9, 5e-4)
    assert (loop.schedule, loop.decay_every_steps, loop.decay_factor) == ("step", 30_000, 0.1)
    assert scenes is not None and (scenes.sides, scenes.test_side, scenes.longest) == ((600,), 600, 1000)
    assert scenes.flip and protocol.proposals is not None and protocol.proposals.most == 2000
    head = config.check(catalog.load("transfer", "det").Config, "head", protocol.head).model_dump()
    assert (head["detector"], head["pooling"], head["grid"], head["largest_stride"]) == ("fast", "max", 6, 16)
    assert (head["regions_per_image"], head["foreground_share"], head["foreground_overlap"]) == (64, 0.25, 0.5)
    assert (head["least_background_overlap"], head["suppression_overlap"]) == (0.1, 0.3)
    assert head["fixed"] == () and head["hidden"] == (4096, 4096)


def test_voc12_segmentation_is_that_of_the_reference_code() -> None:
    """shelhamer/fcn.berkeleyvision.org, voc-fcn-alexnet: 100,000 times 20, SGD 1e-4 throughout, fc6 of 6 x 6."""
    protocol = _protocol("voc12_seg")
    loop = protocol.train
    assert (loop.steps, loop.batch_size, loop.optimizer) == (100_000, 20, "sgd")
    assert (loop.learning_rate, loop.beta1, loop.weight_decay, loop.schedule) == (1e-4, 0.9, 5e-4, "constant")
    head = config.check(catalog.load("transfer", "seg").Config, "head", protocol.head).model_dump()
    assert (head["kernel"], head["hidden"], head["skips"], head["largest_stride"]) == (6, (4096, 4096), 0, 32)


def _contents() -> dict[str, str]:
    contents = {"patches/v1": config.hash_of(RetrievalConfig())}
    for name in PROTOCOLS:
        protocol = _protocol(name)
        head = config.check(catalog.load("transfer", protocol.task).Config, "head", protocol.head)
        proposals = [protocol.proposals] if protocol.proposals else []
        contents[protocol.label] = config.hash_of(protocol.model_copy(update={"head": {}}).identity(), head, *proposals)
    return contents


def test_a_protocol_changes_only_with_its_version() -> None:
    """Numbers under one label must be comparable, so all settings behind a label are pinned by their hash.

    Where this fails, a setting of a protocol was changed: its own, or a default that it takes over (of FitConfig,
    Crops, Protocol, the transfer task's Config, RetrievalConfig; a new field changes it too). If records under that
    label have been published, raise the version and pin the new label as well; otherwise, or if the change cannot alter
    a number, pin the hash that is shown. Versions that are no longer built may stay here as a memory.
    """
    contents = _contents()
    assert contents == {label: PINNED.get(label, "missing") for label in contents}


def test_learning_rates_to_try_are_positive() -> None:
    with pytest.raises(UsageError, match=r"learning_rates\.1 = -0\.1: input should be greater than 0"):
        config.override(_protocol("compact_cls"), "protocol", {"learning_rates": "0.1,-0.1"})


def test_a_plan_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    files.write_json(tmp_path / PLAN_FILE, {"schema": 1, **_plan().model_dump(mode="json")})
    assert read_plan(PretrainPlan, tmp_path) == _plan()


def test_a_plan_with_a_protocol_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    protocol = _protocol("compact_cls")
    head = config.check(catalog.load("transfer", protocol.task).Config, "head", protocol.head).model_dump(mode="json")
    plan = TransferPlan(
        **{"data": "shapes", "source": "random:alexnet", "mode": "frozen", "protocol_label": protocol.label},
        protocol=protocol.model_copy(update={"head": head}),
    )
    files.write_json(tmp_path / PLAN_FILE, {"schema": 1, **plan.model_dump(mode="json")})
    assert read_plan(TransferPlan, tmp_path) == plan


@pytest.mark.parametrize("content", [None, "", "{", b"\xff\xfe"])
def test_a_folder_without_a_plan_is_no_run(tmp_path: Path, content: Any) -> None:
    if content is not None:
        (tmp_path / PLAN_FILE).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=r"is no run folder \(config\.json cannot be read\)"):
        read_plan(PretrainPlan, tmp_path)


@pytest.mark.parametrize("content", [[1], 3, {}, {"schema": 2, **_plan().model_dump(mode="json")}])
def test_a_plan_of_another_schema_is_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / PLAN_FILE).write_text(json.dumps(content))
    with pytest.raises(UsageError, match="no plan of schema 1"):
        read_plan(PretrainPlan, tmp_path)


def test_a_plan_of_another_verb_is_refused(tmp_path: Path) -> None:
    files.write_json(tmp_path / PLAN_FILE, {"schema": 1, **_plan().model_dump(mode="json")})
    with pytest.raises(UsageError, match="holds a run of 'pretrain', not of 'transfer': ssl-inpaint pretrain goes on"):
        read_plan(TransferPlan, tmp_path)


def test_plans_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        _plan().seed = 4  # type: ignore[misc]


def test_the_papers_recipe_drops_half_of_the_channelwise_layer_and_the_compact_one_nothing() -> None:
    def dropout(recipe: str, pretext: str = "inpainting") -> float:
        return plan_pretraining("shapes", pretext, recipe, None, {}, 0).pretext_config["dropout"]

    assert (dropout("paper"), dropout("compact"), dropout("paper", "autoencoder")) == (0.5, 0.0, 0.5)
    changed = plan_pretraining("shapes", "inpainting", "paper", None, {"pretext": {"dropout": "0.1"}}, 0)
    assert (changed.pretext_config["dropout"], changed.pretext_config["decoder_normalization"]) == (0.1, "none")
