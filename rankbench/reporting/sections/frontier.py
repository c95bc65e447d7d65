"""What quality costs: the metric over the parameters that were spent, and gains as factors of the budget."""

from __future__ import annotations

from functools import partial

from rankbench.reporting.figures.budgets import draw_frontier, draw_worth
from rankbench.reporting.report_data import ReportData
from rankbench.reporting.section import Section


def make(report_data: ReportData) -> Section:
    """Return the section; it is empty where every arm spent the same and no ladder was run."""
    figures = [partial(draw_worth, report_data), partial(draw_frontier, report_data)]
    return Section("frontier", "Quality and budget", (), figures)
