"""What a run is told: complete, frozen, saved beside what it made, and enough to run it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field, PositiveFloat, model_validator

from ssl_inpaint import config
from ssl_inpaint.batches import Crops, Views
from ssl_inpaint.config import Settings
from ssl_inpaint.data.proposals import ProposalConfig
from ssl_inpaint.errors import UsageError
from ssl_inpaint.scenes import Scenes
from ssl_inpaint.train import FitConfig

Rescaling = Literal["none", "between", "within", "both"]


class Recipe(Settings):
    """Settings for pretraining, under a name; what they cost and give is in the docstring of their file."""

    encoder: str
    encoder_settings: dict[str, str] = {}
    pretext_settings: dict[str, str] = {}  # applied where the pretext task has them
    crops: Crops
    train: FitConfig


class Protocol(Settings):
    """Settings of a measurement, under a name and a version: a changed default is a new version."""

    later: ClassVar[frozenset[str]] = frozenset({"scenes", "rescale"})
    name: str
    version: int
    task: str
    head: dict[str, Any] = {}  # fields of the transfer task's Config that differ from its defaults
    crops: Crops | None = None  # of tasks on labels
    scenes: Scenes | None = None  # of tasks on objects or masks, which read whole images
    proposals: ProposalConfig | None = None  # selective search for Fast R-CNN; None: not needed
    rescale: Rescaling = "none"  # of the network's weights by data before fine-tuning (Krähenbühl et al. 2016)
    test_views: Views = "centre"  # outputs are averaged over them
    # Random crops of every image that a frozen encoder describes, once; 0: it describes new ones in every step.
    cached_views: int = Field(8, ge=0)
    learning_rates: tuple[PositiveFloat, ...] = ()  # tried on train, chosen on val; empty: train.learning_rate as it is
    train: FitConfig  # when fine-tuning
    frozen_train: FitConfig  # of the head on cached features

    @model_validator(mode="after")
    def _shows_images_one_way(self) -> Protocol:
        if (self.crops is None) == (self.scenes is None):
            raise ValueError("a protocol shows crops or whole scenes, one of the two")
        return self

    @property
    def label(self) -> str:
        """name/version, as records carry it."""
        return f"{self.name}/v{self.version}"

    def identity(self) -> dict[str, Any]:
        """As of all settings; proposals count by what they are, which the record adds, not by how they were found."""
        return {name: value for name, value in super().identity().items() if name != "proposals"}


class PretrainPlan(Settings):
    """One pretraining run."""

    verb: Literal["pretrain"] = "pretrain"
    data: str
    data_settings: dict[str, str] = {}
    encoder: str  # empty where only the folder or file that it starts from knows
    encoder_settings: dict[str, str] = {}
    start: str = ""  # weights to go on from, as in transfer --from; empty: random ones
    pretext: str
    pretext_config: dict[str, Any] = {}
    silhouettes: str | None = None  # a folder of masks for region holes; None: the procedural set
    crops: Crops
    train: FitConfig
    recipe: str
    seed: int = Field(0, ge=0)


class TransferPlan(Settings):
    """One measurement of one encoder."""

    verb: Literal["transfer"] = "transfer"
    data: str
    data_settings: dict[str, str] = {}
    source: str
    encoder_settings: dict[str, str] = {}
    mode: Literal["frozen", "finetune"]
    protocol: Protocol
    protocol_label: str  # the protocol's own label, marked where a setting was changed
    has_predictions: bool = False  # what was predicted on test is written, and drawn beside what is true
    seed: int = Field(0, ge=0)


class RetrievalConfig(Settings):
    """How patches are cut, hidden and compared; a protocol of its own, patches/v1, where nothing is changed."""

    patch_size: int = Field(96, ge=16)  # pixels a side of a patch
    store_size: int = Field(192, ge=16)  # short side of the images that patches are cut from
    context: float = Field(1.25, gt=0)  # side of a patch over the longer side of the object in its middle
    smallest_object: float = Field(16.0, ge=1)  # pixels of the store; smaller boxes are left out altogether
    hole_fraction: float = Field(0.25, gt=0, lt=1)  # of a patch's area, in its middle, hidden in context-only retrieval
    queries: int = Field(500, ge=1)  # drawn from test; all where there are fewer
    gallery: int = Field(10_000, ge=1)  # drawn from train and val; all where there are fewer
    k: tuple[int, ...] = Field((1, 5, 10), min_length=1)  # of precision at k
    shown_queries: int = Field(8, ge=1)  # rows of the figure, the first drawn, not chosen
    shown_neighbours: int = Field(4, ge=1)


class RetrievalPlan(Settings):
    """One comparison of descriptors."""

    verb: Literal["nn-retrieval"] = "nn-retrieval"
    data: str
    data_settings: dict[str, str] = {}
    descriptors: tuple[str, ...] = Field(min_length=1)
    config: RetrievalConfig
    encoder_settings: dict[str, str] = {}
    seed: int = Field(0, ge=0)


class EvaluationConfig(Settings):
    """How inpainters are compared: on which squares, with which holes."""

    hole: str = "centre"  # a kind of `holes`
    hole_fraction: float = Field(0.25, gt=0, le=0.9)  # of the area of the square
    size: int = Field(128, ge=32)  # pixels a side of the squares: the middle of each image, at its full short side
    images: int = Field(1000, ge=1)  # drawn from test; all where there are fewer
    gallery: int = Field(100_000, ge=1)  # images whose pixels nearest-neighbour inpainting may take; drawn likewise
    shown: int = Field(6, ge=1)  # rows of the figure, the first drawn, not chosen
    has_others: bool = True  # every inpainter there is beside those that are named


class EvaluationPlan(Settings):
    """One comparison of inpainters."""

    verb: Literal["inpaint --evaluate"] = "inpaint --evaluate"
    data: str
    data_settings: dict[str, str] = {}
    inpainters: tuple[str, ...]
    gallery: str | None = None  # the data set that nearest neighbours come from; None: the part of `data` beside test
    config: EvaluationConfig
    inpainter_settings: dict[str, dict[str, str]] = {}
    encoder_settings: dict[str, str] = {}
    seed: int = Field(0, ge=0)


class FillingConfig(Settings):
    """How a photograph is filled, where there is a choice."""

    hole_fraction: float = Field(0.25, gt=0, le=0.9)  # of the short side's square, in its middle, for the hole "centre"
    size: int = Field(128, ge=32)  # pixels a side of a gallery's squares
    gallery: int = Field(100_000, ge=1)  # images drawn for it; all where there are fewer
    shown: int = Field(6, ge=1)  # photographs in the figure, the first ones


class FillingPlan(Settings):
    """Photographs to fill."""

    verb: Literal["inpaint"] = "inpaint"
    photos: str  # an image or a folder
    inpainter: str
    hole: str  # "centre", "alpha", "box:X,Y,WIDTH,HEIGHT", a mask, or a folder of masks
    is_mask_resized: bool = False
    is_blended: bool = False
    gallery: str | None = None
    data_settings: dict[str, str] = {}
    inpainter_settings: dict[str, dict[str, str]] = {}
    encoder_settings: dict[str, str] = {}
    config: FillingConfig = FillingConfig()
    seed: int = Field(0, ge=0)


P = TypeVar("P", bound=Settings)
PLAN_FILE = "config.json"
SCHEMA = 1


def read_plan(kind: type[P], folder: Path) -> P:
    """The plan a run folder was made with; UsageError where there is none, or one of another kind or schema."""
    path = folder / PLAN_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UsageError(f"{folder} is no run folder ({PLAN_FILE} cannot be read): name one to resume.") from None
    if not isinstance(values, dict) or values.pop("schema", None) != SCHEMA:
        raise UsageError(f"{path} is no plan of schema {SCHEMA}: resume with the version of the suite that wrote it.")
    verb, wanted = values.get("verb"), kind.model_fields["verb"].default
    if verb != wanted:
        raise UsageError(f"{folder} holds a run of '{verb}', not of '{wanted}': ssl-inpaint {verb} goes on with it.")
    return config.check(kind, str(path), values)
