"""What a study shows and what it does not: the first thing its report says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pandas as pd

from rankbench.analysis.comparison import ALPHA, Comparison, Kind, decimals
from rankbench.analysis.metrics import higher_is_better
from rankbench.reporting.report_data import ReportData, link
from rankbench.reporting.table import Cell, Table, without_first_column
from rankbench.statistics.decision_rules import CONTROLS, NOT_RUN, Outcome, Verdict, works
from rankbench.statistics.estimates import PairedDifference, mean_interval
from rankbench.statistics.permutation import smallest_p
from rankbench.studies.panels import Panel
from rankbench.sweeps.experiment import UNIFORM

KINDS: dict[Kind, str] = {
    "better": "better",
    "worse": "worse",
    "differs": "different, the direction of the metric is not known",
    "tie": "shown to be tied",
    "unresolved": "not resolved",
    "unresolvable": "not resolvable with so few pairs",
}
FINDING_OF_OUTCOME: dict[Outcome, str] = {"works": "better", "does not work": "worse", "not resolved": "unresolved"}


def sentences(report_data: ReportData) -> list[str]:
    """Sentences on what is resolved, what is not, and what could have been seen."""
    return [
        *_verdict_sentences(report_data),
        *_findings_in_words(report_data),
        *_beyond_zero(report_data),
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


def _beyond_zero(report_data: ReportData) -> Iterator[str]:
    """Arms whose interval, which is not corrected, leaves out 0, and whose test does not say so."""
    times: dict[str, int] = {}
    for _, comparison in report_data.compared():
        for arm, finding in comparison.findings.items():
            difference = comparison.difference(comparison.metrics[0], arm)
            if finding.kind in ("unresolved", "unresolvable") and difference is not None and difference.resolved:
                times[arm] = times.get(arm, 0) + 1
    if times:
        named = ", ".join(f"{arm} ({count}x)" if count > 1 else arm for arm, count in times.items())
        yield f"Intervals that leave out 0 without the corrected test saying so, to be seen with more seeds: {named}."


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
        for arm in comparison.tests.index:
            smallest = comparison.detectable(metric, arm)
            if smallest is not None:
                seen.setdefault(metric, []).append((smallest, len(comparison.pairs(metric, arm))))
    for metric, pairs_seen in seen.items():
        sizes, pairs = [size for size, _ in pairs_seen], sorted({n for _, n in pairs_seen})
        counts = f"n = {pairs[0]}" if len(pairs) == 1 else f"n = {pairs[0]} to {pairs[-1]}"
        least, most = (f"{size:.2g}" for size in (min(sizes), max(sizes)))
        size = f"is {least}" if least == most else f"is between {least} and {most}, depending on the arm"
        yield (
            f"The smallest difference in {metric} whose 95 % interval would leave out 0 with 80 % probability "
            f"({counts} pairs) {size}."
        )
        if smallest_p(pairs[-1]) > ALPHA:
            yield f"With {pairs[-1]} pairs the test cannot reach significance, even before correction."


def _verdict_sentences(report_data: ReportData) -> Iterator[str]:
    """For each arm with controls, where it works, and where not; in a single panel, why."""
    for arm in report_data.report.controls:
        judged = [(panel.short, _verdict(report_data, comparison, arm)) for panel, comparison in report_data.compared()]
        verdicts = [(where, *verdict) for where, verdict in judged if verdict is not None]
        off = [panel.short for panel, comparison in report_data.compared() if arm in comparison.off.index]
        if off:
            yield f"{arm}: no verdict on {'; '.join(off)}: not at an equal budget."
        if len(verdicts) == 1:
            sides = (
                reason if difference is None else reason.partition(":")[0]
                for reason, difference in zip(verdicts[0][1].reasons, verdicts[0][2].values(), strict=True)
            )
            yield f"{arm}: {verdicts[0][1].outcome} ({', '.join(sides)})."
        for outcome in FINDING_OF_OUTCOME if len(verdicts) > 1 else ():
            titles = [where for where, verdict, _ in verdicts if verdict.outcome == outcome]
            if titles:
                where_text = f": {'; '.join(titles)}" if len(titles) < len(verdicts) else ""
                yield f"{arm}: {outcome} on {len(titles)} of {len(verdicts)}{where_text}."


def _verdict(
    report_data: ReportData, comparison: Comparison, arm: str
) -> tuple[Verdict, dict[str, PairedDifference | None]] | None:
    """The verdict, and the differences to the controls; None where the arm is not in the panel or not on the budget."""
    if arm not in comparison.rows or arm in comparison.off.index:
        return None
    names, level = _controls(report_data, arm), report_data.report.level
    differences = {role: _minus(comparison, arm, control, level) for role, control in names.items()}
    higher = higher_is_better(comparison.metrics[0])
    if higher is None:
        return None
    return works(
        differences, higher, {role: _absent(comparison, control) for role, control in names.items()}
    ), differences


def _controls(report_data: ReportData, arm: str) -> dict[str, str | None]:
    """Role -> the arm that has it, for the controls that have to be beaten."""
    names = {UNIFORM: report_data.report.reference, **report_data.report.controls[arm]}
    return {role: names.get(role) for role in report_data.report.beats}


def _absent(comparison: Comparison, control: str | None) -> str:
    """Why nothing can be compared with a control, if nothing can."""
    if control not in comparison.rows:
        return NOT_RUN
    if comparison.values[comparison.metrics[0]][control].dropna().empty:
        return "none ok"
    return "not at an equal budget" if control in comparison.off.index else "no common seed"


def _minus(comparison: Comparison, arm: str, control: str | None, level: float) -> PairedDifference | None:
    if control not in comparison.rows or control in comparison.off.index:
        return None
    pairs = comparison.minus(comparison.metrics[0], arm, control)
    return mean_interval(pairs, level) if len(pairs) else None


def verdict_table(report_data: ReportData) -> Table | None:
    """Each arm that has controls, in each panel: the outcome and its difference to every control in report.beats.

    None without controls.
    """
    rows = []
    for panel, comparison in report_data.compared():
        digits = decimals(comparison.values[comparison.metrics[0]])
        for arm in report_data.report.controls:
            judged = _verdict(report_data, comparison, arm)
            if judged is not None:
                outcome, differences = judged[0].outcome, judged[1]
                head = [
                    Cell(panel.short),
                    Cell(arm, link=link(panel, arm)),
                    Cell(outcome, kind=FINDING_OF_OUTCOME[outcome]),
                ]
                pairs = sorted({difference.n for difference in differences.values() if difference is not None})
                n = Cell(" to ".join(map(str, dict.fromkeys([*pairs[:1], *pairs[-1:]]))))
                why = {role: _absent(comparison, control) for role, control in _controls(report_data, arm).items()}
                rows.append([*head, *(_versus(each, digits, why[role]) for role, each in differences.items()), n])
    columns = [
        "where",
        "arm",
        "verdict",
        *(f"minus {CONTROLS[role]}" for role in report_data.report.beats),
        "n",
    ]
    table = Table("verdict", "Does it work?", columns, rows, [_rule(report_data), *_untuned(report_data)])
    if not rows:
        return None
    return table if len(report_data.panels) > 1 else without_first_column(table)


def _rule(report_data: ReportData) -> str:
    beaten = ", ".join(CONTROLS[role] for role in report_data.report.beats)
    return (
        f"An arm works if it beats all of these: {beaten}; each with a {report_data.report.level * 100:g} % interval "
        "that leaves out 0. It does not work if one of them beats it. Everything else, a control that was not "
        "run too, is not resolved."
    )


def _untuned(report_data: ReportData) -> list[str]:
    return (
        []
        if report_data.study.sweep.tune
        else ["Learning rates were not tuned here: the uniform arm may not be at its best."]
    )


def _versus(difference: PairedDifference | None, digits: int, why: str) -> Cell:
    """A difference and its interval; why there is none."""
    if difference is None:
        return Cell(why)
    if difference.low is None or difference.high is None:
        return Cell(f"{difference.mean:+.{digits}f} (no interval)", difference.mean)
    text = f"{difference.mean:+.{digits}f} [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"
    return Cell(text, difference.mean, difference.low, difference.high)


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
    return Table("findings", title, columns, rows, ["Mean paired difference and what the corrected test says of it."])


def _finding(report_data: ReportData, panel: Panel, comparison: Comparison, arm: str) -> Cell:
    if arm not in comparison.rows:
        return Cell("not run")
    finding, pairs = comparison.findings[arm], comparison.pairs(comparison.metrics[0], arm)
    mean = float(pairs.mean()) if len(pairs) else float("nan")
    digits = decimals(comparison.values[comparison.metrics[0]])
    text = f"{mean:+.{digits}f} {finding.text}" if not pd.isna(mean) else finding.text
    return Cell(text, strong=finding.kind == "better", kind=finding.kind, link=link(panel, arm))
