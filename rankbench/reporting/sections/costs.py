"""What the arms cost: seconds, passes and memory, the method's own decisions charged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from rankbench.analysis.frame import OWN
from rankbench.reporting.plotting import TEXT, ArmStyle, ReportFigure, Sketch, at_most_twelve, draw_frame, facets
from rankbench.reporting.report_data import ReportData, links
from rankbench.reporting.section import Section, present
from rankbench.reporting.table import Cell, Column, Table, linked_rows, number_column, without_first_column
from rankbench.studies.panels import Panel

# Phases in the order in which they are charged; greys, since colours belong to methods.
PHASES = {"training": ("#d0d0d0", ""), "calibration": ("#8f8f8f", "////"), "allocation": ("#222222", "")}
SECONDS = [f"{phase}/seconds" for phase in PHASES]
ROWS = 12  # a longer table is folded on the page
HEIGHT = 0.2  # inches per bar


def make(report_data: ReportData) -> Section:
    """Return the section; it is empty where no run is ok."""
    return Section("cost", "Cost", (), present(["cost", cost_table(report_data)]))


def sketches(report_data: ReportData) -> list[Sketch]:
    """Return the figure of the seconds."""
    return [partial(draw_costs, report_data)]


def cost_table(report_data: ReportData) -> Table | None:
    """A row for each arm of each panel, means over its runs that are ok; None where there is none."""
    columns, rows = ["where"], []
    for panel in report_data.panels:
        means = _means(panel, report_data.arms)
        per_column = _columns(means, report_data.report.reference)
        rows += [[Cell(panel.short), *cells] for cells in linked_rows(per_column, list(means.index), links(panel))]
        columns = ["where", *per_column]
    note = (
        "Means over runs that are ok. Total: training, calibration and allocation; own: calibration and the method's "
        "decisions, in seconds and in passes (forward + backward). Runs that shared a machine took longer than alone."
    )
    table = Table("cost", "Seconds, passes, memory and parameters", columns, rows, [note], folded=len(rows) > ROWS)
    if not rows:
        return None
    return table if len(report_data.panels) > 1 else without_first_column(table)


def _columns(means: pd.DataFrame, reference: str) -> dict[str, Column]:
    total = means[SECONDS].sum(axis=1, skipna=False)
    own = means[["calibration/seconds", "allocation/seconds"]].sum(axis=1, skipna=False)
    base = total[reference] if reference in means.index else float("nan")
    return {
        "arm": {arm: Cell(arm) for arm in means.index},
        **{f"{phase} s": number_column(means[f"{phase}/seconds"], "{:,.1f}") for phase in PHASES},
        "total s": number_column(total, "{:,.1f}"),
        f"/ {reference}": number_column(total / base, "{:.2f}"),
        "own share": number_column(100 * own / total, "{:.1f} %"),
        "own passes": number_column(means[OWN].sum(axis=1, skipna=False), "{:,.0f}"),
        "peak MiB": number_column(means["peak_memory_bytes"] / 2**20, "{:,.0f}"),
        "start params": number_column(means["start/params"], "{:,.0f}"),
        "peak params": number_column(means["peak/params"], "{:,.0f}"),
        "final params": number_column(means["final/params"], "{:,.0f}"),
    }


def _means(panel: Panel, arms: Sequence[str]) -> pd.DataFrame:
    wanted = [*SECONDS, *OWN, "peak_memory_bytes", "start/params", "peak/params", "final/params"]
    done = panel.data[panel.data["status"] == "ok"].reindex(columns=["label", *wanted])
    means = done.astype({name: float for name in wanted}).groupby("label")[wanted].mean()
    return means.reindex([arm for arm in arms if arm in means.index])


def draw_costs(report_data: ReportData) -> ReportFigure | None:
    """A bar for each arm: training, calibration and the method's own decisions, in seconds; None where none ran."""
    panels, arms, style = report_data.panels, report_data.arms, report_data.styles
    per_panel = [
        (panel, means) for panel in panels for means in [_means(panel, arms)[SECONDS]] if means.notna().any(axis=None)
    ]
    if not per_panel:
        return None
    first, left_out = at_most_twelve(per_panel)
    most = max(len(data) for _, data in first)
    letters = max(len(str(arm)) for _, data in first for arm in data.index)
    handles = [
        Patch(facecolor=shade, hatch=hatch, edgecolor="white", lw=0, label=phase)
        for phase, (shade, hatch) in PHASES.items()
    ]
    cell = (2.2, HEIGHT * most + 0.1)
    figure, all_axes = facets([panel.short for panel, _ in first], handles, cell, 0.068 * letters + 0.15)
    for axes, (_, data) in zip(all_axes, first, strict=True):
        _bars(axes, data, style)
    values = pd.concat([data.rename_axis("arm").reset_index().assign(panel=panel.title) for panel, data in per_panel])
    note = (
        "Mean seconds of the runs that are ok. Calibration and allocation are the method's own; evaluation is left out."
    )
    return ReportFigure("cost", "Where the seconds went", figure, values, note + left_out)


def _bars(axes: Axes, data: pd.DataFrame, style: Mapping[str, ArmStyle]) -> None:
    left = pd.Series(0.0, index=data.index)
    for phase, (shade, hatch) in PHASES.items():
        values = data[f"{phase}/seconds"].fillna(0.0)
        axes.barh(range(len(data)), values, left=left, color=shade, hatch=hatch, edgecolor="white", lw=0)
        left += values
    axes.set_ylim(len(data) - 0.4, -0.6)
    for index, arm in enumerate(data.index):
        ink: dict[str, Any] = {"fontsize": TEXT - 1, "color": style[str(arm)].colour}
        axes.text(-0.02, index, arm, transform=axes.get_yaxis_transform(), ha="right", va="center", **ink)
    draw_frame(axes, "seconds", "", y={})
