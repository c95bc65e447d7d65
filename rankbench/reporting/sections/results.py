"""Several panels at once: means of all arms beside each other, and statistics over tasks."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd

from rankbench.analysis.comparison import ALPHA, Comparison, decimals
from rankbench.analysis.labels import file_name
from rankbench.analysis.metrics import higher_is_better, is_on_common_scale
from rankbench.reporting.report_data import ReportData, link
from rankbench.reporting.table import Cell, Table
from rankbench.statistics.estimates import Array, Estimate
from rankbench.statistics.over_tasks import iqm, probability_of_improvement, stratified_bootstrap
from rankbench.statistics.permutation import holm, sign_flip_test, smallest_p
from rankbench.studies.panels import Panel


def means_table(report_data: ReportData) -> Table | None:
    """Arms down, panels across: mean and deviation; None for a single panel, whose table says it."""
    compared = report_data.compared()
    if len(compared) < 2:
        return None
    digits = {panel.name: decimals(comparison.values[comparison.metrics[0]]) for panel, comparison in compared}
    rows = [
        [Cell(arm), *(_mean(panel, comparison, arm, digits[panel.name]) for panel, comparison in compared)]
        for arm in report_data.arms
    ]
    metrics = {comparison.metrics[0] for _, comparison in compared}
    titles = [
        panel.short + (f": {comparison.metrics[0]}" if len(metrics) > 1 else "") for panel, comparison in compared
    ]
    title = "All results" + (f": {metrics.pop()}" if len(metrics) == 1 else "")
    notes = [
        "Mean ± standard deviation over seeds; bold: better than the reference by the corrected test of its own table."
    ]
    return Table("all", title, ["arm", *titles], rows, notes)


def _mean(panel: Panel, comparison: Comparison, arm: str, digits: int) -> Cell:
    if arm not in comparison.rows:
        return Cell("not run")
    measured = comparison.values[comparison.metrics[0]][arm].dropna()
    if measured.empty:
        return Cell("none ok", link=link(panel, arm))
    spread = f" ± {measured.std(ddof=1):.{digits}f}" if len(measured) > 1 else ""
    strong = comparison.findings[arm].kind == "better"
    return Cell(f"{measured.mean():.{digits}f}{spread}", float(measured.mean()), strong=strong, link=link(panel, arm))


def task_tables(report_data: ReportData) -> list[Table]:
    """Statistics over tasks, one table for each model, budget and other axes with at least two tasks.

    Shares and losses apart: the per cents of a loss would drown the hundredths of a share.
    """
    groups: dict[tuple[str, ...], list[tuple[Panel, Comparison]]] = defaultdict(list)
    for panel, comparison in report_data.compared():
        if comparison.reference is not None and higher_is_better(comparison.metrics[0]) is not None:
            kind = [] if _is_share(comparison) else ["losses"]
            key = (panel.facts["model"], f"budget {panel.facts['budget']}", *panel.rest, *kind)
            groups[key].append((panel, comparison))
    several = {
        key: members for key, members in groups.items() if len({panel.facts["task"] for panel, _ in members}) > 1
    }
    return [_over_tasks(report_data, key, members) for key, members in several.items()]


def _over_tasks(report_data: ReportData, key: tuple[str, ...], members: list[tuple[Panel, Comparison]]) -> Table:
    reference = report_data.report.reference
    scaled = [_scores(comparison) for _, comparison in members]
    equal = [
        arm
        for arm in report_data.arms
        if arm == reference or all(arm in comparison.tests.index for _, comparison in members)
    ]
    tested = {
        arm: pairs for arm in equal if arm != reference for pairs in [_paired(scaled, arm, reference)] if len(pairs)
    }
    p = (
        dict(
            zip(tested, holm([sign_flip_test(pairs.mean(axis=(1, 2))) for pairs in _differences(tested)]), strict=True)
        )
        if tested
        else {}
    )
    rows = [_row(arm, scaled, reference, tested.get(arm), p.get(arm), len(tested)) for arm in equal]
    names = [panel.facts["task"] for panel, _ in members]
    left = [arm for arm in report_data.arms if arm not in equal]
    notes = [
        f"Tasks: {', '.join(names)}. {_scale(members, reference)} IQM: interquartile mean over seeds and tasks; "
        "intervals: stratified bootstrap over seeds. P: how probably a run of the arm beats one of the reference. p: "
        f"sign flips of the differences by seed, averaged over tasks, Holm over {len(tested)} arms.",
        *(
            [f"Left out, not at an equal budget or without a common seed on every task: {', '.join(left)}."]
            if left
            else []
        ),
    ]
    columns = ["arm", "seeds", "IQM", f"IQM - {reference}", "finding", "p (Holm)", f"P(better than {reference})"]
    return Table(
        f"tasks-{file_name(', '.join(key))}",
        f"Over {len(names)} tasks: {', '.join(key)}",
        columns,
        rows,
        notes,
        strip=3,
    )


def _differences(tested: dict[str, Array]) -> list[Array]:
    return [(pairs[..., 0] - pairs[..., 1])[..., None] for pairs in tested.values()]


def _is_share(comparison: Comparison) -> bool:
    return is_on_common_scale(comparison.metrics[0])


def _scores(comparison: Comparison) -> pd.DataFrame:
    """Seeds x arms, more is better: shares as they are, losses in per cent of the reference's mean."""
    metric = comparison.metrics[0]
    values = comparison.values[metric]
    if _is_share(comparison):
        return values
    sign = 1 if higher_is_better(metric) else -1
    return sign * 100 * values / abs(values[comparison.reference].mean())


def _scale(members: list[tuple[Panel, Comparison]], reference: str) -> str:
    other = sorted({comparison.metrics[0] for _, comparison in members if not _is_share(comparison)})
    if not other:
        return "Metrics are shares and averaged as they are."
    return f"{', '.join(other)}: in per cent of the mean of {reference} on the task, losses negative."


def _paired(scaled: list[pd.DataFrame], arm: str, reference: str) -> Array:
    """Seeds that both have on every task, (seeds, tasks, 2): arm and reference."""
    both = [task[[arm, reference]].dropna() for task in scaled if arm in task]
    seeds = sorted(set.intersection(*(set(task.index) for task in both))) if len(both) == len(scaled) else []
    return (
        np.stack([task.loc[seeds].to_numpy(float) for task in both], axis=1) if seeds else np.empty((0, len(scaled), 2))
    )


def _row(
    arm: str, scaled: list[pd.DataFrame], reference: str, pairs: Array | None, p: float | None, family: int
) -> list[Cell]:
    own = pairs[..., 0] if pairs is not None else _paired(scaled, reference, reference)[..., 0]
    head = [Cell(arm), Cell(str(len(own)), len(own)), _estimate(stratified_bootstrap(own)) if len(own) else Cell()]
    if pairs is None or p is None:
        return [*head, Cell(), Cell("reference", kind="reference"), Cell(), Cell()]
    gain = stratified_bootstrap(pairs, lambda draws: iqm(draws[..., 0]) - iqm(draws[..., 1]))
    better = probability_of_improvement(pairs[..., 0], pairs[..., 1])
    mean = float((pairs[..., 0] - pairs[..., 1]).mean())
    kind, text = _finding(p, mean, len(pairs), family)
    finding = Cell(text, strong=kind == "better", kind=kind)
    return [*head, _estimate(gain, "+"), finding, Cell(f"{p:.3g}", p), _estimate(better)]


def _finding(p: float, mean: float, n: int, family: int) -> tuple[str, str]:
    if p <= ALPHA:
        kind = "better" if mean > 0 else "worse"
        return kind, kind
    few = smallest_p(n) * family > ALPHA
    return ("unresolvable", f"not resolvable at n = {n}") if few else ("unresolved", f"not resolved at n = {n}")


def _estimate(estimate: Estimate, sign: str = "") -> Cell:
    digits = 3 if abs(estimate.value) < 10 else 1  # shares, or per cent of the reference
    text = f"{estimate.value:{sign}.{digits}f}"
    if estimate.low is not None and estimate.high is not None:
        text += f" [{estimate.low:{sign}.{digits}f}, {estimate.high:{sign}.{digits}f}]"
    return Cell(text, estimate.value, estimate.low, estimate.high)
