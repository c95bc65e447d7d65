"""Panels that are a sample of their kind, taken together: what an arm gains on panels like these."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from rankbench.analysis.comparison import KIND_OF
from rankbench.analysis.labels import arm_title, file_name, panel_title, with_titles
from rankbench.analysis.metrics import higher_is_better, title_of
from rankbench.reporting.amounts import amount_of, estimate_cell, rough, worth_cell
from rankbench.reporting.decisions import Sample
from rankbench.reporting.report_data import ReportData
from rankbench.reporting.table import Cell, Table, arm_cell, number_cell
from rankbench.statistics.decision import OUTCOMES
from rankbench.statistics.estimates import Estimate, PairedDifference

SHOWN = ("works", "worthwhile", "harmful")  # outcomes whose gains stand in the sentence
DETAILS = ("tau", "one more such panel", "these panels alone", "why")  # columns that a paper leaves out


def pooled_tables(report_data: ReportData) -> list[Table]:
    """Two tables for each sample of panels: the arms that have controls, then the others; none without any."""
    return [
        _table(report_data, sample, arms, controlled)
        for sample in report_data.samples
        for controlled in (True, False)
        if (arms := [arm for arm in sample.pools if (arm in report_data.report.controls) == controlled])
    ]


def _table(report_data: ReportData, sample: Sample, arms: Sequence[str], controlled: bool) -> Table:
    """The table of some arms of a sample: all that have controls, or all that have none."""
    names = dict.fromkeys(name for arm in arms for name in sample.pools[arm].decision.intervals)
    over = [sample.reference, *(name for name in names if name != sample.reference)]
    gains = [f"gain over {arm_title(name) if name == sample.reference else name}" for name in over]
    worth = ["worth"] * (sample.terms.ladder is not None)
    rows = [_row(report_data, sample, arm, over, bool(worth)) for arm in arms]
    left = [arm for arm in report_data.claimed if arm not in sample.pools]
    left_out = [f"Left out, not run on every panel: {', '.join(map(arm_title, left))}."] if left else []
    apart_from = "" if controlled or len(arms) == len(sample.pools) else ", arms without controls of their own"
    return Table(
        f"over-{file_name(f'{sample.title} {sample.shared}{apart_from}')}",
        f"{_title(sample)}{apart_from}",
        ["arm", "outcome", *gains, *worth, *DETAILS],
        rows,
        [_note(report_data, sample), *left_out],
        strip=2,
        margin=sample.terms.margin and amount_of(sample.terms, sample.terms.margin),
        details=DETAILS,
    )


def _title(sample: Sample) -> str:
    return f"{sample.title}, {len(sample.members)} panels: {panel_title(sample.shared)}"


def _row(report_data: ReportData, sample: Sample, arm: str, over: list[str], with_worth: bool) -> list[Cell]:
    pooled, plain = sample.pools[arm], arm not in report_data.report.controls
    decision = pooled.decision
    kind = KIND_OF[decision.outcome] if plain else decision.outcome
    outcome = Cell("not at an equal budget") if sample.is_off(arm) else Cell(kind, kind=kind)
    gains = [_gain_cell(sample, decision.intervals.get(name), "" if plain else "not run") for name in over]
    return [
        *(arm_cell(arm), outcome, *gains),
        *([worth_cell(sample.worth(arm))] if with_worth else []),
        number_cell(pooled.deviation, "{:.2g}"),
        *(_gain_cell(sample, gain) for gain in (pooled.another, pooled.these)),
        Cell(with_titles(decision.reason, sample.together.comparisons[0].rows)),
    ]


def _gain_cell(sample: Sample, gain: Estimate | PairedDifference | None, without: str = "") -> Cell:
    """A gain with its interval; what to say where there is none."""
    rises = bool(higher_is_better(sample.together.comparisons[0].metrics[0]))
    form = "+.1f" if sample.terms.log else "+.3g"  # tenths of a per cent
    return Cell(without) if gain is None else estimate_cell(sample.terms, gain, rises, form)


def _note(report_data: ReportData, sample: Sample) -> str:
    together, terms = sample.together, sample.terms
    looks, shares = report_data.study.looks, report_data.shares
    arms = f"{together.family // (looks * shares)} arms" + f" and {looks} looks at the data" * (looks > 1)
    arms += f", with one of {shares} equal shares of the errors" * (shares > 1)
    scale = "in units of each panel's smallest effect of interest"
    if together.one_unit:
        metric = together.comparisons[0].metrics[0]
        name = title_of(metric)
        smallest = amount_of(terms, together.smallest, bool(higher_is_better(metric)))
        unit = f"per cent of the {name.partition(',')[0]}" if terms.log else name
        scale = f"in {unit}; the smallest effect of interest is {rough(smallest)}{' %' * terms.log}"
    return (
        f"Mean gains over panels like these, of which these are a sample ({scale}). Intervals: Student's over the "
        "means of the panels (Knapp and Hartung, equal weights); over one reference or control they hold together "
        f"over {arms}. The outcome is that of the decision rule, with panels in the place of seeds. "
        "Worth: the budget at which uniform ranks are as good, read off a ladder of budgets. "
        "Tau: deviation of true gains between panels, on the scale that is judged. One more such panel: gain that it "
        "would show at as many seeds, each interval for itself. These panels alone: seeds are the only chance "
        "(stratified). Verdicts on these panels one by one are exploratory: this table has their share of the errors."
    )


def sentences(report_data: ReportData) -> Iterator[str]:
    """For each sample: which arms with controls have which outcome; and titles without panels to take together."""
    for title, axes in report_data.report.over.items():
        if not any(sample.title == title for sample in report_data.samples):
            yield f"{title}: no two panels with headroom differ in {' and '.join(axes)} alone."
    for sample in report_data.samples:
        arms: dict[str, list[str]] = defaultdict(list)
        for arm in filter(report_data.report.controls.__contains__, sample.pools):
            decision = sample.pools[arm].decision
            gain = _gain_cell(sample, decision.intervals.get(sample.reference)).text
            arms[decision.outcome].append(arm_title(arm) + f" ({gain})" * (decision.outcome in SHOWN))
        parts = [f"{outcome}: {', '.join(arms[outcome])}" for outcome in OUTCOMES if outcome in arms]
        if parts:
            together = (
                f"a sample of such; each interval is one of {sample.together.family} that hold together with "
                f"{report_data.report.level * 100:g} %"
            )
            yield f"{_title(sample)}: {'; '.join(parts)} ({together})."
