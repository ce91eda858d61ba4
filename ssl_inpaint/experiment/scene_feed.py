"""Whole images with objects or masks: the feed of detection and segmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ssl_inpaint import progress, train
from ssl_inpaint.batches import Batches, Crops, ImageBatches
from ssl_inpaint.bootstrap import Scores
from ssl_inpaint.core import Batch, Detections, ImageTransfer, TransferFacts
from ssl_inpaint.experiment import annotated, keeping
from ssl_inpaint.experiment.annotated import Scene
from ssl_inpaint.experiment.feeds import scores_of
from ssl_inpaint.plans import TransferPlan
from ssl_inpaint.runtime import Runtime, seed_for
from ssl_inpaint.scenes import (
    Annotated,
    SceneBatches,
    SceneFeatureBatches,
    Scenes,
    View,
    annotated_batch,
    groups_of_one_size,
    joined,
    view,
)
from ssl_inpaint.train import FitConfig

VIEW_BATCH = 16  # images described at a time
CACHE_GIB = 8.0  # of memory for a frozen encoder's maps of train and val; where it is too small they are made anew
PIXELS_AT_A_TIME = 64 * 96 * 96  # of a batch for calibration or rescaling, at most

Maps = dict[str, Tensor]  # by stage, C x h x w of one image, or B x C x h x w of several


class SceneFeed:
    """Whole images at drawn sizes to train on, at one size to test on; a frozen encoder describes each view once."""

    def __init__(
        self,
        plan: TransferPlan,
        scenes: Scenes,
        needs: Literal["objects", "masks"],
        has_proposals: bool,
        runtime: Runtime,
    ) -> None:
        self.plan, self.scenes, self.needs, self.runtime = plan, scenes, needs, runtime
        self.has_proposals = has_proposals
        self.is_frozen = plan.mode == "frozen"
        self._opened: dict[str, Scene] = {}
        self.parts = {name: self.open(name) for name in ("train", "val")}
        self._caches: dict[tuple[str, int, bool], list[Maps]] = {}
        self._is_kept: bool | None = None  # None: not known yet

    def open(self, name: str) -> Scene:
        """One split, decoded and kept apart; UsageError where it is missing or has no objects, or no masks."""
        if self.needs == "objects":
            self._opened[name] = annotated.open_with_objects(self.plan, name, self.scenes, self.has_proposals)
        else:
            self._opened[name] = annotated.open_with_masks(self.plan, name, self.scenes)
        return self._opened[name]

    def admit(self, name: str) -> None:
        """Makes a split known that was opened before."""
        self.parts[name] = self._opened[name]

    def facts(self) -> TransferFacts:
        """Classes of objects, or what the values of masks stand for, and the short side of images."""
        split = self.parts["train"].split
        classes = split.classes if self.needs == "objects" else split.mask_classes
        return TransferFacts(self.scenes.test_side, classes, split.is_multilabel, self.is_frozen)

    def batches(self, objective: ImageTransfer[Any, Any], names: Sequence[str], loop: FitConfig) -> Batches:
        """Images as they are shown, or a frozen encoder's maps of them."""
        seed = seed_for(self.plan.seed, "transfer data")
        images = joined([self.parts[name].images for name in names])
        if not self.is_frozen:
            return SceneBatches(images, self.scenes, loop.batch_size, seed)
        features = self._kept(objective, names) if self._fits(objective) else self._made(objective, names)
        return SceneFeatureBatches(features, images, self.scenes, loop.batch_size, seed)

    def images(self, count: int, batch_size: int) -> Iterator[Tensor]:
        """Batches of squares as high or wide as a training image, so that no padding is among them."""
        side, store = self.scenes.test_side, self.parts["train"].images.store
        total, batch_size = count * batch_size, max(1, min(batch_size, PIXELS_AT_A_TIME // side**2))
        crops = Crops(size=side, store_size=self.scenes.store_size, smallest_share=1.0, largest_share=1.0)
        batches = ImageBatches(store, None, crops, batch_size, seed_for(self.plan.seed, "calibration"))
        for step in range(-(-total // batch_size)):
            yield train.on_device(batches.at(step), self.runtime).images

    def inputs(self) -> list[str]:
        """The digests of outside proposals, split by split."""
        return [part.proposals_digest for _, part in sorted(self._opened.items()) if part.proposals_digest]

    def score(
        self,
        objective: ImageTransfer[Any, Any],
        name: str,
        keep: Path | None = None,
        counts: np.ndarray | None = None,
    ) -> Scores:
        """Predictions at the size of the original files, scored there.

        Deviation: of images longer than 3:1 the store keeps the middle, and masks are predicted and scored there alone;
        objects outside it count as missed.
        """
        part = self.parts[name]
        found = self._predictions(objective, name)
        if keep is not None:
            keeping.keep(keep, part, found, self.facts().classes)
        pairs = ((one, self._truth(part, position)) for position, one in enumerate(found))
        return scores_of(objective, pairs, counts=counts)

    def _truth(self, part: Scene, position: int) -> Any:
        if self.needs == "objects":
            return annotated.objects_of(part, position)
        return part.images.mask(position)

    def _predictions(self, objective: ImageTransfer[Any, Any], name: str) -> list[Any]:
        """One a image of the split, in order; boxes count from the corner of the original file."""
        part, side, found = self.parts[name], self.scenes.test_side, dict[int, Any]()
        cached = None
        if self.is_frozen and self._fits(objective):
            cached = self._cached(objective, name, side, False)

        def predicted(positions: list[int]) -> list[Any]:
            if cached is None:
                maps = self._describe(objective, part, positions, side, False)
            else:
                maps = {stage: torch.stack([cached[p][stage] for p in positions]) for stage in cached[positions[0]]}
            views = [self._view(part, position, side, False, False) for position in positions]
            batch = annotated_batch(torch.empty(len(positions), 0), maps, views)
            boxes = [part.images.store.kept_box(position) for position in positions]
            sizes = [(bottom - top, right - left) for left, top, right, bottom in boxes]
            made = objective.predict(train.on_device(batch, self.runtime), sizes)
            return [
                _moved(one, box) if isinstance(one, Detections) else one for one, box in zip(made, boxes, strict=True)
            ]

        with progress.bar(f"predict {name}", len(part), is_shown=self.runtime.group.is_first) as bar:
            for positions, made in self.runtime.group.spread(self._groups(part, side), predicted):
                found |= dict(zip(positions, made, strict=True))
                bar.advance(len(positions))
        return [found[position] for position in range(len(part))]

    def _groups(self, part: Scene, side: int) -> list[list[int]]:
        """The images of a split that are described together: those of one size, so that nothing is padded."""
        return [some for some, _ in groups_of_one_size(part.images, side, self.scenes.longest, VIEW_BATCH)]

    def _fits(self, objective: ImageTransfer[Any, Any]) -> bool:
        """True where the maps of all views of train and val may be kept, to go by those of the first image."""
        if self._is_kept is None:
            part, (side, is_mirrored) = self.parts["train"], max(self.scenes.views)
            maps = self._describe(objective, part, [0], side, is_mirrored)
            count = (len(part) + len(self.parts["val"])) * len(self.scenes.views)
            needed = count * sum(m.numel() for m in maps.values()) * 2 / 2**30  # two bytes a value
            self._is_kept = needed <= CACHE_GIB
            if not self._is_kept:
                progress.say(f"Features would take {needed:.0f} GiB of memory, so they are made anew in every step.")
        return self._is_kept

    def _kept(self, objective: ImageTransfer[Any, Any], names: Sequence[str]) -> Callable[[int, int], Maps]:
        by_view = []
        for side, is_mirrored in self.scenes.views:
            by_view.append([maps for name in names for maps in self._cached(objective, name, side, is_mirrored)])
        return lambda position, one: by_view[one][position]

    def _made(self, objective: ImageTransfer[Any, Any], names: Sequence[str]) -> Callable[[int, int], Maps]:
        places = [(self.parts[name], place) for name in names for place in range(len(self.parts[name]))]

        def made(position: int, one: int) -> Maps:
            part, place = places[position]
            return _rows(self._describe(objective, part, [place], *self.scenes.views[one]))[0]

        return made

    def _cached(self, objective: ImageTransfer[Any, Any], name: str, side: int, is_mirrored: bool) -> list[Maps]:
        """The maps of one view of all images of a split, float16, described once for every head on a frozen encoder."""
        key = (name, side, is_mirrored)
        if key not in self._caches:
            part, found = self.parts[name], dict[int, Maps]()

            def described(positions: list[int]) -> Maps:
                return self._describe(objective, part, positions, side, is_mirrored)

            with progress.bar(f"describe {name}", len(part), is_shown=self.runtime.group.is_first) as bar:
                for positions, maps in self.runtime.group.spread(self._groups(part, side), described):
                    found |= dict(zip(positions, _rows(maps), strict=True))
                    bar.advance(len(positions))
            self._caches[key] = [found[position] for position in range(len(part))]
        return self._caches[key]

    def _describe(
        self, objective: ImageTransfer[Any, Any], part: Scene, positions: list[int], side: int, is_mirrored: bool
    ) -> Maps:
        """The maps of some images of one size, B x C x h x w, by the encoder in eval mode.

        Of a frozen encoder as they are cached, in float16 on the CPU.
        """
        views = [self._view(part, position, side, is_mirrored, True) for position in positions]
        pixels = torch.stack([one.pixels for one in views if one.pixels is not None])
        with torch.no_grad(), self.runtime.autocast():
            maps = objective.features(train.on_device(Batch(pixels), self.runtime).images)
        return {stage: m.half().cpu() for stage, m in maps.items()} if self.is_frozen else maps

    def _view(self, part: Scene, position: int, side: int, is_mirrored: bool, has_pixels: bool) -> View:
        images = replace(part.images, masks=None)  # which are read where they are scored, at their own size
        images = Annotated(part.images.store) if has_pixels else images
        return view(images, position, side, self.scenes.longest, is_mirrored, has_pixels)


def _rows(maps: Maps) -> list[Maps]:
    """Those of each image of a batch."""
    return [{stage: m[row] for stage, m in maps.items()} for row in range(len(next(iter(maps.values()))))]


def _moved(found: Detections, box: tuple[int, int, int, int]) -> Detections:
    left, top, _, _ = box
    return Detections(found.boxes + np.array([left, top, left, top], np.float32), found.labels, found.scores)
