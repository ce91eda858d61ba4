import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ssl_inpaint import checkpoint
from ssl_inpaint.checkpoint import ENCODER_FILE, Card, build_encoder, open_encoder, save_weights, weights_sha256
from ssl_inpaint.errors import UsageError

SMALL = {"channels": "4,6,6,6,4", "groups": "1", "normalization": "batch"}  # of alexnet


def run_folder(path: Path, settings: Mapping[str, str] = SMALL, seed: int = 3, spec: str = "alexnet") -> Path:
    """A pretraining run, as far as its encoder goes."""
    encoder, card = build_encoder(spec, settings, seed)
    with torch.no_grad():
        for tensor in encoder.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.25  # trained, so to speak
    card = card.model_copy(update={"method": "Context encoder (region)", "pretext": "inpainting", "image_size": 96})
    save_weights(path / ENCODER_FILE, encoder, card)
    return path


def state_of(settings: Mapping[str, str] = SMALL, seed: int = 5) -> dict[str, Tensor]:
    return dict(build_encoder("alexnet", settings, seed)[0].state_dict())


def saved(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


# Random weights


def test_random_weights_say_so_on_their_card() -> None:
    encoder, card = open_encoder("random:alexnet", SMALL, seed=4)
    assert card == Card(encoder="alexnet", encoder_config=card.encoder_config, method="Random", seed=4)
    assert card.encoder_config["channels"] == [4, 6, 6, 6, 4]
    assert encoder.conv1.out_channels == 4


def test_the_random_state_of_the_caller_is_left_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    build_encoder("alexnet", SMALL, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_of_a_run_is_its_architecture_at_fresh_weights(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    encoder, card = open_encoder(f"random:{run}", {}, seed=7)
    assert weights_sha256(encoder) == weights_sha256(build_encoder("alexnet", SMALL, seed=7)[0])
    assert weights_sha256(encoder) != weights_sha256(open_encoder(str(run), {}, seed=7)[0])
    assert (card.method, card.pretext, card.seed, card.image_size) == ("Random", "none", 7, 0)


def test_an_encoder_comes_before_a_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alexnet").mkdir()
    assert open_encoder("random:alexnet", SMALL, seed=0)[1].encoder == "alexnet"
    with pytest.raises(UsageError, match="There are no weights at"):
        open_encoder("random:./alexnet", {}, seed=0)


def test_a_card_names_the_model_that_was_built(tmp_path: Path) -> None:
    _, card = build_encoder("timm", {"argument": "test_resnet"}, seed=0)
    assert card.encoder == "timm:test_resnet"
    run = run_folder(tmp_path, {}, spec="timm:test_resnet")
    assert open_encoder(str(run), {}, seed=0)[1].encoder == "timm:test_resnet"


@pytest.mark.parametrize("spec", ["torchvision_alexnet", "timm:test_resnet"])
def test_pretrained_weights_do_not_pass_for_random_ones(spec: str) -> None:
    with pytest.raises(UsageError, match=r"write --from torchvision:alexnet or timm:NAME"):
        build_encoder(spec, {"pretrained": "true"}, seed=0)


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ("random:alexnte", {}, "no encoder 'alexnte'.*Did you mean 'alexnet'"),
        ("alexnte=weights.pt", {}, "Did you mean 'alexnet'"),
        ("random:timm:resnte18", {}, "Did you mean resnet18"),
        ("random:alexnet:11", {}, "takes no argument and '11' was given"),
        ("random:alexnet", {"chanels": "1"}, "Did you mean 'channels'"),
        ("random:alexnet", {"groups": "3"}, "encoder.groups = 3"),
        ("random", {}, "random:ENCODER"),
        ("random:", {}, "random:ENCODER"),
        ("alexnet", {}, "There are no weights at 'alexnet': name random:ENCODER"),
        ("alexnet=absent.pt", {}, "There are no weights at 'absent.pt'"),
    ],
)
def test_names_that_do_not_exist_are_refused_with_the_way_out(
    source: str, settings: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        open_encoder(source, settings, seed=0)


# A run's own file


def test_a_run_and_its_file_are_the_same_source(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "lr=0.001")  # an equals sign in a path that exists means nothing
    by_folder, card = open_encoder(str(run), {}, seed=0)
    by_file, same_card = open_encoder(str(run / ENCODER_FILE), {}, seed=1)
    assert weights_sha256(by_folder) == weights_sha256(by_file)
    assert card == same_card
    assert card.image_size == 96


def test_settings_cannot_change_a_trained_architecture(tmp_path: Path) -> None:
    for prefix in ("", "random:"):
        with pytest.raises(UsageError, match=r"--set encoder\.groups cannot apply"):
            open_encoder(f"{prefix}{run_folder(tmp_path)}", {"groups": "2"}, seed=0)


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    run_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [ENCODER_FILE]


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    encoder, card = build_encoder("alexnet", SMALL, 0)
    with pytest.raises(UsageError, match=r"Cannot write .*file"):
        save_weights(tmp_path / "file" / ENCODER_FILE, encoder, card)


def test_a_disk_that_is_full_is_a_usage_error(tmp_path: Path) -> None:
    import resource
    import signal

    encoder, card = build_encoder("alexnet", SMALL, 0)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
        with pytest.raises(UsageError, match="Cannot write"):
            save_weights(tmp_path / ENCODER_FILE, encoder, card)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


def test_weights_without_a_card_need_the_encoders_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state_of(), path)
    for prefix in ("", "random:"):
        with pytest.raises(UsageError, match="does not say which encoder it is for: write"):
            open_encoder(f"{prefix}{path}", {}, seed=0)
    encoder, card = open_encoder(f"alexnet={path}", SMALL, seed=0)
    assert weights_sha256(encoder) == weights_sha256(build_encoder("alexnet", SMALL, 5)[0])
    assert (card.method, card.supervision) == ("alexnet from weights.safetensors", "unknown")


@pytest.mark.parametrize("card", ["{", "[]", '{"encoder": "alexnet"}', '{"encoder": "alexnet", "hat": 1}'])
def test_a_broken_card_is_refused(card: str, tmp_path: Path) -> None:
    path = tmp_path / ENCODER_FILE
    save_file(state_of(), path, metadata={"card": card})
    with pytest.raises(UsageError):
        open_encoder(str(path), {}, seed=0)


def test_a_card_of_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    path = run_folder(tmp_path) / ENCODER_FILE
    state, card = checkpoint.read_weights(path)
    assert card is not None
    values = card.model_dump()
    values["encoder_config"]["hats"] = 3
    save_file(state, path, metadata={"card": json.dumps(values)})
    with pytest.raises(UsageError, match="hats"):
        open_encoder(str(path), {}, seed=0)


# Weights made elsewhere


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "encoder.", "backbone.module."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_wrappers_are_taken_off(prefix: str, wrapper: str | None, tmp_path: Path) -> None:
    state: dict[str, object] = {prefix + name: tensor for name, tensor in state_of().items()}
    path = saved(state if wrapper is None else {wrapper: state, "epoch": 3}, tmp_path / "w.pt")
    encoder, _ = open_encoder(f"alexnet={path}", SMALL, seed=0)
    assert weights_sha256(encoder) == weights_sha256(build_encoder("alexnet", SMALL, 5)[0])


def test_every_kind_of_misfit_is_told_at_once(tmp_path: Path) -> None:
    state = state_of()
    del state["conv1.weight"], state["norms.0.bias"]
    state["conv2.weight"] = state["conv2.weight"][:, :1]
    state |= {"conv6.weight": torch.zeros(1), "classifier.1.weight": torch.zeros(1)}
    with pytest.raises(UsageError) as caught:
        open_encoder(f"alexnet={saved(state, tmp_path / 'w.pt')}", SMALL, seed=0)
    count = len(state_of())
    assert f"{count - 3} of {count} tensors fit" in str(caught.value)
    assert "missing 2 (conv1.weight, norms.0.bias)" in str(caught.value)
    assert "of another shape 1 (conv2.weight)" in str(caught.value)
    assert "unexpected 1 (conv6.weight)." in str(caught.value)


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    path = saved(dict(build_encoder("dcgan", {"channels": "4,4,4,4,4"}, 0)[0].state_dict()), tmp_path / "w.pt")
    with pytest.raises(
        UsageError, match=r"is of another encoder: .* missing .*conv1.weight.* unexpected .*convolutions"
    ):
        open_encoder(f"alexnet={path}", SMALL, seed=0)
    wide = saved(state_of({**SMALL, "channels": "8,6,6,6,4"}), tmp_path / "wide.pt")
    with pytest.raises(UsageError, match="of another shape"):
        open_encoder(f"alexnet={wide}", SMALL, seed=0)


def test_a_refused_file_changes_nothing(tmp_path: Path) -> None:
    encoder, _ = build_encoder("alexnet", SMALL, 0)
    before, state = weights_sha256(encoder), state_of()
    del state["conv5.weight"]
    with pytest.raises(UsageError):
        checkpoint.load_strictly(encoder, state, tmp_path)
    assert weights_sha256(encoder) == before


def test_torchvisions_own_file_fits_its_alexnet(tmp_path: Path) -> None:
    from torchvision.models import alexnet

    model = alexnet(num_classes=7)
    path = saved(model.state_dict(), tmp_path / "alexnet.pth")  # classifier and all
    encoder, _ = open_encoder(f"torchvision_alexnet={path}", {}, seed=0)
    assert torch.equal(encoder.features[0].weight, model.features[0].weight)
    assert torch.equal(encoder.features[10].bias, model.features[10].bias)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
@pytest.mark.parametrize("prefix", ["", "model.", "module."])
def test_timms_own_file_fits_its_model(name: str, prefix: str, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(2)
    whole = timm.create_model(name, num_classes=7).eval()  # features_only names its layers otherwise
    path = saved({prefix + k: v for k, v in whole.state_dict().items()}, tmp_path / "w.pth")
    encoder, card = open_encoder(f"timm:{name}={path}", {}, seed=0)
    images, given = torch.rand(1, 3, 160, 160), whole.pretrained_cfg
    mean, deviation = (torch.tensor(given[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = whole.forward_intermediates((images - mean) / deviation, intermediates_only=True)[-1]
        torch.testing.assert_close(list(encoder.eval()(images).values())[-1], expected)
    assert card.encoder == f"timm:{name}"


def test_a_timm_file_of_a_larger_model_is_refused(tmp_path: Path) -> None:
    import timm

    state = timm.create_model("test_resnet").state_dict()
    state |= {"layer5.0.weight": torch.zeros(1)}
    with pytest.raises(UsageError, match=r"unexpected 1 \(layer5.0.weight\)"):
        open_encoder(f"timm:test_resnet={saved(state, tmp_path / 'w.pth')}", {}, seed=0)


def test_an_encoders_own_timm_weights_come_back_without_a_card(tmp_path: Path) -> None:
    made, _ = build_encoder("timm:test_vit", {}, seed=1)
    found, _ = open_encoder(f"timm:test_vit={saved(dict(made.state_dict()), tmp_path / 'w.pt')}", {}, seed=0)
    assert weights_sha256(found) == weights_sha256(made)


class Malice:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path = saved({"conv1.weight": Malice(tmp_path / "made")}, tmp_path / "w.pt")
    with pytest.raises(UsageError, match="holds no weights that can be read safely"):
        open_encoder(f"alexnet={path}", SMALL, seed=0)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(name: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / name
    save_file(state_of(), path) if path.suffix == ".safetensors" else saved(state_of(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UsageError, match="holds no weights that can be read safely"):
        open_encoder(f"alexnet={path}", SMALL, seed=0)


@pytest.mark.parametrize("content", [b"hello", b"\x80", b"\x80\x02h\x65.", b"\x80\x02}e.", b"PK\x03\x04", b"\x80\x02K"])
def test_a_file_of_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    for name in ("w.pt", "w.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match="holds no weights that can be read safely"):
            checkpoint.read_weights(tmp_path / name)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {}, {"a": 1}, {"state_dict": {}}, {1: torch.zeros(1)}])
def test_what_is_no_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a state dict"):
        checkpoint.read_weights(saved(content, tmp_path / "w.pt"))


def test_a_download_that_fails_tells_the_other_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # an empty cache
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # and nothing to fetch from
    with pytest.raises(UsageError, match=r"could not be had .* --from torchvision_alexnet=FILE"):
        open_encoder("torchvision:alexnet", {}, seed=0)


# The hash


def test_any_weight_and_any_buffer_changes_the_hash() -> None:
    encoder, _ = build_encoder("alexnet", SMALL, 0)
    seen = {weights_sha256(encoder)}
    with torch.no_grad():
        for tensor in encoder.state_dict().values():
            tensor.view(-1)[-1] += 1
            seen.add(weights_sha256(encoder))
    assert len(seen) == len(encoder.state_dict()) + 1


def test_type_and_shape_are_part_of_the_hash() -> None:
    flat, square, half = torch.nn.Module(), torch.nn.Module(), torch.nn.Module()
    flat.register_buffer("a", torch.zeros(4))
    square.register_buffer("a", torch.zeros(2, 2))
    half.register_buffer("a", torch.zeros(4, dtype=torch.bfloat16))
    assert len({weights_sha256(m) for m in (flat, square, half)}) == 3


def test_memory_layout_and_mode_are_no_part_of_the_hash() -> None:
    encoder, _ = build_encoder("alexnet", SMALL, 0)
    before = weights_sha256(encoder)
    encoder.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    assert not encoder.conv2.weight.is_contiguous()
    assert weights_sha256(encoder) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_is_no_part_of_the_hash() -> None:
    encoder, _ = build_encoder("alexnet", SMALL, 0)
    before = weights_sha256(encoder)
    assert weights_sha256(encoder.cuda()) == before


def test_channels_last_weights_are_saved_as_they_are(tmp_path: Path) -> None:
    encoder, card = build_encoder("alexnet", SMALL, 0)
    before = weights_sha256(encoder)
    save_weights(tmp_path / ENCODER_FILE, encoder.to(memory_format=torch.channels_last), card)
    assert weights_sha256(open_encoder(str(tmp_path), {}, 0)[0]) == before


def test_a_setting_that_came_later_is_in_a_card_only_where_it_is_chosen() -> None:
    """Cards are part of what identifies a number: those of before must stay as they were."""
    _, plain = build_encoder("compact_alexnet", {}, 0)
    assert sorted(plain.encoder_config) == ["channels", "groups", "initial_deviation", "normalization", "stem"]
    _, free = build_encoder("compact_alexnet", {"pooling": "convolution"}, 0)
    assert free.encoder_config == {**plain.encoder_config, "pooling": "convolution"}
