import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint import checkpoint
from ssl_inpaint.core import Batch, Encoder, ParameterGroup, TransferFacts
from ssl_inpaint.encoders.alexnet import AlexNet
from ssl_inpaint.encoders.alexnet import Config as AlexNetConfig
from ssl_inpaint.errors import UsageError
from ssl_inpaint.transfer import cls

CLASSES = ("bird", "boat", "bus")


def images(count: int, size: int = 64, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def tiny_encoder(normalization: str = "batch") -> Encoder:
    torch.manual_seed(0)
    settings = {"channels": (4, 6, 8, 8, 6), "stem": "7x7/2", "initial_deviation": None}
    return AlexNet(AlexNetConfig(normalization=normalization, **settings))


def facts(is_frozen: bool = True, is_multilabel: bool = False, size: int = 64) -> TransferFacts:
    return TransferFacts(size, CLASSES, is_multilabel, is_frozen)


def task(given: TransferFacts | None = None, encoder: Encoder | None = None, **settings: object) -> cls.Classification:
    values = {"hidden": (16,), "grid": 2, "dropout": 0.0, **settings}
    return cls.build(cls.Config(**values), encoder or tiny_encoder(), given or facts())


def names_of(parameters: list[nn.Parameter], module: nn.Module) -> set[str]:
    held = {id(p) for p in parameters}
    return {name for name, p in module.named_parameters() if id(p) in held}


@pytest.mark.parametrize(
    ("size", "stage", "grid", "shape"),
    [
        (64, "", 6, (6, 4, 4)),  # pool5 has 4 x 4: fewer cells than the grid
        (96, "", 6, (6, 6, 6)),
        (96, "", 3, (6, 3, 3)),
        (96, "conv1", 3, (4, 3, 3)),
        (96, "pool2", 1, (6, 1, 1)),
    ],
)
def test_features_are_the_stage_averaged_to_the_grid(
    size: int, stage: str, grid: int, shape: tuple[int, int, int]
) -> None:
    encoder = tiny_encoder()
    objective = task(facts(size=size), encoder, stage=stage, grid=grid)
    pixels = images(2, size)
    ((name, found),) = objective.features(pixels).items()
    assert name == (stage or "pool5")
    assert found.shape == (2, *shape)
    torch.testing.assert_close(found.mean(dim=(2, 3)), encoder(pixels)[stage or "pool5"].mean(dim=(2, 3)))
    assert objective.outputs({name: found}).shape == (2, 3)


def test_a_grid_cell_is_the_mean_of_its_part_of_the_map() -> None:
    encoder = tiny_encoder()
    pixels = images(1, 96)
    maps = encoder.eval()(pixels)["pool5"]  # 6 x 6
    expected = torch.stack([maps[..., y : y + 2, x : x + 2].mean(dim=(2, 3)) for y in (0, 2, 4) for x in (0, 2, 4)], 2)
    torch.testing.assert_close(task(facts(size=96), encoder, grid=3).features(pixels)["pool5"].flatten(2), expected)


def test_a_frozen_task_optimises_the_head_alone() -> None:
    objective = task(facts(is_frozen=True))
    ((name, player),) = objective.players().items()
    assert name == "classifier"
    assert player.module is objective.head
    held = [p for group in player.groups for p in group.parameters]
    assert sorted(map(id, held)) == sorted(map(id, objective.head.parameters()))


def test_a_frozen_task_reads_features_and_leaves_the_encoder_untouched() -> None:
    objective = task(facts(is_frozen=True))
    before = checkpoint.weights_sha256(objective.encoder)
    cached = {name: maps.detach() for name, maps in objective.features(images(4)).items()}
    objective.players()["classifier"].module.train()
    ((_, loss),) = objective.losses(Batch(torch.empty(4, 0), torch.tensor([0, 1, 2, 0]), cached), torch.Generator())
    loss.backward()
    assert all(p.grad is None for p in objective.encoder.parameters())
    assert all(p.grad is not None for p in objective.head.parameters())
    assert not objective.encoder.training
    assert checkpoint.weights_sha256(objective.encoder) == before  # no BatchNorm statistics have drifted


def test_fine_tuning_optimises_encoder_and_head_at_their_own_rates() -> None:
    objective = task(
        facts(is_frozen=False), tiny_encoder("none"), encoder_learning_rate_ratio=0.1, bias_learning_rate_ratio=2.0
    )
    player = objective.players()["classifier"]
    rates = {
        name: (group.learning_rate_ratio, group.weight_decay_ratio)
        for group in player.groups
        for name in names_of(list(group.parameters), player.module)
    }
    assert set(rates) == {name for name, _ in player.module.named_parameters()}
    for name, (rate, decay) in rates.items():
        share = 0.1 if name.startswith("encoder.") else 1.0
        is_bias = name.endswith("bias")
        assert rate == pytest.approx(share * (2.0 if is_bias else 1.0)), name
        assert decay == (0.0 if is_bias else 1.0), name


def test_scales_of_batch_norm_go_with_the_biases() -> None:
    objective = task(facts(is_frozen=False))
    player = objective.players()["classifier"]
    decaying = [p for group in player.groups if group.weight_decay_ratio for p in group.parameters]
    assert not any("norms" in name for name in names_of(decaying, player.module))
    held = [p for group in player.groups for p in group.parameters]
    assert len(held) == len({id(p) for p in held}) == len(list(player.module.parameters()))


def test_every_group_has_parameters() -> None:
    for given in (facts(True), facts(False)):
        groups: list[ParameterGroup] = list(task(given).players()["classifier"].groups)
        assert all(len(group.parameters) for group in groups)


def test_fine_tuning_reaches_the_first_convolution_and_reads_images() -> None:
    objective = task(facts(is_frozen=False))
    ((_, loss),) = objective.losses(Batch(images(4), torch.tensor([0, 1, 2, 0])), torch.Generator())
    loss.backward()
    assert objective.encoder.conv1.weight.grad.abs().max() > 0


def test_without_hidden_layers_the_head_is_linear() -> None:
    objective = task(hidden=())
    features = objective.features(images(3))["pool5"].detach()
    assert sum(p.numel() for p in objective.head.parameters()) == 6 * 2 * 2 * 3 + 3
    zero = objective.outputs({"pool5": torch.zeros_like(features)})
    sums = objective.outputs({"pool5": features[:1] + features[1:2]}) + zero[:1]
    torch.testing.assert_close(
        sums, objective.outputs({"pool5": features[:1]}) + objective.outputs({"pool5": features[1:2]})
    )


def test_the_papers_head_is_fc6_to_fc8() -> None:
    objective = cls.build(cls.Config(initial_deviation=0.01), tiny_encoder(), facts(size=96))
    layers = [layer for layer in objective.head if isinstance(layer, nn.Linear)]
    assert [(x.in_features, x.out_features) for x in layers] == [(216, 4096), (4096, 4096), (4096, 3)]
    assert sum(isinstance(layer, nn.Dropout) for layer in objective.head) == 2
    for layer in layers[:2]:
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert all((layer.bias == 0.1).all() for layer in layers)


def test_standardised_features_train_alike_at_any_scale() -> None:
    objective = task(standardize=True)
    objective.head.train()
    features = torch.rand(8, 6, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        objective.outputs({"pool5": features}), objective.outputs({"pool5": 1000 * features}), rtol=1e-2, atol=1e-3
    )


def test_losses_are_cross_entropies() -> None:
    features, labels = torch.rand(4, 6, 2, 2), torch.tensor([2, 1, 0, 1])
    objective = task()
    ((_, loss),) = objective.losses(Batch(torch.empty(len(labels), 0), labels, {"pool5": features}), torch.Generator())
    torch.testing.assert_close(loss, functional.cross_entropy(objective.outputs({"pool5": features}), labels))
    objective = task(facts(is_multilabel=True))
    several = torch.tensor([[1, 0, 255], [0, 0, 1], [1, 1, 0], [255, 255, 255]])
    ((_, loss),) = objective.losses(
        Batch(torch.empty(len(several), 0), several, {"pool5": features}), torch.Generator()
    )
    logits, counted = objective.outputs({"pool5": features}), several != 255
    expected = functional.binary_cross_entropy_with_logits(logits[counted], several[counted].float())
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("kind", ["area", "step", "11-point"])
def test_a_perfect_multilabel_score_is_exactly_one(kind: str) -> None:
    objective = task(facts(is_multilabel=True), average_precision=kind)
    labels = np.array([[1, 0, 1], [0, 1, 255], [1, 1, 0], [0, 255, 1]])
    found = objective.score(np.where(labels == 1, 3.0, -3.0), labels)
    assert list(found) == [f"mAP ({kind})", *(f"AP ({kind}): {name}" for name in CLASSES)]
    assert set(found.values()) == {1.0}


def test_a_perfect_single_label_score_is_exactly_one() -> None:
    labels = np.array([0, 2, 1, 1])
    ones = {f"accuracy: {c}": 1.0 for c in task().facts.classes}
    assert task().score(np.eye(3)[labels], labels) == {"accuracy": 1.0, "mean class accuracy": 1.0, **ones}


def test_single_label_scores_by_hand() -> None:
    labels, outputs = np.array([0, 0, 0, 1]), np.eye(3)[[0, 0, 2, 2]]
    found = task().score(outputs, labels)
    assert found["accuracy"] == pytest.approx(2 / 4)
    assert found["mean class accuracy"] == pytest.approx((2 / 3 + 0) / 2)  # the third class has no examples


def test_the_worst_ranking_scores_less_and_the_mean_is_of_the_classes() -> None:
    objective, labels = task(facts(is_multilabel=True)), np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    found = objective.score(np.where(labels == 1, [[3, -3, 3]], 0.0), labels)
    assert [found[f"AP (step): {name}"] for name in CLASSES] == [1.0, 0.25, 1.0]  # the boat comes last of four
    assert found["mAP (step)"] == pytest.approx(0.75)


def test_an_unknown_stage_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no stage 'conv6'.*Did you mean 'conv"):
        task(stage="conv6")


def test_a_batch_without_labels_is_the_callers_fault() -> None:
    with pytest.raises(ValueError, match="needs labels"):
        next(task().losses(Batch(torch.rand(1, 6, 2, 2)), torch.Generator()))


def test_a_head_learns_what_a_stage_can_tell_apart() -> None:
    bright, dark = images(16) * 0.3 + 0.7, images(16, seed=1) * 0.3
    objective = task(standardize=True, hidden=())
    features = objective.features(torch.cat([bright, dark]))[objective.stage].detach()
    labels = torch.tensor([0] * 16 + [1] * 16)
    player = objective.players()["classifier"]
    optimizer = torch.optim.SGD([p for group in player.groups for p in group.parameters], 0.1)
    player.module.train()
    for _ in range(20):
        ((_, loss),) = objective.losses(
            Batch(torch.empty(len(labels), 0), labels, {"pool5": features}), torch.Generator()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    player.module.eval()
    found = objective.score(objective.outputs({"pool5": features}).detach().numpy(), labels.numpy())
    assert found["accuracy"] == 1.0
