"""Ranks over the steps of a run: their total, by arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes

from rankbench.analysis.labels import panel_title
from rankbench.reporting.figures.layout import draw_frame
from rankbench.reporting.figures.lines import Curve, draw_lines
from rankbench.reporting.figures.panel_groups import panel_groups
from rankbench.reporting.plotting import ReportFigure
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
            steps = sorted({step for run in runs for step, _ in run})
            totals = pd.DataFrame([dict(run) for run in runs], columns=steps).ffill(axis=1).bfill(axis=1)
            summary = pd.DataFrame({"mean": totals.mean(), "low": totals.min(), "high": totals.max()})
            rows.append(summary.assign(arm=arm, step=steps, n=len(runs)))
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
