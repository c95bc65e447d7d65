"""What a study shows and what it does not: the first thing its report says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pandas as pd

from rankbench.analysis.comparison import ALPHA, Comparison, Kind, decimals
from rankbench.analysis.metrics import higher_is_better
from rankbench.reporting.report_data import ReportData, link
from rankbench.reporting.table import Cell, Table, without_first
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
OUTCOMES: dict[Outcome, str] = {"works": "better", "does not work": "worse", "not resolved": "unresolved"}


def sentences(evidence: ReportData) -> list[str]:
    """What is resolved, what is not, and what could have been seen."""
    return [
        *_verdict_sentences(evidence),
        *_findings_in_words(evidence),
        *_beyond_zero(evidence),
        *_what_could_be_seen(evidence),
        *_varied_settings(evidence),
    ]


def _findings_in_words(evidence: ReportData) -> Iterator[str]:
    found = [comparison.findings[arm] for _, comparison in evidence.compared() for arm in comparison.rows]
    counts = Counter(finding.kind for finding in found if finding.kind in KINDS)
    if not counts:
        yield "Nothing can be compared yet: no arm shares a seed with the reference at an equal budget."
        return
    metrics = ", ".join(sorted({comparison.metrics[0] for _, comparison in evidence.compared()}))
    yield (
        f"{counts.total()} comparison{'s' * (counts.total() > 1)} with {evidence.report.reference} at an equal budget "
        f"({metrics}): {_counted(counts)}."
    )


def _beyond_zero(evidence: ReportData) -> Iterator[str]:
    """Arms whose interval, which is not corrected, leaves out 0, and whose test does not say so."""
    found: dict[str, int] = {}
    for _, comparison in evidence.compared():
        for arm, finding in comparison.findings.items():
            difference = comparison.difference(comparison.metrics[0], arm)
            if finding.kind in ("unresolved", "unresolvable") and difference is not None and difference.resolved:
                found[arm] = found.get(arm, 0) + 1
    if found:
        named = ", ".join(f"{arm} ({count}x)" if count > 1 else arm for arm, count in found.items())
        yield f"Intervals that leave out 0 without the corrected test saying so, to be seen with more seeds: {named}."


def _varied_settings(evidence: ReportData) -> Iterator[str]:
    """For each setting that is varied alone, how its values compare with the default."""
    for ablation in evidence.ablations:
        held = [comparison for _, comparison in evidence.varied[ablation.name] if ablation.base]
        found = [comparison.findings[arm] for comparison in held for arm in comparison.rows]
        if counts := Counter(finding.kind for finding in found if finding.kind in KINDS):
            yield f"{ablation.title}, against {ablation.base}: {_counted(counts)}."


def _counted(counts: Counter[Any]) -> str:
    return ", ".join(f"{counts[kind]} {word}" for kind, word in KINDS.items() if counts[kind])


def _what_could_be_seen(evidence: ReportData) -> Iterator[str]:
    """Range of the detectable differences, and of the numbers of pairs, of each metric."""
    seen: dict[str, list[tuple[float, int]]] = {}
    for _, comparison in evidence.compared():
        metric = comparison.metrics[0]
        for arm in comparison.tests.index:
            smallest = comparison.detectable(metric, arm)
            if smallest is not None:
                seen.setdefault(metric, []).append((smallest, len(comparison.pairs(metric, arm))))
    for metric, found in seen.items():
        sizes, pairs = [size for size, _ in found], sorted({n for _, n in found})
        counts = f"n = {pairs[0]}" if len(pairs) == 1 else f"n = {pairs[0]} to {pairs[-1]}"
        least, most = (f"{size:.2g}" for size in (min(sizes), max(sizes)))
        size = f"is {least}" if least == most else f"is between {least} and {most}, depending on the arm"
        yield (
            f"The smallest difference in {metric} whose 95 % interval would leave out 0 with 80 % probability "
            f"({counts} pairs) {size}."
        )
        if smallest_p(pairs[-1]) > ALPHA:
            yield f"The test can find no difference of any size with {pairs[-1]} pairs, before its correction even."


def _verdict_sentences(evidence: ReportData) -> Iterator[str]:
    """For each arm with controls, where it works, and where not; in a single panel, why."""
    for arm in evidence.report.controls:
        judged = [(panel.short, _verdict(evidence, comparison, arm)) for panel, comparison in evidence.compared()]
        known = [(where, *found) for where, found in judged if found is not None]
        off = [panel.short for panel, comparison in evidence.compared() if arm in comparison.off.index]
        if off:
            yield f"{arm}: no verdict on {'; '.join(off)}: not at an equal budget."
        if len(known) == 1:
            sides = (
                reason if difference is None else reason.partition(":")[0]
                for reason, difference in zip(known[0][1].reasons, known[0][2].values(), strict=True)
            )
            yield f"{arm}: {known[0][1].outcome} ({', '.join(sides)})."
        for outcome in OUTCOMES if len(known) > 1 else ():
            there = [where for where, found, _ in known if found.outcome == outcome]
            if there:
                places = f": {'; '.join(there)}" if len(there) < len(known) else ""
                yield f"{arm}: {outcome} on {len(there)} of {len(known)}{places}."


def _verdict(
    evidence: ReportData, comparison: Comparison, arm: str
) -> tuple[Verdict, dict[str, PairedDifference | None]] | None:
    """The verdict, and the differences to the controls; None where the arm is not in the panel or not on the budget."""
    if arm not in comparison.rows or arm in comparison.off.index:
        return None
    names, level = _controls(evidence, arm), evidence.report.level
    found = {role: _minus(comparison, arm, control, level) for role, control in names.items()}
    higher = higher_is_better(comparison.metrics[0])
    if higher is None:
        return None
    return works(found, higher, {role: _absent(comparison, control) for role, control in names.items()}), found


def _controls(evidence: ReportData, arm: str) -> dict[str, str | None]:
    """Role -> the arm that has it, of those that are to be beaten."""
    names = {UNIFORM: evidence.report.reference, **evidence.report.controls[arm]}
    return {role: names.get(role) for role in evidence.report.beats}


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


def verdict_sheet(evidence: ReportData) -> Table | None:
    """Each arm that has controls, in each panel: the outcome and the three differences; None without controls."""
    rows = []
    for panel, comparison in evidence.compared():
        digits = decimals(comparison.values[comparison.metrics[0]])
        for arm in evidence.report.controls:
            found = _verdict(evidence, comparison, arm)
            if found is not None:
                outcome, differences = found[0].outcome, found[1]
                head = [Cell(panel.short), Cell(arm, link=link(panel, arm)), Cell(outcome, kind=OUTCOMES[outcome])]
                pairs = sorted({difference.n for difference in differences.values() if difference is not None})
                n = Cell(" to ".join(map(str, dict.fromkeys([*pairs[:1], *pairs[-1:]]))))
                why = {role: _absent(comparison, control) for role, control in _controls(evidence, arm).items()}
                rows.append([*head, *(_versus(each, digits, why[role]) for role, each in differences.items()), n])
    columns = [
        "where",
        "arm",
        "verdict",
        *(f"minus {CONTROLS[role]}" for role in evidence.report.beats),
        "n",
    ]
    sheet = Table("verdict", "Does it work?", columns, rows, [_rule(evidence), *_untuned(evidence)])
    if not rows:
        return None
    return sheet if len(evidence.panels) > 1 else without_first(sheet)


def _rule(evidence: ReportData) -> str:
    beaten = ", ".join(CONTROLS[role] for role in evidence.report.beats)
    return (
        f"An arm works if it beats all of these: {beaten}; each with a {evidence.report.level * 100:g} % interval that "
        "leaves out 0. It does not work if one of them beats it. Everything else, a control that was not run too, is "
        "not resolved."
    )


def _untuned(evidence: ReportData) -> list[str]:
    return (
        []
        if evidence.study.sweep.tune
        else ["Learning rates were not tuned here: the uniform arm may not be at its best."]
    )


def _versus(found: PairedDifference | None, digits: int, why: str) -> Cell:
    """A difference and its interval; why there is none."""
    if found is None:
        return Cell(why)
    if found.low is None or found.high is None:
        return Cell(f"{found.mean:+.{digits}f} (no interval)", found.mean)
    text = f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"
    return Cell(text, found.mean, found.low, found.high)


def findings_sheet(evidence: ReportData) -> Table | None:
    """Arms down, panels across: what each comparison shows; None for a single panel, whose table says it."""
    compared = evidence.compared()
    if len(compared) < 2:
        return None
    rows = [
        [Cell(arm), *(_finding(evidence, panel, comparison, arm) for panel, comparison in compared)]
        for arm in evidence.arms
        if arm != evidence.report.reference
    ]
    columns = ["arm", *(panel.short for panel, _ in compared)]
    title = f"Findings: each arm against {evidence.report.reference}"
    return Table("findings", title, columns, rows, ["Mean paired difference and what the corrected test says of it."])


def _finding(evidence: ReportData, panel: Panel, comparison: Comparison, arm: str) -> Cell:
    if arm not in comparison.rows:
        return Cell("not run")
    found, pairs = comparison.findings[arm], comparison.pairs(comparison.metrics[0], arm)
    mean = float(pairs.mean()) if len(pairs) else float("nan")
    digits = decimals(comparison.values[comparison.metrics[0]])
    text = f"{mean:+.{digits}f} {found.text}" if not pd.isna(mean) else found.text
    return Cell(text, strong=found.kind == "better", kind=found.kind, link=link(panel, arm))
