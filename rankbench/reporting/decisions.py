"""The decision on each arm that has controls: the one rule whose words headline, verdict and tables say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rankbench.analysis.comparison import KIND_OF, NOT_RUN, Comparison, Finding
from rankbench.analysis.pooled import Pooled, PooledPanels
from rankbench.analysis.terms import Terms
from rankbench.statistics.budget_ladder import budget_equivalent
from rankbench.statistics.decision import CONTROLS, Decision
from rankbench.statistics.estimates import Array, Estimate, smallest_difference
from rankbench.statistics.family import joint_level
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


@dataclass(frozen=True)
class Sample:
    """Panels that are taken together: a sample of their kind, which is judged as one.

    Attributes:
        title: what they are, as the report declares it ("Kinds of truth").
        shared: what the titles of the panels have in common.
        members: the panels with their comparisons, two or more; all have headroom and the same reference.
        together: the same comparisons, with the family that the intervals of the sample hold together over.
        pools: arm -> what it gains over panels like these; arms with controls first.
    """

    title: str
    shared: str
    members: list[Member]
    together: PooledPanels
    pools: dict[str, Pooled]

    @property
    def reference(self) -> str:
        """The arm that the others are compared with."""
        return str(self.members[0][1].reference)

    @property
    def name(self) -> str:
        """What the panels share, and their number."""
        return f"{self.shared}, {len(self.members)} panels"

    @property
    def terms(self) -> Terms:
        """The terms of its mean gains: those of its panels where they have one unit, else of a plain difference."""
        first = self.members[0][1].terms
        return replace(first, margin=self.together.smallest) if self.together.one_unit else Terms(margin=1.0)

    def is_off(self, arm: str) -> bool:
        """Whether an arm is not at the budget on any of the panels, such as uniform ranks at the peak of a method."""
        return all(arm in each.off.index for each in self.together.comparisons)

    def means(self, arm: str) -> Array:
        """Mean gain of an arm over the reference in each panel that has one, (panels,), in the common unit."""
        gains = self.together.gains(arm, [self.reference])
        return np.array([values.mean() for values in gains if len(values)])

    def detectable(self, arm: str) -> float | None:
        """Smallest mean gain whose interval would leave out 0 with 80 % probability; None with one panel or none."""
        means = self.means(arm)
        level = joint_level(self.together.family, self.terms.level)
        return smallest_difference(means, level=level) if len(means) > 1 else None

    def worth(self, arm: str) -> Estimate | None:
        """Factor of the budget at which uniform ranks are as good over panels like these; None without a ladder."""
        means, ladder = self.means(arm), self.terms.ladder
        if ladder is None or len(means) < 2:
            return None
        return budget_equivalent(means, ladder, joint_level(self.together.family, self.terms.level))


def samples(report_data: ReportData) -> list[Sample]:
    """The panels that the report takes together: those of one sample differ in the settings of its title alone."""
    return [
        Sample(title, shared, members, *_pool(report_data, members))
        for title, axes in report_data.report.over.items()
        for shared, members in _alike(report_data, axes).items()
        if len(members) >= LEAST
    ]


def _alike(report_data: ReportData, axes: Sequence[str]) -> dict[str, list[Member]]:
    """What panels share beside some settings -> those of them that have headroom."""
    members: dict[str, list[Member]] = defaultdict(list)
    for panel, comparison in report_data.compared():
        if comparison.reference is not None and comparison.terms.margin is not None and comparison.terms.headroom:
            members[", ".join(shared_facts(panel, axes))].append((panel, comparison))
    return members


def shared_facts(panel: Panel, axes: Collection[str]) -> tuple[str, ...]:
    """What a panel shares with those that differ from it in some axes alone: its other facts and settings."""
    facts = {**panel.facts, "budget": f"budget {panel.facts['budget']}"}
    rest = (point for point in panel.rest if point.partition("=")[0] not in axes)
    return (*(facts[key] for key in FACTS if key not in axes), *rest)


def _pool(report_data: ReportData, members: Sequence[Member]) -> tuple[PooledPanels, dict[str, Pooled]]:
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
