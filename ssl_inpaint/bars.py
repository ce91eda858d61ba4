"""Results of several methods beside each other, as dots with their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ssl_inpaint.figures import PALETTE, TEXT_POINTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["baseline", "pretext", "supervised", "unknown"]
BAR_STYLES: dict[Kind, tuple[str, str, str]] = {  # colour, marker, and what the legend says
    "baseline": ("#777777", "o", "not trained"),
    "pretext": (PALETTE[0], "D", "learned without labels"),
    "supervised": ("#000000", "s", "learned from labels"),
    "unknown": (PALETTE[1], "^", "learned, it is not known from what"),
}


@dataclass(frozen=True)
class Bar:
    """One row of `results_bars`: a value, its deviation over seeds (None: a single seed), and its kind of method.

    `interval` is where it may lie on other test examples; None: it is not known.
    """

    method: str
    mean: float
    std: float | None
    kind: Kind
    interval: tuple[float, float] | None = None


def results_bars(bars: Sequence[Bar], label: str, scale: float = 100, digits: int = 1) -> Figure:
    """A dot for every method, in the given order from top to bottom, values times `scale` (100: percent) over `label`.

    The line through it is its deviation over seeds; of a single seed its interval over test examples, where known.
    Where there are methods of several kinds a legend says which are which.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    if not bars:
        raise ValueError("No bars: give one at least.")
    figure = Figure(figsize=(6.4, 0.9 + 0.34 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    for place, bar in enumerate(bars):
        colour, marker, _ = BAR_STYLES[bar.kind]
        low, high = bar.interval or (bar.mean, bar.mean)
        reach = (bar.mean - low, high - bar.mean) if bar.std is None else (bar.std, bar.std)
        sides = None if reach == (0, 0) else [[scale * reach[0]], [scale * reach[1]]]
        axes.errorbar(scale * bar.mean, place, xerr=sides, fmt=marker, color=colour, markersize=5, capsize=3)
        text = f"{scale * bar.mean:.{digits}f}" + ("" if bar.std is None else f" ± {scale * bar.std:.{digits}f}")
        beside = axes.get_yaxis_transform()  # x in fractions of the axes
        axes.text(1.01, place, text, transform=beside, va="center", fontsize=TEXT_POINTS, color=colour)
    axes.set_yticks(range(len(bars)), [bar.method for bar in bars], fontsize=TEXT_POINTS)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.08)
    axes.set(xlabel=label, ylim=(len(bars) - 0.5, -0.5))
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    styles = [style for kind, style in BAR_STYLES.items() if any(bar.kind == kind for bar in bars)]
    if len(styles) > 1:
        dots = [Line2D([], [], color=c, marker=m, linestyle="", markersize=5, label=words) for c, m, words in styles]
        figure.legend(handles=dots, loc="outside upper center", ncols=3, fontsize=TEXT_POINTS, frameon=False)
    return figure
