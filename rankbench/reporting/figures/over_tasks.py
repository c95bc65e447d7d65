"""Every arm on every task, in smallest effects of interest; and on every panel of a sample."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rankbench.analysis.comparison import Comparison
from rankbench.analysis.labels import arm_title, file_name, metric_title, panel_title
from rankbench.analysis.metrics import higher_is_better
from rankbench.reporting.amounts import amount_of
from rankbench.reporting.decisions import Sample
from rankbench.reporting.figures.heat_maps import DIVERGING, colour_bar, draw_tiles
from rankbench.reporting.figures.layout import (
    ROW,
    Room,
    arm_handles,
    arm_labels,
    draw_frame,
    draw_interval,
    facets,
    labelled_rows,
    widest,
)
from rankbench.reporting.plotting import BAND, GREY, PAGE, ReportFigure, Styles
from rankbench.reporting.report_data import ReportData
from rankbench.statistics.estimates import mean_interval

ARMS = 12  # that are drawn
SHOWN = 0.95  # share of the differences that are not beyond the shades
NARROW = 0.085  # inches of an arm on a task
FILLED = 0.75  # share of the height of a task that its arms take
COLUMNS = ["panel", "arm", "gain", "low", "high"]


def draw_over_tasks(report_data: ReportData) -> ReportFigure | None:
    """A block for each panel or sample, with a row for each arm of which something is claimed.

    None with fewer than two tasks.
    """
    tasks = {panel.facts["task"] for panel, _ in report_data.compared()}
    rows = [
        *((panel_title(sample.name), *row) for sample in report_data.samples for row in _pooled_gains(sample)),
        *(
            (panel_title(panel.short), arm, *gain)
            for panel, comparison in report_data.alone()
            for arm in report_data.claimed
            if (gain := _gain(comparison, arm)) is not None
        ),
    ]
    if len(tasks) < 2 or not rows:
        return None
    data = pd.DataFrame(rows, columns=COLUMNS).astype({"low": float, "high": float})
    panels, arms = list(data["panel"].unique()), [arm for arm in report_data.claimed if arm in set(data["arm"])][:ARMS]
    handles = arm_handles(arms, report_data.styles, lines=False)
    row = max(0.16, NARROW * len(arms) + 0.03)
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


def _pooled_gains(sample: Sample) -> Iterator[tuple[str, float, float | None, float | None]]:
    """Each arm that is judged over a sample: its mean gain in smallest effects, with its simultaneous interval."""
    smallest = sample.together.smallest
    for arm, pooled in sample.pools.items():
        if gain := pooled.decision.intervals.get(sample.reference):
            low, high = (end if end is None else end / smallest for end in (gain.low, gain.high))
            yield arm, gain.mean / smallest, low, high


def draw_sample(sample: Sample) -> ReportFigure | None:
    """A shade for each arm on each panel of a sample, the best arm first; None where their metrics differ."""
    if not sample.together.one_unit:
        return None
    metric = sample.together.comparisons[0].metrics[0]
    differences = _by_panel(sample, metric)
    labels, panels = arm_labels(list(differences.index)), list(differences.columns)
    room = Room(widest(labels) + 0.08, 0.0, widest(panels) + 0.1, bar=0.6)
    figure, (axes,) = facets([""], room=room, height=ROW * len(labels), width=PAGE)
    limit = float(np.nanquantile(differences.abs(), SHOWN))
    image = draw_tiles(axes, differences.to_numpy(), -limit, limit, DIVERGING)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xticks(range(len(panels)), panels, rotation=90)
    unit = metric_title(metric, short=True) + ", %" * sample.terms.log
    colour_bar(figure, [axes], image, f"difference in {unit}")
    better = "below" if not higher_is_better(metric) else "above"
    note = (
        f"Mean paired difference to {arm_title(sample.reference)} on each panel, the best mean on top; {better} 0 is "
        f"better. Shades end at {limit:.3g}. One by one these are exploratory: the verdict is on their mean."
    )
    data = differences.rename_axis("arm").reset_index().melt("arm", var_name="panel", value_name="difference")
    return ReportFigure(f"sample-{file_name(sample.shared)}", f"Panel by panel: {sample.title}", figure, data, note)


def _by_panel(sample: Sample, metric: str) -> pd.DataFrame:
    """Mean paired differences to the reference: arms, the best mean first, by panels."""
    pairs = {panel_title(panel.short): (comparison, comparison.paired[metric]) for panel, comparison in sample.members}
    differences = pd.DataFrame(
        {
            panel: {
                arm: amount_of(comparison.terms, float(of_arm[arm].mean()), rises=True)
                for arm in sample.pools
                if len(of_arm.get(arm, ()))
            }
            for panel, (comparison, of_arm) in pairs.items()
        }
    )
    means = differences.mean(axis=1).sort_values(ascending=not higher_is_better(metric))
    return differences.loc[means.index].rename(columns=str)


def _draw_blocks(axes: Axes, data: pd.DataFrame, panels: list[str], arms: list[str], styles: Styles) -> None:
    axes.axvspan(-1, 1, color=BAND, lw=0, zorder=0)
    axes.axvline(0, color=GREY, lw=0.8)
    for row in data[data["arm"].isin(arms)].to_dict("records"):
        y = panels.index(row["panel"]) + FILLED * ((arms.index(row["arm"]) + 0.5) / len(arms) - 0.5)
        draw_interval(axes, y, (row["low"], row["gain"], row["high"]), styles[row["arm"]])
    draw_frame(axes, "gain, smallest effects of interest")
    axes.set_ylim(len(panels) - 0.5, -0.5)
