"""Results as dots: in order, in their unit, with their deviation or interval, and what kinds there are."""

from __future__ import annotations

import pytest

from ssl_inpaint import bars
from ssl_inpaint.bars import Bar


def test_results_go_from_top_to_bottom_in_percent_with_their_values() -> None:
    shown = [Bar("Random", 0.288, 0.006, "baseline"), Bar("Ours", 0.303, None, "pretext")]
    (axes,) = bars.results_bars(shown, "mAP (%)").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Random", "Ours"]
    assert [text.get_text() for text in axes.texts] == ["28.8 ± 0.6", "30.3"]
    assert axes.get_xlabel() == "mAP (%)" and axes.yaxis_inverted()
    low, high = axes.get_xlim()
    assert low < 28.2 and high > 30.3


def test_the_line_through_a_result_is_its_deviation_or_its_interval() -> None:
    shown = [
        Bar("A", 0.5, 0.1, "baseline", (0.1, 0.9)),
        Bar("B", 0.5, None, "pretext", (0.45, 0.6)),
        Bar("C", 0.5, None, "pretext"),
    ]
    (axes,) = bars.results_bars(shown, "mAP").axes
    lines = [segment for lines in axes.collections for segment in lines.get_segments()]
    assert [sorted(point[0] for point in line) for line in lines] == [pytest.approx([40, 60]), pytest.approx([45, 60])]


def test_results_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="No bars"):
        bars.results_bars([], "mAP")


def test_a_legend_names_the_kinds_that_there_are() -> None:
    one, other, third = (Bar(kind, 0.5, None, kind) for kind in ("baseline", "unknown", "supervised"))
    (legend,) = bars.results_bars([one, third, other, one], "mAP").legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said == ["not trained", "learned from labels", "learned, it is not known from what"]
    assert not bars.results_bars([one, one], "mAP").legends


def test_what_is_no_share_is_shown_as_it_is() -> None:
    (axes,) = bars.results_bars([Bar("Ours", 17.756, 0.01, "pretext")], "PSNR (dB)", 1, 2).axes
    assert [text.get_text() for text in axes.texts] == ["17.76 ± 0.01"]
