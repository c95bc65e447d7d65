"""Everything a report needs: panels, comparisons, and the plot style of each arm."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from rankbench.analysis.comparison import Comparison, compare
from rankbench.analysis.item_gains import ItemGain, item_gains
from rankbench.analysis.positive_control import LOST, ControlTest, check_control
from rankbench.records.record import RunRecord
from rankbench.reporting.amounts import digits_of
from rankbench.reporting.decisions import Judged, Member, Sample, judged_arms, samples, with_verdicts
from rankbench.reporting.plotting import ArmStyle, arm_styles
from rankbench.studies.ablations import Ablation, ablations, varied
from rankbench.studies.panels import Panel, panels, refuse_mixed, report_of
from rankbench.studies.rank_histories import COLUMNS, rank_histories
from rankbench.studies.study import Study
from rankbench.sweeps import experiment
from rankbench.sweeps.report_settings import Report


@dataclass(frozen=True)
class ReportData:
    """Everything that a report of a study shows.

    Attributes:
        report: settings that say what is shown.
        panels: one for each model, task, budget and other axes.
        ablations: arms that vary a setting.
        arms: arms that are compared with the reference: all but those that exist for a curve or a heat map alone.
        comparisons: panel name -> comparison of the arms; none where nothing was measured.
        varied: name of an ablation -> panel and comparison of its arms with their base.
        styles: arm -> how it is drawn.
        mixed: lines on what differs within tables and was allowed.
        control_tests: the positive control under each of its conditions; [] where none is declared.
        item_gains: gains in the loss of test items, where the runs share them.
        rank_histories: frame of the ranks over the steps, by kind of site (rankbench.studies.rank_histories).
        shares: number of cells that share the errors equally, those to come among them.
    """

    study: Study
    report: Report
    panels: list[Panel]
    ablations: list[Ablation]
    arms: list[str]
    comparisons: dict[str, Comparison]
    varied: dict[str, list[tuple[Panel, Comparison]]]
    styles: dict[str, ArmStyle]
    mixed: list[str]
    control_tests: list[ControlTest]
    item_gains: list[ItemGain]
    rank_histories: pd.DataFrame
    shares: int

    def compared(self) -> list[Member]:
        """Panels with their comparisons, where there is one."""
        return [(panel, self.comparisons[panel.name]) for panel in self.panels if panel.name in self.comparisons]

    @cached_property
    def samples(self) -> list[Sample]:
        """Panels that are taken together, as the report declares them."""
        return samples(self)

    @cached_property
    def judged(self) -> list[Judged]:
        """Each arm that has controls, in each panel, with its decision."""
        return judged_arms(self)

    @cached_property
    def digits(self) -> dict[str, int]:
        """Name of a panel -> digits after the point of its differences."""
        return {panel.name: digits_of(comparison, comparison.metrics[0]) for panel, comparison in self.compared()}

    def in_samples(self) -> list[Member]:
        """Panels of `compared` that are taken together with others."""
        together = {panel.name for sample in self.samples for panel, _ in sample.members}
        return [(panel, comparison) for panel, comparison in self.compared() if panel.name in together]

    def alone(self) -> list[Member]:
        """Panels of `compared` that are judged one by one."""
        together = {panel.name for panel, _ in self.in_samples()}
        return [(panel, comparison) for panel, comparison in self.compared() if panel.name not in together]

    @property
    def claimed(self) -> list[str]:
        """Arms of which something is claimed: all but the reference and controls that are no more than that."""
        return [arm for arm in self.arms if arm not in (self.report.reference, *self.report.without_claim)]

    def choosing(self) -> list[str]:
        """Arms that choose their own learning rate."""
        declared = self.study.sweep.experiment
        sharing = experiment.rates_of(declared) if declared else {}
        return [arm for arm in dict.fromkeys(arm for panel in self.panels for arm in panel.arms) if arm not in sharing]


def gather(study: Study, allowed: Sequence[str] = ()) -> ReportData:
    """Compare everything that a report of a study shows.

    Args:
        allowed: names of what may differ within a table.

    Raises:
        SelectionError: records that may not stand in one table.
    """
    report, all_panels = report_of(study), panels(study)
    mixed = refuse_mixed(study, all_panels, allowed)
    tests = _control_tests(report, all_panels)
    if any(test.why for test in tests):
        all_panels = [replace(panel, terms=replace(panel.terms, fault=LOST)) for panel in all_panels]
    all_ablations = ablations(study.sweep.experiment)
    apart = varied(all_ablations) - always_compared(report)
    arms = [arm for arm in dict.fromkeys(arm for panel in all_panels for arm in panel.arms) if arm not in apart]
    cells = set(study.sweep.experiment.cells) if study.sweep.experiment else set()
    to_come = len(cells - {panel.cell for panel in all_panels})
    compared = compare_panels(all_panels, arms, report.reference, study.looks, report.without_claim, to_come)
    comparisons = {name: with_verdicts(report, comparison) for name, comparison in compared.items()}
    shares = _shares(_claims(all_panels, arms, report.reference, report.without_claim), to_come)
    against = {ablation.name: _compare_with_base(ablation, all_panels, report) for ablation in all_ablations}
    gains = [
        gain
        for panel in all_panels
        if (comparison := comparisons.get(panel.name))
        for gain in item_gains(panel.name, comparison, study.results_dir, study.item_gains)
    ]
    styles = arm_styles(all_panels)
    return ReportData(
        *(study, report, all_panels, all_ablations, arms, comparisons, against, styles, mixed, tests, gains),
        *(_rank_histories(study, all_panels, arms), shares),
    )


def _rank_histories(study: Study, all_panels: Sequence[Panel], arms: Sequence[str]) -> pd.DataFrame:
    """From the logs of the runs, or as an earlier report had them."""
    if study.results_dir is None:
        return pd.DataFrame(columns=COLUMNS) if study.rank_histories is None else study.rank_histories
    runs: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for panel in all_panels:
        for record, arm in zip(panel.records, panel.names, strict=True):
            if record.status == "ok" and arm in arms:
                runs[panel.name, arm].append(record)
    return rank_histories(runs, study.results_dir)


def _claims(
    all_panels: Sequence[Panel], arms: Sequence[str], reference: str, controls: Collection[str]
) -> Counter[str | None]:
    """Cell -> arms x panels of which something is claimed; panels without headroom, of which nothing is, have none."""
    claims = set(arms) - {reference, *controls}
    in_cell: Counter[str | None] = Counter()
    for panel in all_panels:
        in_cell[panel.cell] += len(claims & set(panel.arms)) * panel.terms.headroom
    return in_cell


def _shares(claims: Counter[str | None], to_come: int) -> int:
    return max(1, sum(count > 0 for count in claims.values()) + to_come)


def _control_tests(report: Report, all_panels: Sequence[Panel]) -> list[ControlTest]:
    """The positive control in the panels with headroom that meet each of its conditions."""
    control = report.positive_control
    if control is None:
        return []
    comparisons = compare_panels(all_panels, [report.reference, control.arm], report.reference)
    where = {
        condition: [comparisons.get(panel.name) for panel in all_panels if panel.meets(condition)]
        for condition in control.where
    }
    return check_control(control.arm, where, report.level)


def _compare_with_base(
    ablation: Ablation, all_panels: Sequence[Panel], report: Report
) -> list[tuple[Panel, Comparison]]:
    """Compare the arms of an ablation with its base, in their order; without a base, with the reference."""
    compared = compare_panels(all_panels, ablation.arms, ablation.base or report.reference)
    return [
        (panel, replace(comparison, rows=[arm for arm in ablation.arms if arm in comparison.rows]))
        for panel in all_panels
        if (comparison := compared.get(panel.name))
    ]


def compare_panels(
    all_panels: Sequence[Panel],
    arms: Sequence[str],
    reference: str,
    looks: int = 1,
    controls: Collection[str] = (),
    to_come: int = 0,
) -> dict[str, Comparison]:
    """Compare some arms of all panels with a reference: intervals hold together over arms x panels x looks.

    The cells of an experiment have equal shares of the errors, whatever the number of their panels (weighted
    Bonferroni). Panels without headroom, of which nothing is said, have none.

    Args:
        reference: an arm; in a panel that has no run of it, nothing is compared with anything.
        looks: how often the data were or will be looked at, >= 1.
        controls: labels of which nothing is claimed.
        to_come: cells of the experiment that have no panel yet, whose shares are kept for them.

    Returns:
        Name of a panel -> its comparison; none where no run measured the metric.
    """
    in_cell = _claims(all_panels, arms, reference, controls)
    parts = looks * _shares(in_cell, to_come)
    comparisons = {}
    for panel in all_panels:
        data = panel.data[panel.data["label"].isin(arms)]
        done = data[data["status"] == "ok"]
        if panel.metric in done and not done[panel.metric].dropna().empty:
            present = reference if reference in set(data["label"]) else None
            terms = replace(panel.terms, family=parts * max(1, in_cell[panel.cell]), controls=controls)
            comparisons[panel.name] = compare(data, [panel.metric], present, terms)
    return comparisons


def always_compared(report: Report) -> set[str]:
    """Arms that are always compared: the reference, arms with controls, controls, and arms of a paper's table."""
    return {
        report.reference,
        *report.controls,
        *report.all_controls,
        *(arm for table in report.published for arm in table.arms),
    }


def link(panel: Panel, arm: str) -> str:
    """Name of the list of an arm's records."""
    return f"runs-{panel.name}-{panel.arms.index(arm)}"


def links(panel: Panel) -> dict[str, str]:
    """Arm -> name of the list of its records."""
    return {arm: link(panel, arm) for arm in panel.arms}


def span(values: Iterable[int] | Iterable[str]) -> str:
    """The least and the largest of some values: "10", "5 to 10"."""
    ordered = sorted(set(map(str, values)), key=lambda text: (len(text), text)) or ["0"]  # numbers and dates alike
    return " to ".join(dict.fromkeys([ordered[0], ordered[-1]]))
