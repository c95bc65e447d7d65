"""Budget equivalents: the factor of the budget at which uniform ranks are as good as an arm."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rankbench.reporting.figures.layout import (
    Room,
    arm_labels,
    chosen,
    draw_frame,
    facets,
    label_rows,
    panel_titles,
    widest,
)
from rankbench.reporting.plotting import BAND, GREY, ReportFigure, Styles
from rankbench.reporting.report_data import ReportData
from rankbench.statistics.budget_ladder import FACTORS, WORTHWHILE

ROW = 0.15  # inches


def draw_worth(report_data: ReportData) -> ReportFigure | None:
    """A row for each arm: "as good as 1.3 times the budget"; None where no ladder was run."""
    panels = []
    for panel, comparison in report_data.compared():
        rows = [
            (arm, worth.value, worth.low or FACTORS[0], worth.high or FACTORS[-1])
            for arm in report_data.arms
            if arm in comparison.rows and (worth := comparison.worth(arm)) is not None
        ]
        if rows:
            panels.append((panel, pd.DataFrame(rows, columns=["arm", "factor", "low", "high"])))
    if not panels:
        return None
    drawn, left_out = chosen(panels, [panel.cell for panel, _ in panels])
    means = pd.concat([data for _, data in drawn]).groupby("arm")["factor"].mean()
    arms = means.sort_values(ascending=False).index.tolist()
    labels = arm_labels(arms)
    figure, all_axes = facets(
        panel_titles([panel.short for panel, _ in drawn]),
        room=Room(widest(labels) + 0.08),
        height=ROW * len(arms) + 0.05,
        shared=True,
    )
    for axes, (_, data) in zip(all_axes, drawn, strict=True):
        _draw_panel(axes, data, arms, report_data.styles)
        label_rows(axes, labels)
    numbers = pd.concat([data.assign(panel=panel.title) for panel, data in panels])
    note = (
        "Factor of the budget at which uniform ranks are as good as the arm at the budget itself, with its interval "
        f"(to the end of the ladder, {FACTORS[0]:g} to {FACTORS[-1]:g}, where it is open). Grey: less "
        f"than {WORTHWHILE:g} times the budget either way.{left_out}"
    )
    return ReportFigure("worth", "What the arms are worth, in budget", figure, numbers, note)


def _draw_panel(axes: Axes, data: pd.DataFrame, arms: list[str], styles: Styles) -> None:
    axes.axvspan(-np.log2(WORTHWHILE), np.log2(WORTHWHILE), color=BAND, lw=0, zorder=0)
    axes.axvline(0, color=GREY, lw=0.8)
    for row in data.to_dict("records"):
        y, style = arms.index(row["arm"]), styles[row["arm"]]
        axes.plot(np.log2([row["low"], row["high"]]), [y, y], color=style.colour, lw=0.9)
        axes.plot(np.log2(row["factor"]), y, ms=4.2, **style.points)
    axes.set_xlim(np.log2(FACTORS[0]) - 0.1, np.log2(FACTORS[-1]) + 0.1)
    draw_frame(axes, "times the budget", "", {float(np.log2(factor)): f"{factor:g}" for factor in FACTORS}, {})
