"""What a study shows and what it does not: the first thing its report says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rankbench.analysis.comparison import SHOWN, Comparison, Kind
from rankbench.analysis.labels import arm_title, metric_title, panel_title, with_titles
from rankbench.analysis.metrics import higher_is_better
from rankbench.reporting.amounts import (
    amount_of,
    difference_cell,
    difference_of,
    mean_text,
    rough,
    smallest_cell,
)
from rankbench.reporting.decisions import Judged, controls_of
from rankbench.reporting.figures.forest import draw_forest
from rankbench.reporting.report_data import ReportData, link, span
from rankbench.reporting.section import Section, filed, present, rows_of_panels
from rankbench.reporting.sections import over_panels
from rankbench.reporting.table import Cell, Table, arm_cell
from rankbench.statistics.decision import CONTROLS, OUTCOMES, Decision
from rankbench.statistics.estimates import PairedDifference
from rankbench.studies.panels import Panel
from rankbench.sweeps.declaration import code_changes
from rankbench.sweeps.report_settings import UNIFORM

KINDS: dict[Kind, str] = {  # of a comparison with the reference alone
    "worthwhile gain": "better by more than the smallest effect of interest",
    "better": "better",
    "no worthwhile gain": "without worthwhile gain",
    "worse": "worse",
    "open": "open",
    "withheld": "withheld",
}
UNDECLARED = (
    "Exploratory: no sweep names these records, so seeds, reference, metrics and smallest effects were not declared "
    "before the runs, and learning rates are as they are."
)


ANCHOR, TITLE = "verdict", "Verdict"


def make(report_data: ReportData) -> Section:
    """Return the section that is always there."""
    together = {panel.name for panel, _ in report_data.in_samples()}
    alone = [each for each in report_data.judged if each[0].name not in together]
    apart = [each for each in report_data.judged if each[0].name in together]
    one_by_one = verdict_table(report_data, apart, "verdict-one-by-one", "Panels of a sample one by one, exploratory")
    blocks = [
        partial(draw_forest, report_data),
        *over_panels.pooled_tables(report_data),
        verdict_table(report_data, alone),
        findings_table(report_data),
        filed(one_by_one),
    ]
    return Section(ANCHOR, TITLE, sentences(report_data), present(blocks), folded=False)


def sentences(report_data: ReportData) -> list[str]:
    """Sentences on what is decided, what is open, and what could have been seen; the first are those to quote.

    Panels that are taken together are neither counted nor listed one by one: a file has their single verdicts.
    """
    return [
        *over_panels.sentences(report_data),
        *_without_headroom(report_data),
        *_verdict_sentences(report_data),
        *_findings_in_words(report_data),
        *_what_could_be_seen(report_data),
        *_varied_settings(report_data),
        *_declaration(report_data),
    ]


def _difference(comparison: Comparison, gain: PairedDifference, digits: int) -> Cell:
    """A gain in the first metric as a difference in it."""
    metric = comparison.metrics[0]
    difference = difference_of(gain, bool(higher_is_better(metric)))
    return difference_cell(comparison.terms, difference, digits)


def _declaration(report_data: ReportData) -> Iterator[str]:
    """When it was declared what is judged, and what has changed since."""
    sweep = report_data.study.sweep
    if report_data.study.source is not None:
        yield UNDECLARED
    if sweep.experiment is None:
        return
    if sweep.declaration is None or not sweep.declaration.panels:
        yield "Not declared before the runs: seeds and smallest effects are those of the experiment as it was started."
        return
    looks = report_data.study.looks
    seen = f"; the data were looked at {looks} times, for which the intervals allow" if looks > 1 else ""
    changes = dict.fromkeys([*sweep.changes, *code_changes(sweep.declaration)])
    since = f"since then changed: {'; '.join(changes)}" if changes else "nothing has changed since"
    when = span(panel.date[:10] for panel in sweep.declaration.panels)
    yield f"Seeds, metrics, smallest effects and arms were declared on {when}; {since}{seen}."


def _without_headroom(report_data: ReportData) -> Iterator[str]:
    where = [panel_title(panel.short) for panel in report_data.panels if not panel.terms.headroom]
    if where:
        yield (
            f"No headroom on {'; '.join(where)}: four times the budget is not shown to buy three smallest effects "
            "there, so what its allocation is worth could not be seen; every verdict is withheld."
        )


def _findings_in_words(report_data: ReportData) -> Iterator[str]:
    findings = [comparison.findings[arm] for _, comparison in report_data.alone() for arm in comparison.rows]
    counts = Counter(finding.kind for finding in findings if finding.kind in KINDS)
    if report_data.samples and not counts:
        return
    if not counts:
        yield "Nothing can be compared yet: no arm shares a seed with the reference at an equal budget."
        return
    metrics = ", ".join(sorted({_metric(comparison.metrics[0]) for _, comparison in report_data.alone()}))
    yield (
        f"{counts.total()} comparison{'s' * (counts.total() > 1)} with {report_data.report.reference} at an equal "
        f"budget ({metrics}): {_counted(counts)}."
    )


def _metric(column: str) -> str:
    return metric_title(column, arrow=True, short=True)


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
    """Range of the detectable differences, and of the numbers of pairs, of each metric and sample."""
    for sample in report_data.samples:
        sizes = [size for arm in sample.pools if (size := sample.detectable(arm)) is not None]
        if sizes and sample.together.one_unit:
            metric, terms = sample.together.comparisons[0].metrics[0], sample.terms
            amounts = [amount_of(terms, size, bool(higher_is_better(metric))) for size in sizes]
            yield (
                f"The smallest mean difference in {_metric(metric)} whose interval would leave out 0 with 80 % "
                f"probability (n = {len(sample.members)} panels) {_range_in_words(amounts, terms.log, 'the arm')}."
            )
    seen: dict[tuple[str, bool], list[tuple[float, int]]] = {}
    for _, comparison in report_data.alone():
        metric, terms = comparison.metrics[0], comparison.terms
        for arm in comparison.judged:
            smallest = comparison.detectable(metric, arm)
            if smallest is not None:
                size = amount_of(terms, smallest, bool(higher_is_better(metric)))
                seen.setdefault((metric, terms.log), []).append((size, len(comparison.pairs(metric, arm))))
    what = "arm and panel" if len(report_data.alone()) > 1 else "the arm"
    for (metric, log), pairs_seen in seen.items():
        size_text = _range_in_words([size for size, _ in pairs_seen], log, what)
        yield (
            f"The smallest difference in {_metric(metric)} whose interval would leave out 0 with 80 % probability "
            f"(n = {span(n for _, n in pairs_seen)} pairs) {size_text}."
        )


def _range_in_words(sizes: Sequence[float], log: bool, what: str) -> str:
    """From the least to the most of some sizes that depend on something."""
    least, most = (f"{rough(end(sizes))}{' %' * log}" for end in (min, max))
    return f"is {least}" if least == most else f"is between {least} and {most}, depending on {what}"


def _verdict_sentences(report_data: ReportData) -> Iterator[str]:
    """For each arm with controls, what is decided and where; in a single panel, or where it is withheld, why."""
    compared = report_data.alone()
    names = {panel.name for panel, _ in compared}
    judged = [each for each in report_data.judged if each[0].name in names]
    for arm in report_data.report.controls:
        if arm == report_data.report.reference:
            yield f"{arm}: no verdict: it stands in for the reference, {CONTROLS[UNIFORM]} was not run."
        decisions = [(panel_title(panel.short), decision) for panel, _, each, decision in judged if each == arm]
        at_other_budgets = [(panel, each) for panel, each in compared if arm in each.off.index]
        off = [panel_title(panel.short) for panel, each in at_other_budgets if arm != each.reference]
        if off:
            yield f"{arm}: no verdict on {'; '.join(off)}: not at an equal budget."
        if len(decisions) == 1:
            yield f"{arm}: {decisions[0][1].outcome} ({decisions[0][1].reason})."
        for outcome in OUTCOMES if len(decisions) > 1 else ():
            titles = [where for where, decision in decisions if decision.outcome == outcome]
            if titles:
                where_text = f": {'; '.join(titles)}" if len(titles) < len(decisions) else ""
                reasons = dict.fromkeys(decision.reason for _, decision in decisions if decision.outcome == outcome)
                where_text += f" ({'; '.join(reasons)})" * (outcome == "withheld" and len(reasons) == 1)
                yield f"{arm}: {outcome} on {len(titles)} of {len(decisions)}{where_text}."


def verdict_table(
    report_data: ReportData, judged: Sequence[Judged], name: str = "verdict", title: str = "Does it work?"
) -> Table | None:
    """Each arm that has controls, in each panel: the outcome and its difference to the reference and every control.

    None without any.
    """
    named = [
        (str(comparison.reference), *controls_of(report_data.report, arm, comparison.reference))
        for _, comparison, arm, _ in judged
    ]
    names = list(dict.fromkeys(name for several in named for name in several))
    rows = []
    for panel, comparison, arm, decision in judged:
        digits = report_data.digits[panel.name]
        where = link(panel, arm) if arm in panel.arms else ""
        head = [Cell(panel_title(panel.short)), arm_cell(arm, where), Cell(decision.outcome, kind=decision.outcome)]
        controls = controls_of(report_data.report, arm, comparison.reference)
        over = [_over(comparison, decision, arm, name, controls.get(name, []), digits) for name in names]
        n = Cell(span(difference.n for difference in decision.intervals.values()))
        why = Cell(with_titles(decision.reason, comparison.rows))
        rows.append([*head, *over, smallest_cell(comparison.terms), n, why])
    differences = [f"difference to {with_titles(name, [str(report_data.report.reference)])}" for name in names]
    columns = ["where", "arm", "verdict", *differences, "smallest effect", "n", "why"]
    notes, details = [_rule(report_data), *_untuned(report_data)], ["why", "smallest effect"]
    return rows_of_panels(report_data, Table(name, title, columns, rows, notes, details=details))


def _rule(report_data: ReportData) -> str:
    beaten = ", ".join(CONTROLS[role] for role in report_data.report.beats)
    return (
        f"An arm works if it beats all of these: {beaten}; each by an interval that leaves out 0. It is worthwhile if "
        "its gain over the reference lies above the smallest effect of interest, too, without worthwhile gain if it "
        "lies below that, and harmful if it is a loss. Differences are arm minus control in the metric itself; a gain "
        "is one for the better. Intervals of all arms and panels over one control hold together with "
        f"{report_data.report.level * 100:g} %. Nothing is said where seeds are lost, a learning rate lies at an edge "
        "of its grid, or more budget does not help. A control that is several arms is their mean at each seed."
    )


def _untuned(report_data: ReportData) -> list[str]:
    untuned = "Learning rates were not tuned here: the uniform arm may not be at its best."
    return [] if report_data.study.sweep.tuned else [untuned]


def _over(comparison: Comparison, decision: Decision, arm: str, name: str, control: Sequence[str], digits: int) -> Cell:
    """A gain and its interval, with the budget of a control that has another; why there is none."""
    if name not in decision.intervals:
        lost = comparison.why_lost(arm, control) if arm in comparison.rows and control else None
        return Cell(lost or ("not run" if arm in comparison.rows else ""))
    cell = _difference(comparison, decision.intervals[name], digits)
    off = [comparison.off[each] for each in control if each in comparison.off.index]
    return replace(cell, text=f"{cell.text} at {max(off):.0%} of the budget") if off else cell


def findings_table(report_data: ReportData) -> Table | None:
    """Arms down, panels across: what each comparison shows; None for a single panel, whose table says it."""
    compared = report_data.alone()
    if len(compared) < 2:
        return None
    rows = [
        [arm_cell(arm), *(_finding(report_data, panel, comparison, arm) for panel, comparison in compared)]
        for arm in report_data.arms
        if arm != report_data.report.reference and any(arm in comparison.rows for _, comparison in compared)
    ]
    columns = ["arm", *(panel_title(panel.short) for panel, _ in compared)]
    title = f"Findings: each arm against {arm_title(report_data.report.reference)}"
    return Table("findings", title, columns, rows, ["Mean paired difference and what its interval shows."])


def _finding(report_data: ReportData, panel: Panel, comparison: Comparison, arm: str) -> Cell:
    if arm not in comparison.rows:
        return Cell("not run")
    finding, difference = comparison.findings[arm], comparison.difference(comparison.metrics[0], arm)
    text = with_titles(finding.text, comparison.rows)
    if difference is not None:
        text = f"{mean_text(comparison.terms, difference.mean, report_data.digits[panel.name])} {text}"
    return Cell(text, strong=finding.kind in SHOWN, kind=finding.kind, link=link(panel, arm))
