"""The metric over settings: over one as a curve, over two as a heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from rankbench.analysis.labels import arm_title, metric_title, panel_title, setting_title
from rankbench.reporting.figures.heat_maps import colour_bar, draw_tiles, write_numbers
from rankbench.reporting.figures.layout import FAR, Room, chosen, draw_frame, facets, logarithmic, panel_titles, widest
from rankbench.reporting.plotting import BAND, GREY, ArmStyle, ReportFigure
from rankbench.reporting.report_data import ReportData
from rankbench.statistics.estimates import mean_interval
from rankbench.studies.ablations import Ablation
from rankbench.studies.panels import Panel

TICKS = 6  # of x, where values are numbers
ROW, BAR = 0.2, 0.6  # inches of a row of a heat map, and of its colour bar
Varied = tuple[str, Ablation, Panel, pd.DataFrame]  # title, ablation, panel, its points


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
    curves = [(panel_title(panel.short), ablation, panel, data) for panel, data in points_of(ablation, report_data)]
    return _draw_curves(curves, report_data, ablation.name, ablation.title)


def draw_ablations(report_data: ReportData) -> ReportFigure | None:
    """Several settings in a single panel: an axes for each setting, on one scale."""
    curves = [ablation for ablation in report_data.ablations if len(ablation.keys) == 1]
    points = [(each.title, each, panel, data) for each in curves for panel, data in points_of(each, report_data)]
    return _draw_curves(points, report_data, "curves", "Settings varied, one at a time")


def _draw_curves(curves: Sequence[Varied], report_data: ReportData, name: str, title: str) -> ReportFigure | None:
    """Draw each curve in an axes, with 95 % intervals and the reference as a band; axes of one metric share a scale."""
    if not curves:
        return None
    drawn, left_out = chosen(curves, [panel.cell for _, _, panel, _ in curves])
    figure, all_axes = facets([short for short, *_ in drawn], room=Room(0.55))
    reference, styles = report_data.report.reference, report_data.styles
    panels = list(zip(all_axes, drawn, strict=True))
    all_ticks = []
    for axes, (_, ablation, panel, data) in panels:
        _band(axes, panel, reference)
        all_ticks.append(_draw_curve(axes, data, ablation.keys[0], styles[str(data["arm"].iloc[0])]))
    for metric in {panel.metric for _, _, panel, _ in drawn}:
        alike = [axes for axes, (_, _, panel, _) in panels if panel.metric == metric]
        lows, highs = zip(*(axes.get_ylim() for axes in alike), strict=True)
        for axes in alike:
            axes.set_ylim(min(lows), max(highs))
    for (axes, (_, ablation, panel, _)), ticks in zip(panels, all_ticks, strict=True):
        draw_frame(axes, setting_title(ablation.keys[0]), metric_title(panel.metric, short=True), ticks)
    note = (
        "Means over seeds and their 95 % intervals; ring: the arm that is varied, as it is by default; grey: "
        f"{arm_title(reference)} and its interval. Seeds are shared, so differences are seen more finely than these "
        f"intervals: see the tables.{left_out}"
    )
    numbers = [
        data.rename(columns={ablation.keys[0]: "value"}).assign(setting=ablation.keys[0], panel=panel.title)
        for _, ablation, panel, data in curves
    ]
    return ReportFigure(name, title, figure, pd.concat(numbers), note)


def _draw_curve(axes: Axes, data: pd.DataFrame, key: str, style: ArmStyle) -> dict[float, str]:
    """Draw one line; return the ticks of its x."""
    x_of, ticks = _along(axes, data[key].tolist())
    points = data.assign(x=[x_of[value] for value in data[key]]).sort_values("x")
    points = points.drop_duplicates("x")  # the base and an arm that names the same value
    errors = [points["mean"] - points["low"], points["high"] - points["mean"]]
    axes.errorbar(points["x"], points["mean"], yerr=errors, elinewidth=0.8, **style.line)
    base = points[points["base"]]
    axes.plot(base["x"], base["mean"], "o", ms=7, mfc="none", mec=style.colour, mew=0.9)
    return ticks


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
    if interval.low is not None and interval.high is not None:
        axes.axhspan(interval.low, interval.high, color=BAND, lw=0, zorder=0)
    axes.axhline(interval.mean, color=GREY, lw=0.8, zorder=0.5)


def draw_grid(ablation: Ablation, report_data: ReportData) -> ReportFigure | None:
    """The metric over two settings: a heat map for each panel; those of one metric share their scale."""
    points = points_of(ablation, report_data)
    if not points:
        return None
    drawn, left_out = chosen(points, [panel.cell for panel, _ in points])
    down, across = ablation.keys
    unique = (data.drop_duplicates([down, across]) for _, data in drawn)
    tables = [data.pivot(index=down, columns=across, values="mean") for data in unique]
    tables = [table.reindex(index=_sorted(table.index), columns=_sorted(table.columns)) for table in tables]
    figure, all_axes = facets(
        panel_titles([panel.short for panel, _ in drawn]),
        room=Room(0.46 + widest([text for table in tables for text in table.index]), BAR),
        height=ROW * max(len(table) for table in tables),
        columns=2 if len(drawn) > 1 else 1,
    )
    for axes, table, (panel, _) in zip(all_axes, tables, drawn, strict=True):
        alike = pd.concat([data["mean"] for each, data in drawn if each.metric == panel.metric])
        values = table.to_numpy(float)
        image = draw_tiles(axes, values, alike.min(), alike.max())
        write_numbers(axes, values, image, "{:.3f}")
        x, y = ({float(place): text for place, text in enumerate(texts)} for texts in (table.columns, table.index))
        draw_frame(axes, setting_title(across), setting_title(down), x, y)
        colour_bar(figure, [axes], image, metric_title(panel.metric, short=True))
    numbers = pd.concat([data.assign(panel=panel.title) for panel, data in points])
    note = f"Means over seeds. Panels of one metric have one scale; grey: not run, or no run that is ok.{left_out}"
    return ReportFigure(ablation.name, ablation.title, figure, numbers, note)


def _sorted(values: Sequence[str] | pd.Index) -> list[str]:
    """The values, by size where all are numbers."""
    try:
        return sorted(values, key=float)
    except ValueError:
        return list(values)
