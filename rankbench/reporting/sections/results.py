"""Several panels at once: means of all arms beside each other, and statistics over tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from rankbench.analysis.comparison import KIND_OF, SHOWN, Comparison, decimals
from rankbench.analysis.labels import arm_title, file_name, metric_title, panel_title, task_title
from rankbench.analysis.metrics import higher_is_better
from rankbench.reporting.comparison_table import EXPLORATORY, NOTE, make_table
from rankbench.reporting.decisions import Member, shared_facts
from rankbench.reporting.figures.over_tasks import draw_over_tasks, draw_sample
from rankbench.reporting.figures.pairs import draw_pairs
from rankbench.reporting.report_data import ReportData, link, links, span
from rankbench.reporting.section import Section, filed, panel_tables, present
from rankbench.reporting.table import Cell, Table, arm_cell, interval_cell, mean_cell
from rankbench.statistics.decision import Outcome, outcomes
from rankbench.statistics.estimates import Array, Estimate
from rankbench.statistics.family import joint_level
from rankbench.statistics.over_tasks import (
    mean_of_such,
    mean_of_these,
    probability_of_improvement,
    standardised,
)
from rankbench.studies.panels import Panel

VERDICTS = f"{NOTE} Of an arm that has controls the finding is its verdict."


def make(report_data: ReportData) -> Section | None:
    """Return the section, None where nothing is compared."""
    if not report_data.compared():
        return None
    alone, apart = report_data.alone(), report_data.in_samples()
    one_by_one = {title: replace(table, filed=True) for title, table in _tables(apart).items()}
    several = [means_table(report_data, alone, "all", "All results"), *task_tables(report_data)]
    of_samples = means_table(report_data, apart, "all-one-by-one", "All results on the panels of a sample")
    blocks = present(
        [
            *panel_tables("Each arm beside the reference", _tables(alone)),
            partial(draw_over_tasks, report_data),
            *(partial(draw_sample, sample) for sample in report_data.samples),
            *several,
            partial(draw_pairs, report_data),
            *panel_tables("Panels of a sample one by one, exploratory", one_by_one),
            filed(of_samples),
        ]
    )
    return Section("results", "Results", [VERDICTS], blocks, folded=False)


def _tables(members: Sequence[Member]) -> dict[str, Table]:
    """Short title of a panel -> its table."""
    return {
        panel_title(panel.short): make_table(
            comparison, f"results-{panel.name}", panel_title(panel.title), links(panel)
        )
        for panel, comparison in members
    }


def means_table(report_data: ReportData, compared: Sequence[Member], name: str, title: str) -> Table | None:
    """Arms down, some panels across: mean and deviation; None for a single panel, whose table says it."""
    if len(compared) < 2:
        return None
    digits = {panel.name: decimals(comparison.values[comparison.metrics[0]]) for panel, comparison in compared}
    rows = [
        [arm_cell(arm), *(_mean(panel, comparison, arm, digits[panel.name]) for panel, comparison in compared)]
        for arm in report_data.arms
        if any(arm in comparison.rows for _, comparison in compared)
    ]
    metrics = {comparison.metrics[0] for _, comparison in compared}
    titles = [
        panel_title(panel.short)
        + (f": {metric_title(comparison.metrics[0], arrow=True, short=True)}" if len(metrics) > 1 else "")
        for panel, comparison in compared
    ]
    title += f": {metric_title(metrics.pop(), arrow=True)}" if len(metrics) == 1 else ""
    counts = (int(count) for _, comparison in compared for count in comparison.values[comparison.metrics[0]].count())
    reference = arm_title(report_data.report.reference)
    notes = [
        f"Mean ± standard deviation over n = {span(counts)} seeds; bold: better than {reference} by the interval of "
        "the paired difference in its own table."
    ]
    return Table(name, title, ["arm", *titles], rows, notes)


def _mean(panel: Panel, comparison: Comparison, arm: str, digits: int) -> Cell:
    if arm not in comparison.rows:
        return Cell("not run")
    measured = comparison.values[comparison.metrics[0]][arm].dropna()
    if measured.empty:
        return Cell("none ok", link=link(panel, arm))
    return replace(mean_cell(measured, digits, comparison.findings[arm].kind in SHOWN), link=link(panel, arm))


def task_tables(report_data: ReportData) -> list[Table]:
    """Gains over tasks, one table for each model, budget and other axes with at least two tasks."""
    groups: dict[tuple[str, ...], list[Member]] = defaultdict(list)
    for panel, comparison in report_data.compared():
        if comparison.reference is not None and higher_is_better(comparison.metrics[0]) is not None:
            groups[shared_facts(panel, ["task"])].append((panel, comparison))
    several = {
        key: members for key, members in groups.items() if len({panel.facts["task"] for panel, _ in members}) > 1
    }
    return [_over_tasks(report_data, key, members) for key, members in several.items()]


def _over_tasks(report_data: ReportData, key: tuple[str, ...], members: list[Member]) -> Table:
    reference = arm_title(report_data.report.reference)
    others = report_data.claimed
    arms = [arm for arm in others if all(_enough(comparison, arm) for _, comparison in members)]
    level = joint_level(max(1, len(others)), report_data.report.level)
    left = [arm for arm in others if arm not in arms]
    units = ", ".join(
        f"{task_title(panel.facts['task'])} {comparison.terms.smallest} {metric_title(panel.metric, short=True)}"
        for panel, comparison in members
    )
    notes = [
        f"Gains are above 0 where the arm is better than {reference}, in units of each task's smallest effect of "
        f"interest: {units}. Over these tasks: seeds are the only chance; over tasks like these: tasks are a sample, "
        f"too. Either column's intervals hold together over {len(others)} arms with "
        f"{report_data.report.level * 100:g} %. P: how probably a run of the arm beats one of the reference.",
        *([f"Left out, not judged on a task: {', '.join(map(arm_title, left))}."] if left else []),
        EXPLORATORY,
    ]
    columns = ["arm", "gain over these tasks", "finding", "gain over tasks like these", f"P(better than {reference})"]
    title = f"Over {len(members)} tasks: {panel_title(', '.join(key))}"
    rows = [_row(arm, members, level) for arm in arms]
    return Table(f"tasks-{file_name(', '.join(key))}", title, columns, rows, notes, strip=1, margin=1.0)


def _enough(comparison: Comparison, arm: str) -> bool:
    """Whether an arm is judged on a task, and by two seeds or more."""
    return comparison.findings[arm].kind not in ("untested", "withheld") if arm in comparison.findings else False


def _row(arm: str, members: list[Member], level: float) -> list[Cell]:
    scores = [_scores(comparison, arm) for _, comparison in members]
    gains = standardised(
        [comparison.gains(arm, [str(comparison.reference)]) for _, comparison in members],
        [float(comparison.terms.margin or 1) for _, comparison in members],
    )
    these, such = mean_of_these(gains, level), mean_of_such(gains, level).mean
    outcome: Outcome = str(outcomes(np.array([these.low]), np.array([these.high]), 1.0))  # type: ignore[assignment]
    words = {"works": "better", "worthwhile": "better by more than 1", "harmful": "worse"}
    shown = KIND_OF[outcome]
    finding = Cell(words.get(outcome, outcome), strong=shown in SHOWN, kind=shown)
    seeds = min(task.shape[1] for task in scores)
    both = np.stack([task[:, :seeds] for task in scores], axis=-1)  # (2, seeds, tasks)
    better = probability_of_improvement(both[0], both[1])
    return [arm_cell(arm), _estimate(these, "+"), finding, _estimate(such, "+"), _estimate(better)]


def _scores(comparison: Comparison, arm: str) -> Array:
    """Arm and reference at the seeds both have, more is better, (2, seeds)."""
    metric = comparison.metrics[0]
    both = comparison.values[metric][[arm, comparison.reference]].dropna().to_numpy(float).T
    return both if higher_is_better(metric) else -both


def _estimate(estimate: Estimate, sign: str = "") -> Cell:
    form = f"{sign}.{2 if abs(estimate.value) < 10 else 1}f"
    return interval_cell(estimate.value, estimate.low, estimate.high, form, without="")
