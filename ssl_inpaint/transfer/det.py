"""Object detection by Fast R-CNN on outside proposals, or Faster R-CNN: mean average precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ssl_inpaint import detection_metrics as metrics
from ssl_inpaint import resampled_metrics
from ssl_inpaint.bootstrap import Scores
from ssl_inpaint.core import Batch, Detections, Encoder, Objects, Player, TransferFacts, Truth
from ssl_inpaint.errors import UsageError
from ssl_inpaint.metrics import ApKind
from ssl_inpaint.transfer import heads
from ssl_inpaint.transfer.detectors import DetectorConfig

NEEDS = "objects"
KINDS: tuple[ApKind, ...] = ("11-point", "area")  # of VOC's average precision


class Config(DetectorConfig):
    """The detector of paper section 5.2, and which metrics beside VOC's."""

    coco: bool = False  # COCO's AP as well; needs the extra [coco]


def build(config: Config, encoder: Encoder, facts: TransferFacts) -> Detection:
    """The task on `encoder`; UsageError for a stage that it does not have."""
    return Detection(config, encoder, facts)


class Detection:
    """One player: the detector's head alone on a frozen encoder, head and encoder together when fine-tuning."""

    def __init__(self, config: Config, encoder: Encoder, facts: TransferFacts) -> None:
        from ssl_inpaint.transfer.regions import Detector  # here: see `detectors`

        if config.coco:
            metrics.coco_average_precision([], [], 1)  # a missing package is better found now than after training
        self.config, self.encoder, self.facts = config, encoder, facts
        heads.refuse_unknown_parameters(encoder, config.fixed)
        self.stages = _stages(encoder, config)
        encoder.eval()
        self.head = Detector(config, {n: encoder.stages[n] for n in self.stages}, len(facts.classes))

    def players(self) -> dict[str, Player]:
        """The network as one player; the encoder's share only where it is not frozen."""
        is_frozen, fixed = self.facts.is_frozen, self.config.fixed
        return {"detector": heads.player(self.encoder, self.head, self.config, is_frozen, fixed)}

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """The sum of the losses of classes and boxes, and for Faster R-CNN of its proposals' scores and boxes.

        Which regions are read is drawn by torch's global generator, which the loop seeds for every step.
        Deviation: difficult objects are not trained on, as in Faster R-CNN's code; Fast R-CNN's trains on them.
        """
        if batch.truths is None or batch.sizes is None:
            raise ValueError("a batch for detection needs objects and the sizes of its images")
        heads.fix_statistics(self.encoder, self.config)
        features = self.features(batch.images) if batch.features is None else batch.features
        targets = [_target(truth) for truth in batch.truths]
        proposals = [self._trained_on(truth, t["boxes"]) for truth, t in zip(batch.truths, targets, strict=True)]
        _, losses = self.head(features, _pairs(batch.sizes), proposals, targets)
        yield "detector", torch.stack(list(losses.values())).sum()

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The maps that regions are pooled from."""
        return heads.features_of(self.encoder, images, self.stages)

    def top(self, images: Tensor) -> Tensor:
        """B x (K + 1) scores of the whole image as the one region."""
        height, width = images.shape[-2:]
        whole = [torch.tensor([[0.0, 0.0, width, height]], device=images.device)] * len(images)
        return self.head.scores(self.features(images), [(height, width)] * len(images), whole)

    @torch.no_grad()
    def predict(self, batch: Batch, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """For each image what is found in it, in pixels of the image resized to its height and width in `sizes`."""
        if batch.features is None or batch.sizes is None or batch.truths is None:
            raise ValueError("predictions are made from features, sizes of images and proposals")
        proposals = [truth.proposals for truth in batch.truths]
        found, _ = self.head(batch.features, _pairs(batch.sizes), proposals, None)
        return [
            _in_original(one, shown, size) for one, shown, size in zip(found, batch.sizes.tolist(), sizes, strict=True)
        ]

    def score(self, pairs: Iterable[tuple[Detections, Objects]]) -> dict[str, float]:
        """`mAP (11-point)` as VOC 2007's devkit reports, `mAP (area)`, COCO's if asked for; then every class's own."""
        return self._scored(pairs)[0]

    def score_resampled(self, pairs: Iterable[tuple[Detections, Objects]], counts: np.ndarray) -> Scores:
        """The same scores, and replicates of VOC's means over classes."""
        values, rankings = self._scored(pairs)
        ranked = [resampled_metrics.Ranked(one.is_hit, one.images, one.objects) for one in rankings]
        mean = resampled_metrics.mean_average_precision
        return Scores(values, {f"mAP ({kind})": mean(ranked, kind, counts) for kind in KINDS})

    def _scored(
        self, pairs: Iterable[tuple[Detections, Objects]]
    ) -> tuple[dict[str, float], tuple[metrics.Ranking, ...]]:
        detections, truths = zip(*pairs, strict=True)
        found, own = dict[str, float](), dict[str, float]()
        rankings = metrics.rank_detections(detections, truths, len(self.facts.classes))
        for kind in KINDS:
            mean, each = metrics.mean_average_precision_of_rankings(rankings, kind)
            found[f"mAP ({kind})"] = mean
            own |= {f"AP ({kind}): {c}": float(v) for c, v in zip(self.facts.classes, each, strict=True)}
        if self.config.coco:
            found |= metrics.coco_average_precision(detections, truths, len(self.facts.classes))
        return found | own, rankings

    def _trained_on(self, truth: Truth, objects: Tensor) -> Tensor:
        """Outside proposals that are examples: those that touch an object enough to teach something."""
        if self.config.detector == "faster" or not len(objects) or not len(truth.proposals):
            return truth.proposals
        from torchvision.ops import box_iou

        overlap = box_iou(truth.proposals, objects).max(dim=1).values
        return truth.proposals[overlap >= self.config.least_background_overlap]


def _target(truth: Truth) -> dict[str, Tensor]:
    """What torchvision trains on: boxes with an area, and labels from 1, 0 being the background."""
    sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
    is_taught = ~truth.is_difficult & (sides > 0).all(dim=1)
    return {"boxes": truth.boxes[is_taught], "labels": truth.labels[is_taught] + 1}


def _pairs(sizes: Tensor) -> list[tuple[int, int]]:
    return [(int(height), int(width)) for height, width in sizes.tolist()]


def _in_original(found: Mapping[str, Tensor], shown: Sequence[int], size: tuple[int, int]) -> Detections:
    ratio = np.array([size[1] / shown[1], size[0] / shown[0]] * 2, np.float32)
    boxes = found["boxes"].float().cpu().numpy() * ratio
    return Detections(boxes, found["labels"].cpu().numpy() - 1, found["scores"].float().cpu().numpy())


def _stages(encoder: Encoder, config: Config) -> list[str]:
    """The one stage regions are pooled from, or for a pyramid the deepest stage of every stride from 4 to 32."""
    if not config.pyramid:
        return [heads.chosen_stage(encoder, config.stage, config.largest_stride)]
    by_stride = {stage.stride: name for name, stage in encoder.stages.items() if 4 <= stage.stride <= 32}
    if config.stage:
        raise UsageError(f"head.stage = {config.stage}: a pyramid reads all stages, so leave it out.")
    if len(by_stride) < 2:
        raise UsageError("head.pyramid = true: the encoder has not two stages of strides 4 to 32; set it to false.")
    if config.detector == "faster" and len(config.anchor_sides) > len(by_stride):
        raise UsageError(
            f"head.anchor_sides = {config.anchor_sides}: a pyramid of {len(by_stride)} stages takes one side each, so "
            f"give {len(by_stride)} or fewer."
        )
    return [by_stride[stride] for stride in sorted(by_stride)]
