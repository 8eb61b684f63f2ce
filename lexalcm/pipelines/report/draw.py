"""Pictures by matplotlib: as SVG inside the page, where they take its colours, and as PNG.

Text of the data is never drawn, but for languages and splits: fonts have not all letters, and what has none is shown
by its code.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lexalcm.pipelines.report.tally import Tally

CREATOR: Final = "lexalcm visualize"
"""Stands in every file that a report writes."""

BLUE: Final = "#3b7dd8"
ORANGE: Final = "#e0812f"
RED: Final = "#d1495b"
SPECIAL: Final = "special concepts"
"""The group of points that is drawn as stars."""

COLOURS: Final = (BLUE, ORANGE, "#2f9e6e", "#9a6bd0", RED, "#1fa3b3", "#b38a1d", "#d267ab")
OTHERS: Final = "#8b929c"
_INK: Final = "#24292e"
_FAINT: Final = "#d9dce1"
_STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lexalcm",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": _INK,
    "text.parse_math": False,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}
WIDE: Final = 10.8
"""Inches of a picture over the page's whole width; letters are then as large as in others."""

_WIDTH: Final = 5.2
_HEIGHT: Final = 3.0
_NUM_BINS: Final = 50
_LONG_TAIL: Final = 0.995
_MOST_BARS: Final = 15


@dataclass(frozen=True)
class Picture:
    """One picture with what belongs to it on the page."""

    name: str
    """Of the PNG file, without the suffix."""

    title: str

    caption: str
    """What to look for."""

    svg: str

    figure: Figure

    wide: bool = False
    """Whether it needs the page's whole width."""

    def png(self) -> bytes:
        """The picture as a file, on white."""
        content = io.BytesIO()
        with matplotlib.rc_context(_STYLE):
            self.figure.savefig(content, format="png", dpi=150, facecolor="white", metadata={"Software": CREATOR})
        return content.getvalue()


def picture(
    name: str,
    title: str,
    caption: str,
    paint: Callable[[Axes], None] | Sequence[Callable[[Axes], None]],
    *,
    size: tuple[float, float] = (_WIDTH, _HEIGHT),
    rows: int = 1,
) -> Picture:
    """Draws one picture of one panel, or of several beside (``rows`` 1) or below each other.

    :param size: Inches, of the whole picture.
    """
    panels = [paint] if callable(paint) else list(paint)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        for axes, panel in zip(figure.subplots(rows, len(panels) // rows, squeeze=False).flat, panels):
            panel(axes)
        svg = io.StringIO()
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": CREATOR})
    return Picture(name, title, caption, _for_page(svg.getvalue(), name, title), figure, size[0] > _WIDTH)


def _for_page(svg: str, name: str, title: str) -> str:
    """An SVG to stand inside HTML: without its prologue, in the page's colours, its names apart from others'."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"|<svg height="[^"]*" ', "<svg ", svg, count=1)
    svg = svg.replace(_INK, "var(--ink)").replace(_FAINT, "var(--line)")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{name}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def histogram(
    tallies: Mapping[str, Tally], label: str, *, whole: bool = True, mark: tuple[float, str] | None = None
) -> Callable[[Axes], None]:
    """Bars of one tally, or outlines of several, each as shares of its own number. What lies beyond the 99.5th
    percentile is counted into the last bar.

    :param label: Of the x axis.
    :param whole: Whether values are whole numbers.
    :param mark: A value to draw a line at, and what it is.
    """
    filled = {name: tally for name, tally in tallies.items() if len(tally)}

    def paint(axes: Axes) -> None:
        bins = _bins(list(filled.values()), whole=whole, reach=None if mark is None else mark[0])
        for (name, tally), colour in zip(filled.items(), COLOURS):
            values, counts = tally.arrays()
            inside = np.clip(values, bins[0], bins[-1])
            if len(tallies) == 1:
                axes.hist(inside, bins, weights=counts, color=colour)
            else:
                axes.hist(inside, bins, weights=counts / counts.sum(), color=colour, alpha=0.25)
                axes.hist(
                    inside, bins, weights=counts / counts.sum(), color=colour, histtype="step", label=name, lw=1.6
                )
        if mark is not None and mark[0] < bins[-1]:
            # Behind the bar of that number; where nothing is near it, the caption tells.
            axes.axvline(mark[0] + 0.5 * whole, color=RED, linewidth=1.4, linestyle=(0, (4, 2)), label=mark[1])
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8.5, loc="upper right" if mark is None else "upper left")
            axes.set_ylim(top=1.2 * axes.get_ylim()[1])
        axes.set_xlim(bins[0], bins[-1])
        axes.set_xlabel(label)
        axes.grid(axis="x", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}" if whole else f"{v:.4g}"))
        _format(axes.yaxis, shares=len(tallies) > 1)

    return paint


def _bins(tallies: Sequence[Tally], *, whole: bool, reach: float | None) -> np.ndarray:
    ends = [tally.quantiles(0.0, _LONG_TAIL, 1.0) for tally in tallies] or [[0.0, 1.0, 1.0]]
    low = min(e[0] for e in ends)
    # A tail that is hardly longer is drawn to its end.
    high = max(e[2] if e[2] - low <= 1.3 * (e[1] - low) else e[1] for e in ends)
    if reach is not None and low <= reach <= 2.0 * high:
        high = max(high, reach)
    if whole:
        step = max(1, int(np.ceil((high - low + 1) / _NUM_BINS)))
        # An edge lies just behind the mark, so that what is longer stands beyond it.
        start = low - (0 if reach is None else (low - reach - 1) % step)
        return np.arange(start, high + (1 if reach is None else 2) * step + 1, step) - 0.5
    margin = 0.02 * max(high - low, abs(low), abs(high), 1e-30)
    return np.linspace(low - margin, high + margin, _NUM_BINS + 1)


def bars(counts: Mapping[str, Mapping[str, int]], *, shares: bool = False) -> Callable[[Axes], None]:
    """Horizontal bars, the largest on top: for each series, counts by label.

    :param shares: Draw each series as shares of its own total.
    """
    totals = {name: sum(series.values()) or 1 for name, series in counts.items()}
    weight = {
        label: max(series.get(label, 0) / totals[name] for name, series in counts.items())
        for label in dict.fromkeys(label for series in counts.values() for label in series)
    }
    shown = sorted(weight, key=lambda label: (-weight[label], label))[:_MOST_BARS]
    rest = len(weight) - len(shown)

    def paint(axes: Axes) -> None:
        places = np.arange(len(shown))
        height = 0.6 / len(counts)
        for number, (name, series) in enumerate(counts.items()):
            values = [series.get(label, 0) for label in shown]
            widths = [value / totals[name] for value in values] if shares else values
            at = places + (number - (len(counts) - 1) / 2) * height
            drawn = axes.barh(at, widths, height, color=COLOURS[number], label=name)
            told = [f" {value / totals[name]:.1%}" if shares else f" {value:,}" for value in values]
            axes.bar_label(drawn, told, fontsize=8.5, padding=2)
        axes.set_yticks(places, [plain_label(label) for label in shown])
        axes.set_ylim(max(len(shown), 4) - 0.5, -0.5)
        axes.margins(x=0.14)
        axes.grid(axis="y", visible=False)
        _format(axes.xaxis, shares=shares)
        if rest:
            axes.set_xlabel(f"and {rest:,} more")
        if len(counts) > 1:
            axes.legend(fontsize=8.5, loc="lower right")

    return paint


def columns(labels: Sequence[str], counts: Sequence[int]) -> Callable[[Axes], None]:
    """Upright bars in the order given, for times."""

    def paint(axes: Axes) -> None:
        axes.bar(np.arange(len(labels)), counts, 0.85, color=BLUE)
        step = -(-len(labels) // 8)
        axes.set_xticks(np.arange(0, len(labels), step), labels[::step])
        axes.grid(axis="x", visible=False)
        _format(axes.yaxis, shares=False)

    return paint


def curves(series: Mapping[str, np.ndarray], label: str, *, marked: Sequence[int] = ()) -> Callable[[Axes], None]:
    """Each series sorted; ``marked`` are indices of the first one's values to point at, before sorting."""

    def paint(axes: Axes) -> None:
        for (name, values), colour in zip(series.items(), COLOURS):
            axes.plot(np.arange(len(values)), np.sort(values), color=colour, linewidth=1.6, label=name)
        if len(marked):
            values = next(iter(series.values()))
            place = np.argsort(np.argsort(values, kind="stable"))
            axes.plot(place[list(marked)], values[list(marked)], "o", color=RED, ms=4.5, label=f"dead ({len(marked)})")
        axes.set_xlabel("dimensions, sorted")
        axes.set_ylabel(label)
        if len(series) > 1 or len(marked):
            axes.legend(fontsize=8.5, loc="upper left")

    return paint


def points(plane: np.ndarray, groups: Sequence[tuple[str, str, np.ndarray]]) -> Callable[[Axes], None]:
    """Points ``[N, 2]`` in groups of label, colour and indices; the group :data:`SPECIAL` is drawn as stars."""

    def paint(axes: Axes) -> None:
        for label, colour, which in groups:
            star: dict[str, Any] = {"marker": "*", "s": 90, "edgecolors": _INK, "linewidths": 0.5}
            style = star if label == SPECIAL else {"s": 5}
            axes.scatter(plane[which, 0], plane[which, 1], color=colour, label=plain_label(label), **style)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.legend(fontsize=8.5, markerscale=1.5, loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return paint


def strips(rows: Mapping[str, np.ndarray]) -> list[Callable[[Axes], None]]:
    """Embeddings ``[N, C]`` as images, one row of the image a vector, each with colours up to its largest component."""

    def one(name: str, values: np.ndarray) -> Callable[[Axes], None]:
        def paint(axes: Axes) -> None:
            largest = float(np.abs(values).max(initial=0.0))
            scale: dict[str, Any] = {"vmin": -(largest or 1.0), "vmax": largest or 1.0, "cmap": "RdBu_r"}
            axes.imshow(values.astype(np.float64), aspect="auto", interpolation="nearest", **scale)
            axes.set_title(
                f"{name}, colours up to {largest:.3g}" if largest else f"{name}: none", loc="left", fontsize=9.5
            )
            axes.set_ylabel("embedding")
            axes.grid(visible=False)

        return paint

    return [one(name, values) for name, values in rows.items()]


def plain_label(text: str) -> str:
    """A text that any font can draw: printable ASCII, other characters as their codes, at most 28 of them."""
    plain = "".join(c if c.isascii() and c.isprintable() else f"<{ord(c):04X}>" for c in text[:28])
    return plain if len(plain) <= 28 else f"{plain[:25]}..."


def _format(axis: Axis, *, shares: bool) -> None:
    axis.set_major_locator(MaxNLocator(5, integer=not shares))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.3g}%" if shares else f"{v:,.0f}"))
