"""Patterned objects on natural backgrounds, drawn from a seed: labels, boxes and masks, no download.

The embedded data set. `make_shapes` writes it in the layout of PASCAL VOC 2007; without a path it is made on first use,
in the cache folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic import Field

from ssl_inpaint import files, progress
from ssl_inpaint.config import hash_of
from ssl_inpaint.core import Split
from ssl_inpaint.data.listing import parts_of
from ssl_inpaint.data.scene_files import FOLDERS, YEAR, write_scene, write_sets
from ssl_inpaint.data.scene_objects import CLASSES
from ssl_inpaint.data.scenes import SPLITS, Look, SceneObject, render
from ssl_inpaint.data.voc import read_voc
from ssl_inpaint.data.voc_masks import BACKGROUND, class_masks
from ssl_inpaint.errors import UsageError

DRAWING = 1  # raised whenever the same Config draws other pixels, so that no stale cache is read
DEVKIT = "VOCdevkit"
SETTINGS_FILE = "shapes.json"  # the Config, beside the devkit
MOST_IMAGES = 99_999  # a split, so that names have six digits: the split's number, then the image's

Listed = tuple[str, tuple[SceneObject, ...]]  # an image's name and its objects


class Config(Look):
    """How many images each split has; the look of the scenes is inherited."""

    train: int = Field(1500, ge=len(CLASSES), le=MOST_IMAGES)  # enough for one of each class
    val: int = Field(500, ge=1, le=MOST_IMAGES)
    test: int = Field(1000, ge=1, le=MOST_IMAGES)


def build(path: Path | None, split: str, config: Config) -> Split:
    """Reads train, val, trainval, test or pretrain (trainval: all that pretraining may see).

    From the folder `path` that `make_shapes` wrote, or where it is None from the cache, made first if need be.
    UsageError where the split is unknown or the folder holds no such data.
    """
    parts_of(split)  # refuses an unknown split before anything is drawn
    devkit = (_cached(config) if path is None else path) / DEVKIT
    if not devkit.is_dir():
        raise UsageError(f"There is no {DEVKIT} in {path}: make it with 'ssl-inpaint data make-shapes'.")
    found = read_voc(devkit, YEAR, split, "shapes", CLASSES)
    names = [Path(found.images.name(i)).stem for i in range(len(found.images))]
    masks = class_masks(devkit / f"VOC{YEAR}", [f"SegmentationClass/{name}.png" for name in names], CLASSES)
    return replace(found, masks=masks, mask_classes=(BACKGROUND, *CLASSES))


def recognises(path: Path) -> bool:
    """True for a folder that `make_shapes` wrote."""
    return (path / SETTINGS_FILE).is_file() and (path / DEVKIT).is_dir()


def make_shapes(output: Path, config: Config, workers: int | None = None) -> Path:
    """Draws the data set into the folder `output`, whole or not at all, and returns it.

    `workers` threads draw (None: one a core); their number changes no pixel. UsageError where `output` holds anything
    already or cannot be written.
    """
    if not _is_free(output):
        raise _taken(output)
    with _beside(output) as temporary:
        _draw(temporary, config, workers)
        if not _publish(temporary, output):
            raise _taken(output)
    return output


def _cached(config: Config) -> Path:
    """The cache's copy. Where two processes make it at once, the first to end gives it and the other's is dropped."""
    folder = files.cache_folder() / "shapes" / hash_of(config, DRAWING)
    if _is_free(folder):
        progress.say(f"Drawing the shapes data set into {folder}, once.")
        with _beside(folder) as temporary:
            _draw(temporary, config, None)
            _publish(temporary, folder)
    return folder


def _draw(output: Path, config: Config, workers: int | None) -> None:
    folder = output / DEVKIT / f"VOC{YEAR}"
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    wanted = [(split, index) for split in SPLITS for index in range(getattr(config, split))]
    listed: dict[str, list[Listed]] = {split: [] for split in SPLITS}
    draw_one = partial(_draw_one, folder, config)
    with progress.bar("shapes", len(wanted)) as bar, ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for (split, _), entry in zip(wanted, pool.map(draw_one, wanted), strict=True):
            listed[split].append(entry)
            bar.advance()
    write_sets(folder, {**listed, "trainval": listed["train"] + listed["val"]})
    files.write_json(output / SETTINGS_FILE, {"config": config.model_dump(mode="json"), "drawing": DRAWING})


def _draw_one(folder: Path, config: Config, wanted: tuple[str, int]) -> Listed:
    split, index = wanted
    name = f"{SPLITS.index(split) + 1}{index:05d}"
    scene = render(config, split, index)
    write_scene(folder, name, scene)
    return name, scene.objects


@contextmanager
def _beside(output: Path) -> Iterator[Path]:
    """A temporary folder beside `output`, removed at the end if still there; UsageError where the disk refuses."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise _not_written(output, error) from None
    try:
        temporary.chmod(0o755)  # mkdtemp makes folders that only their owner may read
        yield temporary
    except OSError as error:
        raise _not_written(output, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, output: Path) -> bool:
    """Renames the folder; False where another process has put one there meanwhile."""
    try:
        temporary.rename(output)
    except OSError:
        if _is_free(output):
            raise
        return False
    return True


def _is_free(output: Path) -> bool:
    return not output.exists() or (output.is_dir() and not any(output.iterdir()))


def _taken(output: Path) -> UsageError:
    return UsageError(f"{output} is not empty: choose another folder, or remove it first.")


def _not_written(output: Path, error: OSError) -> UsageError:
    return UsageError(f"Cannot write {output}: {error.strerror or error}. Free space or choose another folder.")
