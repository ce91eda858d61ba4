"""Weights made of images: the filters in a second way, what outputs measure afterwards, and that test stays unread."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint import checkpoint
from ssl_inpaint.core import Encoder, Stage
from ssl_inpaint.data import shapes
from ssl_inpaint.data.store import ImageStore
from ssl_inpaint.encoders import alexnet
from ssl_inpaint.errors import Failure, UsageError
from ssl_inpaint.experiment import calibration, data_initialisation, rescaling, retrieval, transfer
from ssl_inpaint.experiment.data_filters import filters, whitening
from ssl_inpaint.records import Ledger
from ssl_inpaint.runtime import Runtime

CPU = Runtime(torch.device("cpu"), is_bf16=False)
KINDS = list(checkpoint.BY_DATA)
NARROW = {"channels": "8,8,8,8,8"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The tensors are so small that threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_INPAINT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield shapes.make_shapes(tmp_path_factory.mktemp("data") / "shapes", shapes.Config(train=20, val=10, test=10))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlated(count: int, size: int, seed: int = 0) -> Tensor:
    """Gaussian patches that vary in every direction, in each differently."""
    draws = seeded(seed)
    mixing = torch.randn(size, size, generator=draws) * torch.logspace(0, 1, size)
    return torch.randn(count, size, generator=draws) @ mixing + torch.randn(size, generator=draws)


class Convolutions(Encoder):
    """A few convolutions, grouped as told, with or without BatchNorm, one behind the other with ReLUs between."""

    smallest_input = 16

    def __init__(self, groups: int = 1, has_norms: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.stages = {"last": Stage(6, 2)}
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=bias)
        self.second = nn.Conv2d(4, 8, 3, groups=groups, bias=bias)
        self.third = nn.Conv2d(8, 6, 1, bias=bias)
        self.unused = nn.Conv2d(3, 2, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) if has_norms else nn.Identity() for c in (4, 8, 6))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = images
        for layer, norm in zip((self.first, self.second, self.third), self.norms, strict=True):
            maps = torch.relu(norm(layer(maps)))
        return {"last": maps}


def encoder(groups: int = 1, has_norms: bool = False, bias: bool = True) -> Convolutions:
    torch.manual_seed(0)
    return Convolutions(groups, has_norms, bias)


def batches(count: int = 3, size: int = 5, side: int = 16) -> list[Tensor]:
    """Smooth noise, so that neighbouring pixels are alike."""
    draws = seeded(7)
    coarse = [torch.rand(size, 3, side // 2, side // 2, generator=draws) for _ in range(count)]
    return [functional.interpolate(images, size=side, mode="bilinear") for images in coarse]


def inputs_and_outputs(network: Encoder, layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """What the layer saw and gave for all batches together."""
    seen: list[tuple[Tensor, Tensor]] = []
    handle = layer.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output.clone())))
    with torch.no_grad():
        network(torch.cat(batches()))
    handle.remove()
    return seen[0]


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def rows_at_length_one(found: Tensor) -> Tensor:
    return functional.normalize(found.double(), dim=1)


# Filters


def test_principal_components_are_scikit_learns_up_to_sign_and_scale() -> None:
    patches = correlated(400, 9)
    expected = torch.from_numpy(PCA(5).fit(patches.double().numpy()).components_)
    found = filters("pca", patches, 5, seeded())
    alike = (rows_at_length_one(found) * expected).sum(dim=1)
    torch.testing.assert_close(alike.abs(), torch.ones(5, dtype=torch.float64))


def test_whitened_patches_vary_by_one_and_together_by_nothing() -> None:
    patches = correlated(300, 7).double()
    patches -= patches.mean(dim=0)
    outputs = patches @ whitening(patches, 4).T
    torch.testing.assert_close(outputs.T @ outputs / 300, torch.eye(4, dtype=torch.float64))


def test_directions_without_variance_are_no_components() -> None:
    patches = correlated(200, 3) @ torch.randn(3, 8, generator=seeded(1))
    found = filters("pca", patches, 5, seeded())
    basis = torch.linalg.qr((patches - patches.mean(dim=0)).double().T).Q[:, :3]
    inside = (rows_at_length_one(found) @ basis).norm(dim=1)
    torch.testing.assert_close(inside[:3], torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-5)
    assert (inside[3:] < 0.99).all()  # Gaussian filters lie anywhere


def test_centroids_are_near_the_clusters_that_were_planted() -> None:
    """Twice as many as dimensions, both ways along each axis, so that whitening leaves them where they are."""
    axes = torch.cat([torch.eye(4), -torch.eye(4)])
    patches = axes.repeat_interleave(60, dim=0) + 0.1 * torch.randn(480, 4, generator=seeded())
    alike = rows_at_length_one(filters("kmeans", patches, 8, seeded())) @ axes.double().T
    assert (alike.max(dim=1).values > 0.98).all()
    assert sorted(alike.argmax(dim=1).tolist()) == list(range(8))


def test_centroids_are_of_directions_once_brightness_and_correlation_are_taken_out() -> None:
    """The same clusters at lengths that differ a hundredfold, stretched and moved: every patch finds its own filter."""
    axes = torch.cat([torch.eye(3), -torch.eye(3)])
    plain = axes.repeat_interleave(80, dim=0) + 0.05 * torch.randn(480, 3, generator=seeded())
    plain *= torch.logspace(-1, 1, 80).repeat(6)[:, None]
    patches = plain @ torch.tensor([[5.0, 1, 0], [0, 1, 2], [1, 0, 0.5]]) + 3
    found = filters("kmeans", patches, 6, seeded())
    chosen = ((patches - patches.mean(dim=0)).double() @ found.T).argmax(dim=1).view(6, 80)
    assert all((rows == rows.mode().values).float().mean() > 0.95 for rows in chosen)
    assert len({int(rows.mode().values) for rows in chosen}) == 6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "patches", [torch.rand(3, 5, generator=seeded()), torch.ones(30, 5), torch.zeros(30, 5), torch.rand(1, 5)]
)
def test_filters_are_gaussian_where_patches_are_few_or_all_the_same(kind: str, patches: Tensor) -> None:
    found = filters(kind, patches, 4, seeded())
    assert torch.equal(found, torch.randn(4, 5, generator=seeded(), dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "size"), [(1, 1), (1, 6), (6, 1), (6, 6)])
def test_there_are_as_many_filters_as_asked_for(kind: str, count: int, size: int) -> None:
    found = filters(kind, correlated(50, size), count, seeded())
    assert found.shape == (count, size) and found.isfinite().all()


# Layers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_every_output_has_deviation_one_and_mean_a_tenth(kind: str, groups: int) -> None:
    made = encoder(groups)
    data_initialisation.initialise(made, kind, batches(), seed=0)
    for layer in (made.first, made.second, made.third):
        outputs = inputs_and_outputs(made, layer)[1].transpose(0, 1).flatten(1)
        assert torch.allclose(outputs.std(dim=1, correction=0), torch.ones(len(outputs)), atol=1e-4)
        assert torch.allclose(outputs.mean(dim=1), torch.full((len(outputs),), 0.1), atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_filters_of_each_group_are_components_of_what_that_group_sees(groups: int) -> None:
    """Of all patches, as fewer are there than are looked at; taken here by hand, place by place."""
    made = encoder(groups)
    data_initialisation.initialise(made, "pca", batches(), seed=0)
    maps = inputs_and_outputs(made, made.second)[0].numpy()
    for group in range(groups):
        own = maps[:, group * 4 // groups : (group + 1) * 4 // groups]
        places = [(y, x) for y in range(maps.shape[2] - 2) for x in range(maps.shape[3] - 2)]
        patches = np.stack([one[:, y : y + 3, x : x + 3].ravel() for one in own for y, x in places])
        expected = torch.from_numpy(PCA(8 // groups).fit(patches.astype(np.float64)).components_)
        found = made.second.weight.detach().chunk(groups)[group].flatten(1)
        alike = (rows_at_length_one(found) * expected).sum(dim=1).abs()
        assert (alike > 0.999).all()


def test_padding_and_stride_are_part_of_what_a_layer_sees() -> None:
    made = encoder()
    data_initialisation.initialise(made, "pca", batches(), seed=0)
    padded = functional.pad(torch.cat(batches()), (1, 1, 1, 1)).numpy()
    places = [(y, x) for y in range(0, 16, 2) for x in range(0, 16, 2)]
    patches = np.stack([one[:, y : y + 3, x : x + 3].ravel() for one in padded for y, x in places])
    expected = torch.from_numpy(PCA(4).fit(patches.astype(np.float64)).components_)
    alike = (rows_at_length_one(made.first.weight.detach().flatten(1)) * expected).sum(dim=1).abs()
    assert (alike > 0.999).all()


@pytest.mark.parametrize("kind", KINDS)
def test_batch_norm_is_the_identity_but_for_statistics_of_what_is_below_it(kind: str) -> None:
    made = encoder(has_norms=True, bias=False)
    for norm in made.norms:
        nn.init.zeros_(norm.weight)  # as some libraries begin
    data_initialisation.initialise(made, kind, batches(), seed=0)
    calibration.calibrate(made, batches())
    for layer, norm in zip((made.first, made.second, made.third), made.norms, strict=True):
        assert (norm.weight == 1).all() and (norm.bias == 0).all()
        outputs = norm(inputs_and_outputs(made, layer)[1]).transpose(0, 1).flatten(1)
        assert outputs.mean(dim=1).abs().max() < 0.05  # BatchNorm's own statistics are means over batches
        assert (outputs.std(dim=1) - 1).abs().max() < 0.1
    assert not made.training


@pytest.mark.parametrize("kind", KINDS)
def test_weights_depend_on_images_and_seed_alone(kind: str) -> None:
    def made(seed: int, images: list[Tensor], state_of_caller: int) -> dict[str, Tensor]:
        built = encoder(groups=2)
        torch.manual_seed(state_of_caller)
        np.random.seed(state_of_caller)
        data_initialisation.initialise(built, kind, images, seed)
        return state(built)

    first, again = made(0, batches(), 1), made(0, batches(), 2)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["second.weight"], made(0, batches(2), 1)["second.weight"])
    # All patches are looked at here, so components have no draws; centroids have.
    assert torch.equal(first["first.weight"], made(1, batches(), 1)["first.weight"]) == (kind == "pca")


def test_places_are_drawn_by_the_seed_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_initialisation, "PATCH_VALUES", 15 * 27 * 4)
    network = encoder()
    found = [data_initialisation._patches(network, network.first, batches(), seeded(seed)) for seed in (0, 0, 1)]
    assert found[0].shape == (15 * 4, 27)  # four places of each image, of 27 values
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    everywhere = functional.unfold(torch.cat(batches())[:1], 3, padding=1, stride=2)[0].T
    is_same = (found[0][:4, None] == everywhere).all(dim=2)  # the first image's four, each a place of its own
    assert is_same.any(dim=1).all() and is_same.any(dim=0).sum() == 4


@pytest.mark.parametrize("kind", KINDS)
def test_layers_that_are_not_called_keep_their_weights(kind: str) -> None:
    made = encoder()
    before = state(made)
    data_initialisation.initialise(made, kind, batches(), seed=0)
    for name, value in state(made).items():
        assert torch.equal(value, before[name]) == name.startswith("unused"), name


def test_images_that_are_not_finite_stop_it() -> None:
    with pytest.raises(Failure, match="not finite"):
        data_initialisation.initialise(encoder(), "pca", [torch.full((2, 3, 16, 16), math.nan)], seed=0)


@pytest.mark.parametrize("normalization", ["lrn", "batch"])
def test_the_papers_network_sees_the_same_scale_in_every_layer(normalization: str) -> None:
    torch.manual_seed(0)
    made = alexnet.build(alexnet.Config(channels=(8, 8, 12, 12, 8), normalization=normalization))
    images = batches(2, 4, 96)
    data_initialisation.initialise(made, "kmeans", images, seed=0)
    calibration.calibrate(made, images)
    with torch.no_grad():
        maps = made(images[0])
    assert all(0.3 < float(maps[f"conv{n}"].std()) < 2 for n in range(1, 6))


# Sources


@pytest.mark.parametrize(("kind", "name"), [("kmeans", "k-means (Krähenbühl)"), ("pca", "PCA (Krähenbühl)")])
def test_a_source_has_the_architecture_of_random_and_a_card_of_its_own(kind: str, name: str, tmp_path: Path) -> None:
    made, card = checkpoint.open_encoder(f"{kind}:compact_alexnet", NARROW, 3)
    random, blank = checkpoint.open_encoder("random:compact_alexnet", NARROW, 3)
    assert (card.method, card.pretext, card.supervision, card.seed) == (name, kind, "none", 3)
    assert card == blank.model_copy(update={"method": name, "pretext": kind})
    assert checkpoint.weights_sha256(made) == checkpoint.weights_sha256(random)  # until it is shown images
    checkpoint.save_weights(
        tmp_path / checkpoint.ENCODER_FILE, made, blank.model_copy(update={"pretext": "inpainting"})
    )
    of_run, card = checkpoint.open_encoder(f"{kind}:{tmp_path}", {}, 4)
    assert (card.method, card.pretext, card.seed) == (name, kind, 4)
    assert of_run.state_dict()["conv1.weight"].shape == made.state_dict()["conv1.weight"].shape


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("kmeans:", "write kmeans:ENCODER"),
        ("pca:alexnt", "Did you mean"),
        ("kmeans", "no weights at 'kmeans': name .*pca:"),
    ],
)
def test_a_source_that_names_nothing_is_refused(source: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        checkpoint.open_encoder(source, {}, 0)


def test_only_untrained_encoders_are_made_ready() -> None:
    def images(count: int, batch_size: int) -> Iterator[Tensor]:
        asked.append((count, batch_size))
        return iter(batches(1, 2))

    asked: list[tuple[int, int]] = []
    made = encoder()
    before = state(made)
    trained = checkpoint.Card(encoder="x", encoder_config={}, method="Ours", pretext="inpainting")
    assert data_initialisation.prepare(made, trained, images) is trained and not asked
    random = trained.model_copy(update={"pretext": "none"})
    assert data_initialisation.prepare(made, random, images) is random
    assert all(torch.equal(value, before[name]) for name, value in state(made).items())
    card = data_initialisation.prepare(made, trained.model_copy(update={"pretext": "pca"}), images)
    assert card.pretraining_seconds > 0 and not torch.equal(made.first.weight, before["first.weight"])
    assert asked[-2] == (rescaling.BATCHES, rescaling.BATCH_SIZE) == (10, 16)  # as the reference
    assert asked[-1] == (calibration.BATCHES, calibration.BATCH_SIZE)


# The verbs


@pytest.fixture
def few_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred of each layer: what is tested here is not how good the filters are."""
    monkeypatch.setattr(data_initialisation, "PATCH_VALUES", 2**16)


def run_transfer(spec: str, folder: Path, source: str, mode: str = "frozen", **protocol: str) -> transfer.Transferred:
    settings = {
        "crops": {"size": "64", "store_size": "64", "smallest_share": "1", "largest_share": "1"},
        "train": {"steps": "2", "batch_size": "8", "learning_rate": "0.001"},
        "head": {"hidden": "[]", "grid": "1", "standardize": "false"},
        "protocol": {"test_views": "centre", **({"cached_views": "1"} if mode == "frozen" else {}), **protocol},
        "encoder": {**NARROW, "normalization": "none"} if protocol else NARROW,
    }
    plan = transfer.plan_transfer(spec, source, "cls", mode, "quick_cls", settings, 0)
    return transfer.transfer(plan, folder, CPU, Ledger(folder.parent / "ledger.jsonl"))


@pytest.mark.usefixtures("few_patches")
@pytest.mark.parametrize("kind", KINDS)
def test_a_transfer_records_the_weights_that_the_images_made(kind: str, shapes_folder: Path, tmp_path: Path) -> None:
    spec = f"shapes:{shapes_folder}"
    made = run_transfer(spec, tmp_path / kind, f"{kind}:compact_alexnet").records
    assert {(r.method, r.pretext, r.supervision) for r in made} == {(checkpoint.BY_DATA[kind], kind, "none")}
    assert all(r.pretraining_seconds > 0 for r in made)
    again = run_transfer(spec, tmp_path / "again", f"{kind}:compact_alexnet").records
    assert [(r.weights_sha256, r.value) for r in again] == [(r.weights_sha256, r.value) for r in made]
    plain, _ = checkpoint.open_encoder("random:compact_alexnet", NARROW, 0)
    assert made[0].weights_sha256 != checkpoint.weights_sha256(plain)


@pytest.mark.usefixtures("few_patches")
def test_the_record_is_of_weights_made_of_training_images(
    shapes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test images are not read before the weights are there, and these are those of `initialise` on training crops."""
    read: list[int] = []
    shown: list[list[Tensor]] = []
    weights: list[str] = []
    crops, initialise, calibrate = ImageStore.crops, data_initialisation.initialise, calibration.calibrate

    def counted(store: ImageStore, *arguments: Tensor) -> Tensor:
        read.append(len(store))
        return crops(store, *arguments)

    def noted(encoder: Encoder, kind: str, images: list[Tensor], seed: int) -> None:
        shown.append(images)
        initialise(encoder, kind, images, seed)
        assert set(read) == {20}  # of the three splits train alone has so many

    def hashed(encoder: Encoder, images: Iterator[Tensor]) -> None:
        calibrate(encoder, images)
        weights.append(checkpoint.weights_sha256(encoder))

    monkeypatch.setattr(ImageStore, "crops", counted)
    monkeypatch.setattr(data_initialisation, "initialise", noted)
    monkeypatch.setattr(calibration, "calibrate", hashed)
    made = run_transfer(f"shapes:{shapes_folder}", tmp_path / "run", "pca:compact_alexnet")
    assert made.records[0].weights_sha256 == weights[-1]
    assert [len(images) for images in shown[0]] == [16] * 10
    assert 10 in read  # test was scored in the end


@pytest.mark.usefixtures("few_patches")
@pytest.mark.parametrize("rescale", ["none", "both"])
def test_fine_tuning_begins_at_the_weights_that_the_images_made(
    rescale: str, shapes_folder: Path, tmp_path: Path
) -> None:
    made = run_transfer(f"shapes:{shapes_folder}", tmp_path / "run", "kmeans:alexnet", "finetune", rescale=rescale)
    assert made.records[0].method == "k-means (Krähenbühl)" + (", rescaled" if rescale == "both" else "")


@pytest.mark.usefixtures("few_patches")
def test_retrieval_makes_them_of_the_gallery(shapes_folder: Path, tmp_path: Path) -> None:
    small = {"queries": "8", "gallery": "20", "store_size": "96", "patch_size": "64", "shown_queries": "1"}
    settings = {"retrieval": {**small, "shown_neighbours": "2"}, "encoder": NARROW}
    sources = ("random:compact_alexnet", "pca:compact_alexnet", "kmeans:compact_alexnet@conv3")
    plan = retrieval.plan_retrieval(f"shapes:{shapes_folder}", sources, settings, 0)
    made = retrieval.nn_retrieval(plan, tmp_path / "run", CPU, None)
    assert {r.method for r in made.records} == {"Random", "PCA (Krähenbühl)", "k-means (Krähenbühl) conv3"}
    assert len({r.weights_sha256 for r in made.records}) == 3
