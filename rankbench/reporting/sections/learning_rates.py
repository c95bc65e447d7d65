"""Tuning trials in a report: the learning rates that were tried on validation, and the one that was chosen."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd

from rankbench.analysis.labels import metric_title
from rankbench.reporting.figures.tuning import draw_expected_best, draw_learning_rates, once, tried
from rankbench.reporting.report_data import ReportData, link
from rankbench.reporting.section import Section, present, rows_of_panels
from rankbench.reporting.table import Cell, Table, arm_cell


def make(report_data: ReportData) -> Section:
    """Return the section; it is empty where nothing was tuned."""
    figures = [partial(draw_learning_rates, report_data), partial(draw_expected_best, report_data)]
    return Section("rates", "Learning rates", (), present([*figures, rates_table(report_data)]))


def rates_table(report_data: ReportData) -> Table | None:
    """A row for each arm of each panel: what was tried, what was chosen, whether it is at the edge; None without."""
    trials = once(tried(report_data))
    rows = [
        [Cell(title), *_rates_of(str(arm), line, link(panel, str(arm)))]
        for title, panel, data in trials
        for arm, line in data.groupby("arm", sort=False)
    ]
    metrics = ", ".join(
        sorted({metric_title(metric, arrow=True, short=True) for _, _, data in trials for metric in data["metric"]})
    )
    columns = ["where", "arm", "chosen", "at the edge", f"rate: {metrics}", "tuning seeds"]
    return rows_of_panels(report_data, Table("learning-rates", "Learning rates tried and chosen", columns, rows))


def _rates_of(arm: str, line: pd.DataFrame, where: str) -> list[Cell]:
    chosen = line[line["chosen"]]
    edge = bool(line["edge"].iloc[0])
    points = "; ".join(_point(point) for point in line.to_dict("records"))
    choice = (
        Cell("not chosen yet") if chosen.empty else Cell(f"{chosen['rate'].iloc[0]:g}", float(chosen["rate"].iloc[0]))
    )
    note = Cell("yes: the best may lie beyond" if edge else "no", kind="open" if edge else "")
    return [arm_cell(arm, where), choice, note, Cell(points), Cell(line["seeds"].iloc[0])]


def _point(point: dict[Any, Any]) -> str:
    mean = "no run" if point["mean"] is None or pd.isna(point["mean"]) else f"{point['mean']:.4f}"
    return f"{point['rate']:g}: {mean}" + (f" ({point['missing']} missing)" if point["missing"] else "")
