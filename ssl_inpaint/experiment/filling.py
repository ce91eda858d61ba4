"""`ssl-inpaint inpaint`: holes in a user's photographs of any size, filled without touching what is visible."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ssl_inpaint import (
    config,
    figures,
    files,
    inpainting_figures,
    photo_files,
    photo_holes,
    photos,
    progress,
    seams,
    windows,
)
from ssl_inpaint.core import Inpainter
from ssl_inpaint.data.specs import open_data
from ssl_inpaint.data.store import open_store
from ssl_inpaint.errors import Failure, UsageError
from ssl_inpaint.experiment.checks import refuse_used
from ssl_inpaint.experiment.inpainters import NEAREST, open_inpainters, plain_parts
from ssl_inpaint.experiment.patches import Patches, middles
from ssl_inpaint.images import to_float
from ssl_inpaint.photos import Photo
from ssl_inpaint.plans import PLAN_FILE, FillingPlan
from ssl_inpaint.runtime import Runtime, claimed

FILLED = "filled"
FIGURE_FILE = "before_after.png"
MOST_SHOWN = 8  # photographs in the figure, the first of them
HoleOf = Callable[[Path, Photo], np.ndarray]  # H x W bool


@dataclass(frozen=True)
class Filled:
    """What was filled, and what could not be."""

    folder: Path
    written: list[Path]
    figure: Path | None
    failed: list[str] = field(default_factory=list)  # a sentence each


def plan_filling(
    path: str,
    inpainter: str,
    hole: str,
    gallery: str | None,
    settings: Mapping[str, Mapping[str, str]],
    seed: int,
    is_mask_resized: bool = False,
    is_blended: bool = False,
) -> FillingPlan:
    """A complete plan from names and `--set` values."""
    own = ("data", "encoder", "run", "filling")
    parts = {name: dict(fields) for name, fields in settings.items() if name not in own}
    config.refuse_unknown_parts(settings, (*own, *plain_parts(), NEAREST, "context_encoder"))
    return FillingPlan(
        photos=path,
        inpainter=inpainter,
        hole=hole,
        is_mask_resized=is_mask_resized,
        is_blended=is_blended,
        gallery=gallery,
        data_settings=dict(settings.get("data", {})),
        inpainter_settings=parts,
        encoder_settings=dict(settings.get("encoder", {})),
        config=config.override(FillingPlan.model_fields["config"].default, "filling", settings.get("filling", {})),
        seed=seed,
    )


def fill(plan: FillingPlan, folder: Path, runtime: Runtime) -> Filled:
    """Fills plan.photos into filled/ of the folder, losslessly, and draws before_after.png.

    One that cannot be read or whose mask does not fit is named at the end, and the others are filled. UsageError for
    all that would stop every one of them, and where the only photograph is the one that cannot be filled.
    """
    refuse_used(folder)
    place = Path(plan.photos).expanduser()
    paths, root = photo_files.find_photos(place), place if place.is_dir() else None
    hole_of = _holes(plan, paths, root)
    opened = open_inpainters(
        [plan.inpainter], plan.inpainter_settings, plan.encoder_settings, plan.seed, runtime, lambda: _gallery(plan)
    )
    inpainter = opened[0].inpainter
    if len(paths) == 1:
        hole_of(paths[0], photos.read_photo(paths[0]))  # says what is wrong before anything is written
    written: list[Path] = []
    paths, failed = _readable(paths)
    shown: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    with claimed(folder), progress.bar(f"filling by {inpainter.name}", len(paths)) as bar:
        files.write_json(folder / PLAN_FILE, {"schema": 1, **plan.model_dump(mode="json")})
        for path, name in zip(paths, photo_files.output_names(paths, root), strict=True):
            try:
                photo = photos.read_photo(path)
                hole = hole_of(path, photo)
            except UsageError as error:
                failed.append(str(error))
                continue
            pixels = _filled(inpainter, photo, hole, plan.is_blended)
            image = photos.filled_image(photo, pixels, hole, is_erased=plan.hole == "alpha")
            photos.write_image(image, folder / FILLED / name)
            written.append(folder / FILLED / name)
            if len(shown) < MOST_SHOWN:
                shown.append((photo.pixels, hole, pixels))
            bar.advance(1)
        figure = None
        if shown:
            figure = folder / FIGURE_FILE
            before, where, after = (list(column) for column in zip(*shown, strict=True))
            figures.save(inpainting_figures.before_after(before, where, after), figure)
    if not written:
        raise Failure(f"None of the {len(paths)} photographs could be filled: {failed[0]}")
    return Filled(folder, written, figure, failed)


def _holes(plan: FillingPlan, paths: list[Path], root: Path | None) -> HoleOf:
    """What finds the hole of each photograph; UsageError where a mask is missing or the words mean nothing."""
    kind, _, rest = plan.hole.partition(":")
    if plan.hole == "centre":
        fraction = plan.config.hole_fraction
        return lambda path, photo: photo_holes.centre_hole(*photo.size, fraction)
    if plan.hole == "alpha":
        return lambda path, photo: photo_holes.hole_of_alpha(photo)
    if kind == "box":
        return lambda path, photo: photo_holes.box_hole(*photo.size, rest)
    mask = Path(plan.hole).expanduser()
    if mask.is_dir():
        masks = dict(zip(paths, photo_files.masks_of(mask, paths, root), strict=True))
        return lambda path, photo: photo_holes.read_hole(masks[path], photo.size, plan.is_mask_resized)
    if not mask.is_file():
        raise UsageError(
            f"There is no hole '{plan.hole}': name centre, alpha (what is transparent), box:X,Y,WIDTH,HEIGHT "
            "in pixels, a mask image (white is filled), or a folder of masks."
        )
    return lambda path, photo: photo_holes.read_hole(mask, photo.size, plan.is_mask_resized)


def _readable(paths: list[Path]) -> tuple[list[Path], list[str]]:
    """Those that begin as an image does, and a sentence on each of the others."""
    found, failed = [], []
    for path in paths:
        try:
            photo_files.output_names([path])
            found.append(path)
        except UsageError as error:
            failed.append(str(error))
    return found, failed


def _filled(inpainter: Inpainter, photo: Photo, hole: np.ndarray, is_blended: bool) -> np.ndarray:
    """H x W x 3 uint8 with the hole filled."""
    image, hidden = to_float(torch.from_numpy(photo.pixels).permute(2, 0, 1)), torch.from_numpy(hole)
    filled = windows.fill(inpainter, image, hidden)
    if is_blended:
        filled = seams.blend(image, filled, hidden)
    return (filled.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def _gallery(plan: FillingPlan) -> Patches:
    if plan.gallery is None:
        raise UsageError("Nearest neighbours need images to take pixels from: name a data set by --gallery.")
    found = open_data(plan.gallery, "pretrain", plan.data_settings)
    size = plan.config.size
    return middles(found, open_store(found.images, size), size)
