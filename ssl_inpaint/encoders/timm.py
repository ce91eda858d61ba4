"""Any timm model with feature stages, as `timm:NAME`, random or with timm's weights."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_inpaint.config import Settings
from ssl_inpaint.core import Encoder, Stage
from ssl_inpaint.errors import UsageError

VISION_TRANSFORMERS = ("timm.models.vision_transformer", "timm.models.deit")


class Config(Settings):
    """Which model, of which size, and which weights."""

    later: ClassVar[frozenset[str]] = frozenset({"image_size", "patch_size", "depth"})
    argument: str = "resnet18"  # timm's name, with its tag after a dot if wanted: resnet50.a1_in1k
    pretrained: bool = False  # timm's weights, downloaded where its cache does not have them
    # Of transformers. None: as the name says, and what the weights were trained with.
    image_size: int | None = Field(None, ge=16)  # pixels a side of the images that its positions are for
    patch_size: int | None = Field(None, ge=2)  # pixels a side of a patch: 8 suits images of 64 or 96 pixels
    depth: int | None = Field(None, ge=3)  # blocks; the last 3 are the stages

    @property
    def changes(self) -> dict[str, int]:
        """What differs from the model that the name says, in timm's words."""
        values = {"img_size": self.image_size, "patch_size": self.patch_size, "depth": self.depth}
        return {name: value for name, value in values.items() if value is not None}


def build(config: Config, weights: Mapping[str, Tensor] | None = None) -> Encoder:
    """The encoder: random from torch's current random state, pretrained, or with `weights` of the `whole` model.

    UsageError where timm has no such model, or cannot make it with these settings or with feature stages; OSError where
    a download fails; ValueError where `weights` do not cover the encoder (timm itself would leave the rest random and
    say nothing).
    """
    _refuse_unknown(config.argument)
    import timm

    try:
        model = timm.create_model(
            config.argument,
            pretrained=config.pretrained or weights is not None,
            pretrained_cfg_overlay=None if weights is None else {"state_dict": dict(weights)},
            features_only=True,
            **_any_size(config.argument),
            **config.changes,
        )
    except TypeError as error:  # of a setting that this model has not
        if not config.changes:
            raise
        raise UsageError(
            f"timm model '{config.argument}' takes no such setting ({error}): encoder.image_size, encoder.patch_size "
            "and encoder.depth are for transformers such as vit_tiny_patch16_224."
        ) from None
    except (AssertionError, AttributeError, NotImplementedError, RuntimeError) as error:
        reason = str(error) or type(error).__name__
        raise UsageError(
            f"timm cannot make '{config.argument}' with feature stages ({reason}): choose another."
        ) from None
    if weights is not None:
        given = {_fingerprint(tensor) for tensor in weights.values()}
        left_out = [name for name, tensor in model.state_dict().items() if _fingerprint(tensor) not in given]
        if left_out:
            raise ValueError(f"{len(left_out)} tensors of '{config.argument}' are not among the weights: {left_out[0]}")
    return (TimmViT if _is_plain_vit(model) else TimmEncoder)(config.argument, model, config.image_size)


def whole(config: Config) -> nn.Module:
    """The timm model with its classifier: what a weights file from elsewhere is for."""
    _refuse_unknown(config.argument)
    import timm

    model: nn.Module = timm.create_model(config.argument, **config.changes)
    return model


class TimmEncoder(Encoder):
    """stage1..stageN as timm's `features_only` gives them, normalised with the weights' own mean and deviation.

    Channels and strides are timm's word. Every map is taken to look half a stride in with its first cell, which is
    right for networks of patches (ConvNeXt, Swin); ResNet's padding has it look half a pixel in: heads learn the rest.
    `smallest_input` is 32, or the model's own size where it takes no other; some (the Inception family) need more than
    32, and then timm's own error says so.
    """

    smallest_input = 32
    natural_size = 0  # pixels a side of the images that it was made for; 0: any are as good
    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str, model: Any, image_size: int | None = None) -> None:
        super().__init__()
        self.name, self.model = name, model
        info = model.feature_info
        pairs = zip(info.channels(), info.reduction(), strict=True)
        self.stages = {f"stage{i}": Stage(c, int(r)) for i, (c, r) in enumerate(pairs, start=1)}
        settings = model.pretrained_cfg
        self.is_fixed = bool(settings.get("fixed_input_size"))
        if self.is_fixed:
            self.smallest_input = image_size or settings["input_size"][-1]
        self.has_channels_last = getattr(model, "output_fmt", None) == "NHWC"  # as Swin's maps
        self.register_buffer("mean", torch.tensor(settings["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(settings["std"]).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """B x 3 x H x W in [0, 1] to the model's stages, B x C x h x w each; UsageError for a size it cannot take."""
        maps = self.model(self.normalised(images))
        if self.has_channels_last:
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        return dict(zip(self.stages, maps, strict=True))

    def normalised(self, images: Tensor) -> Tensor:
        """What the model reads for images in [0, 1]; UsageError for a size it cannot take."""
        if self.is_fixed and images.shape[-1] != self.smallest_input:
            raise UsageError(
                f"timm model '{self.name}' takes images of {self.smallest_input} pixels a side only and was given "
                f"{images.shape[-1]}: set crops.size (retrieval.patch_size) to {self.smallest_input}, or, where its "
                f"weights are to be trained here, encoder.image_size to {images.shape[-1]}."
            )
        return (images - self.mean) / self.deviation


class TimmViT(TimmEncoder):
    """A plain vision transformer, whose blocks also run on some of the patches alone: what masking asks for.

    It takes images of any shape: learned positions are stretched over them (bicubic, as timm does it), and the right
    and bottom edge padded to whole patches with the mean colour. `patch_size` is in pixels; `prefix_tokens` counts what
    goes before the patches, such as the class token.
    """

    def __init__(self, name: str, model: Any, image_size: int | None = None) -> None:
        super().__init__(name, model, image_size)
        self.patch_size: int = model.model.patch_embed.patch_size[0]
        self.prefix_tokens: int = model.model.num_prefix_tokens
        if model.model.dynamic_img_size:
            self.natural_size = self.smallest_input  # what its weights know best
            self.is_fixed, self.smallest_input = False, 2 * self.patch_size

    @property
    def positions(self) -> Tensor:
        """N x D, learned: what is added to the patches, row by row."""
        vit = self.model.model
        found: Tensor = vit.pos_embed[0, -vit.patch_embed.num_patches :]
        return found

    def encode_patches(self, images: Tensor, kept: Tensor) -> Tensor:
        """B x (prefix + V) x D: the last block's output where only the V patches `kept` (B x V int64) go through it.

        Patches are counted row by row. With all of them, in order, these are the values of the deepest stage.
        """
        vit = self.model.model
        tokens = vit._pos_embed(vit.patch_embed(self.normalised(images)))
        prefix, patches = tokens[:, : self.prefix_tokens], tokens[:, self.prefix_tokens :]
        visible = patches.gather(1, kept.unsqueeze(2).expand(-1, -1, patches.shape[2]))
        encoded: Tensor = vit.blocks(vit.norm_pre(torch.cat([prefix, visible], dim=1)))
        return encoded


def _any_size(argument: str) -> dict[str, bool]:
    """What has timm make a vision transformer that takes images of any size; nothing for other models."""
    import timm

    module = timm.model_entrypoint(argument.split(".")[0]).__module__
    flags = ("dynamic_img_size", "dynamic_img_pad")
    return dict.fromkeys(flags, True) if module in VISION_TRANSFORMERS else {}


def _is_plain_vit(model: Any) -> bool:
    """True where every patch is embedded by itself: not behind convolutions, as in hybrids, whose windows overlap."""
    from timm.layers import PatchEmbed
    from timm.models.vision_transformer import VisionTransformer

    vit = getattr(model, "model", None)
    if not isinstance(vit, VisionTransformer) or not isinstance(vit.patch_embed, PatchEmbed):
        return False
    height, width = vit.patch_embed.patch_size
    return height == width and vit.pos_embed is not None


def _fingerprint(tensor: Tensor) -> tuple[torch.Size, float]:
    return tensor.shape, float(tensor.double().sum())


def _refuse_unknown(argument: str) -> None:
    import timm

    architecture = argument.split(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"There is no timm model '{argument}': timm.list_models() names them all.{hint}")
