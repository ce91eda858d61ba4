"""Settings of the detectors, apart from them: planning reads these, and torchvision's detection is slow to import."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from ssl_inpaint.transfer import heads


class DetectorConfig(heads.WholeImageConfig):
    """Fast R-CNN's published settings (Girshick 2015); Faster R-CNN's where it proposes by itself (Ren et al. 2015).

    Deviation: RoIAlign in place of RoI pooling unless asked, since small maps lose much to its rounding.
    Deviation: the loss of boxes bends at 1/9, torchvision's way, where Fast R-CNN's bends at 1.
    Deviation: an image without objects teaches background; Fast R-CNN leaves such images out.
    """

    detector: Literal["fast", "faster"] = "fast"  # proposals from outside, or from a network trained along
    pyramid: bool = False  # a feature pyramid over the stages of strides 4 to 32, for encoders that have them
    grid: int = Field(6, ge=1)  # cells a side that a region is pooled to
    pooling: Literal["align", "max"] = "align"
    regions_per_image: int = Field(64, ge=1)  # that a training step reads
    foreground_share: float = Field(0.25, gt=0, le=1)  # of them, at most
    foreground_overlap: float = Field(0.5, gt=0, lt=1)  # IoU with an object from which a region shows it
    least_background_overlap: float = Field(0.1, ge=0, lt=1)  # IoU under which outside proposals are not trained on
    suppression_overlap: float = Field(0.3, gt=0, lt=1)  # IoU above which the less sure of two boxes of a class goes
    least_score: float = Field(0.05, ge=0, lt=1)
    most_detections: int = Field(100, ge=1)  # kept of an image
    anchor_sides: tuple[PositiveInt, ...] = Field((64, 128, 256, 512), min_length=1)  # pixels; Faster R-CNN only
    proposals_per_image: int = Field(300, ge=1)  # of its own, when tested; Faster R-CNN only
