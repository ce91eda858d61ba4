"""`name:path`, a name alone or a bare path to the split of a data set; where commands turn words into images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Literal

from ssl_inpaint import catalog
from ssl_inpaint.config import Settings, override
from ssl_inpaint.core import Split
from ssl_inpaint.data import (
    coco,
    filelist,
    folder,
    imagefolder,
    maskfolder,
    shapes,
    tinyimagenet,
    torchvision,
    voc2007,
    voc2012,
)
from ssl_inpaint.data.listing import parts_of
from ssl_inpaint.errors import UsageError, unknown_name

BARE_PATH_ORDER: Mapping[str, ModuleType] = MappingProxyType(  # the first that recognises the path wins
    {
        "shapes": shapes,
        "voc2007": voc2007,
        "voc2012": voc2012,
        "tinyimagenet": tinyimagenet,
        "coco": coco,
        "maskfolder": maskfolder,
        "imagefolder": imagefolder,
        "filelist": filelist,
        "folder": folder,
    }
)
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
Needs = Literal["labels", "objects", "masks"]


def open_data(spec: str, split: str, settings: Mapping[str, str] = NO_SETTINGS, needs: Needs = "labels") -> Split:
    """The split (train, val, trainval, test or pretrain) of the data set that `spec` names.

    `spec` is NAME:PATH, a NAME that needs no path, a torchvision set as NAME, NAME:ROOT or torchvision:NAME:ROOT, or a
    path alone, recognised by its layout: `Split.dataset` says as what. `needs` chooses among the images of data sets
    of which only some have masks; whether the split has what is needed is for the caller to see. UsageError for all
    that does not exist.
    """
    parts_of(split)
    name, path, config = _resolved(spec)
    part = catalog.load("data", name)
    config = config or part.Config()
    if needs == "masks" and _chooses_masks(config):
        settings = {"masks": "true", **settings}
    found: Split = part.build(path, split, override(config, "data", settings))
    return found


def chooses_masks(spec: str) -> bool:
    """True where the data set has other images, or slower ones, for `needs` "masks" than for anything else."""
    name, _, config = _resolved(spec)
    return _chooses_masks(config or catalog.load("data", name).Config())


def _chooses_masks(config: Settings) -> bool:
    return isinstance(getattr(config, "masks", None), bool)


def _resolved(spec: str) -> tuple[str, Path | None, Settings | None]:
    """The part's name, the path given to it, and its settings where the spec chooses any."""
    if not spec:
        raise UsageError("No data set is named: write NAME:PATH, a NAME that needs no path, or a path.")
    name, _, rest = spec.partition(":")
    parts = catalog.parts("data")
    if name == "torchvision" and rest:
        name, _, rest = rest.partition(":")
        return "torchvision", _folder(rest), torchvision.Config(name=name)
    if name in torchvision.SETS:
        return "torchvision", _folder(rest), torchvision.Config(name=name)
    if name in parts:
        return name, _existing(rest) if rest else None, None
    path = Path(spec).expanduser()
    if path.exists():
        return _recognised(path), path, None
    if ":" in spec or not any(mark in spec for mark in "/\\.~"):
        raise unknown_name("data set", name, [*parts, *torchvision.SETS])
    return _recognised(_existing(spec)), path, None


def _folder(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


def _existing(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.exists():
        raise UsageError(f"There is no folder or file {path}: check the path, or write NAME:PATH.")
    return path


def _recognised(path: Path) -> str:
    for name, part in BARE_PATH_ORDER.items():
        if part.recognises(path):
            return name
    raise UsageError(
        f"{path} is not recognised as a data set: write NAME:PATH with one of {', '.join(BARE_PATH_ORDER)}."
    )
