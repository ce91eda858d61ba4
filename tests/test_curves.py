import sys
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_inpaint.curves import MOST_MARKERS, learning_curve


def _log(*values: float) -> list[dict[str, float]]:
    return [{"step": step, "loss/generator": value, "learning_rate": 0.1} for step, value in enumerate(values)]


def _measured(count: int = 3, **fields: float) -> list[dict[str, float]]:
    return [
        {"step": 10 * step, **{name: value * step for name, value in fields.items()}} for step in range(1, count + 1)
    ]


def _legend(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


PSNR = _measured(hidden_psnr=6.0, mean_fill_psnr=5.0, hidden_mse=0.1, mean_fill_mse=0.2)


def test_drawing_never_imports_pyplot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # whoever imports it now fails
    monkeypatch.delattr(matplotlib, "pyplot", raising=False)
    learning_curve(_log(0.5, 0.6), PSNR).draw_without_rendering()


def test_each_loss_has_a_raw_and_a_smooth_line_and_nothing_else_is_drawn() -> None:
    log = [*_log(0.5, 0.6), {"step": 2, "loss/discriminator": 0.7, "seconds": 9.0}]
    (axes,) = learning_curve(log, []).axes
    assert len(axes.lines) == 4
    assert _legend(axes) == ["discriminator", "generator"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "loss")


@pytest.mark.parametrize(
    ("values", "scale"),
    [((1.0, 11.0), "log"), ((1.0, 9.0), "linear"), ((0.0, 11.0), "linear"), ((-1.0, 99.0), "linear")],
)
def test_an_axis_is_logarithmic_past_a_decade_of_positive_values(values: tuple[float, ...], scale: str) -> None:
    measured = [{"step": step, "mse": value} for step, value in enumerate(values)]
    for axes in learning_curve(_log(*values), measured).axes:
        assert axes.get_yscale() == scale


def test_smoothing_is_the_mean_of_the_points_around() -> None:
    values = np.random.default_rng(0).random(90)
    around = [values[max(0, place - 2) : place + 3].mean() for place in range(90)]
    raw, smooth = learning_curve(_log(*values), []).axes[0].lines
    np.testing.assert_array_equal(raw.get_ydata(), values)
    np.testing.assert_allclose(smooth.get_ydata(), around, rtol=1e-12)


def test_a_log_without_losses_is_refused() -> None:
    with pytest.raises(ValueError, match="loss/"):
        learning_curve([{"step": 1, "accuracy": 0.5}], PSNR)


def test_below_the_losses_stands_the_psnr_of_the_network_over_that_of_the_mean_colour() -> None:
    upper, lower = learning_curve(_log(0.5, 0.6), PSNR).axes
    assert (upper.get_xlabel(), lower.get_xlabel(), lower.get_ylabel()) == ("", "step", "held-out PSNR (dB)")
    assert upper.get_position().y0 > lower.get_position().y1 and upper.get_xlim() == lower.get_xlim()
    network, plain = lower.lines
    np.testing.assert_array_equal(network.get_xydata(), [(10, 6), (20, 12), (30, 18)])
    assert set(plain.get_ydata()) == {15.0} and plain.get_linestyle() == "--" != network.get_linestyle()
    assert _legend(lower) == ["network, last 18.0 dB", "mean-colour fill, 15.0 dB"]


def test_decibels_are_never_on_a_logarithmic_axis() -> None:
    assert learning_curve(_log(1.0), _measured(count=20, hidden_psnr=1.0)).axes[1].get_yscale() == "linear"


def test_without_psnr_all_that_was_measured_is_drawn_by_its_own_name() -> None:
    axes = learning_curve(_log(0.5), _measured(cross_entropy=0.1, mse=0.25)).axes[1]
    assert _legend(axes) == ["cross_entropy, last 0.3", "mse, last 0.75"] and axes.get_ylabel() == "held out"
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), [0.25, 0.5, 0.75])
    assert axes.lines[0].get_marker() != axes.lines[1].get_marker()  # told apart in grey


def test_where_nothing_was_measured_only_the_losses_are_drawn() -> None:
    for validation in ([], [{"step": 1}]):
        assert len(learning_curve(_log(0.5), validation).axes) == 1


def test_a_single_point_is_marked_and_many_points_are_a_bare_line() -> None:
    for count, is_marked in ((1, True), (MOST_MARKERS, True), (MOST_MARKERS + 1, False)):
        network = learning_curve(_log(0.5), _measured(count, hidden_psnr=0.5)).axes[1].lines[0]
        assert (network.get_marker() not in ("", "None")) == is_marked
    assert learning_curve(_log(0.5), []).axes[0].lines[1].get_marker() == "."
    assert learning_curve(_log(0.5, 0.6), []).axes[0].lines[1].get_marker() == ""


def test_a_metric_that_some_lines_lack_is_drawn_where_it_was_measured() -> None:
    lines = [{"step": 1, "mse": 0.5}, {"step": 2, "mse": 0.4, "ssim": 0.3}]
    mse, ssim = learning_curve(_log(0.5), lines).axes[1].lines
    assert mse.get_xdata().tolist() == [1, 2] and ssim.get_xydata().tolist() == [[2, 0.3]]


def _texts_apart(figure: Figure) -> bool:
    figure.draw_without_rendering()
    legends = [axes.get_legend() for axes in figure.axes]
    labels = [axis.label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    texts = [*labels, *(text for legend in legends for text in legend.get_texts())]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    inside = all(min(box.x0, box.y0) >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)
    return inside and not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_names_neither_overlap_nor_leave_the_page_nor_narrow_the_axes() -> None:
    log = [{"step": 1, **{f"loss/term number {place}": 0.5 for place in range(7)}}]
    measured = [{"step": 1, **{f"a_rather_long_name_of_a_metric_{place}": 0.5 for place in range(4)}}]
    figure = learning_curve(log, measured)
    assert _texts_apart(figure)
    assert all(axes.get_position().width > 0.8 for axes in figure.axes)
