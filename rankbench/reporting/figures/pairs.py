"""Differences to the reference seed by seed: the pairs that the comparisons are made of."""

from __future__ import annotations

import pandas as pd

from rankbench.analysis.labels import arm_title, metric_title
from rankbench.analysis.metrics import higher_is_better
from rankbench.reporting.amounts import amount_of
from rankbench.reporting.figures.layout import arm_labels, chosen, draw_frame, labelled_rows, panel_titles
from rankbench.reporting.plotting import GREY, INK, ReportFigure
from rankbench.reporting.report_data import ReportData

ARMS = 26  # with more, controls are left out
PANELS = 4


def draw_pairs(report_data: ReportData) -> ReportFigure | None:
    """A row for each arm with a point for each seed, and their mean; None where there are no pairs.

    Panels that are taken together have a figure of their own, panel by panel.
    """
    rows = [
        (arm, seed, amount_of(comparison.terms, pair, rises=True), panel.title)
        for panel, comparison in report_data.alone()
        for arm in comparison.rows
        for seed, pair in comparison.pairs(comparison.metrics[0], arm).items()
    ]
    if not rows:
        return None
    numbers = pd.DataFrame(rows, columns=["arm", "seed", "difference", "panel"])
    by_panel = dict(list(numbers.groupby("panel")))
    panels = [(*pair, by_panel[pair[0].title]) for pair in report_data.alone() if pair[0].title in by_panel]
    drawn, left_out = chosen(panels, [panel.cell for panel, _, _ in panels], PANELS)
    arms = list(dict.fromkeys(arm for _, _, data in drawn for arm in data["arm"]))  # from the best to the worst
    if len(arms) > ARMS:
        arms = [arm for arm in arms if arm not in report_data.report.without_claim][:ARMS]
    titles = panel_titles([panel.short for panel, _, _ in drawn])
    figure, all_axes = labelled_rows(titles, arm_labels(arms), below=0.42)
    for axes, (_, comparison, data) in zip(all_axes, drawn, strict=True):
        axes.axvline(0, color=GREY, lw=0.8, zorder=0)
        for arm, points in data[data["arm"].isin(arms)].groupby("arm", sort=False):
            y, style = arms.index(str(arm)), report_data.styles[str(arm)]
            axes.plot(points["difference"], [y] * len(points), ls="none", alpha=0.75, **{**style.points, "ms": 3})
            axes.plot(points["difference"].mean(), y, "|", color=INK, ms=9, mew=1.4)
        metric, percent = metric_title(comparison.metrics[0], short=True), ", %" * comparison.terms.log
        arrow = "better →" if higher_is_better(comparison.metrics[0]) else "← better"
        draw_frame(axes, f"{arrow}\ndifference in {metric}{percent}")
    reference = arm_title(report_data.report.reference)
    note = f"Each point: an arm and {reference} at one seed. Bar: the mean of the pairs.{left_out}"
    return ReportFigure("pairs", f"Differences to {reference}, seed by seed", figure, numbers, note)
