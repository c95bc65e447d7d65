"""Lines of arms in panels: named where they end, or, in many panels, in one legend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankbench.reporting.figures.layout import (
    Line,
    Room,
    arm_handles,
    arm_label,
    chosen,
    facets,
    label_ends,
    merged,
    widest,
)
from rankbench.reporting.plotting import Styles
from rankbench.studies.panels import Panel

DIRECT = 2  # panels with labels of their own


class Curve(NamedTuple):
    """The line of an arm, and what to draw around it.

    Attributes:
        label: the arm.
        x, y: points.
        low, high: ends of a band, or of the intervals of the points; () without.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


Drawing = tuple[str, Panel | None, list[Curve]]  # title, panel, lines


def draw_lines(
    drawings: Sequence[Drawing],
    styles: Styles,
    finish: Callable[[Axes, int], None],
    steps: bool = False,
    height: float = 1.35,
) -> tuple[Figure, str]:
    """Draw each of some panels, and return the figure with a sentence on those that are left out.

    Args:
        drawings: panels with their lines.
        styles: of the arms.
        finish: draws what else belongs into the axes of a drawing, by its number, and its ticks and labels.
        steps: whether values hold until the next point.
        height: of an axes.
    """
    numbers, left_out = chosen(range(len(drawings)), [panel and panel.cell for _, panel, _ in drawings])
    arms = list(dict.fromkeys(curve.label for number in numbers for curve in drawings[number][2]))
    direct = len(numbers) <= DIRECT
    ends = {number: merged(_named(drawings[number][2], styles)) for number in numbers} if direct else {}
    labels = [line for lines in ends.values() for end in lines for line in end.label.split("\n")]
    rows = max((sum(end.label.count("\n") + 1 for end in lines) for lines in ends.values()), default=0)
    figure, all_axes = facets(
        [drawings[number][0] if len(numbers) > 1 else "" for number in numbers],
        () if direct else arm_handles(arms, styles),
        Room(0.5, widest(labels) + 0.2 if direct else 0.0),
        max(height, 0.125 * rows),
        columns=1 if direct else None,
    )
    for axes, number in zip(all_axes, numbers, strict=True):
        for curve in drawings[number][2]:
            _draw_curve(axes, curve, styles, steps)
        finish(axes, number)
        if direct:
            label_ends(axes, ends[number])
    return figure, left_out


def _named(curves: Sequence[Curve], styles: Styles) -> list[Line]:
    shown = [curve for curve in curves if len(curve.x)]
    return [Line(arm_label(curve.label), styles[curve.label].colour, list(curve.x), list(curve.y)) for curve in shown]


def _draw_curve(axes: Axes, curve: Curve, styles: Styles, steps: bool) -> None:
    style = styles[curve.label]
    drawn = {"drawstyle": "steps-post"} if steps else {}
    if len(curve.low) and steps:
        axes.fill_between(curve.x, curve.low, curve.high, step="post", color=style.colour, alpha=0.08, lw=0)
    elif len(curve.low):
        axes.vlines(curve.x, curve.low, curve.high, color=style.colour, lw=0.7)
    axes.plot(curve.x, curve.y, markevery=max(1, len(curve.x) // 6), **style.line, **drawn)
