"""Gains over tasks: every arm on every task, in smallest effects of interest."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from rankbench.analysis.comparison import Comparison
from rankbench.analysis.labels import arm_title, panel_title
from rankbench.reporting.figures.layout import arm_handles, draw_frame, draw_interval, labelled_rows
from rankbench.reporting.plotting import BAND, GREY, PAGE, ReportFigure, Styles
from rankbench.reporting.report_data import ReportData
from rankbench.statistics.estimates import mean_interval

ARMS = 12  # that are drawn
ROW = 0.085  # inches of an arm on a task
FILLED = 0.75  # share of the height of a task that its arms take
COLUMNS = ["panel", "arm", "gain", "low", "high"]


def draw_over_tasks(report_data: ReportData) -> ReportFigure | None:
    """A block for each panel with a row for each arm of which something is claimed; None with fewer than two tasks."""
    tasks = {panel.facts["task"] for panel, _ in report_data.compared()}
    rows = [
        (panel_title(panel.short), arm, *gain)
        for panel, comparison in report_data.compared()
        for arm in report_data.claimed
        if (gain := _gain(comparison, arm)) is not None
    ]
    if len(tasks) < 2 or not rows:
        return None
    data = pd.DataFrame(rows, columns=COLUMNS).astype({"low": float, "high": float})
    panels, arms = list(data["panel"].unique()), [arm for arm in report_data.claimed if arm in set(data["arm"])][:ARMS]
    handles = arm_handles(arms, report_data.styles, lines=False)
    row = max(0.16, ROW * len(arms) + 0.03)
    figure, (axes,) = labelled_rows([""], panels, row=row, handles=handles, width=PAGE)
    _draw_blocks(axes, data, panels, arms, report_data.styles)
    note = (
        f"Gain over {arm_title(report_data.report.reference)} in smallest effects of interest of each task (grey "
        "band), right is better, with the simultaneous intervals of the tables."
    )
    return ReportFigure("over-tasks", "Gains over the tasks", figure, data, note)


def _gain(comparison: Comparison, arm: str) -> tuple[float, float | None, float | None] | None:
    """Mean gain in smallest effects, with its simultaneous interval; None where nothing is judged."""
    if comparison.terms.margin is None or comparison.reference is None or arm not in comparison.judged:
        return None
    gains = comparison.gains(arm, [comparison.reference]) / comparison.terms.margin
    if not len(gains):
        return None
    interval = mean_interval(gains, comparison.level)
    return interval.mean, interval.low, interval.high


def _draw_blocks(axes: Axes, data: pd.DataFrame, panels: list[str], arms: list[str], styles: Styles) -> None:
    axes.axvspan(-1, 1, color=BAND, lw=0, zorder=0)
    axes.axvline(0, color=GREY, lw=0.8)
    for row in data[data["arm"].isin(arms)].to_dict("records"):
        y = panels.index(row["panel"]) + FILLED * ((arms.index(row["arm"]) + 0.5) / len(arms) - 0.5)
        draw_interval(axes, y, (row["low"], row["gain"], row["high"]), styles[row["arm"]])
    draw_frame(axes, "gain, smallest effects of interest")
    axes.set_ylim(len(panels) - 0.5, -0.5)
