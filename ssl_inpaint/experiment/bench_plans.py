"""A bench by its name with what the command line says of it, and what is refused before anything is run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch

from ssl_inpaint import catalog, checkpoint, config
from ssl_inpaint.config import Settings
from ssl_inpaint.data.specs import Needs, chooses_masks, open_data
from ssl_inpaint.errors import UsageError, unknown_name
from ssl_inpaint.experiment import checks
from ssl_inpaint.experiment.bench_cells import Cell
from ssl_inpaint.plans import PretrainPlan, Protocol
from ssl_inpaint.rows import Bench, Measurement, Row

SettingsByPart = Mapping[str, Mapping[str, str]]
NOTHING: SettingsByPart = {}
TO_DRAW = ("random", *checkpoint.BY_DATA)  # sources that need an architecture only
READ: Mapping[str, Needs] = {
    "labels": "labels",
    "features": "labels",
    "objects": "objects",
    "masks": "masks",
}  # by what a task needs


def plan_bench(
    name: str,
    data: Mapping[str, str],
    seeds: int | None,
    settings: SettingsByPart = NOTHING,
    rows: Collection[str] = (),
    tasks: Collection[str] = (),
) -> Bench:
    """The bench of that name with data sets and `--set` values put in; of those `rows` and `tasks` only, if any.

    `settings` are by row or task: {"inpainting": {"train.steps": "100"}, "cls": {"head.grid": "2"}}; a row's "source"
    takes the place of what it would be, and its "start" is what its pretraining goes on from. UsageError for names that
    the bench does not have, and for data sets that it wants and is not given.
    """
    whole: Bench = catalog.load("benches", name).build()
    strange = sorted(data.keys() - whole.data.keys())
    if strange:
        known = ", ".join(sorted(whole.data))
        raise UsageError(f"Bench '{name}' has no data set '{strange[0]}': name one of {known} by --data NAME=SPEC.")
    known_parts = dict.fromkeys((*(row.name for row in whole.rows), *(m.task for m in whole.measurements), "run"))
    config.refuse_unknown_parts(settings, tuple(known_parts))
    changed = whole.model_copy(
        update={
            "rows": tuple(_changed_row(row, settings.get(row.name, {})) for row in whole.rows),
            "measurements": tuple(_changed_measurement(m, settings.get(m.task, {})) for m in whole.measurements),
            "data": {**whole.data, **data},
            **({} if seeds is None else {"seeds": seeds}),
        }
    )
    bench = _part_of(changed, rows, tasks) if rows or tasks else changed
    missing = " ".join(f"--data {one}=SPEC" for one, spec in bench.data.items() if not spec)
    if missing:
        raise UsageError(f"Bench '{name}' has no data of its own: say where they are by {missing}.")
    return config.check(Bench, "bench", bench.model_dump())


def refuse_missing(bench: Bench, is_thorough: bool = True) -> None:
    """UsageError where a data set or an encoder is not there, before anything is run.

    Data sets are opened, and what each measurement reads of them is looked for; where that is not `is_thorough` only
    their names and folders are, in no time.
    """
    for row in bench.rows:
        _refuse_source(row)
    for spec in sorted(set(bench.data.values())):
        chooses_masks(spec)  # resolves the spec, and reads no images
    if is_thorough:
        for row in bench.rows:
            if row.pretext:
                _refuse_unlabelled(bench, row)
        for measured in bench.measurements:
            _refuse_unread(bench, measured)


def refuse_sizes(cells: Sequence[Cell]) -> None:
    """UsageError where a protocol shows images that an encoder cannot take, which would be known once it is trained.

    Encoders that only a folder or file knows are not looked at.
    """
    checked, trained = set(), {cell.name: cell.plan for cell in cells if isinstance(cell.plan, PretrainPlan)}
    for cell in cells:
        if isinstance(cell.plan, PretrainPlan) or not cell.encoder:
            continue
        settings = trained.get(cell.needs, cell.plan).encoder_settings
        what = (cell.encoder, tuple(sorted(settings.items())), cell.plan.protocol_label)
        if what in checked:
            continue
        checked.add(what)
        try:
            with torch.device("meta"):  # where nothing is drawn or computed but shapes
                _refuse_sizes(cell, settings, cell.plan.protocol)
        except Exception:  # an encoder may not be able to live there, for whatever reason
            _refuse_sizes(cell, settings, cell.plan.protocol)


def _refuse_sizes(cell: Cell, settings: Mapping[str, str], protocol: Protocol) -> None:
    encoder, _ = checkpoint.build_encoder(cell.encoder, settings, 0)
    try:
        checks.refuse_sizes(encoder, cell.encoder, protocol)
    except UsageError as error:
        raise UsageError(f"Cell {cell.name}: {error}") from None


def _part_of(bench: Bench, rows: Collection[str], tasks: Collection[str]) -> Bench:
    """What measures those rows by those tasks, none meaning all; rows whose encoders they speak of are made too."""
    known = {"row": [row.name for row in bench.rows], "task": [m.task for m in bench.measurements]}
    for kind, names in (("row", rows), ("task", tasks)):
        for one in names:
            if one not in known[kind]:
                raise unknown_name(kind, one, known[kind])
    columns = []
    for column in bench.measurements:
        asked = tuple(name for name in column.rows or known["row"] if not rows or name in rows)
        if asked and (not tasks or column.task in tasks):
            columns.append(column.model_copy(update={"rows": asked}))
    if not columns:
        whom, how = ", ".join(rows) or "its rows", ", ".join(tasks) or "any task"
        raise UsageError(f"The bench measures none of {whom} by {how}: choose other rows or tasks.")
    measured = {name for column in columns for name in column.rows}
    spoken = {name for row in bench.rows if row.name in measured for name in row.named}
    kept = tuple(row for row in bench.rows if row.name in measured | spoken)
    used = {column.data for column in columns} | {row.data for row in kept if row.pretext}
    specs = {name: spec for name, spec in bench.data.items() if name in used}
    return bench.model_copy(update={"rows": kept, "measurements": tuple(columns), "data": specs})


def _changed_row(row: Row, changes: Mapping[str, str]) -> Row:
    if "source" in changes:  # an encoder that is there already
        values: dict[str, object] = {
            "source": changes["source"],
            "start": "",
            "pretext": "",
            "recipe": "",
            "encoder": None,
            "settings": {},
        }
        row = row.model_copy(update=values)
    if "start" in changes:
        if not row.pretext:
            raise UsageError(f"Row '{row.name}' is not pretrained, so nothing starts from '{changes['start']}'.")
        settings = {part: values for part, values in row.settings.items() if part != "encoder"}  # of another network
        row = row.model_copy(update={"start": changes["start"], "encoder": None, "settings": settings})
    rest = {field: value for field, value in changes.items() if field not in ("source", "start")}
    settings = _merged(row.name, row.settings, rest, f", {row.name}.source=SOURCE or {row.name}.start=SOURCE")
    for part in settings if row.source else ():
        if part != "encoder":
            raise UsageError(
                f"Row '{row.name}' is not pretrained, so --set {row.name}.{part}.FIELD cannot apply: leave it out."
            )
    return row.model_copy(update={"settings": settings})


def _changed_measurement(measured: Measurement, changes: Mapping[str, str]) -> Measurement:
    return measured.model_copy(update={"settings": _merged(measured.task, measured.settings, changes)})


def _merged(
    name: str, settings: SettingsByPart, changes: Mapping[str, str], also: str = ""
) -> dict[str, dict[str, str]]:
    found = {part: dict(values) for part, values in settings.items()}
    for key, value in changes.items():
        part, dot, field = key.partition(".")
        if not (dot and part and field):
            raise UsageError(f"'{name}.{key}' is not a setting: write --set {name}.PART.FIELD=VALUE{also}.")
        found.setdefault(part, {})[field] = value
    return found


def _refuse_source(row: Row) -> None:
    """UsageError where the row's encoder has a name that does not exist, or a place where nothing is."""
    source = row.start or row.source
    if not source:
        _refuse_encoder(row, row.encoder or catalog.load("recipes", row.recipe).build().encoder)
        return
    kind, colon, rest = source.partition(":")
    if "=" in source and not Path(source).exists():
        encoder, _, file = source.partition("=")
        _refuse_encoder(row, encoder)
        _refuse_absent(row, file)
    elif row.named:
        return
    elif source == "torchvision:alexnet" or kind == "timm":
        _refuse_encoder(row, "torchvision_alexnet" if kind == "torchvision" else source)
    elif colon and kind in TO_DRAW:
        if checkpoint.is_architecture(rest):
            _refuse_encoder(row, rest)
    else:
        _refuse_absent(row, source)


def _refuse_encoder(row: Row, spec: str) -> None:
    name, argument = catalog.split_argument(spec)
    kind: type[Settings] = catalog.load("encoders", name).Config
    plain = config.check(kind, f"{row.name}.encoder", {"argument": argument} if argument else {})
    config.override(plain, f"{row.name}.encoder", row.settings.get("encoder", {}))


def _refuse_absent(row: Row, path: str) -> None:
    if not Path(path).exists():
        field = "start" if row.start else "source"
        raise UsageError(
            f"There are no weights at '{path}' for row '{row.name}': give others by --set {row.name}.{field}=."
        )


def _refuse_unlabelled(bench: Bench, row: Row) -> None:
    split = open_data(bench.data[row.data], "pretrain", row.settings.get("data", {}))
    if catalog.load("pretext", row.pretext).SUPERVISION == "labels" and split.labels is None:
        raise _unread(bench, row.data, "labels", f"row '{row.name}'", "pretrain")


def _refuse_unread(bench: Bench, measured: Measurement) -> None:
    needs = READ[catalog.load("transfer", measured.task).NEEDS]
    for name in ("train", "val", "test"):
        split = open_data(bench.data[measured.data], name, measured.settings.get("data", {}), needs)
        if getattr(split, needs) is None:
            raise _unread(bench, measured.data, needs, f"task '{measured.task}'", name)


def _unread(bench: Bench, data: str, needs: str, who: str, split: str) -> UsageError:
    return UsageError(
        f"Data set '{data}' ({bench.data[data]}) has no {needs} in {split}, which {who} needs: "
        f"give another by --data {data}=SPEC."
    )
