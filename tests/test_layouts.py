"""Generators built elsewhere in our network: equal outputs, and refusal of what is another network."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ssl_inpaint import checkpoint
from ssl_inpaint.encoders import dcgan
from ssl_inpaint.errors import UsageError
from ssl_inpaint.layouts import Match, match, refuse_poor
from ssl_inpaint.pretext.generator import ContextEncoder, GeneratorConfig

PATH = Path("netG.pth")


# The ports' networks, small: as many layers, a sixteenth of the channels, ten units in the bottleneck


def down(before: int, after: int, has_norm: bool = True, bias: bool = False) -> list[nn.Module]:
    norm = [nn.BatchNorm2d(after)] if has_norm else []
    return [nn.Conv2d(before, after, 4, 2, 1, bias=bias), *norm, nn.LeakyReLU(0.2)]


def up(before: int, after: int, stride: int = 2, padding: int = 1, bias: bool = False) -> list[nn.Module]:
    return [nn.ConvTranspose2d(before, after, 4, stride, padding, bias=bias), nn.BatchNorm2d(after), nn.ReLU()]


def encoding(units: int, bias: bool = False, has_first_norm: bool = False) -> list[nn.Module]:
    first = [*down(3, 4, has_first_norm, bias), *down(4, 4, True, bias), *down(4, 8, True, bias)]
    bottleneck = [nn.Conv2d(32, units, 4, bias=bias), nn.BatchNorm2d(units), nn.LeakyReLU(0.2)]
    return [*first, *down(8, 16, True, bias), *down(16, 32, True, bias), *bottleneck]


def decoding(units: int, bias: bool = False) -> list[nn.Module]:
    inner = [*up(units, 32, 1, 0, bias), *up(32, 16, bias=bias), *up(16, 8, bias=bias), *up(8, 4, bias=bias)]
    return [*inner, nn.ConvTranspose2d(4, 3, 4, 2, 1, bias=bias), nn.Tanh()]


def one_sequential(units: int = 10, bias: bool = False) -> nn.Module:
    """BoyuanJiang/context_encoder_pytorch, _netG of its first version and of its forks."""
    return nn.Sequential(OrderedDict(main=nn.Sequential(*encoding(units, bias), *decoding(units, bias))))


def two_sequentials(units: int = 10) -> nn.Module:
    """BoyuanJiang/context_encoder_pytorch, _netG of its later version."""
    halves = {"main_encode": nn.Sequential(*encoding(units)), "main_decode": nn.Sequential(*decoding(units))}
    return nn.Sequential(OrderedDict(halves))


def blocks() -> nn.Module:
    """fbuchert/context-encoder-pytorch: the bottleneck has a bias, and its BatchNorm is the decoder's."""
    encoder = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 4, 4, 2, 1, bias=False),
            relu1=nn.LeakyReLU(0.2),
            blocks=nn.Sequential(*(nn.Sequential(*down(a, b)) for a, b in ((4, 4), (4, 8), (8, 16), (16, 32)))),
            conv_bottleneck=nn.Conv2d(32, 10, 4),
        )
    )
    decoder = nn.Sequential(
        OrderedDict(
            bn1=nn.BatchNorm2d(10),
            relu1=nn.LeakyReLU(0.2),
            bottleneck_block=nn.Sequential(*up(10, 32, 1, 0)),
            blocks=nn.Sequential(*(nn.Sequential(*up(a, b)) for a, b in ((32, 16), (16, 8), (8, 4)))),
            final_conv=nn.ConvTranspose2d(4, 3, 4, 2, 1, bias=False),
            tanh=nn.Tanh(),
        )
    )
    return nn.Sequential(OrderedDict(encoder=encoder, decoder=decoder))


def pytorch_gan() -> nn.Module:
    """eriklindernoren/PyTorch-GAN: a 1 x 1 bottleneck without BatchNorm, a 3 x 3 convolution at the end."""
    first = [*down(3, 4, False, True), *down(4, 4, bias=True), *down(4, 8, bias=True), *down(8, 16, bias=True)]
    middle = [*down(16, 32, bias=True), nn.Conv2d(32, 10, 1), *up(10, 32, bias=True), *up(32, 16, bias=True)]
    last = [*up(16, 8, bias=True), *up(8, 4, bias=True), nn.Conv2d(4, 3, 3, 1, 1), nn.Tanh()]
    return nn.Sequential(OrderedDict(model=nn.Sequential(*first, *middle, *last)))


def discriminator() -> nn.Module:
    """BoyuanJiang/context_encoder_pytorch, _netlocalD."""
    last = [nn.Conv2d(32, 1, 4, bias=False), nn.Sigmoid()]
    inner = [*down(3, 4, False), *down(4, 8), *down(8, 16), *down(16, 32), *last]
    return nn.Sequential(OrderedDict(main=nn.Sequential(*inner)))


def trained(network: nn.Module) -> nn.Module:
    """Statistics, scales, shifts and biases as after training: none of them 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.02, 0.5, generator=generator)
            elif name.endswith("num_batches_tracked"):
                tensor.fill_(7)
            elif name.endswith("running_mean"):
                tensor.normal_(0, 0.2, generator=generator)
            elif tensor.dim() == 1:
                tensor.uniform_(0.3, 1, generator=generator)
            else:
                tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
    return network.eval()


def ours(units: int = 10) -> ContextEncoder:
    encoder = dcgan.build(dcgan.Config(channels=(4, 4, 8, 16, 32)))
    config = GeneratorConfig(bottleneck="full", bottleneck_units=units, decoder_channels=(16, 8, 4))
    return ContextEncoder(encoder, 128, config, target=64).eval()


@torch.no_grad()
def assert_same_outputs(theirs: nn.Module, found: Match, units: int = 10) -> None:
    """On the centre, in float64 up to our tanh, which is taken in float32: to its rounding."""
    network = ours(units)
    network.load_state_dict(found.state)
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = (theirs.double()(images * 2 - 1) + 1) / 2
    assert expected.std() > 0.1  # something to compare
    given = network.double()(images)[network.window()]
    torch.testing.assert_close(given.double(), expected, rtol=0, atol=1e-6)


def refusal(state: dict[str, Tensor]) -> str:
    with pytest.raises(UsageError, match=f"^{PATH} is of another network") as caught:
        refuse_poor(match(state, ours().state_dict()), PATH)
    return str(caught.value)


# What fits


@pytest.mark.parametrize("prefix", ["", "module.", "module.netG.", "generator."])
@pytest.mark.parametrize("build", [one_sequential, two_sequentials])
def test_the_ports_network_gives_the_same_fills(build, prefix: str, tmp_path: Path) -> None:
    theirs = trained(build())
    state = {prefix + name: tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "netG.pth")
    read, _ = checkpoint.read_weights(tmp_path / "netG.pth")
    found = match(read, ours().state_dict())
    refuse_poor(found, PATH)
    assert (found.missing, found.reshaped, found.unexpected, found.folded, found.left_out) == ([], [], [], [], ())
    assert found.flattened == ["bottleneck.squeeze.weight", "bottleneck.expand.weight"]
    assert found.zeroed == ["decoder.9.bias"]
    assert found.state["decoder.1.num_batches_tracked"] == 7
    assert_same_outputs(theirs, found)


def test_biases_before_batchnorm_are_folded_exactly_and_the_file_is_left_alone() -> None:
    theirs = trained(one_sequential(bias=True))
    nn.init.zeros_(theirs.get_parameter("main.0.bias"))  # no BatchNorm follows: only 0 has a place in ours
    state = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    found = match(state, ours().state_dict())
    refuse_poor(found, PATH)
    assert len(found.folded) == 9 and not found.unexpected
    assert (
        "biases folded into the BatchNorm behind them: 9 (main.2.bias, main.5.bias, main.8.bias, ...)" in found.report()
    )
    assert all(torch.equal(state[name], tensor) for name, tensor in theirs.state_dict().items())
    assert_same_outputs(theirs, found)


def test_a_bias_without_batchnorm_behind_it_is_refused_where_ours_has_none() -> None:
    state = trained(one_sequential(bias=True)).state_dict()
    assert "main.0.bias is not zero, has no BatchNorm behind it and has no place here" in refusal(state)


def test_blocks_with_the_bottlenecks_norm_in_the_decoder_give_the_same_fills() -> None:
    theirs = trained(blocks())
    found = match(theirs.state_dict(), ours().state_dict())
    refuse_poor(found, PATH)
    assert found.folded == ["encoder.conv_bottleneck.bias"]
    assert_same_outputs(theirs, found)


@pytest.mark.parametrize("build", [one_sequential, two_sequentials])
def test_an_alphabetical_file_is_read_in_the_order_of_the_layers(build) -> None:
    theirs = trained(build())  # main.10 before main.2, main_decode before main_encode
    found = match(dict(sorted(theirs.state_dict().items())), ours().state_dict())
    refuse_poor(found, PATH)
    assert_same_outputs(theirs, found)


def test_a_square_bottleneck_is_not_transposed() -> None:
    theirs = trained(one_sequential(units=512))  # 32 channels x 4 x 4 places: either reading has the right shape
    found = match(theirs.state_dict(), ours(512).state_dict())
    refuse_poor(found, PATH)
    assert_same_outputs(theirs, found, 512)


def test_files_from_before_the_counters_and_of_half_precision_are_read() -> None:
    state = {k: v.half() for k, v in trained(one_sequential()).state_dict().items() if "num_batches" not in k}
    found = match(state, ours().state_dict())
    refuse_poor(found, PATH)
    assert len(found.zeroed) == 10  # nine counters, one bias
    assert found.state["decoder.0.weight"].dtype == torch.float32
    ours().load_state_dict(found.state)


def test_our_own_file_is_matched_by_name_whatever_its_order() -> None:
    state = trained(ours()).state_dict()
    backwards = {f"module.{name}": state[name] for name in reversed(state)}
    found = match(backwards, ours().state_dict())
    refuse_poor(found, PATH)
    assert set(found.matched) == set(state) and all(found.state[name] is state[name] for name in state)
    assert found.report() == [f"{len(state)} of {len(state)} tensors come from the file"]


def test_the_generator_is_taken_from_a_file_of_both_players() -> None:
    players = {"netD": discriminator(), "netG": one_sequential()}
    state = {f"{name}.{key}": t for name, p in players.items() for key, t in trained(p).state_dict().items()}
    found = match(state, ours().state_dict())
    refuse_poor(found, PATH)
    assert len(found.left_out) == len(discriminator().state_dict()) and not found.unexpected
    assert_same_outputs(players["netG"], found)


@pytest.mark.parametrize("key", ["generator_state_dict", "G"])
def test_a_training_checkpoint_is_opened_at_its_generator(key: str, tmp_path: Path) -> None:
    other = {"epoch": 1, "discriminator_state_dict": discriminator().state_dict(), "D": discriminator().state_dict()}
    torch.save({**other, key: blocks().state_dict()}, tmp_path / "last_model.tar")
    read, _ = checkpoint.read_weights(tmp_path / "last_model.tar")
    assert read.keys() == blocks().state_dict().keys()


# What does not


def test_pytorch_gans_network_is_refused_with_what_differs() -> None:
    said = refusal(trained(pytorch_gan()).state_dict())
    assert "8 BatchNorms there, 9 here" in said
    assert "bottleneck.squeeze.weight: 10 x 32 x 1 x 1 there, 10 x 512 here" in said


def test_a_batchnorm_too_many_is_refused() -> None:  # xyfJASON/Context-Encoder-pytorch has one after conv1
    theirs = nn.Sequential(*encoding(10, has_first_norm=True), *decoding(10))
    assert "10 BatchNorms there, 9 here" in refusal(theirs.state_dict())


def test_a_discriminator_is_refused() -> None:
    assert "5 convolutions and matrices there, 11 here; 3 BatchNorms there, 9 here" in refusal(
        discriminator().state_dict()
    )


def test_a_bottleneck_of_another_size_is_named_with_both_sizes() -> None:
    said = refusal(one_sequential(units=7).state_dict())
    assert "bottleneck.squeeze.weight: 7 x 32 x 4 x 4 there, 10 x 512 here" in said and "\n" not in said


def test_a_file_cut_short_or_empty_is_refused() -> None:
    whole = one_sequential().state_dict()
    assert "10 convolutions and matrices there, 11 here" in refusal(dict(list(whole.items())[:-1]))
    without = {name: tensor for name, tensor in whole.items() if name != "main.3.running_var"}
    assert "missing 1 (encoder.norms.1.running_var)" in refusal(without)
    assert f"0 of {len(ours().state_dict())} tensors come from the file" in refusal({})


def test_a_few_unexpected_tensors_are_reported_and_many_refused() -> None:
    state = dict(one_sequential().state_dict())
    few = match({**state, "scale": torch.ones(1)}, ours().state_dict())
    refuse_poor(few, PATH)
    assert "unexpected 1 (scale)" in few.report()
    many = {**state, **{f"slopes.{i}.weight": torch.ones(1) for i in range(9)}}
    assert "unexpected 9 (slopes.0.weight, slopes.1.weight, slopes.2.weight, ...)" in refusal(many)


def test_layers_of_equal_shape_keep_their_order() -> None:
    theirs = trained(one_sequential())
    found = match(theirs.state_dict(), ours().state_dict())
    assert torch.equal(found.state["encoder.norms.1.running_mean"], theirs.state_dict()["main.3.running_mean"])
    assert torch.equal(found.state["decoder.7.running_mean"], theirs.state_dict()["main.27.running_mean"])
