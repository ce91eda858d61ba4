"""The detector on an encoder's maps, of torchvision's parts: regions pooled, classified and their boxes refined."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, roi_align, roi_pool
from torchvision.ops.poolers import initLevelMapper

from ssl_inpaint.core import Stage
from ssl_inpaint.transfer import heads
from ssl_inpaint.transfer.detectors import DetectorConfig

PYRAMID_CHANNELS = 256
ASPECT_RATIOS = (0.5, 1.0, 2.0)
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # Fast R-CNN's scale of box targets
TRAINED_PROPOSALS = 1000  # of the region proposal network, after suppression, before they are sampled from
Sizes = Sequence[tuple[int, int]]  # height and width of each image, without padding


class Detector(nn.Module):
    """Regions of an encoder's maps to classes and boxes; class 0 is the background, as torchvision counts."""

    def __init__(self, config: DetectorConfig, stages: Mapping[str, Stage], classes: int) -> None:
        super().__init__()
        self.stages = dict(stages)
        self.norms = nn.ModuleDict(
            {name: heads.standardizer(stage.channels, config.standardize) for name, stage in stages.items()}
        )
        widths = [stage.channels for stage in stages.values()]
        self.pyramid = FeaturePyramidNetwork(widths, PYRAMID_CHANNELS) if config.pyramid else None
        channels = PYRAMID_CHANNELS if config.pyramid else widths[0]
        is_faster = config.detector == "faster"
        self.proposer = _proposer(config, channels, list(stages.values())) if is_faster else None
        self.regions = _regions(config, self.stages, channels, classes)

    def forward(
        self,
        features: Mapping[str, Tensor],
        sizes: Sizes,
        proposals: Sequence[Tensor],
        targets: list[dict[str, Tensor]] | None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """In training the losses by name, else for each image boxes, labels from 1, and scores.

        `proposals` P x 4 an image; where there are none, and for a detector that proposes by itself, none are read and
        the image as a whole is looked at.
        """
        maps, losses = self._maps(features), dict[str, Tensor]()
        if self.proposer is not None:
            with torch.autocast(next(iter(maps.values())).device.type, enabled=False):  # half a pixel counts in a box
                found, losses = self.proposer(ImageList(next(iter(maps.values())), list(sizes)), maps, targets)
        else:
            found = [p if len(p) else _whole(size, p) for p, size in zip(proposals, sizes, strict=True)]
        detections, more = self.regions(maps, found, list(sizes), targets)
        return detections, losses | more

    def scores(self, features: Mapping[str, Tensor], sizes: Sizes, regions: list[Tensor]) -> Tensor:
        """R x (K + 1) class scores of the given regions of all images, before the softmax."""
        pooled = self.regions.box_roi_pool(self._maps(features), regions, list(sizes))
        scores: Tensor = self.regions.box_predictor(self.regions.box_head(pooled))[0]
        return scores

    def _maps(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        maps = {name: self.norms[name](features[name]) for name in self.stages}
        # Regions are pooled and proposals made in float32, whatever the encoder computed in.
        return {n: m.float() for n, m in (maps if self.pyramid is None else self.pyramid(maps)).items()}


class Anchors(nn.Module):
    """torchvision's anchors, laid where the cells of each map look, exactly one stride apart."""

    def __init__(self, sides: Sequence[tuple[int, ...]], stages: Sequence[Stage]) -> None:
        super().__init__()
        self.stages = list(stages)
        self.shapes = AnchorGenerator(tuple(sides), (ASPECT_RATIOS,) * len(self.stages))

    def num_anchors_per_location(self) -> list[int]:
        """How many shapes a cell has, map by map: what RPNHead is built for."""
        found: list[int] = self.shapes.num_anchors_per_location()
        return found

    def forward(self, images: ImageList, maps: Sequence[Tensor]) -> list[Tensor]:
        """A x 4 anchors for each image, all maps one after the other."""
        first = maps[0]
        self.shapes.set_cell_anchors(first.dtype, first.device)
        strides = [[torch.tensor(stage.stride, device=first.device)] * 2 for stage in self.stages]
        levels = self.shapes.grid_anchors([list(m.shape[-2:]) for m in maps], strides)
        moved = torch.cat([level + stage.offset for level, stage in zip(levels, self.stages, strict=True)])
        return [moved] * len(images.image_sizes)


class RegionPool(nn.Module):
    """Regions of one map, pooled to a grid where the cells look by `Stage.offset`, whatever the encoder's padding."""

    def __init__(self, name: str, stage: Stage, grid: int, is_maximum: bool) -> None:
        super().__init__()
        self.name, self.stage, self.grid, self.is_maximum = name, stage, grid, is_maximum

    def forward(self, maps: Mapping[str, Tensor], regions: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        """R x C x grid x grid."""
        scale = 1 / self.stage.stride
        if self.is_maximum:  # takes cell i to lie at i strides
            moved = [boxes - self.stage.offset for boxes in regions]
            pooled: Tensor = roi_pool(maps[self.name], moved, self.grid, scale)
        else:  # takes cell i to lie at i + 1/2 strides
            moved = [boxes + (self.stage.stride / 2 - self.stage.offset) for boxes in regions]
            pooled = roi_align(maps[self.name], moved, self.grid, scale, sampling_ratio=2, aligned=True)
        return pooled


def _regions(config: DetectorConfig, stages: Mapping[str, Stage], channels: int, classes: int) -> RoIHeads:
    pool = _pyramid_pool(config, stages) if config.pyramid else _pool(config, stages)
    hidden, width = heads.fully_connected(channels * config.grid**2, config)
    predictor = FastRCNNPredictor(width, classes + 1)
    box_head = nn.Sequential(nn.Flatten(), *hidden)
    heads.initialise(box_head, config.initial_deviation)
    for layer, deviation in ((predictor.cls_score, 0.01), (predictor.bbox_pred, 0.001)):  # Fast R-CNN's own
        nn.init.normal_(layer.weight, std=deviation)
        nn.init.zeros_(layer.bias)
    overlap = config.foreground_overlap
    return RoIHeads(
        pool,
        box_head,
        predictor,
        fg_iou_thresh=overlap,
        bg_iou_thresh=overlap,
        batch_size_per_image=config.regions_per_image,
        positive_fraction=config.foreground_share,
        bbox_reg_weights=BOX_WEIGHTS,
        score_thresh=config.least_score,
        nms_thresh=config.suppression_overlap,
        detections_per_img=config.most_detections,
    )


def _pool(config: DetectorConfig, stages: Mapping[str, Stage]) -> nn.Module:
    ((name, stage),) = stages.items()
    return RegionPool(name, stage, config.grid, config.pooling == "max")


def _pyramid_pool(config: DetectorConfig, stages: Mapping[str, Stage]) -> nn.Module:
    pool: Any = MultiScaleRoIAlign(list(stages), config.grid, sampling_ratio=2)
    levels = [round(math.log2(stage.stride)) for stage in stages.values()]
    pool.scales = [1 / stage.stride for stage in stages.values()]  # it would guess them from the first batch
    pool.map_levels = initLevelMapper(levels[0], levels[-1])
    return cast(nn.Module, pool)


def _proposer(config: DetectorConfig, channels: int, stages: Sequence[Stage]) -> RegionProposalNetwork:
    sides: list[tuple[int, ...]] = [tuple(config.anchor_sides)]
    if len(stages) > 1:  # one side a map, small ones on fine maps; the last again where there are more maps
        last = len(config.anchor_sides) - 1
        sides = [(config.anchor_sides[min(level, last)],) for level in range(len(stages))]
    anchors = Anchors(sides, stages)
    return RegionProposalNetwork(
        anchors,
        RPNHead(channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 2 * TRAINED_PROPOSALS, "testing": 2 * TRAINED_PROPOSALS},
        post_nms_top_n={"training": TRAINED_PROPOSALS, "testing": config.proposals_per_image},
        nms_thresh=0.7,
    )


def _whole(size: tuple[int, int], like: Tensor) -> Tensor:
    return like.new_tensor([[0.0, 0.0, size[1], size[0]]])
