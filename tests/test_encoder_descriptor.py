import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_inpaint import holes
from ssl_inpaint.core import Encoder
from ssl_inpaint.descriptors import encoder as part
from ssl_inpaint.encoders.alexnet import AlexNet
from ssl_inpaint.encoders.alexnet import Config as AlexNetConfig
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment.descriptors import open_descriptor
from ssl_inpaint.runtime import Runtime


def patches(count: int, size: int = 64, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def tiny_encoder() -> Encoder:
    torch.manual_seed(0)
    config = AlexNetConfig(channels=(4, 6, 8, 8, 6), stem="7x7/2", normalization="batch", initial_deviation=None)
    return AlexNet(config).eval()


def descriptor(encoder: Encoder | None = None, **settings: object) -> part.EncoderDescriptor:
    return part.build(part.Config(**{"size": 96, **settings}), encoder or tiny_encoder(), "tiny")


def hole(kind: str = "centre", size: int = 64) -> Tensor:
    return holes.draw(kind, 1, size, torch.Generator().manual_seed(2))[0, 0]


@pytest.mark.parametrize(("stage", "grid", "length"), [("", 3, 6 * 9), ("", 9, 6 * 36), ("conv1", 2, 16), ("", 1, 6)])
def test_the_vector_has_channels_times_cells(stage: str, grid: int, length: int) -> None:
    found = descriptor(stage=stage, grid=grid).describe(patches(2), None)
    assert found.shape == (2, length)
    assert found.dtype == np.float32


def test_the_vector_is_the_stage_averaged_to_the_grid() -> None:
    encoder, given = tiny_encoder(), patches(2, 96)  # no resizing
    with torch.no_grad():
        maps = encoder(given)["pool5"]  # 6 x 6
    cells = [maps[..., y : y + 2, x : x + 2].mean(dim=(2, 3)) for y in (0, 2, 4) for x in (0, 2, 4)]
    expected = torch.stack(cells, dim=2).flatten(1).numpy()
    np.testing.assert_allclose(descriptor(encoder).describe(given, None), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", holes.KINDS)
@pytest.mark.parametrize("size", [32, 96])  # the patch shrinks, the patch grows
def test_hidden_pixels_are_never_read(kind: str, size: int) -> None:
    given, hidden = patches(3), hole(kind)
    found = descriptor(size=size, stage="conv3").describe(given, hidden)
    for poison in (torch.nan, 1e6):
        poisoned = torch.where(hidden, poison, given)
        assert np.array_equal(descriptor(size=size, stage="conv3").describe(poisoned, hidden), found)
    assert not np.array_equal(descriptor(size=size, stage="conv3").describe(given, None), found)


def test_visible_pixels_are_read() -> None:
    given, hidden = patches(1), hole()
    changed = given.clone()
    changed[..., :4, :4] = 1 - changed[..., :4, :4]
    assert not np.array_equal(descriptor().describe(given, hidden), descriptor().describe(changed, hidden))


def test_the_chunk_size_changes_nothing() -> None:
    given = patches(7)
    whole = descriptor(batch_size=100).describe(given, hole())
    for batch_size in (1, 3, 7):
        chunked = descriptor(batch_size=batch_size).describe(given, hole())
        np.testing.assert_allclose(chunked, whole, rtol=1e-4, atol=1e-5)  # other batch sizes sum in another order


@pytest.mark.parametrize("is_training", [True, False])
def test_the_encoder_describes_in_eval_mode_and_is_left_as_it_was(is_training: bool) -> None:
    encoder = tiny_encoder()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    expected = descriptor(encoder.eval()).describe(patches(2), None)
    encoder.train(is_training)
    assert np.array_equal(descriptor(encoder).describe(patches(2), None), expected)
    assert encoder.training == is_training
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_the_patches_themselves_are_not_written_to() -> None:
    given = patches(2)
    before = given.clone()
    descriptor().describe(given, hole())
    assert torch.equal(given, before)


def test_an_unknown_stage_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no stage 'pool6'.*Did you mean 'pool"):
        descriptor(stage="pool6")


def test_a_vision_transformer_describes_patches_at_the_size_that_it_was_made_for() -> None:
    cpu = Runtime(torch.device("cpu"), is_bf16=False)
    for spec, size in (("random:timm:test_vit", 160), ("random:timm:resnet18", 64)):
        found = open_descriptor(spec, 64, {}, 0, cpu).descriptor
        assert isinstance(found, part.EncoderDescriptor) and found.config.size == size
