"""Tuning trials in a report: the learning rates that were tried on validation, and the one that was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from rankbench.analysis.frame import frame
from rankbench.analysis.learning_rates import rate_curves
from rankbench.analysis.metrics import title_of
from rankbench.reporting.plotting import (
    ReportFigure,
    Sketch,
    arm_handles,
    at_most_twelve,
    draw_frame,
    facets,
    logarithmic,
    logarithmic_up,
)
from rankbench.reporting.report_data import ReportData, link
from rankbench.reporting.section import Section, present
from rankbench.reporting.table import Cell, Table, without_first_column
from rankbench.studies.panels import Panel

TUNED = ("arm", "rate", "mean", "missing", "chosen", "edge", "metric", "seeds")


def make(report_data: ReportData) -> Section:
    """Return the section; it is empty where nothing was tuned."""
    return Section("rates", "Learning rates", (), present(["learning-rates", rates_table(report_data)]))


def sketches(report_data: ReportData) -> list[Sketch]:
    """Return the figure of the rates that were tried."""
    return [partial(draw_learning_rates, report_data)]


def learning_rates(panel: Panel, own: Sequence[str]) -> pd.DataFrame:
    """What each arm tried, TUNED: from the choice in its records, or from the trials where no run was made yet.

    Args:
        panel: a panel of a study.
        own: arms that choose for themselves.
    """
    chosen = {
        run.arm: run.record.config["tuned"]
        for run in panel.runs
        if run.arm in own and run.record is not None and run.record.config.get("tuned")
    }
    rows = [row for arm in panel.arms if arm in chosen for row in _choice(arm, chosen[arm])]
    return pd.DataFrame([*rows, *_undecided(panel, set(own) - set(chosen))], columns=list(TUNED))


def _choice(arm: str, tuned: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    seeds = ", ".join(map(str, tuned.get("seeds", [])))
    over = f" at every {', '.join(tuned['pooled'])}" if tuned.get("pooled") else ""
    facts = (bool(tuned.get("edge")), tuned.get("metric", ""), seeds + over)
    return [
        (arm, float(rate), mean, missing, rate == tuned.get("chosen"), *facts)
        for rate, mean, missing in tuned.get("curve", [])
    ]


def _undecided(panel: Panel, arms: set[str]) -> list[tuple[Any, ...]]:
    """Rows of tuning trials without a choice yet: means of the first validation metric there is."""
    runs = [run for run in panel.trials if run.arm in arms and run.record is not None]
    if not runs:
        return []
    data = frame([run.record for run in runs if run.record], names=[run.arm for run in runs])
    metric = next((str(name) for name in data if str(name).startswith("validation/") and name != "validation/step"), "")
    seeds = sorted(set(data["seed"]))
    curves = rate_curves(data, metric, seeds).to_dict("records") if metric else []
    seeds_text = ", ".join(map(str, seeds))
    return [
        (row["label"], row["learning_rate"], row["mean"], row["missing"], False, False, metric, seeds_text)
        for row in curves
    ]


def _tried(report_data: ReportData) -> list[tuple[Panel, pd.DataFrame]]:
    """Panels with their `learning_rates`, where they have any."""
    own = report_data.choosing()
    tried = [(panel, learning_rates(panel, own)) for panel in report_data.panels]
    return [(panel, data) for panel, data in tried if len(data)]


def draw_learning_rates(report_data: ReportData) -> ReportFigure | None:
    """A line for each arm, the rate chosen with a ring around it; at a rate without all seeds there is no point."""
    tried, style = _tried(report_data), report_data.styles
    if not tried:
        return None
    first, left_out = at_most_twelve(tried)
    arms = list(dict.fromkeys(arm for _, data in first for arm in data["arm"]))
    figure, all_axes = facets([panel.short for panel, _ in first], arm_handles(arms, style))
    for axes, (_, data) in zip(all_axes, first, strict=True):
        for arm, line in data.groupby("arm", sort=False):
            look, whole = style[str(arm)], line[line["missing"] == 0]
            axes.plot(whole["rate"], whole["mean"], color=look.colour, ls=look.dash, marker=look.marker, ms=3, lw=1.1)
            best = whole[whole["chosen"]]
            axes.plot(best["rate"], best["mean"], "o", ms=9, mfc="none", mec=look.colour, mew=1.1, ls="none")
        x, y = logarithmic(axes, data["rate"].tolist()), logarithmic_up(axes)
        draw_frame(axes, "learning rate", title_of(data["metric"].iloc[0]), x, y)
    numbers = pd.concat([data.assign(panel=panel.title) for panel, data in tried])
    note = "Means over the tuning seeds on validation; ring: the rate chosen; no point where a seed is missing."
    note += left_out
    return ReportFigure("learning-rates", "Learning rates tried on validation", figure, numbers, note)


def rates_table(report_data: ReportData) -> Table | None:
    """A row for each arm of each panel: what was tried, what was chosen, whether it is at the edge."""
    tried = _tried(report_data)
    if not tried:
        return None
    rows = [
        [Cell(panel.short), *_rates_of(str(arm), line, link(panel, str(arm)))]
        for panel, data in tried
        for arm, line in data.groupby("arm", sort=False)
    ]
    metrics = ", ".join(sorted({metric for _, data in tried for metric in data["metric"]}))
    columns = ["where", "arm", "chosen", "at the edge", f"rate: {metrics}", "tuning seeds"]
    table = Table("learning-rates", "Learning rates tried and chosen", columns, rows)
    return table if len(report_data.panels) > 1 else without_first_column(table)


def _rates_of(arm: str, line: pd.DataFrame, where: str) -> list[Cell]:
    chosen = line[line["chosen"]]
    edge = bool(line["edge"].iloc[0])
    points = "; ".join(_point(point) for point in line.to_dict("records"))
    choice = (
        Cell("not chosen yet") if chosen.empty else Cell(f"{chosen['rate'].iloc[0]:g}", float(chosen["rate"].iloc[0]))
    )
    note = Cell("yes: the best may lie beyond" if edge else "no", kind="open" if edge else "")
    return [Cell(arm, link=where), choice, note, Cell(points), Cell(line["seeds"].iloc[0])]


def _point(point: dict[Any, Any]) -> str:
    mean = "no run" if point["mean"] is None or pd.isna(point["mean"]) else f"{point['mean']:.4f}"
    return f"{point['rate']:g}: {mean}" + (f" ({point['missing']} missing)" if point["missing"] else "")
