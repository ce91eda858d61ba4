"""One HTML page of everything measured: the tables, the records behind each number, figures and settings of the runs.

The page needs no server and no network. Its text and looks are in `templates/`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ssl_inpaint import files, page_images, run_folders, tables
from ssl_inpaint.cells import measured_cells, published_cells
from ssl_inpaint.page_images import Picture
from ssl_inpaint.records import Ledger, Record, key
from ssl_inpaint.run_folders import FIGURES, LAST_SAMPLES, Run
from ssl_inpaint.table_texts import DASH
from ssl_inpaint.tables import Entry, Table

MOST_IMAGE_BYTES = 12_000_000  # as text in the page: it travels by mail, and opens at once on a phone
CITED = "Cited: "  # begins the headings of what others measured and a record of the ledger quotes
VERBS = {  # what their runs stand under, in this order
    "pretrain": "Pretraining",
    "transfer": "Transfer",
    "nn-retrieval": "Patch retrieval",
    "inpaint --evaluate": "Inpainting, measured",
    "inpaint": "Photographs filled",
}


@dataclass(frozen=True)
class Written:
    """The page, its size, how many runs are shown in it, and the figures for which it had no room."""

    path: Path
    size_bytes: int
    runs: int
    left_out: tuple[Path, ...]


@dataclass(frozen=True)
class _ClassTable:
    """What every class scored in some runs, and the anchors of those."""

    table: Table
    runs: tuple[str, ...]


def write_report(ledger_path: Path, runs_folder: Path | None, output: Path) -> Written:
    """Writes the page of a ledger and of the runs below a folder to the file `output`.

    Without a folder it is runs/ beside the ledger's own folder, where all verbs put both, if there is one.
    UsageError where the ledger was edited by hand or is of another schema, or a run cannot be read; nothing is
    written then.
    """
    records = Ledger(ledger_path).read()
    beside = ledger_path.absolute().parent.with_name("runs")
    folder = runs_folder or (beside if beside.is_dir() else None)
    runs = run_folders.find_runs(folder) if folder is not None else []
    pictures = _pictures(runs)
    text = render(records, runs, pictures)
    files.write_text(output, text)
    left_out = tuple(figure.path for run in runs for figure in run.figures if figure.path not in pictures)
    return Written(output, len(text.encode()), len(runs), left_out)


def render(records: Sequence[Record], runs: Sequence[Run] = (), pictures: Mapping[Path, Picture] | None = None) -> str:
    """The text of the page; the same records and runs give the same page, in whatever order.

    A figure of a run that is not among the `pictures` is named as left out.
    """
    ordered = sorted(records, key=key)
    found = tables.tables(measured_cells(ordered))
    runs = sorted(runs, key=lambda run: run.name)
    return _template().render(
        records=ordered,
        span=_span(ordered),
        measured=[table for table in found if not table.heading.startswith(CITED)],
        cited=[table for table in found if table.heading.startswith(CITED)],
        published=tables.tables(published_cells()),
        nothing=tables.NOTHING_MEASURED,
        dash=DASH,
        classes=_class_tables(runs),
        groups={VERBS.get(verb, verb): [r for r in runs if r.verb == verb] for verb in _in_order(runs)},
        anchors={run.name: f"run-{place}" for place, run in enumerate(runs)},
        pictures=pictures or {},
        embedded=_embedded(ordered),
    )


@cache
def _template() -> Any:
    loader = PackageLoader("ssl_inpaint", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    return environment.get_template("report.html.jinja")


def _pictures(runs: Iterable[Run]) -> dict[Path, Picture]:
    """As many figures as the page has room for: the samples and learning curves of all runs first."""
    rank = {caption: place for place, caption in enumerate((LAST_SAMPLES, *FIGURES.values()))}
    drawn = sorted((figure for run in runs for figure in run.figures), key=lambda figure: rank[figure.caption])
    return page_images.embed((figure.path for figure in drawn), MOST_IMAGE_BYTES)


def _span(records: Sequence[Record]) -> dict[str, str]:
    """What the numbers have behind them altogether, by a heading each."""
    if not records:
        return {}
    days = sorted(record.created_at[:10] for record in records)
    return {
        "Numbers": f"{len(records):,}",
        "Measured (UTC)": days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}",
        "Seeds": ", ".join(map(str, sorted({record.seed for record in records}))),
        "Commits": f"{len({record.commit for record in records}):,}",
        "Devices": "; ".join(sorted({record.device for record in records})),
    }


def _in_order(runs: Sequence[Run]) -> list[str]:
    """The verbs of the runs, those of VERBS first and in its order."""
    present = {run.verb for run in runs}
    return [verb for verb in VERBS if verb in present] + sorted(present - VERBS.keys())


def _class_tables(runs: Sequence[Run]) -> list[_ClassTable]:
    """A table for all runs that measured the same: a row a class, a column a run."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        for metric in dict.fromkeys(metric for metric, _ in run.class_scores):
            place = (run.task, *(str(run.settings.get(name, "")) for name in ("mode", "data", "protocol_label")))
            groups.setdefault((*place, metric), []).append(run)
    return [_class_table(place, groups[place]) for place in sorted(groups)]


def _class_table(place: tuple[str, ...], runs: Sequence[Run]) -> _ClassTable:
    task, mode, data, label, metric = place
    classes = dict.fromkeys(of for run in runs for own, of in run.class_scores if own == metric)
    headers = (Entry("class", is_number=False), *(Entry(run.name) for run in runs))
    rows = []
    for of in classes:
        values = [run.class_scores.get((metric, of)) for run in runs]
        rows.append((Entry(of, is_number=False), *(Entry(DASH if v is None else f"{100 * v:.1f}") for v in values)))
    note = f"In percent, split test; each column is one run (its {run_folders.SCORES_FILE}). {DASH}: not measured."
    return _ClassTable(
        Table(f"{data}: {task} {mode} {metric}, {label}", headers, tuple(rows), (note,)),
        tuple(run.name for run in runs),
    )


def _embedded(records: Sequence[Record]) -> Markup:
    """All records as JSON that is safe inside a script element; each text is there once and counted by its place."""
    # Without replicates, by far the longest: what they say stands at the numbers.
    names = [field.name for field in dataclasses.fields(Record) if field.name != "replicates"]
    texts: dict[str, int] = {}
    rows = []
    for record in records:
        values = (getattr(record, name) for name in names)
        rows.append([_short(value, texts) for value in values])
    plain = [name for name in names if not records or not isinstance(getattr(records[0], name), str | Mapping)]
    content = {"fields": names, "plain": plain, "texts": list(texts), "rows": rows}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))  # no tag, and so no end of the script, in it


def _short(value: object, texts: dict[str, int]) -> object:
    """Numbers and truths as they are; of a text, or of versions as JSON, the place among `texts`."""
    if isinstance(value, Mapping):
        value = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return texts.setdefault(value, len(texts)) if isinstance(value, str) else value
