"""Probes of frozen features: linear, nearest neighbours, support vectors, each against a second implementation."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC
from torch import Tensor

from ssl_inpaint import catalog, cells, checkpoint, config, metrics, tables, train
from ssl_inpaint.batches import Crops, FeatureBatches, ImageBatches, fixed_views
from ssl_inpaint.core import Described, Encoder, Stage, TransferFacts
from ssl_inpaint.data import shapes
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment import data, transfer
from ssl_inpaint.plans import Protocol
from ssl_inpaint.records import Ledger, Record
from ssl_inpaint.runtime import Runtime
from ssl_inpaint.train import FitConfig
from ssl_inpaint.transfer import knn, linear, machines, pooling, svm

CPU = Runtime(torch.device("cpu"), is_bf16=False)
CLASSES = ("bird", "boat", "bus")
WEIGHT_DECAY = 0.05
TASKS = {  # settings with which each probe of a tiny data set takes a moment
    "linear": {
        "head": {"features": "16", "stages": "conv1,pool5"},
        "train": {"steps": "6", "batch_size": "8"},
        "protocol": {"learning_rates": "0.01,1", "cached_views": "1", "test_views": "centre"},
    },
    "knn": {"head": {"k": "1,3,5"}},
    "svm": {"head": {"features": "16", "costs": "0.01,1", "shots": "1,2,50", "samples": "3"}},
}
Settings = Mapping[str, Mapping[str, str]]


class Two(Encoder):
    """The image as it is, and averaged over 4 x 4 pixels: what a probe reads is known."""

    stages = {"near": Stage(3, 1), "far": Stage(3, 4)}
    smallest_input = 4

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"near": images, "far": torch.nn.functional.avg_pool2d(images, 4)}


def facts(is_multilabel: bool = False, rates: tuple[float, ...] = (), **changes: object) -> TransferFacts:
    given = TransferFacts(8, CLASSES, is_multilabel, True, learning_rates=rates)
    return dataclasses.replace(given, **changes)  # type: ignore[arg-type]


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def clouds(count: int, width: int = 6, seed: int = 0, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """N x D vectors around one centre a class, which overlap."""
    generator = draws(seed)
    labels = generator.integers(0, 3, count)
    vectors = draws(99).normal(size=(3, width))[labels] + spread * generator.normal(size=(count, width))
    return torch.from_numpy(vectors).float(), torch.from_numpy(labels)


def several(labels: Tensor, seed: int = 1) -> Tensor:
    """N x K labels of 1, 0 and 255 that have to do with single ones."""
    found = torch.nn.functional.one_hot(labels, 3)
    generator = torch.Generator().manual_seed(seed)
    found[torch.rand(found.shape, generator=generator) < 0.1] = 1
    found[torch.rand(found.shape, generator=generator) < 0.1] = 255
    return found


# Pooling


def test_the_sizes_of_alexnets_layers_are_those_of_split_brain() -> None:
    """feature_learning_tests/linear: 10, 6, 5, 5, 6 cells a side for conv1 to conv5; pool1 10, pool2 6, pool5 as is."""
    encoder, _ = checkpoint.build_encoder("alexnet", {}, seed=0)
    stages = tuple(encoder.stages)
    found = pooling.described(encoder.eval(), torch.rand(1, 3, 227, 227), stages, pooling.PoolingConfig())
    sides = {name: maps.shape[-1] for name, maps in found.items()}
    assert sides == dict(zip(stages, (10, 10, 6, 6, 5, 5, 6, 6), strict=True))
    assert [maps[0].numel() for maps in found.values()] == [9600, 9600, 9216, 9216, 9600, 9600, 9216, 9216]


@pytest.mark.parametrize(("features", "side"), [(1, 1), (4, 1), (16, 2), (37, 3), (10_000, 5)])
def test_a_map_is_never_enlarged_nor_empty(features: int, side: int) -> None:
    maps = torch.rand(2, 4, 5, 5)
    assert pooling.pooled(maps, pooling.PoolingConfig(features=features)).shape == (2, 4, side, side)


def test_pooling_averages_takes_the_largest_or_resizes() -> None:
    maps = torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]).view(1, 1, 4, 4)

    def found(kind: str) -> list[float]:
        values = {"features": 4, "pooling": kind}
        return pooling.pooled(maps, pooling.PoolingConfig(**values)).flatten().tolist()

    assert found("average") == found("bilinear") == [2.5, 4.5, 10.5, 12.5]  # halving: both look at 2 x 2
    assert found("max") == [5, 7, 13, 15]


# Linear


def fitted(
    vectors: Tensor, labels: Tensor, rates: tuple[float, ...], steps: int = 40, stages: str = "near", batch: int = 16
) -> linear.LinearProbes:
    """Probes trained by the loop on features that are given: D channels of one cell."""
    objective = linear.build(linear.Config(stages=tuple(stages.split())), Two(), facts(labels.ndim == 2, rates))
    shape = torch.Size([vectors.shape[1], 1, 1])
    objective.heads = {name: linear.Heads(shape, 3, len(rates or (1.0,))) for name in objective.stages}
    cached = {name: (vectors * (1 + i)).view(len(vectors), 1, -1, 1, 1) for i, name in enumerate(objective.stages)}
    loop = FitConfig(
        **{"steps": steps, "batch_size": batch, "optimizer": "sgd", "schedule": "constant", "learning_rate": 1.0},
        **{"weight_decay": WEIGHT_DECAY, "precision": "fp32"},
    )
    train.fit(objective, FeatureBatches(cached, labels, loop.batch_size, 0), loop, seed=0, runtime=CPU)
    return objective


def standardised(vectors: Tensor) -> np.ndarray:
    """As BatchNorm does in training, when the batch is everything."""
    exact = vectors.double().numpy()
    return (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)


def test_a_trained_probe_is_scikit_learns_logistic_regression() -> None:
    vectors, labels = clouds(60)
    heads = fitted(vectors, labels, (0.3,), steps=120, batch=60).heads["near"]
    other = LogisticRegression(C=1 / (WEIGHT_DECAY * 60), tol=1e-8, max_iter=1000)
    other.fit(standardised(vectors), labels.numpy())
    np.testing.assert_allclose(heads.weights[0].detach(), other.coef_, atol=2e-3)  # the last steps in float32
    bias = heads.biases[0].detach().numpy()
    np.testing.assert_allclose(bias - bias.mean(), other.intercept_ - other.intercept_.mean(), atol=2e-3)


def test_with_several_classes_an_image_each_is_a_regression_on_what_counts() -> None:
    vectors, single = clouds(60)
    labels = several(single)
    heads = fitted(vectors, labels, (1.0,), steps=120, batch=60).heads["near"]
    inputs, counted = standardised(vectors), labels.numpy() != 255
    for place in range(3):
        other = LogisticRegression(C=1 / (WEIGHT_DECAY * counted.sum()), tol=1e-8, max_iter=1000)
        rows = counted[:, place]
        other.fit(inputs[rows], labels.numpy()[rows, place])
        np.testing.assert_allclose(heads.weights[0][place].detach(), other.coef_[0], atol=2e-3)


@pytest.mark.parametrize("is_multilabel", [False, True])
def test_heads_trained_at_once_are_those_trained_alone(is_multilabel: bool) -> None:
    """All stages and learning rates together, against each by itself: equal to rounding."""
    vectors, labels = clouds(50)
    labels = several(labels) if is_multilabel else labels
    rates = (0.001, 0.03, 0.5)
    together = fitted(vectors, labels, rates, stages="near far")
    alone = [fitted(vectors, labels, (rate,), stages="near far") for rate in rates]
    for stage in ("near", "far"):
        for place, one in enumerate(alone):
            for kind in ("weights", "biases"):
                ours, theirs = (getattr(made.heads[stage], kind) for made in (together, one))
                ours, theirs = ours[place].detach(), theirs[0].detach()
                # A product with more columns may be summed in another order, and large rates carry that on.
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
                assert theirs.abs().max() > 0
        torch.testing.assert_close(together.heads[stage].norm.running_mean, alone[0].heads[stage].norm.running_mean)


def test_each_head_has_its_rate_and_only_weights_decay() -> None:
    objective = linear.build(linear.Config(bias_learning_rate_ratio=2.0), Two(), facts(rates=(0.1, 3.0)))
    players = objective.players()
    assert list(players) == ["near", "far"]
    for player in players.values():
        rates = [(group.learning_rate_ratio, group.weight_decay_ratio) for group in player.groups]
        assert rates == [(0.1, 1.0), (0.2, 0.0), (3.0, 1.0), (6.0, 0.0)]
        held = [p for group in player.groups for p in group.parameters]
        assert len(held) == len(list(player.module.parameters()))


def test_scores_are_named_by_stage_and_by_rate_while_there_are_several() -> None:
    objective = linear.build(linear.Config(), Two(), facts(rates=(0.1, 3.0)))
    labels = np.array([0, 1, 2, 2])
    outputs = np.zeros((4, 4, 3))
    for head, right in enumerate((4, 2, 3, 1)):  # near at both rates, then far
        outputs[np.arange(4), head, np.where(np.arange(4) < right, labels, (labels + 1) % 3)] = 1
    scores = objective.score(outputs, labels)
    names = [f"accuracy {stage} at {rate}" for stage in ("near", "far") for rate in ("0.1", "3")]
    assert scores == dict(zip(names, (1.0, 0.5, 0.75, 0.25), strict=True))
    chosen = objective.choose(scores)
    assert chosen == {"near": 0.1, "far": 0.1}
    again = linear.build(linear.Config(), Two(), facts(rates=(0.1, 3.0), choices=chosen))
    assert again.score(outputs[:, :2], labels) == {"accuracy near": 1.0, "accuracy far": 0.5}


def test_equal_learning_rates_are_settled_for_the_first() -> None:
    objective = linear.build(linear.Config(stages=("far",)), Two(), facts(rates=(0.1, 1.0, 3.0)))
    scores = {"accuracy far at 0.1": 0.2, "accuracy far at 1": 0.5, "accuracy far at 3": 0.5}
    assert objective.choose(scores) == {"far": 1.0}


def test_with_several_classes_every_head_has_a_mean_and_every_class_its_own() -> None:
    objective = linear.build(linear.Config(), Two(), facts(is_multilabel=True))
    labels = np.array([[1, 0, 1], [0, 1, 255], [1, 1, 0]])
    outputs = np.stack([np.where(labels == 1, 3.0, -3.0), np.where(labels == 1, -3.0, 3.0)], axis=1)
    scores = objective.score(outputs, labels)
    worst = metrics.mean_average_precision(outputs[:, 1], labels, "step")[0]
    assert (scores["mAP (step) near"], scores["mAP (step) far"]) == (1.0, worst)
    assert [name for name in scores if ":" in name] == [f"AP (step) {s}: {c}" for s in ("near", "far") for c in CLASSES]


def test_a_probe_trains_no_encoder() -> None:
    objective = linear.build(linear.Config(), Two(), facts())
    assert all(p is not objective.encoder.unused for player in objective.players().values() for p in player.groups)
    assert not any(maps.requires_grad for maps in objective.features(torch.rand(2, 3, 8, 8)).values())
    ((_, first), (_, second)) = objective.losses(
        train.Batch(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])), torch.Generator()
    )
    assert first.requires_grad and second.requires_grad


# Nearest neighbours


def described(count: int, seed: int, is_multilabel: bool = False, stages: tuple[str, ...] = ("far",)) -> Described:
    vectors, labels = clouds(count, seed=seed)
    features = {name: vectors * draws(3).uniform(0.5, 2, 6).astype(np.float32) ** i for i, name in enumerate(stages)}
    return Described(features, several(labels, seed) if is_multilabel else labels)


def naive_votes(query: np.ndarray, gallery: np.ndarray, labels: np.ndarray, k: int, temperature: float) -> np.ndarray:
    """One query's N x K labels (255 not counted), neighbour by neighbour."""
    similarities = gallery @ query / (np.linalg.norm(gallery, axis=1) * np.linalg.norm(query))
    nearest = sorted(range(len(gallery)), key=lambda i: -similarities[i])[:k]
    shares = []
    for place in range(labels.shape[1]):
        counted = [i for i in nearest if labels[i, place] != 255]
        total = sum(np.exp(similarities[i] / temperature) for i in counted)
        yes = sum(np.exp(similarities[i] / temperature) for i in counted if labels[i, place] == 1)
        shares.append(yes / total if total else 0.0)
    return np.array(shares)


@pytest.mark.parametrize("is_multilabel", [False, True])
def test_neighbours_score_as_counted_one_by_one(is_multilabel: bool) -> None:
    known, asked = described(40, 1, is_multilabel), described(15, 2, is_multilabel)
    probe = knn.build(knn.Config(k=(1, 7)), Two(), facts(is_multilabel))
    scores = probe.measure(known, asked, {"k": 7.0}, torch.Generator())
    several_labels = known.labels if is_multilabel else torch.nn.functional.one_hot(known.labels, 3)
    for k in (1, 7):
        vectors = known.features["far"].double().numpy()
        shares = np.stack(
            [naive_votes(q, vectors, several_labels.numpy(), k, 0.07) for q in asked.features["far"].double().numpy()]
        )
        truth = asked.labels.numpy()
        if is_multilabel:
            assert scores[f"mAP (step) k={k}"] == metrics.mean_average_precision(shares, truth, "step")[0]
        else:
            assert scores[f"accuracy k={k}"] == (shares.argmax(1) == truth).mean()
    kind = "mAP (step)" if is_multilabel else "accuracy"
    assert list(scores) == [kind, f"{kind} k=1", f"{kind} k=7"] and scores[kind] == scores[f"{kind} k=7"]


@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_votes_are_those_of_scikit_learn(k: int, temperature: float) -> None:
    known, asked = described(40, 1), described(15, 2)
    unit = [torch.nn.functional.normalize(one.features["far"].double(), dim=1) for one in (known, asked)]

    def weighing(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / temperature)

    other = KNeighborsClassifier(k, weights=weighing, metric="cosine", algorithm="brute")
    expected = other.fit(unit[0].numpy(), known.labels.numpy()).predict_proba(unit[1].numpy())
    similarities = unit[1] @ unit[0].T
    best, places = similarities.topk(k, dim=1)
    found = knn.votes(best, known.labels[places], 3, temperature)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_votes_by_hand() -> None:
    similarities = torch.tensor([[0.9, 0.9, 0.9]])
    single = knn.votes(similarities, torch.tensor([[2, 0, 2]]), 3, 0.07)
    torch.testing.assert_close(single, torch.tensor([[1 / 3, 0, 2 / 3]], dtype=torch.float64))
    labels = torch.tensor([[[1, 0, 255], [0, 255, 255], [1, 1, 255]]])
    shares = knn.votes(similarities, labels, 3, 0.07)
    torch.testing.assert_close(shares, torch.tensor([[2 / 3, 1 / 2, 0]], dtype=torch.float64))


def test_a_tiny_temperature_leaves_the_nearest_alone() -> None:
    shares = knn.votes(torch.tensor([[0.9, 0.5, 0.4]]), torch.tensor([[1, 0, 0]]), 3, 1e-6)
    assert shares.tolist() == [[0.0, 1.0, 0.0]]


def test_the_number_of_neighbours_is_the_best_on_val() -> None:
    known, val = described(40, 1, stages=("near", "far")), described(30, 2, stages=("near", "far"))
    probe = knn.build(knn.Config(k=(1, 3, 9, 40), stages=("near", "far")), Two(), facts())
    best, scores = probe.choose(known, val, torch.Generator())
    for stage in ("near", "far"):
        by_k = {k: scores[f"accuracy {stage} k={k}"] for k in (1, 3, 9, 40)}
        assert by_k[int(best[f"k {stage}"])] == max(by_k.values())


def test_more_neighbours_than_images_are_refused() -> None:
    with pytest.raises(UsageError, match=r"head\.k = 200: there are 199 images"):
        knn.build(knn.Config(), Two(), facts(examples=199))
    knn.build(knn.Config(), Two(), facts(examples=200))


# Support vectors


def plain_machine(cost: float, seed: int = 0) -> LinearSVC:
    """As tools/svm of fair_self_supervision_benchmark makes it."""
    return LinearSVC(
        **{"C": cost, "class_weight": {1: 2, -1: 1}, "intercept_scaling": 1.0, "loss": "squared_hinge"},
        **{"tol": 1e-4, "dual": True, "max_iter": 2000, "random_state": seed},
    )


SOLVER = machines.Solver(2.0, 2000, True, 0)


@pytest.mark.parametrize("cost", [0.01, 1.0, 30.0])
def test_a_machine_is_the_references(cost: float) -> None:
    vectors, labels = clouds(60)
    unit, positive = machines.normalised(vectors), (labels == 1).long().numpy()
    positive[::7] = 255
    machine = machines.fit(unit, positive, cost, SOLVER)
    counted = positive != 255
    other = plain_machine(cost).fit(unit[counted], np.where(positive[counted] == 1, 1, -1))
    np.testing.assert_allclose(machines.decide(unit, machine[None])[:, 0], other.decision_function(unit), atol=1e-12)
    np.testing.assert_allclose(
        machines.fit(unit, positive, cost, dataclasses.replace(SOLVER, is_dual=False)), machine, rtol=0.02, atol=0.02
    )


def test_vectors_have_a_length_just_below_one() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-5, 0.0]])
    np.testing.assert_allclose(machines.normalised(vectors), [[3 / 5.00001, 4 / 5.00001], [0, 0], [0.5, 0]], rtol=1e-5)


def test_a_machine_tells_two_points_apart_by_hand() -> None:
    """At +1 and -1 with a huge cost the margin is met: decision x, of the weight 1 and no intercept."""
    machine = machines.fit(np.array([[1.0], [-1.0]]), np.array([1, 0]), 1e4, SOLVER)
    np.testing.assert_allclose(machine, [1.0, 0.0], atol=1e-3)


@pytest.mark.parametrize("value", [0, 1, 255])
def test_a_class_with_nothing_to_tell_apart_is_given_up(value: int) -> None:
    assert not machines.fit(np.ones((4, 2)), np.full(4, value), 1.0, SOLVER).any()
    assert list(machines.folds(np.full(4, value), 3)) == []


def test_what_is_difficult_counts_nowhere() -> None:
    vectors, labels = clouds(40)
    unit, positive = machines.normalised(vectors), (labels == 0).long().numpy()
    positive[:5] = 255
    plain = machines.fit(unit, positive, 1.0, SOLVER)
    unit[:5] = 100.0
    np.testing.assert_array_equal(machines.fit(unit, positive, 1.0, SOLVER), plain)
    splits = list(machines.folds(positive, 3))
    assert sorted(np.concatenate([scored for _, scored in splits])) == list(range(5, 40))
    assert all(not set(fitted) & set(scored) and min(fitted) >= 5 for fitted, scored in splits)


@pytest.mark.parametrize(("positives", "count"), [(1, 0), (2, 2), (3, 3), (9, 3)])
def test_there_are_fewer_folds_for_fewer_examples(positives: int, count: int) -> None:
    labels = np.array([1] * positives + [0] * 10)
    splits = list(machines.folds(labels, 3))
    assert len(splits) == count and all(labels[scored].any() for _, scored in splits)


def test_costs_are_those_of_scikit_learns_cross_validation() -> None:
    train_part, val = described(60, 1, True), described(30, 2, True)
    costs = (0.001, 0.1, 10.0)
    probe = svm.build(svm.Config(costs=costs, shots=()), Two(), facts(True))
    chosen, scores = probe.choose(train_part, val, torch.Generator().manual_seed(0))
    unit = machines.normalised(torch.cat([train_part.features["far"], val.features["far"]]))
    labels = torch.cat([train_part.labels, val.labels]).numpy()
    for place, name in enumerate(CLASSES):
        rows = labels[:, place] != 255
        targets = np.where(labels[rows, place] == 1, 1, -1)
        by_cost = {
            cost: cross_val_score(plain_machine(cost), unit[rows], targets, cv=3, scoring="average_precision").mean()
            for cost in costs
        }
        assert scores[f"cost: {name}"] == pytest.approx(max(by_cost.values()), abs=1e-3)  # seeds differ
        assert by_cost[chosen[f"cost: {name}"]] == pytest.approx(max(by_cost.values()), abs=1e-3)


def test_the_score_is_that_of_machines_fitted_to_all() -> None:
    known, asked = described(60, 1, True), described(30, 2, True)
    probe = svm.build(svm.Config(shots=()), Two(), facts(True))
    choices = {"cost: bird": 0.1, "cost: boat": 1.0, "cost: bus": 10.0}
    scores = probe.measure(known, asked, choices, torch.Generator())
    unit, others = (machines.normalised(one.features["far"]) for one in (known, asked))
    each = []
    for place, cost in enumerate(choices.values()):
        rows = known.labels[:, place].numpy() != 255
        other = plain_machine(cost).fit(unit[rows], np.where(known.labels[:, place].numpy()[rows] == 1, 1, -1))
        each.append(metrics.average_precision(other.decision_function(others), asked.labels[:, place].numpy(), "area"))
    assert scores["mAP (area)"] == pytest.approx(np.mean(each), abs=1e-3)
    assert list(scores) == ["mAP (area)", *(f"AP (area): {name}" for name in CLASSES)]


def test_one_class_an_image_has_one_cost_and_accuracy() -> None:
    known, val = described(60, 1), described(30, 2)
    probe = svm.build(svm.Config(costs=(1e-6, 1.0), shots=(2,), samples=2), Two(), facts())
    chosen, scores = probe.choose(known, val, torch.Generator().manual_seed(0))
    assert chosen.keys() == {"cost", "cost k=2"} == scores.keys()
    found = probe.measure(known, val, chosen, torch.Generator().manual_seed(0))
    assert list(found) == ["accuracy", "accuracy k=2", "accuracy k=2, deviation"]
    assert min(found["accuracy"], found["accuracy k=2"]) > 0.5  # by chance a third
    unit, others = (machines.normalised(one.features["far"]) for one in (known, val))
    fitted_machines = [plain_machine(chosen["cost"]).fit(unit, np.where(known.labels == k, 1, -1)) for k in range(3)]
    outputs = np.stack([machine.decision_function(others) for machine in fitted_machines], axis=1)
    assert found["accuracy"] == (outputs.argmax(1) == val.labels.numpy()).mean()


def test_few_examples_are_k_of_each_class_and_k_of_every_other() -> None:
    labels = several(clouds(90)[1]).numpy()
    probe = svm.build(svm.Config(shots=(1, 4, 1000), samples=3), Two(), facts(True))
    drawn = probe._drawn(labels, torch.Generator().manual_seed(0))
    assert list(drawn) == [1, 4] and all(len(of_k) == 3 for of_k in drawn.values())
    for k, of_k in drawn.items():
        for draw in of_k:
            assert ((draw == 1).sum(0) == k).all() and ((draw == 0).sum(0) == 2 * k).all()
            assert (draw[draw != 255] == labels[draw != 255]).all()
        assert any((of_k[0] != other).any() for other in of_k[1:])
    again = probe._drawn(labels, torch.Generator().manual_seed(0))
    assert all((one == other).all() for k in drawn for one, other in zip(drawn[k], again[k], strict=True))


def test_few_images_of_one_class_each_serve_all_machines() -> None:
    labels = torch.nn.functional.one_hot(clouds(60)[1], 3).numpy()
    probe = svm.build(svm.Config(shots=(4,), samples=2), Two(), facts())
    for draw in probe._drawn(labels, torch.Generator().manual_seed(0))[4]:
        rows = (draw != 255).all(axis=1)
        assert rows.sum() == 12 and (draw[rows].sum(0) == 4).all() and (draw[~rows] == 255).all()


def test_a_class_with_too_few_examples_ends_the_series() -> None:
    labels = np.array([[1, 0, 0]] * 5 + [[0, 1, 0]] * 5 + [[0, 0, 1]] * 3)
    probe = svm.build(svm.Config(shots=(2, 3, 4)), Two(), facts(True))
    assert list(probe._drawn(labels, torch.Generator())) == [2, 3]
    even = np.array([[1, 0, 0]] * 3 + [[0, 1, 0]] * 3 + [[0, 0, 1]] * 3)
    assert list(probe._drawn(even, torch.Generator())) == [2]  # with 3, nothing is left to choose a cost on


def test_mean_and_deviation_are_over_the_draws() -> None:
    known, asked = described(60, 1, True), described(30, 2, True)
    probe = svm.build(svm.Config(shots=(3,), samples=4), Two(), facts(True))
    choices = dict.fromkeys([*(f"cost: {name}" for name in CLASSES), "cost k=3"], 1.0)
    found = probe.measure(known, asked, choices, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    solver = probe._solver(generator)
    unit, others = (machines.normalised(one.features["far"]) for one in (known, asked))
    scores = []
    for draw in probe._drawn(known.labels.numpy(), generator)[3]:
        fitted_machines = np.stack([machines.fit(unit, of_class, 1.0, solver) for of_class in draw.T])
        outputs = machines.decide(others, fitted_machines)
        scores.append(metrics.mean_average_precision(outputs, asked.labels.numpy(), "area")[0])
    assert found["mAP (area) k=3"] == pytest.approx(np.mean(scores))
    assert found["mAP (area) k=3, deviation"] == pytest.approx(np.std(scores, ddof=1)) and np.std(scores) > 0


# Whole runs


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("SSL_INPAINT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One data set with several classes an image and one with one, each also with other labels in test."""
    root = tmp_path_factory.mktemp("data")
    made = shapes.make_shapes(root / "several", shapes.Config(train=30, val=20, test=20))
    shutil.copytree(made, root / "several-other")
    swap = {"<name>star</name>": "<name>leaf</name>", "<name>leaf</name>": "<name>star</name>"}
    for file in (root / "several-other" / "VOCdevkit" / "VOC2007" / "Annotations").glob("3*.xml"):
        file.write_text(re.sub("|".join(swap), lambda found: swap[found[0]], file.read_text()))
    colours = {"blue": (60, 80, 160), "green": (70, 120, 80), "red": (130, 70, 70)}
    for split, count in (("train", 8), ("val", 6), ("test", 6)):
        for place, (name, colour) in enumerate(colours.items()):
            others = {"single": name, "single-other": name if split != "test" else [*colours][(place + 1) % 3]}
            for other, folder in others.items():
                (root / other / split / folder).mkdir(parents=True)
                for i in range(count):
                    pixels = np.array(colour) + draws(100 * place + i).normal(0, 60, (1, 1, 3))
                    pixels = pixels + draws(i).normal(0, 20, (24, 24, 3))
                    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
                    image.save(root / other / split / folder / f"{split}{i}.png")
    specs = {name: f"shapes:{root / name}" for name in ("several", "several-other")}
    return specs | {name: f"imagefolder:{root / name}" for name in ("single", "single-other")}


def run_probe(
    spec: str, task: str, folder: Path, settings: Settings | None = None, ledger: Ledger | None = None
) -> transfer.Transferred:
    crops = {"size": "64", "store_size": "64", "smallest_share": "1", "largest_share": "1", "flip": "false"}
    plain = {"encoder": {"channels": "8,8,8,8,8"}, "crops": crops, **TASKS[task]}
    plan = transfer.plan_transfer(
        spec, "random:compact_alexnet", task, "frozen", None, {**plain, **(settings or {})}, 0
    )
    return transfer.transfer(plan, folder, CPU, ledger)


@pytest.mark.parametrize("labels", ["several", "single"])
@pytest.mark.parametrize("task", TASKS)
def test_a_probe_of_an_encoder_gives_records_and_no_choice_depends_on_test(
    task: str, labels: str, sets: dict[str, str], tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "measured.jsonl")
    made = run_probe(sets[labels], task, tmp_path / "run", ledger=ledger)
    other = run_probe(sets[f"{labels}-other"], task, tmp_path / "other")
    assert made.choices == other.choices and made.choices and made.scores != other.scores
    tuning = [json.loads((tmp_path / name / "scores.json").read_text())["tuning"] for name in ("run", "other")]
    assert tuning[0] == tuning[1] and tuning[0]["val"]
    kind = {"linear": "step", "knn": "step", "svm": "area"}[task]
    kind = f"mAP ({kind})" if labels == "several" else "accuracy"
    after = {"linear": [" conv1", " pool5"], "knn": ["", " k=1", " k=3", " k=5"], "svm": [""]}[task]
    if task == "svm":  # of 50 classes have too few
        usable = sorted({name.split("k=")[1] for name in made.choices if "k=" in name})
        after = ["", *(f" k={k}{more}" for k in usable for more in ("", ", deviation"))]
        assert usable
    assert [record.metric for record in made.records] == [kind + name for name in after]
    assert [record.higher_is_better for record in made.records] == [not name.endswith("deviation") for name in after]
    assert {(r.task, r.mode, r.split, r.protocol) for r in made.records} == {
        (task, "frozen", "test", f"compact-{task}/v1 (changed)")
    }
    assert ledger.read() == made.records


def test_one_learning_rate_is_not_tuned(sets: dict[str, str], tmp_path: Path) -> None:
    settings = {"train": {"steps": "2", "batch_size": "8", "learning_rate": "0.5"}, "protocol": {"cached_views": "1"}}
    made = run_probe(sets["single"], "linear", tmp_path / "run", settings)
    assert made.choices == {"conv1": 0.5, "pool5": 0.5}
    assert {entry.name for entry in (tmp_path / "run").iterdir() if entry.is_dir()} == {"final"}


def test_crops_described_anew_in_every_step_train_as_cached_ones_do(sets: dict[str, str], tmp_path: Path) -> None:
    """Where all crops are one: the whole of square images without mirroring; the cache rounds to float16."""
    heads = []
    for views in ("0", "1"):
        protocol = {"learning_rates": "0.1", "cached_views": views, "test_views": "centre"}
        made = run_probe(sets["single"], "linear", tmp_path / views, {"protocol": protocol})
        state = torch.load(made.folder / "final" / "checkpoint.pt", weights_only=True)["modules"]["pool5"]
        heads.append(state["weights.0"])
    torch.testing.assert_close(heads[0], heads[1], rtol=0.02, atol=2e-3)
    assert heads[0].abs().max() > 0.01


def test_nothing_is_described_beforehand_without_cached_views(
    sets: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    plain = train.fit

    def fit(objective: object, batches: object, *rest: object, **others: object) -> train.Fit:
        seen.append(type(batches))
        return plain(objective, batches, *rest, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "fit", fit)
    for views in ("0", "2"):
        run_probe(
            sets["single"], "linear", tmp_path / views, {"protocol": {"learning_rates": "1", "cached_views": views}}
        )
    assert seen == [ImageBatches, FeatureBatches]


@pytest.mark.parametrize(
    ("task", "mode", "settings", "sentence"),
    [
        ("linear", "finetune", {}, "probes a frozen encoder"),
        ("linear", "frozen", {"train": {"clip_norm": "1"}}, "tie together"),
        ("knn", "frozen", {"train": {"steps": "3"}}, "no training loop, so train.steps"),
        ("svm", "frozen", {"protocol": {"cached_views": "3"}}, "no training loop, so protocol.cached_views"),
        ("svm", "frozen", {"head": {"costs": "0"}}, r"head\.costs\.0"),
    ],
)
def test_what_does_not_go_with_a_probe_is_refused(task: str, mode: str, settings: Settings, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        transfer.plan_transfer("shapes", "random:alexnet", task, mode, None, settings, 0)


def test_a_probe_keeps_no_predictions() -> None:
    with pytest.raises(UsageError, match="leave out --predictions"):
        transfer.plan_transfer("shapes", "random:alexnet", "knn", "frozen", None, {}, 0, has_predictions=True)


def test_what_a_probe_cannot_read_is_refused_before_anything_is_written(sets: dict[str, str], tmp_path: Path) -> None:
    for settings, sentence in (({"k": "25"}, "24 images"), ({"k": "2", "stages": "conv9"}, "conv9")):
        with pytest.raises(UsageError, match=sentence):
            run_probe(sets["single"], "knn", tmp_path / "run", {"head": settings})
    assert not (tmp_path / "run").exists()


def test_the_view_of_the_whole_image_is_squeezed(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 32:] = 255
    Image.fromarray(pixels).save(folder / "wide.png")
    store = data.open_examples(f"folder:{folder}", "pretrain", {}, 32).store
    ((_, (view,)),) = fixed_views(store, Crops(size=16, store_size=32), "whole", 8)
    assert view.shape == (1, 3, 16, 16)
    assert (view[..., :7] < 10).all() and (view[..., 9:] > 245).all()


# Tables and protocols


def _record(**changes: object) -> Record:
    plain = dict.fromkeys(("weights_sha256", "dataset_sha256", "config_hash", "recipe", "commit"), "a")
    plain |= {"method": "Context encoder", "pretext": "inpainting", "encoder": "alexnet", "supervision": "none"}
    plain |= {"protocol": "p/v1", "mode": "frozen", "dataset": "VOC07", "split": "test", "source": "measured"}
    numbers = {"seed": 0, "value": 0.5, "higher_is_better": True, "n_examples": 4952, "versions": {}, "workers": 0}
    times = {"device": "cpu", "seconds": 1.0, "pretraining_seconds": 0.0, "created_at": "2026-01-01T00:00:00+00:00"}
    return Record(**{**plain, **numbers, **times, **changes})  # type: ignore[arg-type]


def test_layers_are_columns_of_a_table_of_their_own_and_so_are_few_examples() -> None:
    metrics_of = {
        "cls": ["mAP (step)"],
        "linear": ["mAP (step) conv1", "mAP (step) conv5"],
        "knn": ["mAP (step)", "mAP (step) k=10", "mAP (step) k=200", "mAP (step) k=20"],
        "svm": ["mAP (area)", "mAP (area) k=16", "mAP (area) k=2", "mAP (area) k=2, deviation"],
    }
    records = [_record(task=task, metric=metric) for task, names in metrics_of.items() for metric in names]
    found = {
        table.heading: [header.text for header in table.headers[2:]]
        for table in tables.tables(cells.measured_cells(records))
    }
    assert found == {
        "Measured: VOC07": ["cls frozen mAP (step)", "knn frozen mAP (step)", "svm frozen mAP (area)"],
        "Measured: VOC07, SVM on k examples of a class": [
            f"svm frozen mAP (area) {k}" for k in ("k=2", "k=2, deviation", "k=16")
        ],
        "Measured: VOC07, linear probes of frozen layers": [f"frozen mAP (step) {s}" for s in ("conv1", "conv5")],
        "Measured: VOC07, nearest neighbours by their number k": [
            f"knn frozen mAP (step) k={k}" for k in (10, 20, 200)
        ],
    }


def _protocol(name: str) -> tuple[Protocol, dict[str, object]]:
    protocol: Protocol = catalog.load("protocols", name).build()
    head = config.check(catalog.load("transfer", protocol.task).Config, "head", protocol.head)
    return protocol, head.model_dump()


def test_linear_probes_are_those_of_the_reference_code() -> None:
    """richzhang/colorization, linear/solver.prototxt: 140,000 times 4 x 64, SGD 0.01 over ten every 40,000."""
    protocol, head = _protocol("colorization_linear")
    loop = protocol.frozen_train
    assert (loop.steps, loop.batch_size, loop.optimizer, loop.learning_rate) == (140_000, 256, "sgd", 0.01)
    assert (loop.beta1, loop.weight_decay, loop.schedule) == (0.9, 5e-4, "step")
    assert (loop.decay_every_steps, loop.decay_factor, protocol.learning_rates) == (40_000, 0.1, ())
    assert protocol.crops is not None and protocol.crops.size == 227 and protocol.crops.flip
    assert (head["pooling"], head["bias_learning_rate_ratio"], head["stages"]) == ("bilinear", 2.0, ())


def test_neighbours_and_machines_are_those_of_the_reference_code() -> None:
    """eval_knn.py of DINO; tools/svm of fair_self_supervision_benchmark."""
    _, head = _protocol("dino_knn")
    assert (head["k"], head["temperature"]) == ((10, 20, 100, 200), 0.07)
    protocol, head = _protocol("voc07_svm")
    costs = head["costs"]
    assert isinstance(costs, tuple) and len(costs) == 26 and (min(costs), max(costs)) == (1e-7, 100.0)
    assert 0.5**4 in costs and 0.5**19 in costs
    assert (head["folds"], head["positive_weight"], head["most_iterations"], head["solver"]) == (3, 2.0, 2000, "dual")
    assert (head["shots"], head["samples"]) == ((1, 2, 4, 8, 16, 32, 64, 96), 5)
    assert protocol.test_views == "whole" and protocol.crops is not None and protocol.crops.size == 227
