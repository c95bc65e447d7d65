"""What a study shows and what it does not: the first thing its report says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pandas as pd

from rankbench.comparison import Comparison
from rankbench.evidence import Evidence, link
from rankbench.panels import Panel
from rankbench.rates import higher_is_better
from rankbench.sheet import Cell, Sheet
from rankbench.stats import PairedDifference, mean_interval
from rankbench.verdict import Outcome, works

KINDS = {
    "better": "better",
    "worse": "worse",
    "differs": "different, the direction of the metric is not known",
    "tie": "tied, shown",
    "unresolved": "not resolved",
    "unresolvable": "not resolvable with so few pairs",
}
OUTCOMES: dict[Outcome, str] = {"works": "better", "does not work": "worse", "not resolved": "unresolved"}


def sentences(evidence: Evidence) -> list[str]:
    """What is resolved, what is not, and what could have been seen."""
    return [*_verdict_sentences(evidence), *_findings_in_words(evidence), *_what_could_be_seen(evidence)]


def _findings_in_words(evidence: Evidence) -> Iterator[str]:
    found = [comparison.finding(arm) for _, comparison in evidence.compared() for arm in comparison.rows]
    counts = Counter(finding.kind for finding in found if finding.kind in KINDS)
    if not counts:
        yield "Nothing can be compared yet: no arm shares a seed with the reference at an equal budget."
        return
    said = ", ".join(f"{counts[kind]} {word}" for kind, word in KINDS.items() if counts[kind])
    metrics = ", ".join(sorted({comparison.metrics[0] for _, comparison in evidence.compared()}))
    yield (
        f"{counts.total()} comparison{'s' * (counts.total() > 1)} with {evidence.report.reference} at an equal budget "
        f"({metrics}): {said}."
    )


def _what_could_be_seen(evidence: Evidence) -> Iterator[str]:
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
        yield (
            f"The smallest difference in {metric} that the study could have seen (80 % power, {counts} pairs, before the "
            f"correction) is {min(sizes):.2g} for the best-measured arm and {max(sizes):.2g} for the worst."
        )


def _verdict_sentences(evidence: Evidence) -> Iterator[str]:
    """For each arm with controls, where it works."""
    for arm in evidence.report.controls:
        outcomes = [(panel, _outcome(evidence, panel, comparison, arm)) for panel, comparison in evidence.compared()]
        for outcome in ("works", "does not work", "not resolved"):
            there = [evidence.short[panel.name] for panel, found in outcomes if found == outcome]
            if there:
                where = "everywhere it was run" if len(there) == len(outcomes) > 1 else "; ".join(there)
                yield f"{arm}: {outcome} ({where})."


def _outcome(evidence: Evidence, panel: Panel, comparison: Comparison, arm: str) -> Outcome | None:
    found = _verdict(evidence, comparison, arm)
    return found[0] if found else None


def _verdict(
    evidence: Evidence, comparison: Comparison, arm: str
) -> tuple[Outcome, dict[str, PairedDifference | None]] | None:
    """The outcome, and the differences to the controls; None where the arm is not in the panel or not on the budget."""
    if arm not in comparison.rows or arm in comparison.off.index:
        return None
    names = {"uniform": evidence.report.reference, **evidence.report.controls[arm]}
    found = {role: _minus(comparison, arm, names.get(role)) for role in ("uniform", "shuffled", "random")}
    higher = higher_is_better(comparison.metrics[0])
    if higher is None:
        return None
    return works(found["uniform"], found["shuffled"], found["random"], higher).outcome, found


def _minus(comparison: Comparison, arm: str, control: str | None) -> PairedDifference | None:
    if control not in comparison.rows or control in comparison.off.index:
        return None
    pairs = comparison.minus(comparison.metrics[0], arm, control)
    return mean_interval(pairs) if len(pairs) else None


def verdict_sheet(evidence: Evidence) -> Sheet | None:
    """Each arm that has controls, in each panel: the outcome and the three differences; None without controls."""
    rows = []
    for panel, comparison in evidence.compared():
        for arm in evidence.report.controls:
            found = _verdict(evidence, comparison, arm)
            if found is None:
                continue
            outcome, differences = found
            cells = [_versus(difference, comparison) for difference in differences.values()]
            head = [Cell(evidence.short[panel.name]), Cell(arm, link=link(panel, arm))]
            rows.append([*head, Cell(outcome, kind=OUTCOMES[outcome]), *cells])
    columns = [
        "where",
        "arm",
        "verdict",
        f"minus {evidence.report.reference}",
        "minus its shuffled ranks",
        "minus random",
    ]
    notes = [
        "An arm works if it beats the tuned uniform arm, its own shuffled ranks and random ranks, each with a 95 % interval "
        "that leaves out 0; it does not work if one of them beats it. A control that was not run leaves it not resolved.",
        *(
            ["Learning rates were not tuned here: the uniform arm is not at its best."]
            if not evidence.study.sweep.tune
            else []
        ),
    ]
    return Sheet("verdict", "Does it work?", columns, rows, notes) if rows else None


def _versus(found: PairedDifference | None, comparison: Comparison) -> Cell:
    if found is None:
        return Cell("not run")
    if found.low is None or found.high is None:
        return Cell(f"{found.mean:+.4f} (no interval)", found.mean)
    kind = "unresolved"
    if found.resolved:
        kind = "better" if (found.mean > 0) == higher_is_better(comparison.metrics[0]) else "worse"
    text = f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}], n = {found.n}"
    return Cell(text, found.mean, found.low, found.high, kind=kind)


def findings_sheet(evidence: Evidence) -> Sheet | None:
    """Arms down, panels across: what each comparison shows; None for a single panel, whose table says it."""
    compared = evidence.compared()
    if len(compared) < 2:
        return None
    rows = [
        [Cell(arm), *(_finding(evidence, panel, comparison, arm) for panel, comparison in compared)]
        for arm in evidence.arms
        if arm != evidence.report.reference
    ]
    columns = ["arm", *(evidence.short[panel.name] for panel, _ in compared)]
    title = f"Findings: each arm against {evidence.report.reference}"
    return Sheet("findings", title, columns, rows, ["Mean paired difference and what the corrected test says of it."])


def _finding(evidence: Evidence, panel: Panel, comparison: Comparison, arm: str) -> Cell:
    if arm not in comparison.rows:
        return Cell("not run")
    found, pairs = comparison.finding(arm), comparison.pairs(comparison.metrics[0], arm)
    mean = float(pairs.mean()) if len(pairs) else float("nan")
    text = f"{mean:+.4f} {found.text}" if not pd.isna(mean) else found.text
    return Cell(text, strong=found.kind == "better", kind=found.kind, link=link(panel, arm))
