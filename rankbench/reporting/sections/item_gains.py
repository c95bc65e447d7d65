"""Gains in the loss of the test items: how sure they are on new seeds, and on new seeds and new items."""

from __future__ import annotations

from rankbench.analysis.labels import arm_title, panel_title
from rankbench.reporting.report_data import ReportData, link
from rankbench.reporting.section import Section, rows_of_panels
from rankbench.reporting.table import Cell, Table, arm_cell

COLUMNS = ("where", "arm", "seeds", "items", "gain", "new seeds, these items", "new seeds, new items")


def make(report_data: ReportData) -> Section | None:
    """Return the section, None where no runs share their test items."""
    table = item_table(report_data)
    return Section("items", "Other seeds, other items", (), [table]) if table else None


def item_table(report_data: ReportData) -> Table | None:
    """A row for each arm and panel whose runs share their test items; None without any."""
    panels = {panel.name: panel for panel in report_data.panels}
    rows = [
        [
            Cell(panel_title(panels[gain.panel].short)),
            arm_cell(gain.arm, link(panels[gain.panel], gain.arm)),
            Cell(str(gain.seeds), gain.seeds),
            Cell(str(gain.items), gain.items),
            Cell(f"{gain.mean:+.2g}", gain.mean),
            _error(gain.error, gain.low, gain.high),
            _error(gain.error_both, gain.low_both, gain.high_both),
        ]
        for gain in report_data.item_gains
    ]
    note = (
        f"Gain over {arm_title(report_data.report.reference)} in the mean loss of the test items, in nats (of scores: "
        "squared error), above 0 where the arm is better; its standard error and an interval at the level of the "
        "comparison. "
        "On new seeds, these items: what other runs would show on the very items of this test. On new seeds, new "
        "items: what other runs would show on other items of the kind. Verdicts are about these items."
    )
    return rows_of_panels(report_data, Table("items", "New seeds, new items", COLUMNS, rows, [note], folded=True))


def _error(error: float, low: float, high: float) -> Cell:
    strong = not low <= 0 <= high
    return Cell(f"± {error:.2g} [{low:+.2g}, {high:+.2g}]", error, low, high, strong=strong)
