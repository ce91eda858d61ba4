"""The page of everything measured: its numbers, what stands behind them, and that it needs nothing but itself."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ssl_inpaint import cells, page_images, report, run_folders, tables
from ssl_inpaint.cli import main
from ssl_inpaint.errors import UsageError
from ssl_inpaint.records import Ledger, Record, key

BASE = Record(
    **dict.fromkeys(("weights_sha256", "dataset_sha256", "config_hash", "recipe", "commit"), "a"),
    **{"method": "Context encoder", "pretext": "inpainting", "encoder": "compact_alexnet", "supervision": "none"},
    **{"task": "cls", "protocol": "compact-cls/v1", "mode": "frozen", "dataset": "Shapes", "split": "test"},
    **{"metric": "mAP", "seed": 0, "value": 0.5, "higher_is_better": True, "n_examples": 4952},
    **{"source": "measured", "versions": {"torch": "2.8"}, "device": "cpu", "workers": 0, "seconds": 1.0},
    **{"pretraining_seconds": 0.0, "created_at": "2026-01-01T00:00:00+00:00"},
)
EMPTY_TAGS = {"meta", "img", "br", "link", "input", "hr"}
NASTY = """</script><script>alert("1")</script><b a='x'>&amp; {{ 7 * 7 }}"""


def _records(*values: float, **changes: object) -> list[Record]:
    return [dataclasses.replace(BASE, seed=seed, value=value, **changes) for seed, value in enumerate(values)]


class Page(HTMLParser):
    """A page as a browser without JavaScript reads it: rows of (text, attributes) by heading, and every tag."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[tuple[str, dict[str, str | None]]]]] = {}
        self.scripts: list[str] = []
        self.text = ""
        self._heading = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY_TAGS:
            self.open.append(tag)
        if tag == "caption":
            self._heading = ""
        if tag == "tr":
            self.tables.setdefault(self._heading, []).append([])
        if tag in ("td", "th"):
            self.tables[self._heading][-1].append(("", dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "caption":
            self._heading += data
        elif self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif {"td", "th"} & set(self.open) and "small" not in self.open:  # what is small repeats other cells on a phone
            text, attributes = self.tables[self._heading][-1][-1]
            self.tables[self._heading][-1][-1] = (text + data.strip(), attributes)
        else:
            self.text += data

    def rows(self, heading: str) -> list[list[str]]:
        return [[text for text, _ in row] for row in self.tables[heading]]


def _stored(page: Page) -> list[dict[str, object]]:
    """The records in the page, put together as its script does it."""
    content = json.loads(page.scripts[0])
    found = []
    for row in content["rows"]:
        pairs = dict(zip(content["fields"], row, strict=True))
        own = {name: value if name in content["plain"] else content["texts"][value] for name, value in pairs.items()}
        found.append(own | {"versions": json.loads(own["versions"])})
    return found


def _folder_of_runs(tmp_path: Path) -> Path:
    settings = {"verb": "transfer", "protocol": {"task": "det"}, "protocol_label": "quick-det/v1", "mode": "frozen"}
    settings |= {"data": "shapes", "seed": 3, "source": NASTY}
    scores = {
        "AP (area): fish": 0.25,
        "AP (area): <leaf>": 0.125,
        "mAP (area)": 0.1875,
        "AP (area): none": float("nan"),
    }
    for name in ("first", "deep/second"):
        place = tmp_path / "runs" / name
        (place / "predictions").mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(settings))
        (place / "scores.json").write_text(json.dumps({"scores": scores}))
        Image.new("RGB", (30, 20)).save(place / "predictions" / "gallery.png")
    (tmp_path / "runs" / "first" / "tune").mkdir()
    (tmp_path / "runs" / "first" / "tune" / "config.json").write_text("no run of its own")
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs" / "other" / "config.json").write_text("{}")
    (tmp_path / "runs" / "again").symlink_to(tmp_path / "runs")
    return tmp_path / "runs"


def test_the_page_has_the_tables_of_the_ledger_number_by_number() -> None:
    records = _records(0.31, 0.35, 0.30) + _records(0.2, method="Random", pretext="none") + _records(0.4, task="seg")
    page = Page(report.render(records))
    found = [*tables.tables(cells.measured_cells(records)), *tables.tables(cells.published_cells())]
    assert list(page.tables) == [table.heading for table in found]
    for table in found:
        assert page.rows(table.heading) == [[e.text for e in line] for line in (table.headers, *table.rows)]
        assert all(note in page.text for note in table.notes)


def test_behind_every_number_are_exactly_its_records() -> None:
    records = _records(0.31, 0.35, 0.30) + _records(0.2, 0.1, method="Random") + _records(0.9, config_hash="b")
    older = _records(0.7, weights_sha256="old", created_at="2025-01-01T00:00:00+00:00", method="Random")
    page = Page(report.render(records + older))
    stored = _stored(page)
    assert sorted(key(Record(**one)) for one in stored) == sorted(map(key, records + older))  # type: ignore[arg-type]
    behind = {}
    for row in page.tables["Measured: Shapes"][1:]:
        text, attributes = row[-1]
        places = map(int, str(attributes["data-records"]).split())
        behind[text] = sorted(float(str(stored[place]["value"])) for place in places)
    assert behind == {"32.0 ± 2.6 (n=3)": [0.30, 0.31, 0.35], "15.0 ± 7.1 (n=2)": [0.1, 0.2], "90.0": [0.9]}


def test_the_page_does_not_depend_on_the_order_of_the_ledger() -> None:
    records = _records(0.5, 0.6) + _records(0.4, method="Random", task="seg") + _records(0.1, dataset="VOC07")
    assert report.render(records) == report.render(records[::-1])


def test_what_comes_from_outside_is_text_and_never_markup(tmp_path: Path) -> None:
    records = _records(0.5, 0.6, **dict.fromkeys(("method", "dataset", "device", "metric", "recipe"), NASTY))
    runs = run_folders.find_runs(_folder_of_runs(tmp_path))
    page = Page(report.render(records, runs))
    assert len(page.scripts) == 2 and "b" not in {tag for tag, given in page.tags if "a" in given}
    assert page.rows(f"Measured: {NASTY}")[1][0] == NASTY and NASTY in page.text  # in the settings of a run too
    assert _stored(page)[0]["device"] == NASTY


def test_nothing_is_fetched_from_anywhere(tmp_path: Path) -> None:
    folder = _folder_of_runs(tmp_path)
    Ledger(tmp_path / "results" / "measured.jsonl").add(_records(0.5))
    report.write_report(tmp_path / "results" / "measured.jsonl", folder, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    ids = {str(given["id"]) for _, given in page.tags if "id" in given}
    targets = [str(given[name]) for _, given in page.tags for name in ("src", "href") if name in given]
    assert len(targets) > 5 and all(t.startswith("data:image/") or t.removeprefix("#") in ids for t in targets)
    assert not re.search(r"https?://|@import|url\(|\bfetch\(|XMLHttpRequest", text)
    policy = next(given["content"] for _, given in page.tags if given.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy)


def test_tables_are_built_for_readers_of_all_kinds() -> None:
    page = Page(report.render(_records(0.5)))
    for rows in page.tables.values():
        assert all(given.get("scope") == "col" for _, given in rows[0])
        assert all(row[0][1].get("scope") == "row" for row in rows[1:])
    assert sum(tag == "caption" for tag, _ in page.tags) == len(page.tables)
    ids = [given["id"] for _, given in page.tags if "id" in given]
    assert len(ids) == len(set(ids))


def test_cited_and_published_numbers_stand_apart_from_measured_ones() -> None:
    page = Page(report.render(_records(0.5) + _records(0.6, source="Someone 2020")))
    kinds = [given.get("class") for tag, given in page.tags if tag == "section" and given.get("class")]
    assert kinds == ["measured", "cited", *["published"] * 4]


def test_an_empty_ledger_says_so_and_still_shows_what_is_published() -> None:
    page = Page(report.render([]))
    assert tables.NOTHING_MEASURED in page.text and len(page.tables) == 4


def test_runs_are_found_however_deep_with_their_figures_and_settings(tmp_path: Path) -> None:
    found = run_folders.find_runs(_folder_of_runs(tmp_path))
    assert [run.name for run in found] == ["deep/second", "first"]
    assert found[1].description == f"det, frozen, {NASTY}, shapes, quick-det/v1, seed 3"
    assert [figure.path.name for figure in found[1].figures] == ["gallery.png"]
    assert dict(found[1].class_scores) == {("AP (area)", "fish"): 0.25, ("AP (area)", "<leaf>"): 0.125}


def test_classes_are_rows_and_runs_are_columns(tmp_path: Path) -> None:
    page = Page(report.render([], run_folders.find_runs(_folder_of_runs(tmp_path))))
    assert page.rows("shapes: det frozen AP (area), quick-det/v1") == [
        ["class", "deep/second", "first"],
        ["fish", "25.0", "25.0"],
        ["<leaf>", "12.5", "12.5"],
    ]


def test_the_last_samples_stand_in_for_those_over_time(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "ours"
    (run / "samples").mkdir(parents=True)
    (run / "config.json").write_text('{"verb": "pretrain"}')
    for name in ("samples/0000100.png", "samples/0000200.png", "learning_curve.png"):
        Image.new("RGB", (8, 8)).save(run / name)
    names = lambda: [figure.path.name for figure in run_folders.find_runs(tmp_path / "runs")[0].figures]  # noqa: E731
    assert names() == ["learning_curve.png", "0000200.png"]
    Image.new("RGB", (8, 8)).save(run / "samples_over_time.png")
    assert names() == ["learning_curve.png", "samples_over_time.png"]


def test_pictures_are_made_small_and_stop_where_there_is_no_more_room(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 2400, 3), dtype=np.uint8)
    for name in ("one.png", "two.png"):
        Image.fromarray(noise).save(tmp_path / name)
    Image.new("RGB", (150, 75)).save(tmp_path / "small.png")
    paths = [tmp_path / name for name in ("one.png", "two.png", "small.png")]
    whole = page_images.embed(paths, 10_000_000)
    assert (whole[paths[0]].width, whole[paths[0]].height) == (1280, 32)  # of 2,000 pixels at 150 an inch
    assert whole[paths[0]].uri.startswith("data:image/webp;base64,")
    assert (whole[paths[2]].width, whole[paths[2]].height) == (96, 48)
    assert list(page_images.embed(paths, 2 * len(whole[paths[0]].uri))) == paths[:2]
    assert list(page_images.embed(paths, 2 * len(whole[paths[0]].uri) - 1)) == paths[:1]
    assert page_images.embed(paths, 0) == {} == page_images.embed([], 0)


def test_a_figure_without_room_is_named_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _folder_of_runs(tmp_path)
    monkeypatch.setattr(report, "MOST_IMAGE_BYTES", 10)
    made = report.write_report(tmp_path / "none.jsonl", folder, tmp_path / "page.html")
    assert [path.name for path in made.left_out] == ["gallery.png", "gallery.png"] and made.runs == 2
    assert "Predictions beside the truth: left out" in made.path.read_text(encoding="utf-8")


def test_runs_beside_the_ledger_are_found_without_being_named(tmp_path: Path) -> None:
    _folder_of_runs(tmp_path)
    Ledger(tmp_path / "results" / "measured.jsonl").add(_records(0.5))
    result = CliRunner().invoke(
        main, ["report", "--ledger", f"{tmp_path}/results/measured.jsonl", "--output", f"{tmp_path}/page.html"]
    )
    assert result.exit_code == 0 and re.fullmatch(r"page +\S+/page\.html \(0\.\d MB, 2 runs\)\n", result.stdout)


def _edit(ledger: Path, change: Callable[[dict[str, object]], None]) -> None:
    fields = json.loads(ledger.read_text(encoding="utf-8"))
    change(fields)
    ledger.write_text(json.dumps(fields) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda fields: fields.update(seed=7), "edited by hand"),
        (lambda fields: fields.update(schema=0), "schema 0, where this version reads 1"),
        (lambda fields: fields.pop("commit"), "commit: "),
    ],
)
def test_a_ledger_not_to_be_trusted_is_one_sentence_and_no_page(
    tmp_path: Path, change: Callable[[dict[str, object]], None], sentence: str
) -> None:
    ledger, output = tmp_path / "measured.jsonl", tmp_path / "page.html"
    Ledger(ledger).add(_records(0.5))
    output.write_text("the page before", encoding="utf-8")
    _edit(ledger, change)
    result = CliRunner().invoke(main, ["report", "--ledger", str(ledger), "--output", str(output)])
    assert result.exit_code == 2 and not result.stdout and result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"Error: {ledger}, line 1: ") and sentence in result.stderr
    assert output.read_text(encoding="utf-8") == "the page before"


@pytest.mark.parametrize("broken", ["config.json", "scores.json", "predictions/gallery.png"])
def test_a_run_that_cannot_be_read_is_one_sentence_and_no_page(tmp_path: Path, broken: str) -> None:
    folder = _folder_of_runs(tmp_path)
    (folder / "first" / broken).write_text("[half", encoding="utf-8")
    with pytest.raises(UsageError, match=re.escape(f"{folder / 'first' / broken} cannot be read")):
        report.write_report(tmp_path / "none.jsonl", folder, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_folder_of_runs_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder of runs"):
        report.write_report(tmp_path / "none.jsonl", tmp_path / "runs", tmp_path / "page.html")
