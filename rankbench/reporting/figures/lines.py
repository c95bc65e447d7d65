"""Lines of arms in panels: named where they end, those that lie on each other together; in many panels in a legend."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import optimize

from rankbench.reporting.figures.layout import (
    LABEL,
    Room,
    arm_handles,
    arm_label,
    chosen,
    facets,
    inches,
    widest,
    wrapped,
)
from rankbench.reporting.plotting import SMALL, Styles
from rankbench.studies.panels import Panel

DIRECT, FEW_ARMS = 2, 14  # panels with labels of their own, and arms in one
LABEL_HEIGHT = 0.14  # inches of a line of them
SAME = 0.01  # share of the values' range by which lines that are one differ at most
LEADER = 0.14  # inches from the end of an axes to the labels of its lines
LEADER_STYLE = {"arrowstyle": "-", "lw": 0.6, "shrinkA": 1, "shrinkB": 2, "relpos": (0, 0.5)}


class Curve(NamedTuple):
    """The line of an arm, and what to draw around it.

    Attributes:
        label: the arm.
        x, y: points, sequences of numbers.
        low, high: ends of a band, or of the intervals of the points; () without.
    """

    label: str
    x: Any
    y: Any
    low: Any = ()
    high: Any = ()


Drawing = tuple[str, Panel | None, list[Curve]]  # title, panel, lines


def draw_lines(
    drawings: Sequence[Drawing],
    styles: Styles,
    finish: Callable[[Axes, int], None],
    steps: bool = False,
) -> tuple[Figure, str]:
    """Draw each of some panels, and return the figure with a sentence on those that are left out.

    Args:
        finish: draws what else belongs into the axes of a drawing, by its number, and its ticks and labels.
        steps: whether values hold until the next point.
    """
    numbers, left_out = chosen(range(len(drawings)), [panel and panel.cell for _, panel, _ in drawings])
    arms = list(dict.fromkeys(curve.label for number in numbers for curve in drawings[number][2]))
    direct = len(numbers) <= DIRECT and len(arms) <= FEW_ARMS
    ends = {number: merged(_named(drawings[number][2], styles)) for number in numbers} if direct else {}
    labels = [[line for end in lines for line in end.label.split("\n")] for lines in ends.values()]
    titles = [drawings[number][0] if len(numbers) > 1 else "" for number in numbers]
    columns = 1 if len(numbers) <= DIRECT else None
    figure, all_axes = labelled_facets(titles, arm_handles(arms, styles), labels, columns=columns)
    for axes, number in zip(all_axes, numbers, strict=True):
        for curve in drawings[number][2]:
            _draw_curve(axes, curve, styles, steps)
        finish(axes, number)
        if direct:
            label_ends(axes, ends[number])
    return figure, left_out


def labelled_facets(
    titles: Sequence[str],
    handles: Sequence[Artist],
    labels: Sequence[Sequence[str]],
    height: float = 1.35,
    columns: int | None = None,
) -> tuple[Figure, list[Axes]]:
    """Facets with room for labels, some lines for each axes, where their lines end; without labels, with a legend."""
    room = Room(0.5, widest(list(itertools.chain(*labels))) + 0.2 if labels else 0.0)
    rows = max(map(len, labels), default=0)
    return facets(titles, () if labels else handles, room, max(height, LABEL_HEIGHT * rows), columns=columns)


def _named(curves: Sequence[Curve], styles: Styles) -> list[Line]:
    shown = [curve for curve in curves if len(curve.x)]
    return [Line(arm_label(curve.label), styles[curve.label].colour, list(curve.x), list(curve.y)) for curve in shown]


def _draw_curve(axes: Axes, curve: Curve, styles: Styles, steps: bool) -> None:
    style = styles[curve.label]
    drawn: dict[str, Any] = {"drawstyle": "steps-post"} if steps else {}
    if len(curve.low) and steps:
        axes.fill_between(curve.x, curve.low, curve.high, step="post", color=style.colour, alpha=0.08, lw=0)
    elif len(curve.low):
        axes.vlines(curve.x, curve.low, curve.high, color=style.colour, lw=0.7)
    axes.plot(curve.x, curve.y, markevery=max(1, len(curve.x) // 6), **style.line, **drawn)


class Line(NamedTuple):
    """A line of a panel that is labelled where it ends."""

    label: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]


def merged(lines: Sequence[Line]) -> list[Line]:
    """The lines, those that lie on each other all along as one with the labels of all."""
    same = SAME * float(np.ptp([value for line in lines for value in line.y])) if lines else 0.0
    groups: list[list[Line]] = []
    for line in lines:
        for group in groups:
            if list(group[0].x) == list(line.x) and np.allclose(group[0].y, line.y, rtol=0, atol=same):
                group.append(line)
                break
        else:
            groups.append([line])
    names = [[line.label for line in group] for group in groups]
    labels = [wrapped(" = ".join(several), LABEL, len(several) + 1, SMALL) for several in names]
    return [group[0]._replace(label=label) for group, label in zip(groups, labels, strict=True)]


def label_ends(axes: Axes, lines: Sequence[Line]) -> None:
    """Write labels to the right of an axes where its lines, which are `merged`, end.

    It comes after everything that moves the limits of the axes.
    """
    width, height = inches(axes)
    ends = [
        axes.transAxes.inverted().transform(axes.transData.transform((line.x[-1], line.y[-1])))[1] for line in lines
    ]
    sizes = [SMALL * (0.25 + 1.12 * (line.label.count("\n") + 1)) / 72 / height for line in lines]
    places = _apart(ends, sizes)
    for line, place in zip(lines, places, strict=True):
        axes.annotate(
            line.label,
            (line.x[-1], line.y[-1]),
            (1 + LEADER / width, place),
            textcoords="axes fraction",
            fontsize=SMALL,
            va="center",
            arrowprops={**LEADER_STYLE, "color": line.colour},
            annotation_clip=False,
        )


def _apart(wanted: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Middles of labels as near to the wanted ones as can be without an overlap, within 0 to 1 if their sizes fit."""
    order = np.argsort(wanted, kind="stable")
    ordered = np.asarray(sizes)[order]
    offsets = np.cumsum(ordered) - ordered / 2  # of each label, if they stood on each other
    flat = optimize.isotonic_regression(np.asarray(wanted)[order] - offsets).x
    places = np.empty(len(order))
    places[order] = np.clip(flat, 0.0, max(1.0 - ordered.sum(), 0.0)) + offsets
    return places.tolist()
