"""How a run went, from the lines that it wrote: its losses, and what was measured on held-out images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from ssl_inpaint.figures import PALETTE, TEXT_POINTS, text_inches

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE_STYLES = ("-", "--", "-.", ":")
REFERENCE = "mean_fill"  # begins the fields of the fill that no network made, to compare with
WORDS = {"hidden_psnr": "network", "mean_fill_psnr": "mean-colour fill"}  # the other fields go by their own names
WIDTH_INCHES = 6.4
LEGEND_INCHES = 5.4  # of that, right of the numbers
HEIGHT_INCHES = (3.4, 2.4)  # of the losses, and of what was measured
MOST_MARKERS = 30  # of a line: more would hide it
HANDLE_INCHES = 0.6  # what an entry of a legend needs beside its text


def learning_curve(log: Sequence[Mapping[str, float]], validation: Sequence[Mapping[str, float]]) -> Figure:
    """The losses of log lines over their `step`; below, where there are validation lines, what those measured.

    A loss is a field `loss/<term>`: its raw values faint under their moving mean. Of the validation the fields
    `<name>_psnr` are drawn, in dB; without any, all are. An axis of anything but dB is logarithmic where all its values
    are positive and span more than a decade. ValueError without any loss.
    """
    from matplotlib.figure import Figure

    terms = _fields(log, "loss/")
    if not terms:
        raise ValueError(f"None of the {len(log)} log lines has a field that begins with 'loss/'.")
    measured = _fields(validation)
    heights = HEIGHT_INCHES if measured else HEIGHT_INCHES[:1]
    figure = Figure(figsize=(WIDTH_INCHES, sum(heights)), layout="constrained")
    upper, *lower = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    _draw_losses(upper, log, terms)
    for axes in lower:
        _draw_measured(axes, validation, [name for name in measured if name.endswith("_psnr")] or measured)
    for axes in (upper, *lower):
        axes.margins(x=0.02)
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        _add_legend(axes)
    axes.set_xlabel("step")
    figure.align_ylabels()
    return figure


def _fields(lines: Sequence[Mapping[str, float]], beginning: str = "") -> list[str]:
    return sorted({name for line in lines for name in line if name.startswith(beginning)} - {"step"})


def _draw_losses(axes: Axes, log: Sequence[Mapping[str, float]], terms: Sequence[str]) -> None:
    for term, colour, style in zip(terms, cycle(PALETTE), cycle(LINE_STYLES), strict=False):
        steps, values = _points(log, term)
        marker = "." if len(steps) == 1 else ""  # a line needs two points
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
        label = term.removeprefix("loss/")
        axes.plot(steps, _smoothed(values), style, color=colour, linewidth=1.8, marker=marker, label=label)
    axes.set_ylabel("loss")
    _fit_scale(axes)


def _draw_measured(axes: Axes, validation: Sequence[Mapping[str, float]], names: Sequence[str]) -> None:
    """A line a field; that of the fill to compare with is level, as no step changes it."""
    is_in_decibels = names[0].endswith("_psnr")
    styles = zip(cycle(PALETTE), cycle("oDs^v"), strict=False)
    for name in names:
        steps, values = _points(validation, name)
        last = f"{values[-1]:.1f} dB" if is_in_decibels else f"{values[-1]:.3g}"
        word = WORDS.get(name, name)
        if name.startswith(REFERENCE):
            axes.axhline(values[-1], color="#555555", linestyle="--", linewidth=1.5, label=f"{word}, {last}")
            continue
        colour, marker = next(styles)
        marker = marker if len(steps) <= MOST_MARKERS else ""
        axes.plot(steps, values, color=colour, linewidth=1.5, marker=marker, markersize=4, label=f"{word}, last {last}")
    axes.set_ylabel("held-out PSNR (dB)" if is_in_decibels else "held out")
    if not is_in_decibels:
        _fit_scale(axes)


def _add_legend(axes: Axes) -> None:
    """Above the axes, in as many columns as fit."""
    labels = axes.get_legend_handles_labels()[1]
    columns = int(LEGEND_INCHES / (max(text_inches(label, TEXT_POINTS) for label in labels) + HANDLE_INCHES))
    legend = axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=max(1, columns), fontsize=TEXT_POINTS)
    legend.set_frame_on(False)


def _points(lines: Sequence[Mapping[str, float]], name: str) -> np.ndarray:
    """2 x N: the steps and values of the lines that have the field."""
    return np.array([(line["step"], line[name]) for line in lines if name in line], dtype=np.float64).T


def _fit_scale(axes: Axes) -> None:
    """Makes the axis logarithmic where its values are positive and span more than a decade."""
    values = np.concatenate([line.get_ydata() for line in axes.lines])
    if values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")


def _smoothed(values: np.ndarray) -> np.ndarray:
    """The moving mean over a twentieth of the points, over fewer at both ends."""
    reach = len(values) // 40
    total = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, last = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    return (total[last] - total[first]) / (last - first)
