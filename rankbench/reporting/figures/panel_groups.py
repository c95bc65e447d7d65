"""Panels that a figure takes together: those that differ only in settings that the report declares as a sample."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rankbench.analysis.labels import metric_title
from rankbench.analysis.metrics import higher_is_better
from rankbench.reporting.amounts import amount_of
from rankbench.reporting.decisions import Member, shared_facts
from rankbench.reporting.report_data import ReportData
from rankbench.statistics.estimates import mean_interval
from rankbench.studies.panels import Panel


@dataclass(frozen=True)
class Group:
    """Panels that are drawn as one; their title is what they share, where groups differ in it, or that of the panel."""

    title: str
    members: list[Member]

    @property
    def one_unit(self) -> bool:
        """Whether all gains have one unit."""
        return len({(comparison.metrics[0], comparison.terms.log) for _, comparison in self.members}) == 1

    @property
    def gain_title(self) -> str:
        """Label of an axis with gains."""
        _, first = self.members[0]
        if not self.one_unit:
            return "gain, smallest effects"
        name = metric_title(first.metrics[0], short=True)
        return f"gain in {name.partition(',')[0]}, %" if first.terms.log else f"gain in {name}"


def panel_groups(report_data: ReportData, panels: Sequence[Panel]) -> dict[str, list[Panel]]:
    """Title -> panels that differ in nothing but the axes of `report.over`; titles say where the groups differ."""
    axes = {axis for several in report_data.report.over.values() for axis in several}
    groups: dict[tuple[str, ...], list[Panel]] = defaultdict(list)
    for panel in panels:
        groups[shared_facts(panel, axes)].append(panel)
    common = set.intersection(*map(set, groups)) if len(groups) > 1 else set()
    titles = [", ".join(part for part in shared if part not in common) for shared in groups]
    return {
        (panels[0].title if len(panels) == 1 and len(groups) == 1 else title): panels
        for title, panels in zip(titles, groups.values(), strict=True)
    }


def groups_of(report_data: ReportData) -> list[Group]:
    """Groups of the panels that are compared."""
    comparisons = {panel.name: comparison for panel, comparison in report_data.compared()}
    present = [panel for panel, _ in report_data.compared()]
    return [
        Group(title, [(panel, comparisons[panel.name]) for panel in panels])
        for title, panels in panel_groups(report_data, present).items()
    ]


def mean_gain(group: Group, arm: str) -> tuple[float, float, float] | None:
    """Mean gain of an arm over the reference, with an interval of its own; (0, 0, 0) for the reference itself.

    Over several panels it is that of their means; NaN where there is no interval, None where there is no gain.
    """
    comparisons = [comparison for _, comparison in group.members]
    if any(arm == comparison.reference for comparison in comparisons):
        return 0.0, 0.0, 0.0
    gains = [
        comparison.gains(arm, [comparison.reference]) / (1.0 if group.one_unit else float(comparison.terms.margin or 1))
        for comparison in comparisons
        if comparison.reference is not None and arm in comparison.rows
    ]
    gains = [values for values in gains if len(values)]
    if not gains:
        return None
    whole = mean_interval(gains[0] if len(gains) == 1 else np.array([values.mean() for values in gains]))
    rises = bool(higher_is_better(comparisons[0].metrics[0]))

    def amount(end: float | None) -> float:
        if end is None or not group.one_unit:
            return math.nan if end is None else end
        return amount_of(comparisons[0].terms, end, rises)

    return amount(whole.mean), amount(whole.low), amount(whole.high)
