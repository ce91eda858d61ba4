"""`ssl-inpaint inpaint`: holes in a user's photographs of any size, filled without touching what is visible."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

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
from ssl_inpaint.data.sources import FileImages
from ssl_inpaint.data.store import open_store
from ssl_inpaint.errors import UsageError
from ssl_inpaint.experiment.checks import refuse_other
from ssl_inpaint.experiment.inpainters import NEAREST, TRAINED, is_nearest, open_inpainters, plain_parts
from ssl_inpaint.experiment.patches import Patches
from ssl_inpaint.experiment.squares import open_gallery
from ssl_inpaint.images import to_float
from ssl_inpaint.photos import Photo
from ssl_inpaint.plans import PLAN_FILE, EvaluationConfig, FillingConfig, FillingPlan
from ssl_inpaint.runtime import Runtime, claimed

FILLED = "filled"
FIGURE_FILE = "before_after.png"  # written last: a run with it is finished
WORDS = ("centre", "alpha")  # holes that are no files
BOX = "box:"
HoleOf = Callable[[Path, Photo], np.ndarray]  # H x W bool


@dataclass(frozen=True)
class Filled:
    """What was filled, and what could not be."""

    folder: Path
    written: list[Path]
    figure: Path
    failed: list[str] = field(default_factory=list)  # a sentence each


class _Fill(NamedTuple):
    name: str  # below filled/
    photo: Photo
    hole: np.ndarray
    pixels: np.ndarray


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
    """A complete plan from names and `--set` values; UsageError also for options that would change nothing."""
    own = ("data", "encoder", "run", "filling")
    parts = {name: dict(fields) for name, fields in settings.items() if name not in own}
    config.refuse_unknown_parts(settings, (*own, *plain_parts(), NEAREST, TRAINED))
    if gallery is not None and not is_nearest(inpainter):
        raise UsageError(f"--gallery {gallery} is for --with {NEAREST}:DESCRIPTOR, not for {inpainter}: leave it out.")
    if gallery is None and settings.get("data"):
        raise UsageError("--set data.FIELD=VALUE is for the images of --gallery, and there is none: leave it out.")
    if is_mask_resized and not _is_file(hole):
        raise UsageError(f"--resize-mask is for masks, and the hole is '{hole}': leave it out.")
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
        config=config.override(FillingConfig(), "filling", settings.get("filling", {})),
        seed=seed,
    )


def fill(plan: FillingPlan, folder: Path, runtime: Runtime) -> Filled:
    """Fills plan.photos into filled/ of the folder, losslessly, and draws before_after.png.

    One that cannot be read, filled or met by its mask is named at the end, and the others are filled. One that was
    stopped begins anew in its folder. UsageError, with nothing written, for all that would stop every one of them.
    """
    refuse_other(folder, plan, FIGURE_FILE)
    paths, root = _photos(plan)
    hole_of = _holes(plan, paths, root)
    readable, failed = _readable(paths)
    opened = open_inpainters(
        [plan.inpainter],
        plan.inpainter_settings,
        plan.encoder_settings,
        plan.seed,
        runtime,
        lambda: _gallery(plan, readable),
    )
    with closing(_fills(opened[0].inpainter, plan, readable, root, hole_of, failed)) as fills:
        first = next(fills, None)
        if first is None:
            raise UsageError(failed[0] if len(paths) == 1 else f"No photograph can be filled. {' '.join(failed[:3])}")
        with claimed(folder):
            refuse_other(folder, plan, FIGURE_FILE)  # again: another process may have finished it meanwhile
            files.write_json(folder / PLAN_FILE, {"schema": 1, **plan.model_dump(mode="json")})
            written: list[Path] = []
            shown: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
            for one in chain([first], fills):
                image = photos.filled_image(one.photo, one.pixels, one.hole, is_erased=plan.hole == "alpha")
                written.append(folder / FILLED / one.name)
                photos.write_image(image, written[-1])
                if len(shown) < plan.config.shown:
                    shown.append(inpainting_figures.reduced(one.photo.pixels, one.hole, one.pixels))
            before, where, after = (list(column) for column in zip(*shown, strict=True))
            figures.save(inpainting_figures.before_after(before, where, after), folder / FIGURE_FILE)
    return Filled(folder, written, folder / FIGURE_FILE, failed)


def _photos(plan: FillingPlan) -> tuple[list[Path], Path | None]:
    """What is to be filled, without the masks that may lie there too, and the folder it lies in if one was named."""
    place = Path(plan.photos).expanduser()
    found = photo_files.find_photos(place)
    if _is_file(plan.hole):
        mask = Path(plan.hole).expanduser().resolve()
        found = [path for path in found if mask not in (path.resolve(), *path.resolve().parents)] or found
    return found, place if place.is_dir() else None


def _is_file(hole: str) -> bool:
    """True where the hole is drawn in a mask, or masks."""
    return hole not in WORDS and not hole.startswith(BOX)


def _holes(plan: FillingPlan, paths: list[Path], root: Path | None) -> HoleOf:
    """What finds the hole of each photograph; UsageError where a mask is missing or the words mean nothing."""
    if plan.hole == "centre":
        fraction = plan.config.hole_fraction
        return lambda path, photo: photo_holes.centre_hole(*photo.size, fraction)
    if plan.hole == "alpha":
        return lambda path, photo: photo_holes.hole_of_alpha(photo)
    if plan.hole.startswith(BOX):
        return lambda path, photo: photo_holes.box_hole(*photo.size, plan.hole.removeprefix(BOX))
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


def _readable(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Those that begin as an image does, and a sentence on each of the others."""
    found, failed = [], []
    for path in paths:
        try:
            photo_files.output_names([path])
            found.append(path)
        except UsageError as error:
            failed.append(str(error))
    return found, failed


def _fills(
    inpainter: Inpainter,
    plan: FillingPlan,
    paths: Sequence[Path],
    root: Path | None,
    hole_of: HoleOf,
    failed: list[str],
) -> Generator[_Fill, None, None]:
    """One photograph after the other; a sentence on each that cannot be filled is put to those that `failed`."""
    with progress.bar(f"filling by {inpainter.name}", len(paths)) as bar:
        for path, name in zip(paths, photo_files.output_names(paths, root), strict=True):
            try:
                photo = photos.read_photo(path)
                hole = hole_of(path, photo)
                pixels = _filled(inpainter, photo, hole, plan.is_blended)
            except UsageError as error:
                failed.append(str(error))
            else:
                yield _Fill(name, photo, hole, pixels)
            bar.advance(1)


def _filled(inpainter: Inpainter, photo: Photo, hole: np.ndarray, is_blended: bool) -> np.ndarray:
    """H x W x 3 uint8 with the hole filled."""
    image, hidden = to_float(torch.from_numpy(photo.pixels).permute(2, 0, 1)), torch.from_numpy(hole)
    filled = windows.fill(inpainter, image, hidden)
    if is_blended:
        filled = seams.blend(image, filled, hidden)
    return (filled.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def _gallery(plan: FillingPlan, paths: Sequence[Path]) -> Patches:
    if plan.gallery is None:
        raise UsageError("Nearest neighbours need images to take pixels from: name a data set by --gallery.")
    own = FileImages(Path(), [str(path.resolve()) for path in paths])
    filled = open_store(own, plan.config.size, max_unreadable_fraction=1)
    chosen = EvaluationConfig(size=plan.config.size, gallery=plan.config.gallery)
    return open_gallery(plan.gallery, plan.data_settings, chosen, plan.seed, filled)
