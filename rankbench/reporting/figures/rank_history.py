"""Ranks over the steps of a run: their total, by arm, and those of each kind of site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from rankbench.analysis.labels import arm_title, panel_title
from rankbench.reporting.figures.heat_maps import SHADES
from rankbench.reporting.figures.layout import Room, chosen, draw_frame, facets
from rankbench.reporting.figures.lines import Curve, draw_lines
from rankbench.reporting.figures.panel_groups import panel_groups
from rankbench.reporting.plotting import DASHES, MARKERS, ReportFigure
from rankbench.reporting.report_data import ReportData
from rankbench.studies import study
from rankbench.studies.panels import Panel


def rank_totals(panels: Sequence[Panel], curves: Mapping[str, study.Curve], arms: Sequence[str]) -> pd.DataFrame:
    """Frame of arm, step, mean, low, high (over runs) and n of the rank total, for runs that are ok and have ranks."""
    rows = []
    for arm in arms:
        runs = [
            curves[run.job.run_id]
            for panel in panels
            for run in panel.runs
            if run.arm == arm and run.status == "ok" and run.record and run.record.ranks and curves.get(run.job.run_id)
        ]
        if runs:
            totals = pd.DataFrame([dict(run) for run in runs]).sort_index(axis=1).ffill(axis=1).bfill(axis=1)
            summary = pd.DataFrame({"mean": totals.mean(), "low": totals.min(), "high": totals.max()})
            rows.append(summary.assign(arm=arm, step=totals.columns, n=len(runs)))
    columns = ["arm", "step", "mean", "low", "high", "n"]
    return pd.concat(rows, ignore_index=True)[columns] if rows else pd.DataFrame(columns=columns)


def draw_rank_totals(report_data: ReportData) -> ReportFigure | None:
    """Rank totals as step functions, means over seeds with their range; None where no run logged its steps."""
    groups = panel_groups(report_data, report_data.panels).items()
    totals = [
        (panel_title(title), panels[0], rank_totals(panels, report_data.study.curves, report_data.arms))
        for title, panels in groups
    ]
    totals = [each for each in totals if len(each[2])]
    if not totals:
        return None
    drawings = [
        (title, panel, [_curve(str(arm), line) for arm, line in data.groupby("arm", sort=False)])
        for title, panel, data in totals
    ]

    def finish(axes: Axes, number: int) -> None:
        axes.set_ylim(0, totals[number][2]["high"].max() * 1.08)
        draw_frame(axes, "step", "rank total")

    figure, left_out = draw_lines(drawings, report_data.styles, finish, steps=True)
    numbers = pd.concat([data.assign(panel=title) for title, _, data in totals])
    note = f"Mean over runs; band: their range.{left_out}"
    return ReportFigure("rank-totals", "Rank total over the steps", figure, numbers, note)


def _curve(arm: str, line: pd.DataFrame) -> Curve:
    moves = (line["low"] < line["high"]).any()
    return Curve(arm, line["step"], line["mean"], *((line["low"], line["high"]) if moves else ()))


def draw_rank_kinds(report_data: ReportData) -> ReportFigure | None:
    """A panel for each arm that moves ranks while it trains: mean rank of each kind of site, mean over runs.

    Panels that are taken together are one; of several others the first that has such arms. None without any.
    """
    histories = report_data.rank_histories
    groups = panel_groups(report_data, report_data.panels).items()
    parts = [(title, histories[histories["panel"].isin([panel.name for panel in panels])]) for title, panels in groups]
    title, data = next(((title, data) for title, data in parts if len(data)), ("", histories[:0]))
    if data.empty:
        return None
    kinds = sorted(data["kind"].unique())
    arms, left_out = chosen(list(data["arm"].unique()))
    colours = matplotlib.colormaps[SHADES](np.linspace(0, 0.9, len(kinds)))
    looks: dict[str, dict[str, Any]] = {
        kind: {"color": to_hex(colours[place]), "marker": MARKERS[place % len(MARKERS)], "ls": DASHES[place % 2]}
        for place, kind in enumerate(kinds)
    }
    handles = [Line2D([], [], label=kind, **look) for kind, look in looks.items()]
    figure, all_axes = facets([arm_title(arm) for arm in arms], handles, Room(0.35))
    for axes, arm in zip(all_axes, arms, strict=True):
        for kind, rows in data[data["arm"] == arm].groupby("kind"):
            by_panel = rows.pivot(index="step", columns="panel", values="rank").sort_index().ffill()
            line = by_panel.mean(axis=1).clip(lower=0)
            every = max(1, len(line) // 4)
            axes.plot(line.index.to_numpy().clip(0), line, drawstyle="steps-post", markevery=every, **looks[str(kind)])
        axes.set_ylim(bottom=0)
        draw_frame(axes, "step", "mean rank")
    note = (
        f"Mean rank of the sites of a kind, mean over runs: {panel_title(title)}. "
        f"Arms that change no rank in training are left out.{left_out}"
    )
    return ReportFigure("rank-kinds", "Ranks over the steps, by kind of site", figure, data, note)
