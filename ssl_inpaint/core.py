"""The nouns of the suite: every part is one of these, and every file speaks in these terms.

Images are RGB, float32, [0, 1], B x 3 x H x W, wherever they are tensors. A hole is B x 1 x H x W bool, True where
pixels are missing. Legend of dimensions: B batch, N items, C channels, H W pixels, D feature size, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Prediction = TypeVar("Prediction")
Annotation = TypeVar("Annotation", contravariant=True)


class Images(Protocol):
    """A sequence of still undecoded images, read by position."""

    def __len__(self) -> int: ...

    def name(self, position: int) -> str:
        """What to call the image in messages: its path below the data set's root, or an index."""
        ...

    def read(self, position: int) -> bytes:
        """The encoded file (as PNG for sets that come decoded); OSError where it cannot be read."""
        ...

    def stamp(self) -> str:
        """Changes whenever the images may have changed, found without reading them (names, sizes, times)."""
        ...


@dataclass(frozen=True)
class Objects:
    """The annotated objects of one image; boxes in pixels of the original file."""

    boxes: np.ndarray  # M x 4 float32: x1 y1 x2 y2, the right and bottom edge excluded
    labels: np.ndarray  # M int64, an index into Split.classes
    is_difficult: np.ndarray  # M bool: neither counted nor held against a method


@dataclass(frozen=True)
class Detections:
    """What a detector found in one image; boxes in pixels of the original file."""

    boxes: np.ndarray  # M x 4 float32: x1 y1 x2 y2, the right and bottom edge excluded
    labels: np.ndarray  # M int64, an index into Split.classes
    scores: np.ndarray  # M float32, higher is surer


class Masks(Protocol):
    """The class masks of a sequence of images, read by position."""

    def __len__(self) -> int: ...

    def name(self, position: int) -> str:
        """What to call the mask in messages: its path below the data set's root."""
        ...

    def read(self, position: int) -> np.ndarray:
        """H x W uint8 at the size of the original image file: an index into Split.mask_classes, 255 not to be counted.

        OSError where it cannot be read.
        """
        ...


@dataclass(frozen=True)
class Split:
    """One part of a data set: images, and where it has them labels, objects and masks.

    `labels` is N int64 for one class an image, N x K int64 for several (1 present, 0 absent, 255 not to be counted),
    or None where the images have no labels.
    """

    dataset: str
    name: str
    images: Images
    classes: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    objects: tuple[Objects, ...] | None = None  # None where the data set has no boxes
    masks: Masks | None = None  # None where the data set has no masks
    mask_classes: tuple[str, ...] = ()  # what the values 0, 1, ... of masks stand for

    @property
    def is_multilabel(self) -> bool:
        """True where an image may belong to several classes."""
        return self.labels is not None and self.labels.ndim == 2


@dataclass(frozen=True)
class Truth:
    """The objects of one image of a batch, in pixels of the batch."""

    boxes: Tensor  # M x 4 float32: x1 y1 x2 y2, the right and bottom edge excluded
    labels: Tensor  # M int64
    is_difficult: Tensor  # M bool
    proposals: Tensor  # P x 4 float32: where objects may be; 0 x 4 for detectors that propose by themselves


@dataclass(frozen=True)
class Batch:
    """What one step reads: images or a frozen encoder's features of them, and what the task knows of each."""

    images: Tensor  # B x 3 x H x W in [0, 1]; B x 0 where `features` stand in for them
    labels: Tensor | None = None  # int64: B, B x K, or for masks B x H x W
    features: Mapping[str, Tensor] | None = None  # by stage, B x C x h x w each
    sizes: Tensor | None = None  # B x 2 int64: height and width of each image without its padding; None: no padding
    truths: tuple[Truth, ...] | None = None  # one an image, where the task has boxes


@dataclass(frozen=True)
class Stage:
    """One named feature map of an encoder: its channels, its stride, and where it looks, in pixels of the input."""

    channels: int
    stride: int
    first: float | None = None  # the centre of the first cell's receptive field; None: half a stride

    @property
    def offset(self) -> float:
        """The centre of the first cell, counted from the image's left or top edge: that of pixel 0 is 0.5."""
        return self.stride / 2 if self.first is None else self.first


class Encoder(nn.Module):
    """Images to named feature maps; `forward` returns a dict with exactly the keys of `stages`, shallow to deep.

    The encoder normalises inside: callers always pass RGB in [0, 1].
    """

    stages: Mapping[str, Stage]
    smallest_input: int  # pixels a side; below it a stage would be empty

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """B x 3 x H x W in [0, 1] to stage name -> B x C x h x w."""
        raise NotImplementedError


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a multiple of the base learning rate and of the weight decay."""

    parameters: Sequence[nn.Parameter]
    learning_rate_ratio: float = 1.0
    weight_decay_ratio: float = 1.0


@dataclass(frozen=True)
class Player:
    """A module with its own optimiser in the loop: the generator, the discriminator, or the only network there is."""

    module: nn.Module
    groups: Sequence[ParameterGroup]


class Objective(Protocol):
    """What the one training loop optimises.

    One that has `terms`, name to a scalar of the latest step, gets these written to the log beside its losses.
    """

    def players(self) -> dict[str, Player]:
        """The optimised modules by name."""
        ...

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """Yields (player, loss) in update order; the loop steps that player before asking for the next pair."""
        ...


@dataclass(frozen=True)
class TrainingFacts:
    """What a pretext task must know of the data before it can be built."""

    image_size: int  # pixels a side of the square crops
    classes: int = 0  # 0 where there are no labels
    is_multilabel: bool = False
    silhouettes: Tensor | None = None  # K x s x s distance fields for region holes; None: the procedural set


class Pretext(Objective, Protocol):
    """An objective that trains an encoder."""

    encoder: Encoder

    def preview(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Columns of a sample grid by title, each B x 3 x H x W in [0, 1]; empty where nothing can be seen."""
        ...

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """How well the task itself is done on images that were not trained on: name to a mean over the batch."""
        ...


@dataclass(frozen=True)
class TransferFacts:
    """What a transfer task must know of the data before it can be built."""

    image_size: int  # pixels a side of the square crops; for whole images, their short side
    classes: tuple[str, ...]  # for masks, what their values stand for
    is_multilabel: bool
    is_frozen: bool  # True: the encoder only describes, and the head trains on cached features
    examples: int = 0  # images of train; 0: not known
    learning_rates: tuple[float, ...] = ()  # of probes that try all at once, a head each; none: the loop's
    choices: Mapping[str, float] = field(default_factory=dict)  # what such a probe chose on val; empty: not yet


class Transfer(Objective, Protocol):
    """An objective that measures an encoder by what a head learns on it.

    Its module says by `NEEDS` what it reads: "labels" of crops (then it is a CropTransfer), "objects" or "masks" of
    whole images (then an ImageTransfer), or "features" of whole splits (then a FeatureProbe, which is no objective).
    By `IS_PROBE = True` it says that encoders stay frozen, and then it chooses for itself: what reads labels is a
    ManyRatesProbe.
    """

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """What the head reads, by stage, for images B x 3 x H x W."""
        ...

    def top(self, images: Tensor) -> Tensor:
        """What the last layer gives for images B x 3 x H x W: where rescaling sends its gradients from."""
        ...


class CropTransfer(Transfer, Protocol):
    """A transfer task on square crops, whose outputs are averaged over the views of an image.

    One that has `score_resampled(outputs, labels, counts)` gives the same scores with replicates (`bootstrap.Scores`),
    by how often each example is in each resampling, N x R.
    """

    def outputs(self, features: Mapping[str, Tensor]) -> Tensor:
        """What the head makes of features: for classification, B x K logits."""
        ...

    def score(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Metric name to a fraction, for a whole split at once."""
        ...


class ManyRatesProbe(CropTransfer, Protocol):
    """Heads on a frozen encoder that train side by side at every one of `TransferFacts.learning_rates`.

    The loop runs at a learning rate of 1, of which each head takes its own. Outputs have a dimension for the heads.
    """

    def choose(self, scores: Mapping[str, float]) -> dict[str, float]:
        """From the scores of all heads on val what is to be built for the last training, as `TransferFacts.choices`."""
        ...


@dataclass(frozen=True)
class Described:
    """Images as a frozen encoder sees them."""

    features: Mapping[str, Tensor]  # by stage, N x D float32, on the CPU
    labels: Tensor  # N int64 for one class an image, N x K for several (1, 0, 255 not to be counted)


# By its name what an earlier run, which was stopped, has computed; or what the function now computes, for a later one.
Noted = Callable[[str, Callable[[], float]], float]


class FeatureProbe(Protocol):
    """A transfer task without a training loop: it reads the features of whole splits at once.

    One that has `measure_resampled`, which takes `counts` beside what `measure` takes, gives the same scores with
    replicates (`bootstrap.Scores`). One that chooses for long has `choose_noted`, which takes `noted` (`Noted`) beside
    what `choose` takes.
    """

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """What is described, by stage, of images B x 3 x H x W."""
        ...

    def choose(
        self, train: Described, val: Described, generator: torch.Generator
    ) -> tuple[dict[str, float], dict[str, float]]:
        """What is chosen without test, by name, and the scores that it was chosen by."""
        ...

    def measure(
        self, known: Described, asked: Described, choices: Mapping[str, float], generator: torch.Generator
    ) -> dict[str, float]:
        """Metric name to a fraction, for `asked` as known from `known`; the generator is where it was in `choose`."""
        ...


class ImageTransfer(Transfer, Protocol[Prediction, Annotation]):
    """A transfer task on whole images of any size.

    One that has `score_resampled(pairs, counts)` gives the same scores with replicates, as a `CropTransfer` may.
    """

    def predict(self, batch: Batch, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        """One prediction an image of the batch, in pixels of that image resized to its height and width in `sizes`."""
        ...

    def score(self, pairs: Iterable[tuple[Prediction, Annotation]]) -> dict[str, float]:
        """Metric name to a fraction, for predictions of a whole split beside what is true."""
        ...


class Descriptor(Protocol):
    """N patches to N vectors, by the whole patch or by its context only."""

    name: str

    def describe(self, patches: Tensor, hole: Tensor | None) -> np.ndarray:
        """N x 3 x S x S in [0, 1] to N x D float32. Pixels where `hole` (S x S bool) is True are never read."""
        ...


@dataclass(frozen=True)
class Frame:
    """What an inpainter that works on small squares must be shown."""

    size: int  # pixels a side
    hole_share: float  # side of the hole over the side of the square, as it was trained or is described
    is_central: bool  # True: it knows one hole only, the central square of that share


class Inpainter(Protocol):
    """Fills the hidden part of images by what is visible around it."""

    @property
    def name(self) -> str:
        """The label of its row in tables."""
        ...

    @property
    def frame(self) -> Frame | None:
        """None: it takes images of any shape, with holes anywhere."""
        ...

    def fill(self, images: Tensor, holes: Tensor) -> Tensor:
        """B x 3 x H x W in [0, 1] and B x 1 x H x W bool, True where missing, to images with every hole filled.

        Visible pixels come back as they are. Hidden ones are never read: whatever they hold, the result is the same.
        """
        ...
