"""Settings varied in a report: the metric over one setting as a curve, over two as a heat map."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from rankbench.analysis.labels import panel_title, with_titles
from rankbench.reporting.comparison_table import EXPLORATORY, make_table
from rankbench.reporting.figures.settings import draw_ablation, draw_ablations, draw_grid
from rankbench.reporting.report_data import ReportData, links
from rankbench.reporting.section import Block, Section, panel_tables
from rankbench.reporting.table import Table
from rankbench.studies.ablations import Ablation


def make(report_data: ReportData) -> Section:
    """Return the section; it is empty where no setting is varied."""
    single = len(report_data.panels) == 1  # its curves are one figure
    blocks: list[Block] = [partial(draw_ablations, report_data)] if single else []
    for ablation in report_data.ablations:
        if len(ablation.keys) == 2:
            blocks.append(partial(draw_grid, ablation, report_data))
        elif ablation.keys and not single:
            blocks.append(partial(draw_ablation, ablation, report_data))
        blocks += panel_tables(_title(ablation), _tables(report_data, ablation))
    return Section("ablations", "Settings varied", (), blocks)


def _title(ablation: Ablation) -> str:
    return with_titles(ablation.title, ablation.arms)


def _tables(report_data: ReportData, ablation: Ablation) -> dict[str, Table]:
    """Panel -> table of the arms that vary a setting, against the one that leaves it at its default."""
    tables = {
        panel_title(panel.short): make_table(
            comparison, f"{ablation.name}-{panel.name}", f"{_title(ablation)}: {panel_title(panel.title)}", links(panel)
        )
        for panel, comparison in report_data.varied[ablation.name]
    }
    return {panel: replace(table, notes=[*table.notes, EXPLORATORY]) for panel, table in tables.items()}
