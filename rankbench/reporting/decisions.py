"""The decision on each arm that has controls: the one rule whose words headline, verdict and tables say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rankbench.analysis.comparison import KIND_OF, NOT_RUN, Comparison, Finding
from rankbench.analysis.pooled import Pooled, PooledPanels
from rankbench.statistics.decision import CONTROLS, Decision
from rankbench.studies.panels import FACTS, Panel
from rankbench.sweeps.report_settings import UNIFORM, Report

if TYPE_CHECKING:
    from rankbench.reporting.report_data import ReportData

Judged = tuple[Panel, Comparison, str, Decision]
Member = tuple[Panel, Comparison]
LEAST = 2  # panels that can be taken together


def judged_arms(report_data: ReportData) -> list[Judged]:
    """Each arm that has controls, in each panel, with its decision."""
    return [
        (panel, comparison, arm, decision)
        for panel, comparison in report_data.compared()
        for arm in report_data.report.controls
        if (decision := decide(report_data.report, comparison, arm)) is not None
    ]


def decide(report: Report, comparison: Comparison, arm: str) -> Decision | None:
    """The decision on an arm by its controls; withheld where it lost all runs, None where it is not to be judged."""
    if arm not in comparison.rows:
        return Decision("withheld", f"{arm}: {NOT_RUN}", {}) if comparison.planned([arm]) else None
    return comparison.decide(arm, controls_of(report, arm, comparison.reference))


def controls_of(report: Report, arm: str, reference: str | None) -> dict[str, list[str]]:
    """Name of each control that has to be beaten beside the reference -> the arms that it is; [] for none."""
    arms = {UNIFORM: [report.reference], **report.controls_of(arm)}
    named = {CONTROLS[role]: arms.get(role, []) for role in report.beats}
    return {name: control for name, control in named.items() if control != [reference]}


def with_verdicts(report: Report, comparison: Comparison) -> Comparison:
    """The comparison with the verdict as the finding of each arm that has controls: one word for an arm everywhere."""
    decisions = {arm: decide(report, comparison, arm) for arm in comparison.findings if arm in report.controls}
    verdicts = {
        arm: Finding(KIND_OF[decision.outcome], comparison._in_words(decision))
        for arm, decision in decisions.items()
        if decision is not None
    }
    return replace(comparison, findings={**comparison.findings, **verdicts})


def sample_groups(report_data: ReportData, title: str) -> list[tuple[str, list[Member]]]:
    """What the panels of a title share, and those panels: they differ in its settings alone and have headroom."""
    axes = report_data.report.over[title]
    members: dict[str, list[Member]] = defaultdict(list)
    for panel, comparison in report_data.compared():
        if comparison.reference is not None and comparison.terms.margin is not None and comparison.terms.headroom:
            members[", ".join(shared_facts(panel, axes))].append((panel, comparison))
    return [(shared, group) for shared, group in members.items() if len(group) >= LEAST]


def shared_facts(panel: Panel, axes: Collection[str]) -> tuple[str, ...]:
    """What a panel shares with those that differ from it in some axes alone: its other facts and settings."""
    facts = {**panel.facts, "budget": f"budget {panel.facts['budget']}"}
    rest = (point for point in panel.rest if point.partition("=")[0] not in axes)
    return (*(facts[key] for key in FACTS if key not in axes), *rest)


def pooled_names(report_data: ReportData) -> set[str]:
    """Names of the panels that are taken together."""
    several = [members for title in report_data.report.over for _, members in sample_groups(report_data, title)]
    return {panel.name for members in several for panel, _ in members}


def pool_arms(report_data: ReportData, members: Sequence[Member]) -> tuple[PooledPanels, dict[str, Pooled]]:
    """Take panels together; each arm that is judged over them, those with controls first."""
    report, comparisons = report_data.report, [comparison for _, comparison in members]
    controls = {arm: controls_of(report, arm, report.reference) for arm in report.controls}
    judged = [
        arm
        for arm in sorted(report_data.claimed, key=lambda arm: arm not in controls)
        if all(arm in each.rows for each in comparisons)
        or (arm in controls and any(each.planned([arm]) for each in comparisons))
    ]
    family = max(1, len(judged)) * report_data.study.looks * report_data.shares
    together = PooledPanels(comparisons, family)
    return together, {arm: together.pool(arm, controls.get(arm, {})) for arm in judged}
