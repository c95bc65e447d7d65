"""Settings varied in a report: the metric over one setting as a curve, over two as a heat map."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from rankbench.analysis.metrics import title_of
from rankbench.reporting.comparison_table import EXPLORATORY, make_table
from rankbench.reporting.plotting import (
    FAR,
    GREY,
    TEXT,
    ReportFigure,
    Sketch,
    at_most_twelve,
    draw_frame,
    facets,
    last_part,
    logarithmic,
    shade,
)
from rankbench.reporting.report_data import ReportData, links
from rankbench.reporting.section import Block, Section, panel_tables
from rankbench.reporting.table import Table
from rankbench.statistics.estimates import mean_interval
from rankbench.studies.ablations import Ablation
from rankbench.studies.panels import Panel

TICKS = 6  # of x, where values are numbers


def make(report_data: ReportData) -> Section:
    """Return the section; it is empty where no setting is varied."""
    blocks: list[Block] = ["curves"]
    for ablation in report_data.ablations:
        blocks += [ablation.name, *panel_tables(ablation.title, _tables(report_data, ablation))]
    return Section("ablations", "Settings varied", (), blocks)


def sketches(report_data: ReportData) -> list[Sketch]:
    """Return curves and heat maps; the curves of a single panel are one figure."""
    return list(_sketches(report_data))


def _sketches(report_data: ReportData) -> Iterator[Sketch]:
    for ablation in report_data.ablations:
        if len(ablation.keys) == 2:
            yield partial(draw_grid, ablation, report_data)
        elif ablation.keys and len(report_data.panels) > 1:
            yield partial(draw_ablation, ablation, report_data)
    if len(report_data.panels) == 1:
        yield partial(draw_ablations, report_data)


def _tables(report_data: ReportData, ablation: Ablation) -> dict[str, Table]:
    """Panel -> table of the arms that vary a setting, against the one that leaves it at its default."""
    tables = {
        panel.short: make_table(
            comparison, f"{ablation.name}-{panel.name}", f"{ablation.title}: {panel.title}", links(panel)
        )
        for panel, comparison in report_data.varied[ablation.name]
    }
    return {panel: replace(table, notes=[*table.notes, EXPLORATORY]) for panel, table in tables.items()}


def ablation_points(panel: Panel, ablation: Ablation) -> pd.DataFrame:
    """A row for each arm with a run that is ok: its values of the keys, mean, low, high and n of the panel's metric."""
    rows = []
    for arm in ablation.arms:
        values = ablation.values(panel, arm)
        measured = panel.measured(arm)
        if values is not None and len(measured):
            mean = mean_interval(measured)
            rows.append((arm, *values, arm == ablation.base, mean.mean, mean.low, mean.high, mean.n))
    columns = ["arm", *ablation.keys, "base", "mean", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns).astype({"low": float, "high": float})  # NaN without an interval


def points_of(ablation: Ablation, report_data: ReportData) -> list[tuple[Panel, pd.DataFrame]]:
    """Panels with their `ablation_points`, where they have any."""
    points = [(panel, ablation_points(panel, ablation)) for panel in report_data.panels]
    return [(panel, data) for panel, data in points if len(data)]


def draw_ablation(ablation: Ablation, report_data: ReportData) -> ReportFigure | None:
    """The metric over one setting: an axes for each panel. None where no run that is ok has it."""
    curves = [(panel.short, ablation, panel, data) for panel, data in points_of(ablation, report_data)]
    return _draw_curves(curves, report_data, ablation.name, ablation.title)


def draw_ablations(report_data: ReportData) -> ReportFigure | None:
    """Several settings in a single panel: an axes for each setting, on one scale."""
    curves = [ablation for ablation in report_data.ablations if len(ablation.keys) == 1]
    points = [(each.title, each, panel, data) for each in curves for panel, data in points_of(each, report_data)]
    return _draw_curves(points, report_data, "curves", "Settings varied, one at a time")


def _draw_curves(
    curves: Sequence[tuple[str, Ablation, Panel, pd.DataFrame]], report_data: ReportData, name: str, title: str
) -> ReportFigure | None:
    """Draw each curve in an axes, with 95 % intervals and the reference as a band; axes of one metric share a scale."""
    if not curves:
        return None
    first, left_out = at_most_twelve(curves)
    figure, all_axes = facets([short for short, *_ in first])
    reference, style = report_data.report.reference, report_data.styles
    all_ticks = []
    for axes, (_, ablation, panel, data) in zip(all_axes, first, strict=True):
        _band(axes, panel, reference)
        all_ticks.append(_draw_curve(axes, data, ablation.keys[0], style[str(data["arm"].iloc[0])].colour))
    for metric in {panel.metric for _, _, panel, _ in first}:
        _share_scale([axes for axes, (_, _, panel, _) in zip(all_axes, first, strict=True) if panel.metric == metric])
    for axes, ticks, (_, ablation, panel, _) in zip(all_axes, all_ticks, first, strict=True):
        draw_frame(axes, last_part(ablation.keys[0]), title_of(panel.metric), ticks)
    note = (
        "Means over seeds and their 95 % intervals; ring: the arm that is varied, as it is by default; grey: "
        f"{reference} and its interval. Seeds are shared, so differences are seen more finely than these intervals: "
        f"see the tables.{left_out}"
    )
    numbers = [
        data.rename(columns={ablation.keys[0]: "value"}).assign(setting=ablation.keys[0], panel=panel.title)
        for _, ablation, panel, data in curves
    ]
    return ReportFigure(name, title, figure, pd.concat(numbers), note)


def _draw_curve(axes: Axes, data: pd.DataFrame, key: str, colour: str) -> dict[float, str]:
    """Draw one line; return the ticks of its x."""
    x_of, ticks = _along(axes, data[key].tolist())
    points = data.assign(x=[x_of[value] for value in data[key]]).sort_values("x")
    points = points.drop_duplicates("x")  # the base and an arm that names the same value
    errors = [points["mean"] - points["low"], points["high"] - points["mean"]]
    lines: dict[str, Any] = {"marker": "o", "ms": 4, "lw": 1.2, "elinewidth": 0.9, "capsize": 2}
    axes.errorbar(points["x"], points["mean"], yerr=errors, color=colour, **lines)
    base = points[points["base"]]
    axes.plot(base["x"], base["mean"], "o", ms=9, mfc="none", mec=colour, mew=1.1)
    return ticks


def _share_scale(several: Sequence[Axes]) -> None:
    lows, highs = zip(*(axes.get_ylim() for axes in several), strict=True)
    for axes in several:
        axes.set_ylim(min(lows), max(highs))


def _along(axes: Axes, values: Sequence[str]) -> tuple[dict[str, float], dict[float, str]]:
    """Positions of values on x, and ticks: words in a row, numbers by size, on a logarithmic scale if far apart."""
    try:
        numbers = {value: float(value) for value in values}
    except ValueError:
        in_a_row = {value: float(index) for index, value in enumerate(dict.fromkeys(values))}
        return in_a_row, {index: value for value, index in in_a_row.items()}
    if min(numbers.values()) > 0 and max(numbers.values()) > FAR * min(numbers.values()):
        return numbers, logarithmic(axes, list(numbers.values()))
    ordered = sorted(numbers.items(), key=lambda pair: pair[1])
    return numbers, {number: value for value, number in ordered[:: math.ceil(len(ordered) / TICKS)]}


def _band(axes: Axes, panel: Panel, reference: str) -> None:
    """Draw the mean and interval of the reference all along x."""
    measured = panel.measured(reference)
    if measured.empty:
        return
    interval = mean_interval(measured)
    axes.axhline(interval.mean, color=GREY, lw=1)
    if interval.low is not None and interval.high is not None:
        axes.axhspan(interval.low, interval.high, color=GREY, alpha=0.15, lw=0)


def draw_grid(ablation: Ablation, report_data: ReportData) -> ReportFigure | None:
    """The metric over two settings: a heat map for each panel, each with its own scale."""
    (down, across), points = ablation.keys, points_of(ablation, report_data)
    if not points:
        return None
    first, left_out = at_most_twelve(points)
    figure, all_axes = facets([panel.short for panel, _ in first], left=0.75)
    for axes, (_, data) in zip(all_axes, first, strict=True):
        table = data.drop_duplicates([down, across]).pivot(index=down, columns=across, values="mean")
        table = table.reindex(index=_sorted(table.index), columns=_sorted(table.columns))
        shade(axes, table.to_numpy(float), *_ends(table))
        for (row, column), value in np.ndenumerate(table.to_numpy(float)):
            if not math.isnan(value):
                low, high = _ends(table)
                ink = "white" if value < low + 0.6 * (high - low) else "black"
                axes.text(column, row, f"{value:.3f}", ha="center", va="center", fontsize=TEXT - 1, color=ink)
        x, y = (
            {float(index): str(value) for index, value in enumerate(values)} for values in (table.columns, table.index)
        )
        draw_frame(axes, last_part(across), last_part(down), x, y)
    numbers = pd.concat([data.assign(panel=panel.title) for panel, data in points])
    note = "Means over seeds; light is more; each panel has a scale of its own; grey: not run, or no run that is ok."
    note += left_out
    return ReportFigure(ablation.name, ablation.title, figure, numbers, note)


def _ends(table: pd.DataFrame) -> tuple[float, float]:
    values = table.to_numpy(float)
    return float(np.nanmin(values)), float(np.nanmax(values))


def _sorted(values: Sequence[str] | pd.Index) -> list[str]:
    """The values, by size where all are numbers."""
    try:
        return sorted(values, key=float)
    except ValueError:
        return list(values)
