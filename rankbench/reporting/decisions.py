"""The decision on each arm that has controls: the one rule whose words headline, verdict and tables say."""

from __future__ import annotations

from rankbench.analysis.comparison import NOT_RUN, Comparison
from rankbench.reporting.report_data import ReportData
from rankbench.statistics.decision import CONTROLS, Decision
from rankbench.studies.panels import Panel
from rankbench.sweeps.report_settings import UNIFORM

Judged = tuple[Panel, Comparison, str, Decision]


def judged_arms(report_data: ReportData) -> list[Judged]:
    """Each arm that has controls, in each panel, with its decision."""
    return [
        (panel, comparison, arm, decision)
        for panel, comparison in report_data.compared()
        for arm in report_data.report.controls
        if (decision := decide(report_data, comparison, arm)) is not None
    ]


def decide(report_data: ReportData, comparison: Comparison, arm: str) -> Decision | None:
    """The decision on an arm by its controls; withheld where it lost all runs, None where it is not to be judged."""
    if arm not in comparison.rows:
        return Decision("withheld", f"{arm}: {NOT_RUN}", {}) if comparison.planned([arm]) else None
    return comparison.decide(arm, controls_of(report_data, arm, comparison.reference))


def controls_of(report_data: ReportData, arm: str, reference: str | None) -> dict[str, list[str]]:
    """Name of each control that has to be beaten beside the reference -> the arms that it is; [] for none."""
    arms = {UNIFORM: [report_data.report.reference], **report_data.report.controls_of(arm)}
    named = {CONTROLS[role]: arms.get(role, []) for role in report_data.report.beats}
    return {name: control for name, control in named.items() if control != [reference]}
