"""Panels side by side, their titles, ticks and legends; all sizes are inches at print size."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from rankbench.analysis.labels import arm_title, panel_title
from rankbench.reporting.plotting import BAND, COLUMN, PAGE, SMALL, TEXT, WIDE, ArmStyle, Styles

MOST = 12  # panels of a figure: nobody compares more of them
LINE = 0.125  # of a line of text
GAP = 0.12  # between panels, and at the edges
HEIGHT = 1.25  # of an axes
FEW = 8  # entries of a legend that fit below a column
TITLE_LINES = 3  # of a panel, at most
FAR = 8  # times: values that are so far apart are drawn by their logarithm
STEPS = (1, 2, 5, 10)  # of ticks
LABEL = 1.7  # of the label of an arm, at most
ROW = 0.155  # of an arm in a list of them
Ticks = Mapping[float, str]
T = TypeVar("T")


@functools.lru_cache(maxsize=20_000)
def text_width(text: str, points: float = SMALL) -> float:
    """Width of a line of text."""
    font = FontProperties(family=matplotlib.rcParams["font.family"], size=points)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


def widest(texts: Sequence[str]) -> float:
    """Width of the widest of some texts; 0 for none."""
    return max(map(text_width, texts), default=0.0)


def wrapped(text: str, width: float, lines: int = 2, points: float = TEXT) -> str:
    """The text in lines that are no wider than `width`; what does not fit into that many ends with an ellipsis."""
    rows = [""]
    for piece in re.split(r"(?<=[ =_/-])", text):  # lines end after a space or one of these
        if rows[-1] and text_width((rows[-1] + piece).rstrip(), points) > width and len(rows) < lines:
            rows.append(piece)
        else:
            rows[-1] += piece
    return "\n".join(_cut(row.rstrip(), width, points) for row in rows)


def _cut(text: str, width: float, points: float) -> str:
    if text_width(text, points) <= width:
        return text
    fits = next((end for end in range(len(text), 0, -1) if text_width(f"{text[:end]}…", points) <= width), 0)
    return f"{text[:fits].rstrip(' ,')}…"


class Room(NamedTuple):
    """Room in a figure: around every axes for labels, right of all for a colour bar, and below all."""

    left: float = 0.45
    right: float = 0.0
    below: float = 0.34
    bar: float = 0.0
    foot: float = 0.0


def facets(
    titles: Sequence[str],
    handles: Sequence[Artist] = (),
    room: Room = Room(),  # noqa: B008  # a tuple
    height: float = HEIGHT,
    width: float | None = None,
    columns: int | None = None,
    shared: bool = False,
    heading: str = "",
) -> tuple[Figure, list[Axes]]:
    """Axes side by side with their titles, and below them a legend, where there are handles.

    Args:
        titles: one for each axes; longer ones than TITLE_LINES are cut.
        height: of an axes.
        width: of the figure; None takes what the number of panels needs.
        columns: panels in a row; None takes what fits.
        shared: whether panels of a row have the same y, so that only the first has room for its labels.
        heading: title of the whole figure.
    """
    count = len(titles)
    width = width or (COLUMN if count == 1 and not room.right and len(handles) <= FEW else PAGE if count <= 6 else WIDE)
    columns = columns or (2 if count == 4 else min(count, 3 if width < WIDE else 4))
    beside = (0.0 if shared else room.left) + room.right + GAP  # room between two axes
    inner = (width - GAP - room.bar - room.left - room.right - GAP - (columns - 1) * beside) / columns
    names = [wrapped(title, inner + room.right, TITLE_LINES) for title in titles]
    above = 0.06 + LINE * max(name.count("\n") + 1 if name else 0 for name in names)
    head = "\n".join(wrapped(line, width - GAP, 4, TEXT + 1) for line in heading.splitlines())
    heads = LINE * 1.15 * (head.count("\n") + 1) + 0.03 if head else 0.0
    entries = legend_columns(handles, width)
    below = LINE * math.ceil(len(handles) / entries) + 0.06 * bool(handles) + room.foot
    rows = math.ceil(count / columns)
    figure = Figure((width, heads + rows * (above + height + room.below) + below + 0.04))
    edges = (GAP / 2 + room.left, GAP + room.right + room.bar, heads + above, below + 0.04 + room.below)
    all_axes = _grid(figure, names, (rows, columns), edges, (beside, above + room.below), shared)
    if head:
        figure.text(GAP / 2 / width, 1 - 0.04 / figure.get_figheight(), head, fontsize=TEXT + 1, va="top")
    _draw_legend(figure, handles, entries)
    return figure, all_axes


def _grid(
    figure: Figure,
    titles: Sequence[str],
    shape: tuple[int, int],
    edges: Sequence[float],
    between: tuple[float, float],
    shared: bool,
) -> list[Axes]:
    """Axes with titles in rows and columns; inches left, right, above and below all, and from one to the next."""
    (width, height), (left, right, top, bottom) = figure.get_size_inches(), edges
    (rows, columns), (across, down) = shape, between
    grid = {"left": left / width, "right": 1 - right / width, "top": 1 - top / height, "bottom": bottom / height}
    grid["wspace"] = across / ((width - left - right - (columns - 1) * across) / columns)
    grid["hspace"] = down / ((height - top - bottom - (rows - 1) * down) / rows)
    axes = figure.subplots(*shape, squeeze=False, sharey="row" if shared else False, gridspec_kw=grid).ravel()
    for unused in axes[len(titles) :]:
        unused.remove()
    for each, title in zip(axes, titles, strict=False):
        each.set_title(title)
    return list(axes[: len(titles)])


def labelled_rows(
    titles: Sequence[str],
    labels: Sequence[str],
    below: float = Room().below,
    row: float = ROW,
    handles: Sequence[Artist] = (),
    width: float | None = None,
    columns: int | None = None,
) -> tuple[Figure, list[Axes]]:
    """Facets with a row for each label, the first on top: row y is the y-th; `below`: room below each axes."""
    right = 0.1 if len(titles) > 1 else 0.0  # the label of the last tick of one panel, beside the first of the next
    room = Room(widest(labels) + 0.08, right, below)
    figure, all_axes = facets(titles, handles, room, row * len(labels) + 0.05, width, columns, shared=True)
    for axes in all_axes:
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.grid(color=BAND)
    return figure, all_axes


def draw_interval(axes: Axes, y: float, ends: Iterable[float], style: ArmStyle, width: float = 0.9) -> None:
    """Draw low, mean and high of an arm in its row; where the ends are NaN, the mean alone."""
    low, mean, high = ends
    axes.plot([low, high], [y, y], color=style.colour, lw=width)
    axes.plot(mean, y, ms=4.2, ls="none", **style.points)


def best_first(rankings: Iterable[Iterable[str]]) -> list[str]:
    """Arms by their mean place in some rankings, each of which has some of them, from its best to its worst."""
    places = [pd.Series(np.arange(len(arms)) / len(arms), index=arms) for arms in map(list, rankings)]
    return pd.concat(places).groupby(level=0, sort=False).mean().sort_values(kind="stable").index.tolist()


def panel_titles(titles: Sequence[str]) -> list[str]:
    """Display names of panels; none for a single one, which the caption names."""
    return [panel_title(title) for title in titles] if len(titles) > 1 else [""]


def legend_columns(handles: Sequence[Artist], width: float) -> int:
    """Number of entries of a legend in a row, at least 1; its rows have about one length."""
    entry = 0.42 + widest([str(handle.get_label()) for handle in handles])
    most = max(1, int((width - GAP) / entry))
    return math.ceil(len(handles) / max(1, math.ceil(len(handles) / most))) or 1


def _draw_legend(figure: Figure, handles: Sequence[Artist], columns: int) -> None:
    if not handles:
        return
    figure.legend(
        handles=[handle for column in range(columns) for handle in handles[column::columns]],  # it is filled by column
        loc="lower center",
        ncols=columns,
        handlelength=2.4,
        columnspacing=1.2,
        labelspacing=0.25,
        borderaxespad=0.2,
    )


def arm_label(arm: str, width: float = LABEL) -> str:
    """Display name of an arm on one line."""
    return wrapped(arm_title(arm), width, 1, SMALL)


def arm_labels(arms: Sequence[str], width: float = LABEL) -> list[str]:
    """Display names of arms, each on one line."""
    return [arm_label(arm, width) for arm in arms]


def arm_handles(arms: Sequence[str], styles: Styles, lines: bool = True) -> list[Artist]:
    """Legend entries of arms: with their lines, or their markers alone."""
    looks = {arm: styles[arm].line if lines else {**styles[arm].points, "ls": "none"} for arm in arms}
    return [Line2D([], [], label=arm_label(arm), **look) for arm, look in looks.items()]


def chosen(items: Sequence[T], groups: Sequence[Any] | None = None, most: int = MOST) -> tuple[list[T], str]:
    """Those of many panels that are drawn, some of every group (such as its cell), and a sentence on the others."""
    if len(items) <= most:
        return list(items), ""
    turns: list[int] = []  # the place of each item within its group
    seen: Counter[Any] = Counter()
    for group in groups or [None] * len(items):
        turns.append(seen[group])
        seen[group] += 1
    drawn = sorted(sorted(range(len(items)), key=turns.__getitem__)[:most])
    spread = f", {len(seen)} cells among them" * (len(seen) > 1)
    return [items[index] for index in drawn], f" {most} of {len(items)} panels are drawn{spread}; the CSV has all."


def draw_frame(axes: Axes, across: str, up: str = "", x: Ticks | None = None, y: Ticks | None = None) -> None:
    """Ticks and labels, when all else is drawn.

    Args:
        across, up: labels of the two directions; where y has none, it is left as it is.
        x, y: position -> label of the ticks; None: as many round numbers as there is room for.
    """
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    width, height = inches(axes)
    for axis, ticks, most in ((axes.xaxis, x, width / 0.42), (axes.yaxis, y, height / 0.25))[: 1 + bool(up)]:
        axis.set_minor_locator(NullLocator())
        if ticks is None:
            axis.set_major_locator(MaxNLocator(max(2, min(5, int(most))), steps=STEPS))
            axis.set_major_formatter(FuncFormatter(lambda value, _: number_text(value)))
        else:
            axis.set_ticks(list(ticks), labels=list(ticks.values()))
    label = wrapped(up, max(height + 0.05, 0.5), 2, SMALL)
    axes.set(xlim=(left, right), ylim=(low, high), xlabel=across, ylabel=label)  # ticks widen them


def inches(axes: Axes) -> tuple[float, float]:
    """Width and height of an axes."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # axes of a figure
    width, height = figure.get_size_inches()
    box = axes.get_position()
    return box.width * width, box.height * height


def number_text(value: float) -> str:
    """A number on an axis: 10 digits at most, since 0.1 + 0.2 is 0.3."""
    return f"{value:,.10g}".replace("-", "\N{MINUS SIGN}")


def logarithmic(axes: Axes, values: Sequence[float]) -> dict[float, str]:
    """Make x logarithmic; ticks where there are values, as many as have room."""
    axes.set_xscale("log")
    ticks = sorted(set(values))
    ticks = ticks[:: math.ceil(len(ticks) / 5)]
    return {value: f"{value:,.0f}" if value >= 1000 else f"{value:g}" for value in ticks}


def logarithmic_up(axes: Axes) -> dict[float, str] | None:
    """Make y logarithmic where its values lie far apart and above 0; the ticks, None where it is left as it is."""
    lines = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    values = np.concatenate([line[np.isfinite(line)] for line in lines])
    if not values.size or values.min() <= 0 or values.max() < FAR * values.min():
        return None
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    digits = (1, 2, 5) if high < 30 * low else (1,)
    steps = [10.0**power * digit for power in range(-12, 12) for digit in digits]
    return {step: f"{step:g}" for step in steps if low <= step <= high}
