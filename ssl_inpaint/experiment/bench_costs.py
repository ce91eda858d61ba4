"""How long the cells of a bench will take, by what cells like them took; where nothing like them ran, nothing is said.

A cell that is run leaves a note of its time. One like it, but for its number of steps, takes as long besides training,
and as long for each image that training shows. What the ledger has of runs elsewhere is the time of training alone.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ssl_inpaint import catalog, config
from ssl_inpaint.experiment.bench_cells import Cell
from ssl_inpaint.plans import PretrainPlan, Protocol, Recipe, TransferPlan
from ssl_inpaint.records import Record
from ssl_inpaint.train import FitConfig

Basis = Literal["whole", "training", "throughput"]
RANKED: tuple[Basis, ...] = ("whole", "training", "throughput")  # the surest first
PRETEXT = "pretext"  # the task of records that pretraining makes


@dataclass(frozen=True)
class Timing:
    """What a run took, on which device; `training_seconds` of it went by the `images` shown."""

    like: str  # equal for runs that differ in nothing but length, seed and source
    basis: Basis  # of what is said by it: whole cells, training alone, or the images a second of encoder and task
    device: str
    seconds: float
    training_seconds: float
    images: int

    def seconds_for(self, images: int) -> float:
        """What a run like it takes that shows so many images."""
        return self.seconds - self.training_seconds + self.training_seconds * images / self.images


@dataclass(frozen=True)
class Estimate:
    """What a cell will take, and by what that is said."""

    seconds: float
    basis: Basis
    device: str


class Timings:
    """What is known of the time of runs: notes of cells, and the ledger."""

    def __init__(self, notes: Iterable[Mapping[str, Any]], records: Sequence[Record]) -> None:
        self._by_like: dict[tuple[Basis, str], list[Timing]] = defaultdict(list)
        for timing in (timing for note in notes for timing in _of_note(note)):
            self._by_like[timing.basis, timing.like].append(timing)
        # By what can be looked up at once: there may be thousands of records, and a thousand cells.
        self._records: dict[tuple[str, ...], list[Record]] = defaultdict(list)
        for record in {(r.task, r.weights_sha256, r.protocol, r.mode, r.dataset_sha256): r for r in records}.values():
            place = (record.recipe, record.pretext) if record.task == PRETEXT else (record.protocol, record.mode)
            self._records[(record.task, record.encoder, *place)].append(record)

    def estimates(self, cells: Sequence[Cell], device: str) -> dict[str, Estimate | None]:
        """By name: the median of what is known of runs like it, first of those on `device`; None: nothing is."""
        by_plan: dict[tuple[object, ...], Estimate | None] = {}
        found = {}
        for cell in cells:
            # The plans of a bench are copies that share their settings, so most are known to be equal at a glance.
            same = (cell.encoder, *(id(value) for name, value in cell.plan if name not in ("seed", "source")))
            if same not in by_plan:
                by_plan[same] = self._estimate(cell, device)
            found[cell.name] = by_plan[same]
        return found

    def _estimate(self, cell: Cell, device: str) -> Estimate | None:
        images, known = _images(cell.plan), self._like(cell)
        for is_here in (True, False):
            for basis in RANKED:
                found = [t for t in known if t.basis == basis and (t.device == device) == is_here]
                if found:
                    seconds = statistics.median(timing.seconds_for(images) for timing in found)
                    return Estimate(seconds, basis, device if is_here else found[0].device)
        return None

    def _like(self, cell: Cell) -> list[Timing]:
        known = [*self._by_like.get((RANKED[0], _like(cell)), [])]
        if isinstance(cell.plan, PretrainPlan):
            known += self._by_like.get((RANKED[2], _throughput(cell.plan)), [])
            return known + _trained(cell.plan, self._records)
        return known + _measured(cell, cell.plan, self._records)


def note(cell: Cell, device: str, seconds: float, made: Sequence[Record]) -> dict[str, object]:
    """What is kept of the time of a cell that was run in one go, in plain values."""
    training = made[0].seconds * _trainings(cell.plan) if made else 0.0
    return {
        "like": _like(cell),
        "throughput": _throughput(cell.plan) if isinstance(cell.plan, PretrainPlan) else "",
        "device": device,
        "seconds": seconds,
        "training_seconds": min(training, seconds),
        "images": _images(cell.plan),
    }


def _of_note(note: Mapping[str, Any]) -> list[Timing]:
    took = (note["device"], note["seconds"], note["training_seconds"], note["images"])
    found = [Timing(note["like"], RANKED[0], *took)]
    return found + ([Timing(note["throughput"], RANKED[2], *took)] if note["throughput"] else [])


def _trained(plan: PretrainPlan, records: Mapping[tuple[str, ...], list[Record]]) -> list[Timing]:
    """Pretraining that the ledger knows. Records do not say their steps: those count whose hash tells them."""
    recipe: Recipe = catalog.load("recipes", plan.recipe).build()
    lengths = {_settings_hash(plan, loop): _shown(loop) for loop in (recipe.train, plan.train)}
    return [
        Timing("", RANKED[1], r.device, r.pretraining_seconds, r.pretraining_seconds, lengths[r.config_hash])
        for r in records.get((PRETEXT, plan.encoder, plan.recipe, plan.pretext), [])
        if r.config_hash in lengths
    ]


def _measured(cell: Cell, plan: TransferPlan, records: Mapping[tuple[str, ...], list[Record]]) -> list[Timing]:
    """Measurements that the ledger knows, by the protocol as it is: cells differ from it in their steps alone."""
    base: Protocol = catalog.load("protocols", plan.protocol.name.replace("-", "_")).build()
    head = catalog.load("transfer", base.task).Config
    base = base.model_copy(update={"head": config.check(head, "head", base.head).model_dump(mode="json")})
    images, times = _shown(_loop(base, plan.mode)), _trainings(plan)
    if not cell.encoder or not times or _of_any_length(base, plan.mode) != _of_any_length(plan.protocol, plan.mode):
        return []
    return [
        Timing("", RANKED[1], r.device, times * r.seconds, times * r.seconds, images)
        for r in records.get((base.task, cell.encoder, base.label, plan.mode), [])
    ]


def _like(cell: Cell) -> str:
    """The same for cells that differ in length, seed and source alone; pretraining also in data, which are cropped."""
    if isinstance(cell.plan, PretrainPlan):
        left_out = {"seed", "data", "data_settings", "recipe", "train", *([] if cell.plan.start else ["start"])}
        return config.hash_of(cell.plan.model_dump(mode="json", exclude=left_out), _without_length(cell.plan.train))
    plan = cell.plan.model_dump(mode="json", exclude={"seed", "source", "protocol", "protocol_label"})
    return config.hash_of(plan, _of_any_length(cell.plan.protocol, cell.plan.mode), cell.encoder)


def _throughput(plan: PretrainPlan) -> str:
    return config.hash_of(plan.encoder or plan.start, plan.encoder_settings, plan.pretext, plan.crops.size)


def _settings_hash(plan: PretrainPlan, loop: FitConfig) -> str:
    """The config_hash of the plan's records, had its training been `loop`; of outside silhouettes it knows nothing."""
    pretext = config.check(catalog.load("pretext", plan.pretext).Config, "pretext", plan.pretext_config)
    return config.hash_of(pretext.identity(), plan.crops, loop, plan.encoder_settings)


def _of_any_length(protocol: Protocol, mode: str) -> dict[str, Any]:
    loop, other = ("frozen_train", "train") if mode == "frozen" else ("train", "frozen_train")
    rest = protocol.model_dump(mode="json", exclude={loop, other})
    return {**rest, "loop": _without_length(getattr(protocol, loop))}


def _without_length(loop: FitConfig) -> dict[str, Any]:
    every = {name for name in FitConfig.model_fields if name.endswith("_steps")}
    return loop.model_dump(mode="json", exclude={"steps", *every})


def _loop(protocol: Protocol, mode: str) -> FitConfig:
    return protocol.frozen_train if mode == "frozen" else protocol.train


def _images(plan: PretrainPlan | TransferPlan) -> int:
    return _shown(plan.train if isinstance(plan, PretrainPlan) else _loop(plan.protocol, plan.mode))


def _shown(loop: FitConfig) -> int:
    return loop.steps * loop.batch_size


def _trainings(plan: PretrainPlan | TransferPlan) -> int:
    """How often a cell trains for so many steps: records have the time of the last."""
    if isinstance(plan, PretrainPlan):
        return 1
    part = catalog.load("transfer", plan.protocol.task)
    if part.NEEDS == "features":
        return 0  # nothing is trained by steps
    tried = len(plan.protocol.learning_rates) if plan.mode == "frozen" else 1
    if tried < 2:
        return 1
    return 2 if getattr(part, "IS_PROBE", False) else 1 + tried
