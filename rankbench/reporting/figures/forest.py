"""The forest plot: every arm's difference to the reference with its simultaneous interval, sorted."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rankbench.analysis.comparison import Comparison
from rankbench.analysis.labels import arm_title, metric_title, panel_title
from rankbench.analysis.metrics import higher_is_better
from rankbench.analysis.terms import Terms
from rankbench.reporting.amounts import amount_of, difference_of
from rankbench.reporting.decisions import Sample
from rankbench.reporting.figures.layout import (
    arm_labels,
    best_first,
    chosen,
    draw_frame,
    draw_interval,
    inches,
    labelled_rows,
    wrapped,
)
from rankbench.reporting.plotting import BAND, GREY, PAGE, SMALL, WIDE, ReportFigure, Styles
from rankbench.reporting.report_data import ReportData
from rankbench.statistics.estimates import PairedDifference

ROWS = 26  # with more, controls are left out
PANELS = 8
WIDEST = 2.0  # inches of the label of an arm
BEYOND = 1.6  # times the range of most intervals: what reaches farther is cut
COLUMNS = ["panel", "arm", "mean", "low", "high", "n", "claim"]


@dataclass(frozen=True)
class Forest:
    """The differences of one panel, or of panels taken together.

    Attributes:
        title: what is drawn.
        cell: its cell of the experiment.
        across: label of x.
        rows: frame of COLUMNS but `panel`; claim: whether something is claimed of the arm.
        margin: low and high end of the smallest effect of interest; None without one.
        higher: whether more is better.
    """

    title: str
    cell: str | None
    across: str
    rows: pd.DataFrame
    margin: tuple[float, float] | None
    higher: bool


def draw_forest(report_data: ReportData) -> ReportFigure | None:
    """Panels that are taken together by their pooled estimates, the others each; None where nothing is compared."""
    everything = [forest for forest in forests(report_data) if len(forest.rows)]
    if not everything:
        return None
    drawn, left_out = chosen(everything, [forest.cell for forest in everything], PANELS)
    order, without_controls = _order(drawn, report_data.report.controls)
    asked = sum(arm in report_data.report.controls for arm in order)
    count = len(drawn)
    figure, all_axes = labelled_rows(
        [panel_title(forest.title) if len(everything) > 1 else "" for forest in drawn],
        arm_labels(order, WIDEST),
        below=0.42 if count == 1 else 0.52,
        width=PAGE if count <= 3 else WIDE,
        columns=min(count, 4),
    )
    limits: dict[str, float] = {}
    for forest in drawn:  # panels with one unit have one scale
        limits[forest.across] = max(_limit(forest), limits.get(forest.across, 0.0))
    for axes, forest in zip(all_axes, drawn, strict=True):
        _draw_panel(axes, forest, order, report_data.styles, limits[forest.across])
        if 0 < asked < len(order):
            axes.axhline(asked - 0.5, color=GREY, lw=0.6, ls=":")
    numbers = pd.concat([forest.rows.assign(panel=forest.title) for forest in everything])[COLUMNS]
    reference = arm_title(report_data.report.reference)
    above = " Above the dotted line: the arms with controls of their own." * (0 < asked < len(order))
    note = (
        f"Difference to {reference}, with intervals that hold together with "
        f"{report_data.report.level * 100:g} % (thick: 0 is left out). Grey band: smaller than the smallest effect of "
        f"interest. Hollow: nothing is claimed of the arm.{above}{without_controls}{left_out}"
    )
    return ReportFigure("forest", f"Differences to {reference}", figure, numbers, note)


def forests(report_data: ReportData) -> Iterator[Forest]:
    """Panels that are taken together, then those that are not."""
    yield from map(_pooled, report_data.samples)
    for panel, comparison in report_data.alone():
        if comparison.reference is not None:
            yield _single(panel.short, panel.cell, comparison)


def _single(title: str, cell: str | None, comparison: Comparison) -> Forest:
    metric, terms = comparison.metrics[0], comparison.terms
    differences = {
        arm: (difference, comparison.why_untested(arm) is None)
        for arm in comparison.rows
        if (difference := comparison.difference(metric, arm)) is not None
    }
    return _forest(title, cell, terms, metric, differences)


def _pooled(sample: Sample) -> Forest:
    panel, first = sample.members[0]
    metric = first.metrics[0] if sample.together.one_unit else ""
    rises = not metric or bool(higher_is_better(metric))
    gains = {arm: pool.decision.intervals.get(sample.reference) for arm, pool in sample.pools.items()}
    differences = {
        arm: (difference_of(gain, rises), not sample.is_off(arm)) for arm, gain in gains.items() if gain is not None
    }
    return _forest(sample.name, panel.cell, sample.terms, metric, differences)


def _forest(
    title: str, cell: str | None, terms: Terms, metric: str, differences: dict[str, tuple[PairedDifference, bool]]
) -> Forest:
    def x(change: float | None) -> float:
        return float("nan") if change is None else amount_of(terms, change, rises=True)

    rows = [
        (arm, x(change.mean), x(change.low), x(change.high), change.n, claim)
        for arm, (change, claim) in differences.items()
    ]
    name = metric_title(metric, short=True) if metric else "gain, smallest effects"
    across = f"difference in {name.partition(',')[0]}, %" if terms.log else f"difference in {name}" if metric else name
    higher = bool(higher_is_better(metric)) if metric else True
    margin = None if terms.margin is None else (x(-terms.margin), x(terms.margin))
    return Forest(title, cell, across, pd.DataFrame(rows, columns=COLUMNS[1:]), margin, higher)


def _order(drawn: Sequence[Forest], asked: Collection[str]) -> tuple[list[str], str]:
    """Arms that are asked about first, controls last, each part from the best to the worst over the panels.

    The sentence says where controls are left out.
    """
    order = best_first(
        forest.rows.sort_values(["claim", "mean"], ascending=[False, not forest.higher])["arm"] for forest in drawn
    )
    order = sorted(order, key=lambda arm: arm not in asked)
    claims = {arm for forest in drawn for arm in forest.rows["arm"][forest.rows["claim"]]}
    if len(order) <= ROWS or not claims:
        return order, ""
    return [arm for arm in order if arm in claims], f" {len(order) - len(claims)} controls stand in the CSV alone."


def _draw_panel(axes: Axes, forest: Forest, order: Sequence[str], styles: Styles, limit: float) -> None:
    if forest.margin is not None:
        axes.axvspan(*forest.margin, color=BAND, lw=0, zorder=0)
    axes.axvline(0, color=GREY, lw=0.8, zorder=1)
    for row in forest.rows[forest.rows["arm"].isin(order)].to_dict("records"):
        y, style = order.index(row["arm"]), replace(styles[row["arm"]], hollow=not row["claim"])
        low, mean, high = np.clip([row["low"], row["mean"], row["high"]], -limit, limit)
        draw_interval(axes, y, (low, mean, high), style, 2.2 if low > 0 or high < 0 else 0.9)
        for end, edge in ((low, "<"), (high, ">")):
            if abs(end) == limit:
                axes.plot(end, y, edge, color=style.colour, ms=3)
    axes.set_xlim(-1.03 * limit, 1.03 * limit)
    arrow = "better →" if forest.higher else "← better"
    across = wrapped(forest.across, inches(axes)[0], 3, SMALL)
    draw_frame(axes, f"{arrow}\n{across}")


def _limit(forest: Forest) -> float:
    """Half the width of x: every mean, and all of most intervals."""
    ends = forest.rows[["low", "high"]].abs().max(axis=1)
    ends = ends[np.isfinite(ends)]
    most = float(np.quantile(ends, 0.75)) * BEYOND if len(ends) else 0.0
    margin = max(map(abs, forest.margin)) if forest.margin else 0.0
    whole = max([*ends, 0.0])
    return max(min(whole, most), float(forest.rows["mean"].abs().max()), 1.5 * margin) * 1.05 or 1.0
