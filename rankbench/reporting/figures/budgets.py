"""Quality and budget: the metric over the parameters that were spent, and what arms are worth in budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rankbench.analysis.comparison import OFF, UNITS, WHEN
from rankbench.analysis.labels import metric_title
from rankbench.reporting.figures.layout import (
    arm_handles,
    arm_label,
    arm_labels,
    chosen,
    draw_frame,
    draw_interval,
    labelled_rows,
    logarithmic,
    panel_titles,
)
from rankbench.reporting.figures.lines import FEW_ARMS, Line, label_ends, labelled_facets
from rankbench.reporting.plotting import BAND, GREY, ArmStyle, ReportFigure, Styles
from rankbench.reporting.report_data import ReportData
from rankbench.statistics.budget_ladder import FACTORS, WORTHWHILE
from rankbench.statistics.estimates import Estimate, mean_interval
from rankbench.studies.panels import Panel, families

SPENT = [f"{when}/{unit}" for when in WHEN for unit in UNITS]
APART = 0.006  # share of x by which arms are moved apart
MOST_APART = 0.05  # from the first arm to the last: the axis has numbers, and a point must stand near its own


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
    arms, style = report_data.arms, report_data.styles
    alone = [panel for panel, _ in report_data.alone()]  # means of the panels of a sample have no common unit
    groups = [
        (title, group[0], pd.concat([spent(panel, arms) for panel in group], ignore_index=True))
        for title, group in families(alone).items()
    ]
    groups = [each for each in groups if each[2]["final_params"].max() > (1 + 2 * OFF) * each[2]["final_params"].min()]
    if not groups:
        return None
    numbers = pd.concat([rows.assign(panel=title) for title, _, rows in groups])
    present = [arm for arm in arms if arm in set(numbers["arm"])]
    drawn, left_out = chosen(groups, [panel.cell for _, panel, _ in groups])
    labels = [arm_labels(present)] if len(drawn) == 1 and len(present) <= FEW_ARMS else []
    titles = panel_titles([title for title, _, _ in drawn])
    figure, all_axes = labelled_facets(titles, arm_handles(present, style), labels)
    step = min(APART, MOST_APART / len(present))
    apart = {arm: 1 + step * (index - len(present) / 2) for index, arm in enumerate(present)}
    for axes, (_, panel, rows) in zip(all_axes, drawn, strict=True):
        for arm in present:
            _draw_arm(axes, rows[rows["arm"] == arm].sort_values("final_params"), style[arm], apart[arm])
        wide = rows["final_params"].max() > 3 * rows["final_params"].min()
        on_budget = rows[(rows["share"] - 1).abs() <= OFF].groupby("budget", sort=False)["final_params"].mean()
        ticks = logarithmic(axes, on_budget.tolist()) if wide and len(on_budget) else None
        draw_frame(axes, "trained parameters at the end", metric_title(panel.metric, short=True), ticks)
        if labels:
            last = rows.sort_values("final_params").groupby("arm", sort=False).last()
            places = zip(last.index, last["final_params"], last["mean"], strict=True)
            label_ends(axes, [Line(arm_label(arm), style[arm].colour, [x * apart[arm]], [y]) for arm, x, y in places])
    note = (
        "Means over seeds, 95 % intervals; the budgets of an arm are joined; hollow: more than 1 % off the budget. "
        f"Arms that spent the same stand a little apart, by {50 * step * len(present):.1f} % at most.{left_out}"
    )
    return ReportFigure("frontier", "Quality over the budget spent", figure, numbers, note)


def _draw_arm(axes: Axes, line: pd.DataFrame, look: ArmStyle, apart: float) -> None:
    x, errors = line["final_params"] * apart, [line["mean"] - line["low"], line["high"] - line["mean"]]
    axes.errorbar(x, line["mean"], yerr=errors, color=look.colour, ls=look.dash, elinewidth=0.6)
    for equal, points in line.groupby((line["share"] - 1).abs() <= OFF):
        fill = look.colour if equal else "white"
        axes.plot(x[points.index], points["mean"], look.marker, color=look.colour, mfc=fill, ls="none")


def draw_worth(report_data: ReportData) -> ReportFigure | None:
    """A row for each arm: "as good as 1.3 times the budget"; None where no ladder was run."""
    everything = [place for place in _worth_of_arms(report_data) if len(place[2])]
    if not everything:
        return None
    drawn, left_out = chosen(everything, [cell for _, cell, _ in everything])
    means = pd.concat([data for _, _, data in drawn]).groupby("arm")["factor"].mean()
    arms = means.sort_values(ascending=False).index.tolist()
    figure, all_axes = labelled_rows(panel_titles([title for title, _, _ in drawn]), arm_labels(arms))
    for axes, (_, _, data) in zip(all_axes, drawn, strict=True):
        _draw_worth(axes, data, arms, report_data.styles)
    numbers = pd.concat([data.assign(panel=title) for title, _, data in everything])
    note = (
        "Factor of the budget at which uniform ranks are as good as the arm at the budget itself, with its interval "
        f"(to the end of the ladder, {FACTORS[0]:g} to {FACTORS[-1]:g}, where it is open). Grey: less "
        f"than {WORTHWHILE:g} times the budget either way.{left_out}"
    )
    return ReportFigure("worth", "What the arms are worth, in budget", figure, numbers, note)


def _worth_of_arms(report_data: ReportData) -> Iterator[tuple[str, str | None, pd.DataFrame]]:
    """Title, cell, and what each arm is worth in each sample of panels and in each panel that is judged alone."""
    for sample in report_data.samples:
        yield sample.name, sample.members[0][0].cell, _factors({arm: sample.worth(arm) for arm in sample.pools})
    for panel, comparison in report_data.alone():
        arms = [arm for arm in report_data.arms if arm in comparison.rows]
        yield panel.short, panel.cell, _factors({arm: comparison.worth(arm) for arm in arms})


def _factors(worth: Mapping[str, Estimate | None]) -> pd.DataFrame:
    """A row for each arm that is worth something known; an end beyond the ladder is the end of the ladder."""
    rows = [
        (arm, each.value, each.low or FACTORS[0], each.high or FACTORS[-1])
        for arm, each in worth.items()
        if each is not None
    ]
    return pd.DataFrame(rows, columns=["arm", "factor", "low", "high"])


def _draw_worth(axes: Axes, data: pd.DataFrame, arms: list[str], styles: Styles) -> None:
    axes.axvspan(-np.log2(WORTHWHILE), np.log2(WORTHWHILE), color=BAND, lw=0, zorder=0)
    axes.axvline(0, color=GREY, lw=0.8)
    for row in data.to_dict("records"):
        ends = np.log2([row["low"], row["factor"], row["high"]])
        draw_interval(axes, arms.index(row["arm"]), ends, styles[row["arm"]])
    axes.set_xlim(np.log2(FACTORS[0]) - 0.1, np.log2(FACTORS[-1]) + 0.1)
    draw_frame(axes, "times the budget", x={float(np.log2(factor)): f"{factor:g}" for factor in FACTORS})
