"""What is bold, and what `compare` says: rows against rows, by resampled test examples and by seeds."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ssl_inpaint import bootstrap, cells, comparisons, report, separation, tables
from ssl_inpaint.cli import main
from ssl_inpaint.errors import UsageError
from ssl_inpaint.records import Ledger, Record

BASE = Record(
    **dict.fromkeys(("weights_sha256", "dataset_sha256", "config_hash", "recipe", "commit"), "a"),
    **{"method": "Ours", "pretext": "inpainting", "encoder": "compact_alexnet", "supervision": "none"},
    **{"task": "cls", "protocol": "compact-cls/v1", "mode": "frozen", "dataset": "Shapes", "split": "test"},
    **{"metric": "accuracy", "seed": 0, "value": 0.5, "higher_is_better": True, "n_examples": 400},
    **{"source": "measured", "versions": {}, "device": "cpu", "workers": 0, "seconds": 1.0},
    **{"pretraining_seconds": 0.0, "created_at": "2026-01-01T00:00:00+00:00"},
)
LUCK = np.random.default_rng(0).normal(0, 0.02, bootstrap.REPLICATES)  # of the test examples, which all rows share
LOWER = {"task": "inpaint", "metric": "mean L1", "mode": "-", "higher_is_better": False}


def _record(method: str, value: float, own: float = 0.001, seed: int = 0, **changes: object) -> Record:
    """Replicates that all rows share, and beside them a deviation of the row's `own`; None where it is 0."""
    noise = np.random.default_rng(sum(map(ord, method))).normal(0, own, bootstrap.REPLICATES)
    text = bootstrap.pack(value, value + LUCK + noise) if own else ""
    return dataclasses.replace(BASE, method=method, value=value, replicates=text, seed=seed, **changes)


def _bold(*records: Record) -> set[str]:
    (table,) = tables.tables(cells.measured_cells(records))
    return {row[0].text for row in table.rows if row[-1].is_best}


def _cell(*records: Record) -> separation.Cell:
    (found,) = separation.ranked(cells.measured_cells(records))
    return found


def test_pairing_tells_apart_what_the_intervals_of_both_do_not() -> None:
    ours, other = _record("Ours", 0.50), _record("Other", 0.49)
    first, second = _cell(ours), _cell(other)
    assert first.low < second.high  # each may be off by 4 points, together
    found = separation.compare(first, second)
    assert found.is_separated and found.difference == pytest.approx(0.01)
    assert found.interval is not None and 0.006 < found.interval.low < 0.01 < found.interval.high < 0.014
    assert _bold(ours, other) == {"Ours"}


def test_comparing_the_other_way_round_changes_the_sign_only() -> None:
    first, second = _cell(_record("Ours", 0.50)), _cell(_record("Other", 0.49))
    one, other = separation.compare(first, second), separation.compare(second, first)
    assert one.interval is not None and other.interval is not None and one.is_separated == other.is_separated
    assert (one.interval.low, one.interval.high) == pytest.approx((-other.interval.high, -other.interval.low), abs=1e-5)


def test_rows_that_are_not_separated_from_the_best_are_bold_too() -> None:
    assert _bold(_record("Best", 0.50), _record("Near", 0.499), _record("Far", 0.40)) == {"Best", "Near"}


def test_nothing_is_bold_where_nothing_is_separated() -> None:
    assert _bold(_record("Best", 0.50), _record("Near", 0.499)) == set() == _bold(_record("Alone", 0.5))


def test_the_lowest_error_is_the_best() -> None:
    assert _bold(_record("Ours", 0.2, **LOWER), _record("Other", 0.3, **LOWER)) == {"Ours"}


def test_a_row_without_replicates_leaves_a_column_without_bold() -> None:
    assert _bold(_record("Ours", 0.5), _record("Other", 0.4), _record("Old", 0.1, own=0)) == set()


def test_seeds_must_agree_with_the_examples() -> None:
    ours = [_record("Ours", value, seed=seed) for seed, value in enumerate((0.52, 0.48))]  # deviation 0.028
    near = [_record("Near", value, seed=seed) for seed, value in enumerate((0.49, 0.45))]
    far = [_record("Far", value, seed=seed) for seed, value in enumerate((0.40, 0.40))]
    assert separation.compare(_cell(*ours), _cell(_record("Near", 0.47))).is_separated  # by the examples alone
    assert not separation.compare(_cell(*ours), _cell(*near)).is_separated
    assert _bold(*ours, *near, *far) == {"Ours", "Near"}
    without = [dataclasses.replace(one, replicates="") for one in (*ours, *far)]
    assert _bold(*without) == {"Ours"}  # by the seeds alone


def test_replicates_of_seeds_are_averaged_example_by_example() -> None:
    two = [_record("Ours", value, own=0.0001, seed=seed) for seed, value in enumerate((0.52, 0.48))]
    assert np.abs(_cell(*two).replicates - 0.5 - LUCK).max() < 0.001
    assert _cell(two[0], dataclasses.replace(two[1], replicates="")).replicates is None


def test_a_single_seed_shows_its_interval_and_several_their_deviation() -> None:
    one = _record("Ours", 0.5)
    found = bootstrap.interval(0.5, _cell(one).replicates)
    (table,) = tables.tables(cells.measured_cells([one]))
    assert table.rows[0][-1].text == f"50.0 [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    assert any("95 % bootstrap interval over test examples" in note for note in table.notes)
    (table,) = tables.tables(cells.measured_cells([one, _record("Ours", 0.52, seed=1)]))
    assert table.rows[0][-1].text == "51.0 ± 1.4" and not any("In brackets" in note for note in table.notes)
    assert dict(table.rows[0][-1].details).keys() == {tables.INTERVAL}


def test_records_without_replicates_are_shown_as_before() -> None:
    (table,) = tables.tables(cells.measured_cells([_record("Ours", 0.5, own=0)]))
    assert table.rows[0][-1].text == "50.0" and table.rows[0][-1].details == ()
    assert not any("bracket" in note or "Bold" in note for note in table.notes)


def test_all_formats_mark_the_same_rows() -> None:
    found = tables.render([_record("Best", 0.50), _record("Near", 0.499), _record("Far", 0.40)])
    marks = {"tables.md": r"\*\*(\S+) \[", "tables.tex": r"\\textbf{(\S+) \["}
    for file, pattern in marks.items():
        assert re.findall(pattern, found[file]) == ["49.9", "50.0"]
        assert "Bold: the best of its column" in found[file]
    lines = found["tables.csv"].splitlines()
    low, high = (lines[0].split(",").index(name) for name in ("low", "high"))
    assert 0.45 < float(lines[1].split(",")[low]) < 0.50 < float(lines[1].split(",")[high]) < 0.55


def test_the_page_has_interval_and_comparison_at_each_number_and_no_replicates() -> None:
    text = report.render([_record("Best", 0.50), _record("Far", 0.40)])
    details = [json.loads(found) for found in re.findall(r"data-details='([^']*)'", text)]
    (far_interval, against), (best_interval,) = details
    assert far_interval[0] == best_interval[0] == "95 % interval"
    assert against[0] == "against Best" and re.fullmatch(r"-10\.0 \[-10\.\d, -9\.\d\], separated", against[1])
    assert "<strong>50.0 [" in text and _record("Best", 0.50).replicates not in text
    nasty = report.render([_record("""</td><b a='x'>&"quoted" """, 0.50), _record("Far", 0.40)])
    assert "<b a=" not in nasty and len(re.findall(r"data-details='([^']*)'", nasty)) == 2


def test_all_pairs_of_a_column_are_compared_the_better_row_first() -> None:
    records = [_record(name, value) for name, value in (("C", 0.3), ("A", 0.5), ("B", 0.499), ("Old", 0.1))]
    records[-1] = dataclasses.replace(records[-1], replicates="")
    (table,) = comparisons.comparison_tables(comparisons.comparable_columns(records, "Shapes", "cls"))
    rows = [[entry.text for entry in row] for row in table.rows]
    assert [row[:3] for row in rows] == [
        *(["A", "B", "0.1"], ["A", "C", "20.0"], ["A", "Old", "40.0"]),
        *(["B", "C", "19.9"], ["B", "Old", "39.9"], ["C", "Old", "20.0"]),
    ]
    verdicts = ["not separated", "separated", "not known", "separated", "not known", "not known"]
    assert [row[4] for row in rows] == verdicts and rows[2][3] == "–"
    assert re.fullmatch(r"\[19\.\d, 20\.\d\]", rows[1][3]) and "400 examples" in table.notes[0]


def test_what_is_compared_may_be_chosen_and_a_wrong_name_suggests_the_nearest(tmp_path: Path) -> None:
    records = [_record(name, value, **kind) for name, value in (("A", 0.5), ("B", 0.4)) for kind in ({}, LOWER)]
    (table,) = comparisons.comparison_tables(comparisons.comparable_columns(records, "Shapes", "inpaint", "mean L1"))
    assert table.heading == "Shapes: mean L1" and table.rows[0][0].text == "B"
    for chosen, sentence in (
        (("Shape", "cls"), "no data set among the records 'Shape'.*Did you mean 'Shapes'"),
        (("Shapes", "clss"), "no task among these records 'clss'.*Did you mean 'cls'"),
        (("Shapes", "cls", "acuracy"), "no metric among these records 'acuracy'.*Did you mean 'accuracy'"),
    ):
        with pytest.raises(UsageError, match=sentence):
            comparisons.comparable_columns(records, *chosen)
    with pytest.raises(UsageError, match="No two rows of Shapes, cls share a column"):
        comparisons.comparable_columns(records[:1], "Shapes", "cls")


def test_compare_is_a_verb(tmp_path: Path) -> None:
    ledger = tmp_path / "measured.jsonl"
    Ledger(ledger).add([_record("A", 0.5), _record("B", 0.4)])
    result = CliRunner().invoke(main, ["compare", "--ledger", str(ledger), "--data-set", "Shapes", "--task", "cls"])
    assert result.exit_code == 0 and re.search(r"A +B +10\.0 +\[9\.\d, 10\.\d\] +separated", result.stdout)
    wrong = CliRunner().invoke(main, ["compare", "--ledger", str(ledger), "--data-set", "Shape"])
    assert wrong.exit_code == 2 and not wrong.stdout and wrong.stderr.count("\n") == 1


def test_a_figure_has_the_rows_of_one_column_with_their_intervals_best_first() -> None:
    records = [_record("Near", 0.47), _record("Best", 0.5), _record("Best", 0.3, encoder="other")]
    column = comparisons.only_column(comparisons.comparable_columns(records, "Shapes", "cls"))
    (axes,) = comparisons.column_figure(column).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    own = records[0].encoder
    assert labels == [f"Best, {own}", "Near", "Best, other"]
    assert [text.get_text() for text in axes.texts] == ["50.0", "47.0", "30.0"]
    assert axes.get_xlabel() == "accuracy on Shapes, frozen encoder (%)"
    drawn = sorted(sorted(point[0] for point in line) for lines in axes.collections for line in lines.get_segments())
    known = sorted([100 * cell.low, 100 * cell.high] for cell in column)
    assert np.allclose(drawn, known) and all(low < high for low, high in known)


def test_a_mode_that_is_no_encoders_is_named_as_it_is_and_a_protocol_may_be_chosen() -> None:
    ways = [{"task": "nn-retrieval", "mode": "context", "protocol": name} for name in ("patches/v1", "patches/v2")]
    records = [_record(name, value, **way) for name, value in (("A", 0.5), ("B", 0.4)) for way in ways]
    assert len(comparisons.comparable_columns(records, "Shapes", "nn-retrieval")) == 2
    chosen = comparisons.comparable_columns(records, "Shapes", "nn-retrieval", protocol="patches/v2")
    (axes,) = comparisons.column_figure(comparisons.only_column(chosen)).axes
    assert axes.get_xlabel() == "accuracy on Shapes, context (%)"


def test_of_several_columns_none_is_drawn_and_the_verb_says_how_to_choose(tmp_path: Path) -> None:
    ledger, path = tmp_path / "measured.jsonl", tmp_path / "figure.png"
    modes = [{"mode": "frozen"}, {"mode": "finetune"}]
    Ledger(ledger).add([_record(name, value, **kind) for name, value in (("A", 0.5), ("B", 0.4)) for kind in modes])
    told = ["compare", "--ledger", str(ledger), "--data-set", "Shapes", "--task", "cls", "--figure", str(path)]
    refused = CliRunner().invoke(main, told)
    assert refused.exit_code == 2 and "--mode" in refused.stderr and not refused.stdout and not path.exists()
    drawn = CliRunner().invoke(main, [*told, "--mode", "frozen"])
    assert drawn.exit_code == 0 and path.read_bytes().startswith(b"\x89PNG") and str(path) in drawn.stdout
    wrong = CliRunner().invoke(main, [*told, "--mode", "frozn"])
    assert wrong.exit_code == 2 and "Did you mean 'frozen'" in wrong.stderr


def test_weights_that_may_have_read_labels_are_not_drawn_as_if_they_had_not() -> None:
    library = {"pretext": "library weights", "supervision": "unknown"}
    records = [_record("Ours", 0.47), _record("timm:resnet18", 0.5, **library), _record("Random", 0.3, pretext="none")]
    column = comparisons.only_column(comparisons.comparable_columns(records, "Shapes", "cls"))
    (legend,) = comparisons.column_figure(column).legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said == ["not trained", "learned without labels", "learned, it is not known from what"]
