import csv
import dataclasses
import importlib.resources
import io
import re
import statistics
from pathlib import Path

import pytest

from ssl_inpaint import cells, tables
from ssl_inpaint.records import Ledger, Record

BASE = Record(
    **dict.fromkeys(("weights_sha256", "dataset_sha256", "config_hash", "recipe", "commit"), "a"),
    **{"method": "Context encoder", "pretext": "inpainting", "encoder": "compact_alexnet", "supervision": "none"},
    **{"task": "cls", "protocol": "compact-cls/v1", "mode": "frozen", "dataset": "Shapes", "split": "test"},
    **{"metric": "mAP", "seed": 0, "value": 0.5, "higher_is_better": True, "n_examples": 4952},
    **{"source": "measured", "versions": {}, "device": "cpu", "workers": 0, "seconds": 1.0},
    **{"pretraining_seconds": 0.0, "created_at": "2026-01-01T00:00:00+00:00"},
)


def _records(*values: float, **changes: object) -> list[Record]:
    return [dataclasses.replace(BASE, seed=seed, value=value, **changes) for seed, value in enumerate(values)]


def _only_table(records: list[Record]) -> tables.Table:
    (table,) = tables.tables(cells.measured_cells(records))
    return table


def _texts(table: tables.Table) -> list[list[str]]:
    return [[entry.text for entry in line] for line in (table.headers, *table.rows)]


def _published() -> list[dict[str, str]]:
    text = importlib.resources.files("ssl_inpaint").joinpath("published.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def test_a_cell_is_mean_and_sample_deviation_over_seeds_in_percent() -> None:
    values = [0.31, 0.35, 0.30]
    table = _only_table(_records(*values))
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    assert _texts(table) == [
        ["method", "encoder", "cls frozen mAP"],
        ["Context encoder", "compact_alexnet", f"{100 * mean:.1f} ± {100 * deviation:.1f}"],
    ]
    assert any("over 3 seeds" in note for note in table.notes)
    assert any("compact-cls/v1, split test, 4,952 examples" in note for note in table.notes)


def test_a_single_seed_has_no_deviation_and_a_footnote() -> None:
    table = _only_table(_records(0.5))
    assert table.rows[0][-1].text == "50.0"
    assert any("single seed" in note for note in table.notes) and not any("deviation over" in n for n in table.notes)


def test_uneven_numbers_of_seeds_are_told_cell_by_cell() -> None:
    table = _only_table(_records(0.5, 0.6) + _records(0.1, 0.2, 0.3, method="Random", pretext="none"))
    assert [row[-1].text for row in table.rows] == ["20.0 ± 10.0 (n=3)", "55.0 ± 7.1 (n=2)"]


def test_a_cell_without_a_measurement_is_a_dash() -> None:
    table = _only_table(_records(0.5) + _records(0.4, method="Random", task="seg", metric="mIU", mode="finetune"))
    assert sorted(row[-2:] for row in _texts(table)[1:]) == [["50.0", "–"], ["–", "40.0"]]


def test_columns_go_cls_det_seg_and_frozen_before_finetune() -> None:
    records = [
        r for t in ("seg", "knn", "det", "cls") for m in ("finetune", "frozen") for r in _records(0.5, task=t, mode=m)
    ]
    expected = [f"{task} {mode} mAP" for task in ("cls", "det", "seg", "knn") for mode in ("frozen", "finetune")]
    assert _texts(_only_table(records))[0][2:] == expected


def test_rows_go_from_baselines_over_pretexts_to_labels() -> None:
    kinds = {
        "ImageNet": (0.1, {"pretext": "none", "supervision": "labels"}),
        "Context encoder": (0.3, {}),
        "Autoencoder": (0.2, {"pretext": "autoencoder"}),
        "Random": (0.9, {"pretext": "none"}),
    }
    records = [r for name, (value, kind) in kinds.items() for r in _records(value, method=name, **kind)]
    assert [row[0] for row in _texts(_only_table(records))[1:]] == [
        "Random",
        "Autoencoder",
        "Context encoder",
        "ImageNet",
    ]


@pytest.mark.parametrize(
    ("ours", "other", "is_bold"),
    [
        ((0.50, 0.52), (0.40, 0.42), True),
        ((0.50, 0.52), (0.48, 0.50), False),  # 2 points apart, deviations 1.4 + 1.4
        ((0.50,), (0.40, 0.42), False),
        ((0.50, 0.52), (0.40,), False),
    ],
)
def test_the_best_is_bold_only_when_the_spread_allows(
    ours: tuple[float, ...], other: tuple[float, ...], is_bold: bool
) -> None:
    table = _only_table(_records(*ours) + _records(*other, method="Autoencoder"))
    assert {row[0].text: row[-1].is_best for row in table.rows} == {"Context encoder": is_bold, "Autoencoder": False}
    assert any("Bold" in note for note in table.notes) == is_bold


def test_the_best_of_an_error_is_the_lowest() -> None:
    lower = {"task": "inpaint", "metric": "mean L1", "mode": "-", "higher_is_better": False}
    table = _only_table(_records(0.50, 0.52, **lower) + _records(0.10, 0.12, method="Telea", **lower))
    assert {row[0].text: row[-1].is_best for row in table.rows} == {"Context encoder": False, "Telea": True}


def test_decibels_are_not_percent() -> None:
    table = _only_table(_records(18.584, task="inpaint", metric="PSNR", mode="-"))
    assert _texts(table) == [["method", "encoder", "PSNR"], ["Context encoder", "compact_alexnet", "18.58"]]


def test_different_settings_are_rows_of_their_own_and_never_averaged() -> None:
    table = _only_table(_records(0.2, 0.2) + _records(0.6, 0.6, config_hash="b") + _records(0.3, task="seg"))
    assert _texts(table) == [
        ["method", "encoder", "settings", "cls frozen mAP", "seg frozen mAP"],
        ["Context encoder", "compact_alexnet", "a", "20.0 ± 0.0", "–"],
        ["Context encoder", "compact_alexnet", "–", "–", "30.0"],
        ["Context encoder", "compact_alexnet", "b", "60.0 ± 0.0", "–"],
    ]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("protocol", ["cls frozen mAP (compact-cls/v1)", "cls frozen mAP (other)"]),
        ("split", ["cls frozen mAP (other)", "cls frozen mAP (test)"]),
        ("dataset_sha256", ["cls frozen mAP (a)", "cls frozen mAP (other)"]),
    ],
)
def test_what_is_not_comparable_has_columns_of_its_own(field: str, expected: list[str]) -> None:
    table = _only_table(_records(0.2, 0.2) + _records(0.6, 0.6, **{field: "other"}))
    assert _texts(table)[0][2:] == expected


def test_recipes_are_told_apart_where_there_are_several() -> None:
    table = _only_table(_records(0.2) + _records(0.6, recipe="long"))
    assert [row[2:] for row in _texts(table)] == [["recipe", "cls frozen mAP"], ["a", "20.0"], ["long", "60.0"]]


def test_weights_trained_again_replace_those_of_the_same_seed() -> None:
    newer = {"weights_sha256": "new", "created_at": "2026-02-01T00:00:00+00:00"}
    older = {"weights_sha256": "old", "created_at": "2025-02-01T00:00:00+00:00"}
    table = _only_table(_records(0.7, **newer) + _records(0.2) + _records(0.1, **older))
    assert table.rows[0][-1].text == "70.0"
    assert "Context encoder: 2 older with the same seed and other weights left out." in table.notes


def test_losses_of_pretext_tasks_are_no_percentages() -> None:
    held_out = {"task": "pretext", "mode": "-", "higher_is_better": False, "protocol": "inpainting held-out/v1"}
    table = _only_table(_records(0.0213, metric="hidden_mse", **held_out))
    assert table.heading == "Measured: Shapes, pretext task inpainting on held-out images"
    assert table.rows[0][-1].text == "0.0213" and not any("percent" in note for note in table.notes)


def test_retrieval_has_a_table_of_its_own_for_each_data_set() -> None:
    views = [
        ("whole patch", "precision@10"),
        ("context", "precision@10"),
        ("context", "precision@5"),
        ("context", "mAP"),
    ]
    retrieval = [r for mode, metric in views for r in _records(0.5, task="nn-retrieval", mode=mode, metric=metric)]
    found = tables.tables(cells.measured_cells(_records(0.5) + retrieval + _records(0.5, dataset="VOC07")))
    assert [t.heading for t in found] == ["Measured: Shapes", "Measured: Shapes, patch retrieval", "Measured: VOC07"]
    expected = ["context mAP", "context precision@5", "context precision@10", "whole patch precision@10"]
    assert _texts(found[1])[0][2:] == expected


def test_a_cited_record_never_shares_a_table_with_a_measured_one() -> None:
    found = tables.tables(cells.measured_cells(_records(0.5) + _records(0.6, source="Someone 2020")))
    assert [t.heading for t in found] == ["Cited: Shapes", "Measured: Shapes"]
    assert _texts(found[0])[1][-1] == "Someone 2020" and len(found[1].rows) == 1


@pytest.mark.parametrize(
    ("seconds", "expected"), [(45.0, "45 s"), (600.0, "10 min"), (14 * 3600.0, "14 h"), (28 * 86400.0, "28 days")]
)
def test_pretraining_time_is_a_column(seconds: float, expected: str) -> None:
    table = _only_table(_records(0.5, pretraining_seconds=seconds) + _records(0.4, method="Random", pretext="none"))
    assert _texts(table)[0][-1] == "pretraining" and [row[-1].text for row in table.rows] == ["–", expected]


def test_published_rows_are_cited_verified_and_within_bounds() -> None:
    rows = _published()
    assert {row["table"] for row in rows} == {"table1", "table2", "linear"}
    for row in rows:
        assert re.search(r"et al\. (19|20)\d\d \(.+\)", row["source"]), row
        assert re.match(r"V2?: \S", row["verified"]) and not re.search(r"recall|\[R\]", " ".join(row.values())), row
        assert 0 < float(row["value"]) <= 1 or row["metric"] == "PSNR (dB)", row


def test_the_papers_own_table_2_is_published_as_printed() -> None:
    (table,) = [t for t in tables.tables(cells.published_cells()) if "Table 2" in t.heading]
    header, *rows = _texts(table)
    columns = ["method", "VOC07 cls mAP (all layers)", "VOC07 det mAP", "VOC12 seg mIU", "pretraining"]
    assert [[row[header.index(c)] for c in columns] for row in rows[:7]] == [
        ["ImageNet", "78.2", "56.8", "48.0", "3 days"],
        ["Random Gaussian", "53.3", "43.4", "19.8", "< 1 minute"],
        ["Autoencoder", "53.8", "41.9", "25.2", "14 hours"],
        ["Agrawal et al.", "52.9", "41.8", "–", "10 hours"],
        ["Wang et al.", "58.7", "47.4", "–", "1 week"],
        ["Doersch et al.", "55.3", "46.6", "–", "4 weeks"],
        ["Context encoder", "56.5", "44.5", "29.7", "14 hours"],
    ]
    assert all(row[-1].startswith("Pathak et al. 2016") for row in rows[:7]) and header[-1] == "source"
    assert any("30.0 in arXiv v2" in note for note in table.notes)


def test_no_published_number_is_lost_between_file_and_tables() -> None:
    found = tables.tables(cells.published_cells())
    numbers = [e for t in found for row in t.rows for e in row if e.is_number and e.text != "–"]
    assert len(numbers) == len(_published())


def test_every_row_has_as_many_entries_as_there_are_headers() -> None:
    records = _records(0.5, 0.6) + _records(0.4, method="Random", task="seg")
    text = tables.render(records)
    grid = [line for line in text["tables.md"].splitlines() if line.startswith("|")]
    assert len(grid) > 20 and all(line.endswith(" |") for line in grid)
    for block in re.findall(r"\\begin{tabular}{([lr]+)}(.*?)\\end{tabular}", text["tables.tex"], flags=re.DOTALL):
        lines = [line for line in block[1].splitlines() if line.endswith(r"\\")]
        assert len(lines) > 1 and {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(block[0])}


def test_latex_has_no_special_character_unescaped() -> None:
    nasty = r"50% & #1_{a}^2 ~ $x$ \cmd <b> ±"
    text = tables.to_latex(tables.tables(cells.measured_cells(_records(0.5, 0.6, method=nasty))))
    row = next(line for line in text.splitlines() if line.startswith(r"  50"))
    assert row == (
        r"  50\% \& \#1\_\{a\}\textasciicircum{}2 \textasciitilde{} \$x\$ \textbackslash{}cmd "
        r"\textless{}b\textgreater{} $\pm$ & compact\_alexnet & 55.0 $\pm$ 7.1 \\"
    )
    assert not set("±–") & set(text) and text.count("{") == text.count("}") + row.count(r"\{") - row.count(r"\}")
    begun, ended = re.findall(r"\\begin{(\w+)}", text), re.findall(r"\\end{(\w+)}", text)
    assert sorted(begun) == sorted(ended) and len(begun) == 3


def test_markdown_escapes_the_bar_and_marks_the_best() -> None:
    records = _records(0.5, 0.51, method="a|b") + _records(0.1, 0.11)
    text = tables.to_markdown(tables.tables(cells.measured_cells(records)))
    assert r"| a\|b | compact_alexnet | **50.5 ± 0.7** |" in text


def test_text_has_the_same_entries_in_aligned_columns() -> None:
    records = _records(0.5, 0.6) + _records(0.045, method="Random", pretext="none")
    heading, grid, notes = tables.to_text([_only_table(records)]).split("\n\n")
    assert heading == "Measured: Shapes" and "compact-cls/v1, split test" in notes
    assert grid.splitlines() == [
        "method           encoder            cls frozen mAP",
        "---------------  ---------------  ----------------",
        "Random           compact_alexnet               4.5",
        "Context encoder  compact_alexnet        55.0 ± 7.1",
    ]


def test_text_of_nothing_is_a_sentence() -> None:
    nothing = tables.Table("Measured", (), (), (tables.NOTHING_MEASURED,))
    assert tables.to_text([nothing]) == f"Measured\n\n{tables.NOTHING_MEASURED}"


def test_csv_is_tidy_with_one_line_a_number() -> None:
    text = tables.to_csv(cells.measured_cells(_records(0.5, 0.25) + _records(0.4, task="seg")))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(r["task"], r["mean"], r["std"], r["n_seeds"], r["n_examples"], r["protocol"]) for r in rows] == [
        ("cls", "0.375", "0.176777", "2", "4952", "compact-cls/v1"),
        ("seg", "0.4", "", "1", "4952", "compact-cls/v1"),
    ]


def test_an_empty_ledger_says_so_and_still_shows_what_is_published(tmp_path: Path) -> None:
    paths = tables.write_tables(tmp_path / "none.jsonl", tmp_path)
    markdown, latex, tidy = (path.read_text(encoding="utf-8") for path in paths)
    for text in (markdown, latex):
        assert tables.NOTHING_MEASURED in text and "Pathak et al. 2016" in text
    assert len(list(csv.DictReader(io.StringIO(tidy)))) == len(_published())


def test_tables_do_not_depend_on_the_order_of_the_ledger() -> None:
    records = _records(0.5, 0.6) + _records(0.4, method="Random", task="seg") + _records(0.1, dataset="VOC07")
    assert tables.render(records) == tables.render(records[::-1])


def test_stale_tables_are_those_that_say_something_else(tmp_path: Path) -> None:
    ledger, output = Ledger(tmp_path / "measured.jsonl"), tmp_path / "out"
    ledger.add(_records(0.5))
    assert len(tables.stale_tables(ledger.path, output)) == 3
    paths = tables.write_tables(ledger.path, output)
    assert [path.name for path in paths] == ["tables.md", "tables.tex", "tables.csv"]
    assert tables.stale_tables(ledger.path, output) == []
    paths[1].write_text("edited", encoding="utf-8")
    assert tables.stale_tables(ledger.path, output) == [paths[1]]
    ledger.add(_records(0.75))
    assert tables.stale_tables(ledger.path, output) == paths


def test_a_network_that_was_also_filled_with_is_still_one_row_without_settings() -> None:
    """Its inpainting records carry the hash of the whole network, the others that of its encoder."""
    own = {"pretext": "inpainting", "method": "Ours", "recipe": "quick"}
    trained = _records(0.03, **own, task="pretext", metric="hidden_mse", weights_sha256="encoder", config_hash="how")
    measured = _records(0.2, **own, weights_sha256="encoder")
    filled = _records(0.1, **own, task="inpaint", metric="mean L1", weights_sha256="network")
    assert {cell.settings for cell in cells.measured_cells([*trained, *measured, *filled])} == {""}
