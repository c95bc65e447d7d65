"""What all figures of a report share: panels side by side, the look of an arm, files and inline SVG."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from rankbench.labels import COLOURS
from rankbench.labels import UNKNOWN as UNKNOWN_COLOUR
from rankbench.panels import Panel, methods_of

TEXT = 8  # points
COLUMNS = 3  # panels in a row
CELL = (2.55, 1.85)  # inches, of the axes of a panel
GAP = (0.62, 0.62)  # inches, left of an axes and above it
MARKERS = "osD^vP*X<>ph"
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
GREY = "#8a8a8a"


@dataclass(frozen=True)
class Drawing:
    """A figure and what belongs to it.

    Attributes:
        name: of its files.
        title: one line.
        figure: drawn.
        numbers: behind it.
        note: how it is read.
    """

    name: str
    title: str
    figure: Figure
    numbers: pd.DataFrame
    note: str


@dataclass(frozen=True)
class Look:
    """How an arm is drawn: the hue is its method's; marker and dash tell arms apart without it."""

    colour: str
    marker: str
    dash: str | tuple[int, tuple[int, ...]]


def looks(panels: Sequence[Panel]) -> dict[str, Look]:
    """Of each arm: the same in all figures of a report."""
    methods = methods_of(panels)
    arms = list(dict.fromkeys(arm for panel in panels for arm in panel.arms))
    found = {}
    for place, arm in enumerate(arms):
        method = methods.get(arm, arm)
        before = sum(methods.get(other, other) == method for other in arms[:place])
        dash = DASHES[before % len(DASHES)]
        found[arm] = Look(COLOURS.get(method, UNKNOWN_COLOUR), MARKERS[place % len(MARKERS)], dash)
    return found


def facets(
    titles: Sequence[str], rows_of_legend: int = 0, cell: tuple[float, float] = CELL, left: float = GAP[0]
) -> tuple[Figure, list[Axes]]:
    """Axes side by side, at most COLUMNS in a row, with room for a legend below.

    Args:
        titles: one for each axes.
        rows_of_legend: room for it.
        cell: of the axes, inches.
        left: room for labels left of each axes, inches.
    """
    columns = min(COLUMNS, len(titles))
    rows = math.ceil(len(titles) / columns)
    low = 0.55 + 0.2 * rows_of_legend
    width, height = columns * (cell[0] + left) + 0.15, rows * (cell[1] + GAP[1]) + low - 0.1
    figure = Figure((width, height))
    places = [divmod(place, columns) for place in range(len(titles))]
    found = [
        figure.add_axes(
            (
                (column * (cell[0] + left) + left) / width,
                1 - (row + 1) * (cell[1] + GAP[1]) / height + (0.32 / height),
                cell[0] / width,
                cell[1] / height,
            )
        )
        for row, column in places
    ]
    for axes, title in zip(found, titles, strict=True):
        axes.set_title(title, fontsize=TEXT, loc="left", fontweight="bold", color="#222222")
        dress(axes)
    return figure, found


def dress(axes: Axes) -> None:
    """Thin lines, small text, a light grid behind."""
    axes.tick_params(labelsize=TEXT - 1, length=2, width=0.6, colors="#444444")
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_linewidth(0.6)
        spine.set_color("#888888")


def logarithmic(axes: Axes, ticks: Sequence[float]) -> None:
    """A log axis of x with ticks where there are values, at most eight."""
    axes.set_xscale("log")
    shown = sorted(set(ticks))
    shown = shown[:: math.ceil(len(shown) / 8)]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def few_ticks(axes: Axes) -> None:
    """Of y: five at the most."""
    axes.yaxis.set_major_locator(MaxNLocator(5))


def legend_rows(arms: Sequence[str], panels: int) -> int:
    """Rows that `legend` needs."""
    return math.ceil(len(arms) / _legend_columns(arms, panels))


def legend(figure: Figure, arms: Sequence[str], style: Mapping[str, Look], panels: int) -> None:
    """All arms below the axes."""
    handles = [
        Line2D(
            [],
            [],
            color=style[arm].colour,
            marker=style[arm].marker,
            linestyle=style[arm].dash,
            label=arm,
            ms=4,
            lw=1.2,
        )
        for arm in arms
    ]
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.01, 0.0),
        ncols=_legend_columns(arms, panels),
        fontsize=TEXT - 1,
        frameon=False,
        handlelength=3,
        columnspacing=1.4,
        borderaxespad=0.2,
    )


def _legend_columns(arms: Sequence[str], panels: int) -> int:
    width = min(COLUMNS, panels) * (CELL[0] + GAP[0])
    letters = max(len(arm) for arm in arms)
    return max(1, int(width / (0.62 + 0.062 * letters)))


def svg(figure: Figure, prefix: str) -> str:
    """The figure as an element of an HTML page: text stays text; ids begin with `prefix`; nothing points outside."""
    target = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(target, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    return re.sub(r'<g id="[^"]*">', "<g>", text)  # groups that nothing refers to
