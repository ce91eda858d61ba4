"""Scenes of the embedded data set `shapes`: one to three patterned objects on a background, drawn from a seed.

A scene gives its image, its mask of objects and their boxes together, so the annotation is exact. What a scene holds
depends only on (seed, split, index) and the look: not on how many others are drawn, nor by how many processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator

from ssl_inpaint.config import Settings
from ssl_inpaint.data.scene_backgrounds import TEST_COLUMNS, TRAIN_COLUMNS, background
from ssl_inpaint.data.scene_objects import CLASSES, KINDS, Light, Pose, paint_object, paint_occluder, random_turn

SPLITS = ("train", "val", "test")
VOID = 255  # pixels of the mask that are not to be counted: the borders of objects
CENTRE_TRIALS = 8  # places tried for an object before it is left out of a crowded scene
CENTRE_MARGIN = 0.1  # of the sides of the image: no object's centre is nearer to the edge
LEAST_GAP = 0.42  # between two centres, over the sum of the sides of both objects
TRUNCATED_ABOVE = 0.04  # of an object's area outside the image; below it, rounding and antialiasing explain it
OCCLUDED_ABOVE = 0.04  # of an object's area in the image hidden by others
BLUR_PIXELS = 0.7  # the most that the camera blurs
GRAIN = 0.03  # the largest standard deviation of the camera's noise


class Look(Settings):
    """What scenes look like."""

    seed: int = Field(0, ge=0)
    size: int = Field(160, ge=64, le=1024)  # pixels, the longer side; the shorter is 0.8 to 1 of it
    most_objects: int = Field(3, ge=1, le=8)
    smallest_side: float = Field(0.28, gt=0.05, lt=1)  # of the shorter side: square root of an object's area
    largest_side: float = Field(0.55, gt=0.05, lt=1)
    most_turn_degrees: float = Field(50.0, ge=0, le=180)  # either way; things mostly stand upright, as in photographs
    strange_texture_share: float = Field(0.15, ge=0, le=1)  # objects in another class's texture: outline counts too
    photograph_share: float = Field(default=0.6, ge=0, le=1)  # backgrounds cut from photographs; the others are drawn
    most_occluders: int = Field(2, ge=0, le=8)  # planks and boulders, in front of objects or behind
    difficult_below: float = Field(
        default=0.5, ge=0, le=1
    )  # visible share of its area under which an object is difficult

    @model_validator(mode="after")
    def _sides_are_ordered(self) -> Look:
        if self.smallest_side > self.largest_side:
            raise ValueError("smallest_side must not exceed largest_side")
        return self


@dataclass(frozen=True)
class SceneObject:
    """One annotated object; `box` is x1 y1 x2 y2 in pixels around its visible part, right and bottom edge excluded."""

    label: int
    box: tuple[int, int, int, int]
    visible_share: float  # of its whole area, what is outside the image included
    is_truncated: bool
    is_occluded: bool
    is_difficult: bool


@dataclass(frozen=True)
class Scene:
    """An image (H x W x 3 uint8) and its objects; `instances` (H x W uint8) is 0, the object's place from 1, or 255."""

    image: np.ndarray
    instances: np.ndarray
    objects: tuple[SceneObject, ...]

    def classes(self) -> np.ndarray:
        """H x W uint8: 0 background, 1 + label on an object, 255 on its border."""
        table = np.full(VOID + 1, VOID, np.uint8)
        table[: len(self.objects) + 1] = [0, *(1 + thing.label for thing in self.objects)]
        return table[self.instances]


@dataclass(frozen=True)
class _Placed:
    label: int
    pose: Pose
    cover: np.ndarray  # H x W float32, hidden parts included


def render(look: Look, split: str, index: int) -> Scene:
    """The scene number `index` of a split; scenes of `test` have backgrounds of their own."""
    random = np.random.default_rng([look.seed, SPLITS.index(split), index])
    columns = TEST_COLUMNS if split == "test" else TRAIN_COLUMNS
    height, width = _frame(look, random)
    canvas = background(random, height, width, look.photograph_share, columns)
    material = background(random, height, width, look.photograph_share, columns)
    light = _light(random)
    poses = _poses(look, random, height, width)
    behind, before = _occluders(look, random, poses, height, width)
    for pose in behind:
        paint_occluder(canvas, material, pose, light, random)
    labels = [_first_label(look.seed, split, index), *random.integers(len(CLASSES), size=len(poses) - 1)]
    placed = [_place(canvas, look, int(k), pose, light, random) for k, pose in zip(labels, poses, strict=True)]
    instances = np.zeros((height, width), np.uint8)
    for number, thing in enumerate(placed, start=1):
        instances[thing.cover > 0.5] = number
    for pose in before:
        instances[paint_occluder(canvas, material, pose, light, random) > 0.5] = 0
    return _annotated(_photographed(canvas, light, random), instances, placed, look)


def _frame(look: Look, random: np.random.Generator) -> tuple[int, int]:
    """Height and width of the image, landscape or portrait."""
    sides = (round(look.size * random.uniform(0.8, 1.0)), look.size)
    return sides if random.random() < 0.6 else sides[::-1]


def _light(random: np.random.Generator) -> Light:
    """Light from above, from one side or the other."""
    angle = np.radians(random.uniform(20, 160))
    return Light((float(np.cos(angle)), float(np.sin(angle))), random.uniform(0.2, 0.7))


def _poses(look: Look, random: np.random.Generator, height: int, width: int) -> list[Pose]:
    """Where the objects stand: one at least, apart from each other unless they may overlap a little."""
    poses: list[Pose] = []
    wanted = int(random.integers(1, look.most_objects + 1))
    for _ in range(wanted):
        share = random.uniform(look.smallest_side, look.largest_side) * wanted**-0.2
        side = share * min(height, width)  # three objects are each 0.8 the size of a lone one
        turn = random_turn(random, look.most_turn_degrees)
        trials = random.uniform(CENTRE_MARGIN, 1 - CENTRE_MARGIN, (CENTRE_TRIALS, 2)) * [width, height]
        for centre in trials:
            if all(np.hypot(*(centre - p.centre)) > LEAST_GAP * (side + p.side_pixels) for p in poses):
                poses.append(Pose(centre, side, turn))
                break
    return poses


def _occluders(
    look: Look, random: np.random.Generator, poses: list[Pose], height: int, width: int
) -> tuple[list[Pose], list[Pose]]:
    """Occluders behind the objects, anywhere, and before them, over the edge of one."""
    behind, before = [], []
    for _ in range(int(random.integers(look.most_occluders + 1))):
        target = poses[random.integers(len(poses))]
        side = target.side_pixels * random.uniform(0.6, 1.0)
        turn = random_turn(random, 180.0)
        if random.random() < 0.4:
            behind.append(Pose(random.uniform(0, 1, 2) * [width, height], 1.4 * side, turn))
        else:
            angle, reach = random.uniform(0, 2 * np.pi), target.side_pixels * random.uniform(0.3, 0.65)
            before.append(Pose(target.centre + reach * np.array([np.cos(angle), np.sin(angle)]), side, turn))
    return behind, before


def _first_label(seed: int, split: str, index: int) -> int:
    """Goes through all classes in every run of ten images, in random order, so that small sets hold them all."""
    block, place = divmod(index, len(CLASSES))
    order = np.random.default_rng([seed, SPLITS.index(split), block, len(SPLITS)]).permutation(len(CLASSES))
    return int(order[place])


def _place(
    canvas: np.ndarray, look: Look, label: int, pose: Pose, light: Light, random: np.random.Generator
) -> _Placed:
    """Paints an object of class `label`, now and then in the texture of another."""
    silhouette, texture = KINDS[CLASSES[label]]
    if random.random() < look.strange_texture_share:
        texture = KINDS[CLASSES[random.integers(len(CLASSES))]][1]
    return _Placed(label, pose, paint_object(canvas, silhouette(random), texture, pose, light, random))


def _photographed(canvas: np.ndarray, light: Light, random: np.random.Generator) -> np.ndarray:
    """H x W x 3 uint8: the light falling off across the scene, the lens's blur, the sensor's grain."""
    import cv2

    height, width = canvas.shape[:2]
    across = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(light.direction[0])
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(light.direction[1])
    lit = canvas * (1 - np.float32(random.uniform(0, 0.35)) * (across + down))[..., None]
    blurred = cv2.GaussianBlur(lit, (0, 0), random.uniform(0.2, BLUR_PIXELS))
    blurred += np.float32(random.uniform(0, GRAIN)) * random.standard_normal(canvas.shape, dtype=np.float32)
    return (np.clip(blurred, 0, 1) * 255 + 0.5).astype(np.uint8)


def _annotated(image: np.ndarray, instances: np.ndarray, placed: list[_Placed], look: Look) -> Scene:
    """The scene with a box for every object of which something can be seen, and void along the borders."""
    import cv2

    numbers = np.zeros(VOID + 1, np.uint8)
    objects: list[SceneObject] = []
    for number, thing in enumerate(placed, start=1):
        is_visible = instances == number
        if is_visible.any():
            objects.append(_described(thing, is_visible, look))
            numbers[number] = len(objects)
    renumbered = numbers[instances]
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
    is_border = cv2.dilate(renumbered, cross) != cv2.erode(renumbered, cross)
    return Scene(image, np.where(is_border, np.uint8(VOID), renumbered), tuple(objects))


def _described(thing: _Placed, is_visible: np.ndarray, look: Look) -> SceneObject:
    in_image, visible = int((thing.cover > 0.5).sum()), int(is_visible.sum())
    whole = thing.pose.side_pixels**2
    rows, columns = np.flatnonzero(is_visible.any(axis=1)), np.flatnonzero(is_visible.any(axis=0))
    return SceneObject(
        label=thing.label,
        box=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
        visible_share=min(visible / whole, 1.0),
        is_truncated=in_image < (1 - TRUNCATED_ABOVE) * whole,
        is_occluded=visible < (1 - OCCLUDED_ABOVE) * in_image,
        is_difficult=visible < look.difficult_below * whole,
    )
