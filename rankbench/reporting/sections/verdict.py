"""What a study shows and what it does not: the first thing its report says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pandas as pd

from rankbench.analysis.comparison import SHOWN, Comparison, Kind, decimals
from rankbench.reporting.report_data import ReportData, link
from rankbench.reporting.table import Cell, Table, without_first_column
from rankbench.statistics.decision import CONTROLS, OUTCOMES, Decision
from rankbench.statistics.estimates import PairedDifference
from rankbench.studies.panels import Panel
from rankbench.sweeps.experiment import UNIFORM

KINDS: dict[Kind, str] = {  # of a comparison with the reference alone
    "worthwhile": "better by more than the smallest effect of interest",
    "works": "better",
    "no worthwhile gain": "without worthwhile gain",
    "harmful": "worse",
    "open": "open",
    "withheld": "withheld",
}


def sentences(report_data: ReportData) -> list[str]:
    """Sentences on what is decided, what is open, and what could have been seen."""
    return [
        *_verdict_sentences(report_data),
        *_findings_in_words(report_data),
        *_what_could_be_seen(report_data),
        *_varied_settings(report_data),
    ]


def _findings_in_words(report_data: ReportData) -> Iterator[str]:
    findings = [comparison.findings[arm] for _, comparison in report_data.compared() for arm in comparison.rows]
    counts = Counter(finding.kind for finding in findings if finding.kind in KINDS)
    if not counts:
        yield "Nothing can be compared yet: no arm shares a seed with the reference at an equal budget."
        return
    metrics = ", ".join(sorted({comparison.metrics[0] for _, comparison in report_data.compared()}))
    yield (
        f"{counts.total()} comparison{'s' * (counts.total() > 1)} with {report_data.report.reference} at an equal "
        f"budget ({metrics}): {_counted(counts)}."
    )


def _varied_settings(report_data: ReportData) -> Iterator[str]:
    """How the values of each setting that is varied alone compare with the default."""
    for ablation in report_data.ablations:
        comparisons = [comparison for _, comparison in report_data.varied[ablation.name] if ablation.base]
        findings = [comparison.findings[arm] for comparison in comparisons for arm in comparison.rows]
        if counts := Counter(finding.kind for finding in findings if finding.kind in KINDS):
            yield f"{ablation.title}, against {ablation.base}: {_counted(counts)}."


def _counted(counts: Counter[Any]) -> str:
    return ", ".join(f"{counts[kind]} {word}" for kind, word in KINDS.items() if counts[kind])


def _what_could_be_seen(report_data: ReportData) -> Iterator[str]:
    """Range of the detectable differences, and of the numbers of pairs, of each metric."""
    seen: dict[str, list[tuple[float, int]]] = {}
    for _, comparison in report_data.compared():
        metric = comparison.metrics[0]
        for arm in comparison.judged:
            smallest = comparison.detectable(metric, arm)
            if smallest is not None:
                seen.setdefault(metric, []).append((smallest, len(comparison.pairs(metric, arm))))
    for metric, pairs_seen in seen.items():
        sizes, pairs = [size for size, _ in pairs_seen], sorted({n for _, n in pairs_seen})
        counts = f"n = {pairs[0]}" if len(pairs) == 1 else f"n = {pairs[0]} to {pairs[-1]}"
        least, most = (f"{size:.2g}" for size in (min(sizes), max(sizes)))
        size = f"is {least}" if least == most else f"is between {least} and {most}, depending on the arm"
        yield (
            f"The smallest difference in {metric} whose interval would leave out 0 with 80 % probability "
            f"({counts} pairs) {size}."
        )


def _verdict_sentences(report_data: ReportData) -> Iterator[str]:
    """For each arm with controls, what is decided and where; in a single panel, why."""
    for arm in report_data.report.controls:
        if arm == report_data.report.reference:
            yield f"{arm}: no verdict: it stands in for the reference, {CONTROLS[UNIFORM]} was not run."
        judged = [(panel.short, decide(report_data, comparison, arm)) for panel, comparison in report_data.compared()]
        decisions = [(where, decision) for where, decision in judged if decision is not None]
        off = [panel.short for panel, comparison in report_data.compared() if arm in comparison.off.index]
        if off:
            yield f"{arm}: no verdict on {'; '.join(off)}: not at an equal budget."
        if len(decisions) == 1:
            yield f"{arm}: {decisions[0][1].outcome} ({decisions[0][1].reason})."
        for outcome in OUTCOMES if len(decisions) > 1 else ():
            titles = [where for where, decision in decisions if decision.outcome == outcome]
            if titles:
                where_text = f": {'; '.join(titles)}" if len(titles) < len(decisions) else ""
                yield f"{arm}: {outcome} on {len(titles)} of {len(decisions)}{where_text}."


def decide(report_data: ReportData, comparison: Comparison, arm: str) -> Decision | None:
    """The decision on an arm by its controls; None where the arm is not in the panel or cannot be judged."""
    return comparison.decide(arm, _controls(report_data, arm, comparison.reference))


def _controls(report_data: ReportData, arm: str, reference: str | None) -> dict[str, Any]:
    """Name of each control that has to be beaten beside the reference -> the arm that it is."""
    arms = {UNIFORM: report_data.report.reference, **report_data.report.controls[arm]}
    named = {CONTROLS[role]: arms.get(role) for role in report_data.report.beats}
    return {name: control for name, control in named.items() if control != reference}


def verdict_table(report_data: ReportData) -> Table | None:
    """Each arm that has controls, in each panel: the outcome and its gain over the reference and every control.

    None without controls.
    """
    decided = [
        (panel, comparison, arm, decision)
        for panel, comparison in report_data.compared()
        for arm in report_data.report.controls
        if (decision := decide(report_data, comparison, arm)) is not None
    ]
    if not decided:
        return None
    named = [
        (str(comparison.reference), *_controls(report_data, arm, comparison.reference))
        for _, comparison, arm, _ in decided
    ]
    names = list(dict.fromkeys(name for several in named for name in several))
    rows = []
    for panel, comparison, arm, decision in decided:
        digits = decimals(comparison.values[comparison.metrics[0]])
        head = [Cell(panel.short), Cell(arm, link=link(panel, arm)), Cell(decision.outcome, kind=decision.outcome)]
        controls = _controls(report_data, arm, comparison.reference)
        over = [
            _over(decision.intervals.get(name), digits, comparison.why_absent(arm, controls.get(name)) or "")
            for name in names
        ]
        pairs = sorted({difference.n for difference in decision.intervals.values()})
        n = Cell(" to ".join(map(str, dict.fromkeys([*pairs[:1], *pairs[-1:]]))))
        rows.append([*head, *over, n, Cell(decision.reason)])
    columns = ["where", "arm", "verdict", *(f"gain over {name}" for name in names), "n", "why"]
    table = Table("verdict", "Does it work?", columns, rows, [_rule(report_data), *_untuned(report_data)])
    return table if len(report_data.panels) > 1 else without_first_column(table)


def _rule(report_data: ReportData) -> str:
    beaten = ", ".join(CONTROLS[role] for role in report_data.report.beats)
    return (
        f"An arm works if it beats all of these: {beaten}; each by an interval above 0. It is worthwhile if its gain "
        "over the reference lies above the smallest effect of interest, too, without worthwhile gain if it lies below "
        "that, and harmful if it lies below 0. Intervals of all arms and panels over one control hold together with "
        f"{report_data.report.level * 100:g} %. Gains are above 0 where the arm is better. Nothing is said where seeds "
        "are lost or a learning rate lies at an edge of its grid."
    )


def _untuned(report_data: ReportData) -> list[str]:
    return (
        []
        if report_data.study.sweep.tuned
        else ["Learning rates were not tuned here: the uniform arm may not be at its best."]
    )


def _over(gain: PairedDifference | None, digits: int, why: str) -> Cell:
    """A gain and its interval; why there is none."""
    if gain is None:
        return Cell(why)
    if gain.low is None or gain.high is None:
        return Cell(f"{gain.mean:+.{digits}f} (no interval)", gain.mean)
    return Cell(
        f"{gain.mean:+.{digits}f} [{gain.low:+.{digits}f}, {gain.high:+.{digits}f}]", gain.mean, gain.low, gain.high
    )


def findings_table(report_data: ReportData) -> Table | None:
    """Arms down, panels across: what each comparison shows; None for a single panel, whose table says it."""
    compared = report_data.compared()
    if len(compared) < 2:
        return None
    rows = [
        [Cell(arm), *(_finding(report_data, panel, comparison, arm) for panel, comparison in compared)]
        for arm in report_data.arms
        if arm != report_data.report.reference
    ]
    columns = ["arm", *(panel.short for panel, _ in compared)]
    title = f"Findings: each arm against {report_data.report.reference}"
    return Table("findings", title, columns, rows, ["Mean paired difference and what its interval shows."])


def _finding(report_data: ReportData, panel: Panel, comparison: Comparison, arm: str) -> Cell:
    if arm not in comparison.rows:
        return Cell("not run")
    finding, pairs = comparison.findings[arm], comparison.pairs(comparison.metrics[0], arm)
    mean = float(pairs.mean()) if len(pairs) else float("nan")
    digits = decimals(comparison.values[comparison.metrics[0]])
    text = f"{mean:+.{digits}f} {finding.text}" if not pd.isna(mean) else finding.text
    return Cell(text, strong=finding.kind in SHOWN, kind=finding.kind, link=link(panel, arm))
