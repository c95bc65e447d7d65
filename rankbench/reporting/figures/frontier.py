"""What quality costs: the metric over the parameters that were spent."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from rankbench.analysis.comparison import OFF, UNITS, WHEN
from rankbench.analysis.labels import metric_title
from rankbench.reporting.figures.layout import arm_handles, chosen, draw_frame, facets, logarithmic, panel_titles
from rankbench.reporting.plotting import ArmStyle, ReportFigure
from rankbench.reporting.report_data import ReportData
from rankbench.statistics.estimates import mean_interval
from rankbench.studies.panels import Panel, families

SPENT = [f"{when}/{unit}" for when in WHEN for unit in UNITS]
APART = 0.006  # share of x by which arms are moved apart


def spent(panel: Panel, arms: Sequence[str]) -> pd.DataFrame:
    """A row for each arm with runs that are ok: params at the end, share of the target, and the metric."""
    rows, used = [], _used(panel)
    for arm in arms:
        measured = panel.measured(arm)
        if len(measured):
            interval = mean_interval(measured)
            means = used.loc[measured.index].mean()
            rows.append((arm, panel.facts["budget"], *means, interval.mean, interval.low, interval.high, interval.n))
    columns = ["arm", "budget", *used.columns, "mean", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns).astype({"low": float, "high": float})  # NaN without an interval


def _used(panel: Panel) -> pd.DataFrame:
    """Parameters of each run, and its share of the target in the unit and at the moment in which it was matched."""
    data = panel.data.reindex(columns=["match", "unit", "target", *SPENT])
    columns = (data["match"] + "/" + data["unit"]).fillna("")
    matched = [row.get(column) for row, column in zip(data[SPENT].to_dict("records"), columns, strict=True)]
    shares = pd.Series(matched, index=data.index, dtype=float) / data["target"].astype(float)
    return pd.DataFrame({"final_params": data["final/params"], "peak_params": data["peak/params"], "share": shares})


def draw_frontier(report_data: ReportData) -> ReportFigure | None:
    """Budgets of one model and task in one panel, the points of an arm joined; hollow: off the budget.

    None where every arm spent the same everywhere: there is no frontier.
    """
    groups, arms, style = families(report_data.panels), report_data.arms, report_data.styles
    data = {
        title: pd.concat([spent(panel, arms) for panel in group], ignore_index=True) for title, group in groups.items()
    }
    data = {title: rows for title, rows in data.items() if len(rows) and _spread(rows)}
    if not data:
        return None
    present = [arm for arm in arms if any((rows["arm"] == arm).any() for rows in data.values())]
    first, left_out = chosen(list(data.items()), [groups[title][0].cell for title in data])
    figure, all_axes = facets(panel_titles([title for title, _ in first]), arm_handles(present, style))
    for axes, (title, rows) in zip(all_axes, first, strict=True):
        for index, arm in enumerate(present):
            apart = 1 + APART * (index - len(present) / 2)
            _draw_arm(axes, rows[rows["arm"] == arm].sort_values("final_params"), style[arm], apart)
        wide = rows["final_params"].max() > 3 * rows["final_params"].min()
        on_budget = rows[(rows["share"] - 1).abs() <= OFF].groupby("budget", sort=False)["final_params"].mean()
        ticks = logarithmic(axes, on_budget.tolist()) if wide and len(on_budget) else None
        draw_frame(axes, "trained parameters at the end", metric_title(groups[title][0].metric, short=True), ticks)
    numbers = pd.concat([rows.assign(panel=title) for title, rows in data.items()])
    note = (
        "Means over seeds, 95 % intervals; the budgets of an arm are joined; hollow: more than 1 % off the budget. "
        f"Arms that spent the same stand a little apart.{left_out}"
    )
    return ReportFigure("frontier", "Quality over the budget spent", figure, numbers, note)


def _draw_arm(axes: Axes, line: pd.DataFrame, look: ArmStyle, apart: float) -> None:
    x, errors = line["final_params"] * apart, [line["mean"] - line["low"], line["high"] - line["mean"]]
    axes.errorbar(x, line["mean"], yerr=errors, color=look.colour, ls=look.dash, elinewidth=0.6)
    for equal, points in line.groupby((line["share"] - 1).abs() <= OFF):
        fill = look.colour if equal else "white"
        axes.plot(x[points.index], points["mean"], look.marker, color=look.colour, mfc=fill, ls="none")


def _spread(rows: pd.DataFrame) -> bool:
    return bool(rows["final_params"].max() > (1 + 2 * OFF) * rows["final_params"].min())
