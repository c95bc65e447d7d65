"""Rank maps of the arms of a report: means over seeds, or seed by seed where every seed has a true map of its own."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from rankbench.analysis.labels import file_name, panel_title, with_titles
from rankbench.reporting.figures.found_maps import differs_by_seed, draw_found_maps
from rankbench.reporting.figures.panel_groups import panel_groups
from rankbench.reporting.figures.rank_maps import count_drawn, draw_maps, mean_ranks, panel_maps
from rankbench.reporting.plotting import ReportFigure
from rankbench.reporting.report_data import ReportData
from rankbench.studies.panels import Panel, families

BUDGETS = 5  # rank maps in a row, where budgets stand side by side


def figure_name(title: str) -> str:
    """Name of the rank maps of a group of panels."""
    return f"ranks-{file_name(title)}"


def map_groups(report_data: ReportData) -> dict[str, list[Panel]]:
    """Title -> panels whose rank maps are one figure: those that differ in their budget alone, or are a sample."""
    pooled = [panels for panels in panel_groups(report_data, report_data.panels).values() if len(panels) > 1]
    apart = {panel.name for panels in pooled for panel in panels}
    groups = families([panel for panel in report_data.panels if panel.name not in apart]).items()
    single = {title if len(panels) > 1 else panels[0].title: panels for title, panels in groups}
    return {**{panels[0].title: panels for panels in pooled}, **single}


def draw_rank_maps(title: str, panels: Sequence[Panel], report_data: ReportData) -> ReportFigure | None:
    """Ranks of the arms, means over seeds; None where no run that is ok has any.

    Panels that differ in their budget alone are drawn side by side, as shares of their mean rank.
    """
    if differs_by_seed(panels[0]):
        return draw_found_maps(figure_name(title), panels, report_data)
    maps = [(panel, panel_maps(panel, report_data.arms)) for panel in panels]
    means = [(panel, mean_ranks(rows)) for panel, rows in maps if len(rows)]
    if not means:
        return None
    several = len(panels) > 1
    per_panel = [rows.sort_values(["kind", "layer"]).assign(budget=panel.facts["budget"]) for panel, rows in means]
    data = pd.concat([rows[rows["label"] == arm] for arm in report_data.arms for rows in per_panel])
    if several:
        data["rank"] = data["rank"] / data.groupby(["label", "budget"], sort=False)["rank"].transform("mean")
    labelled = data.assign(label=data["label"] + ", " + data["budget"]) if several else data
    words = "rank / mean rank" if several else "mean rank"
    figure = draw_maps(labelled, "", min(BUDGETS, len(panels)) if several else None, words)
    runs = [run for panel in panels for run in zip(panel.records, panel.names, strict=True)]
    counts = count_drawn(*zip(*[run for run in runs if run[1] in report_data.arms], strict=True))
    partly = "; ".join(line for line in counts if "," in line)  # arms that are drawn without some of their runs
    note = f"{words.capitalize()}, over seeds; one scale for all. {with_titles(partly, report_data.arms)}"
    return ReportFigure(figure_name(title), f"Ranks: {panel_title(title)}", figure, data, note.strip())
