"""What quality costs: the metric over the parameters that were spent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes

from rankbench.comparison import OFF
from rankbench.drawing import Drawing, Look, arm_handles, draw_frame, facets, logarithmic
from rankbench.panels import Panel
from rankbench.stats import mean_interval

APART = 0.006  # of x, between arms


def spent(panel: Panel, arms: Sequence[str]) -> pd.DataFrame:
    """A row for each arm with runs that are ok: params at the end, share of the target, and the metric."""
    rows = []
    for arm in arms:
        measured = panel.measured(arm)
        if len(measured):
            found, done = mean_interval(measured), panel.data.loc[measured.index]
            used = (done["final/params"].mean(), done["peak/params"].mean(), _share(done))
            rows.append((arm, panel.facts["budget"], *used, found.mean, found.low, found.high, found.n))
    columns = ["arm", "budget", "final_params", "peak_params", "share", "mean", "low", "high", "n"]
    ends = {"low": float, "high": float}  # NaN without an interval
    return pd.DataFrame(rows, columns=columns).astype(ends)


def _share(done: pd.DataFrame) -> float:
    """Of the target, in the unit and at the moment in which it was matched; a mean over runs."""
    spent_of = [row.get(f"{row['match']}/{row['unit']}") for row in done.to_dict("records")]
    return float((pd.Series(spent_of, dtype=float) / done["target"].astype(float).to_numpy()).mean())


def draw_frontier(panels: Sequence[Panel], arms: Sequence[str], style: Mapping[str, Look], name: str) -> Drawing | None:
    """Budgets of one model and task in one panel, the points of an arm joined; hollow: off the budget.

    None where every arm spent the same everywhere: there is no frontier.
    """
    groups: dict[str, list[Panel]] = defaultdict(list)
    for panel in panels:
        groups[", ".join([panel.facts["model"], panel.facts["task"], *panel.rest])].append(panel)
    data = {
        title: pd.concat([spent(panel, arms) for panel in group], ignore_index=True) for title, group in groups.items()
    }
    data = {title: rows for title, rows in data.items() if len(rows) and _spread(rows)}
    if not data:
        return None
    there = [arm for arm in arms if any((rows["arm"] == arm).any() for rows in data.values())]
    figure, places = facets(list(data), arm_handles(there, style))
    for axes, (title, rows) in zip(places, data.items(), strict=True):
        for place, arm in enumerate(there):
            apart = 1 + APART * (place - len(there) / 2)
            _draw_arm(axes, rows[rows["arm"] == arm].sort_values("final_params"), style[arm], apart)
        wide = rows["final_params"].max() > 3 * rows["final_params"].min()
        on_budget = rows[(rows["share"] - 1).abs() <= OFF].groupby("budget", sort=False)["final_params"].mean()
        ticks = logarithmic(axes, on_budget.tolist()) if wide and len(on_budget) else None
        draw_frame(axes, "adapter parameters at the end", groups[title][0].metric, ticks)
    numbers = pd.concat([rows.assign(panel=title) for title, rows in data.items()])
    note = (
        "Means over seeds, 95 % intervals; the budgets of an arm are joined; hollow: more than 1 % off the budget. "
        "Arms that spent the same stand a little apart."
    )
    return Drawing(name, "Quality over the budget spent", figure, numbers, note)


def _draw_arm(axes: Axes, line: pd.DataFrame, look: Look, apart: float) -> None:
    x, errors = line["final_params"] * apart, [line["mean"] - line["low"], line["high"] - line["mean"]]
    axes.errorbar(x, line["mean"], yerr=errors, color=look.colour, ls=look.dash, lw=1.1, elinewidth=0.7)
    for equal, points in line.groupby((line["share"] - 1).abs() <= OFF):
        fill = look.colour if equal else "white"
        axes.plot(x[points.index], points["mean"], look.marker, color=look.colour, mfc=fill, ms=4.5, ls="none")


def _spread(rows: pd.DataFrame) -> bool:
    return bool(rows["final_params"].max() > (1 + 2 * OFF) * rows["final_params"].min())
