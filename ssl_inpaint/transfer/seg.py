"""Semantic segmentation by a fully convolutional head (FCN): mean IoU over the whole data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_inpaint import resampled_metrics
from ssl_inpaint import segmentation_metrics as metrics
from ssl_inpaint.bootstrap import Scores
from ssl_inpaint.core import Batch, Encoder, Player, Stage, TransferFacts
from ssl_inpaint.errors import UsageError
from ssl_inpaint.metrics import NOT_COUNTED
from ssl_inpaint.transfer import heads

NEEDS = "masks"
STRIP_VALUES = 2**24  # scores held at once when predicting, in values


class Config(heads.WholeImageConfig):
    """FCN-32s of paper section 5.2 (Long et al. 2015) on the deepest map, and its finer variants."""

    # `hidden` are the channels of fc6 and fc7 as convolutions; none: a linear classifier a cell.
    kernel: int = Field(6, ge=1)  # cells a side that fc6 reads
    largest_stride: int = Field(32, ge=1)
    skips: int = Field(0, ge=0, le=4)  # finer maps whose scores are added: 0 is FCN-32s, 1 is 16s, 2 is 8s


def build(config: Config, encoder: Encoder, facts: TransferFacts) -> Segmentation:
    """The task on `encoder`; UsageError for a stage that it does not have, or more skips than it has finer stages."""
    return Segmentation(config, encoder, facts)


class Segmentation:
    """One player: the head alone on a frozen encoder, head and encoder together when fine-tuning.

    Deviation: scores are interpolated between the centres of cells, wherever the encoder's padding has put these
    (`Stage.offset`), where FCN pads conv1 by 100 pixels and crops by an offset worked out for one network.
    Deviation: fc6 pads its map so that small images keep all of it.
    """

    def __init__(self, config: Config, encoder: Encoder, facts: TransferFacts) -> None:
        self.config, self.encoder, self.facts = config, encoder, facts
        heads.refuse_unknown_parameters(encoder, config.fixed)
        self.stages = _stages(encoder, config)
        encoder.eval()
        self.head = FullyConvolutional(config, {n: encoder.stages[n] for n in self.stages}, len(facts.classes))

    def players(self) -> dict[str, Player]:
        """The network as one player; the encoder's share only where it is not frozen."""
        is_frozen, fixed = self.facts.is_frozen, self.config.fixed
        return {"segmenter": heads.player(self.encoder, self.head, self.config, is_frozen, fixed)}

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """Cross-entropy, the mean over all pixels that are counted."""
        if batch.labels is None:
            raise ValueError("a batch for segmentation needs masks as labels")
        heads.fix_statistics(self.encoder, self.config)
        features = self.features(batch.images) if batch.features is None else batch.features
        height, width = batch.labels.shape[-2:]
        scores = self.head(features)
        logits = _at_pixels(scores, (height, width), (height, width))
        total = functional.cross_entropy(logits, batch.labels, ignore_index=NOT_COUNTED, reduction="sum")
        yield "segmenter", total / (batch.labels != NOT_COUNTED).sum().clamp(min=1)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The maps that are read: the deepest, then the finer ones."""
        return heads.features_of(self.encoder, images, self.stages)

    def top(self, images: Tensor) -> Tensor:
        """B x K x h x w scores of the finest map read."""
        maps, _ = self.head(self.features(images))
        return maps

    @torch.no_grad()
    def predict(self, batch: Batch, sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """For each image the surest class of every pixel, H x W uint8, at its height and width in `sizes`."""
        if batch.features is None or batch.sizes is None:
            raise ValueError("predictions are made from features and the sizes of images")
        maps, stage = self.head(batch.features)
        found = []
        for one, shown, size in zip(maps, batch.sizes.tolist(), sizes, strict=True):
            down, across = _centres((shown[0], shown[1]), size)
            strip = max(1, STRIP_VALUES // (len(one) * size[1]))  # rows at a time: photographs have many pixels
            strips = [
                _resampled(one[None], stage, down[row : row + strip], across)[0].argmax(dim=0)
                for row in range(0, size[0], strip)
            ]
            found.append(torch.cat(strips).to(torch.uint8).cpu().numpy())
        return found

    def score(self, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        """`mIoU`, `pixel accuracy` and `mean class accuracy` over all pixels of a split at once; each class's own IoU.

        Predictions and truth are H x W uint8, truth 255 where a pixel is not counted.
        """
        return self._scores(sum(self._matrices(pairs), np.zeros((len(self.facts.classes),) * 2, np.int64)))

    def score_resampled(self, pairs: Iterable[tuple[np.ndarray, np.ndarray]], counts: np.ndarray) -> Scores:
        """The same scores, and replicates of all but those of single classes."""
        total, sums = np.zeros((len(self.facts.classes),) * 2, np.int64), []
        for matrix in self._matrices(pairs):
            total += matrix
            sums.append(resampled_metrics.class_sums(matrix))
        return Scores(self._scores(total), resampled_metrics.segmentation_scores(np.stack(sums), counts))

    def _matrices(self, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        for prediction, truth in pairs:
            yield metrics.confusion(prediction, truth, len(self.facts.classes))

    def _scores(self, matrix: np.ndarray) -> dict[str, float]:
        found = {
            "mIoU": metrics.mean_iou(matrix),
            "pixel accuracy": metrics.pixel_accuracy(matrix),
            "mean class accuracy": metrics.mean_class_accuracy_of_pixels(matrix),
        }
        each = zip(self.facts.classes, metrics.class_iou(matrix), strict=True)
        return found | {f"IoU: {name}": float(value) for name, value in each}


class FullyConvolutional(nn.Module):
    """fc6 and fc7 as convolutions, a score for every class and cell, and the scores of finer maps added to them."""

    def __init__(self, config: Config, stages: Mapping[str, Stage], classes: int) -> None:
        super().__init__()
        self.stages = dict(stages)  # the deepest first
        self.norms = nn.ModuleDict(
            {name: heads.standardizer(stage.channels, config.standardize) for name, stage in stages.items()}
        )
        (deepest, coarse), *finer = stages.items()
        layers: list[nn.Module] = []
        width, kernel = coarse.channels, config.kernel
        for hidden in config.hidden:
            before, after = (kernel - 1) // 2, kernel // 2
            layers += [nn.ZeroPad2d((before, after, before, after)), nn.Conv2d(width, hidden, kernel)]
            layers += [nn.ReLU(), nn.Dropout(config.dropout)]
            width, kernel = hidden, 1
        layers.append(nn.Conv2d(width, classes, 1))
        self.deepest, self.coarse = deepest, nn.Sequential(*layers)
        # fc6 of an even kernel reads one cell more on the far side, so it looks half a cell further.
        uneven = (config.kernel % 2 == 0) * coarse.stride / 2 if config.hidden else 0.0
        self.scored = Stage(classes, coarse.stride, coarse.offset + uneven)
        heads.initialise(self.coarse, config.initial_deviation)
        self.finer = nn.ModuleDict({name: _silent(nn.Conv2d(stage.channels, classes, 1)) for name, stage in finer})

    def forward(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Stage]:
        """B x K x h x w float32 scores of the finest map read, and the stage whose cells they are."""
        scores: Tensor = self.coarse(self.norms[self.deepest](features[self.deepest])).float()
        stage = self.scored
        for name, convolution in self.finer.items():
            maps = features[name]
            there = self.stages[name]
            centres = [there.offset + there.stride * np.arange(n) for n in maps.shape[-2:]]
            scores = _resampled(scores, stage, centres[0], centres[1]) + convolution(self.norms[name](maps)).float()
            stage = there
        return scores, stage


def _silent(convolution: nn.Conv2d) -> nn.Conv2d:
    """All zeros, as FCN's skips begin: without a say."""
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)
    return convolution


def _at_pixels(scores: tuple[Tensor, Stage], shown: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Scores at every pixel of an image of `size`, of which the encoder was shown a copy of the size `shown`."""
    maps, stage = scores
    return _resampled(maps, stage, *_centres(shown, size))


def _centres(shown: tuple[int, int], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The centres of the rows and columns of an image of `size`, in pixels of the copy of the size `shown`."""
    rows, columns = ((np.arange(n) + 0.5) * s / n for n, s in zip(size, shown, strict=True))
    return rows, columns


def _resampled(maps: Tensor, stage: Stage, down: np.ndarray, across: np.ndarray) -> Tensor:
    """Maps B x K x h x w of that stage, interpolated bilinearly at pixels `down` x `across`; edges are continued."""
    rows = _weights(maps.shape[-2], stage, down).to(maps)
    columns = _weights(maps.shape[-1], stage, across).to(maps)
    with torch.autocast(maps.device.type, enabled=False):
        return rows @ maps.float() @ columns.T


def _weights(cells: int, stage: Stage, places: np.ndarray) -> Tensor:
    """N x cells: what each cell has in the linear interpolation at each of N places in pixels."""
    index = np.clip((places - stage.offset) / stage.stride, 0, cells - 1)
    distance = np.abs(index[:, None] - np.arange(cells)[None])
    return torch.from_numpy(np.clip(1 - distance, 0, None).astype(np.float32))


def _stages(encoder: Encoder, config: Config) -> list[str]:
    """The deepest stage that is read, and for each skip the deepest of the next smaller stride."""
    deepest = heads.chosen_stage(encoder, config.stage, config.largest_stride)
    found, strides = [deepest], [encoder.stages[deepest].stride]
    for name in reversed(list(encoder.stages)):
        if len(found) <= config.skips and encoder.stages[name].stride < strides[-1]:
            found.append(name)
            strides.append(encoder.stages[name].stride)
    if len(found) <= config.skips:
        raise UsageError(f"head.skips = {config.skips}: the encoder has {len(found) - 1} finer stages; lower it.")
    return found
