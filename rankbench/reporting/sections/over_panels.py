"""Panels that are a sample of their kind, taken together: what an arm gains on panels like these."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rankbench.analysis.comparison import KIND_OF
from rankbench.analysis.labels import arm_title, file_name, panel_title, with_titles
from rankbench.analysis.metrics import higher_is_better, title_of
from rankbench.analysis.pooled import Pooled, PooledPanels
from rankbench.analysis.terms import Terms
from rankbench.reporting.amounts import amount_of, estimate_cell, rough
from rankbench.reporting.decisions import Member, pool_arms, sample_groups
from rankbench.reporting.report_data import ReportData
from rankbench.reporting.section import Section
from rankbench.reporting.table import Cell, Table, arm_cell, number_cell
from rankbench.statistics.decision import OUTCOMES
from rankbench.statistics.estimates import Estimate, PairedDifference

SHOWN = ("works", "worthwhile", "harmful")  # outcomes whose gains stand in the sentence
PANELS = -2  # place of their number in a row
FAR = -1000.0  # per cent: a loss beyond it is as good as unlimited


def make(report_data: ReportData) -> Section | None:
    """Return the section, None where no panels are taken together."""
    tables = pooled_tables(report_data)
    return Section("over", "Panels taken together", (), tables) if tables else None


def pooled_tables(report_data: ReportData) -> list[Table]:
    """A table for each title and group of panels."""
    return [
        _table(report_data, title, shared, members)
        for title in report_data.report.over
        for shared, members in sample_groups(report_data, title)
    ]


def _table(report_data: ReportData, title: str, shared: str, members: Sequence[Member]) -> Table:
    together, pools = pool_arms(report_data, members)
    terms, reference = members[0][1].terms, str(members[0][1].reference)
    names = list(dict.fromkeys(name for pooled in pools.values() for name in pooled.decision.intervals))
    over = [name for name in names if name != reference]
    columns = [
        *("arm", "outcome", f"gain over {arm_title(reference)}"),
        *(f"gain over {name}" for name in over),
        *("tau", "one more such panel", "these panels alone", "panels", "why"),
    ]
    rows = [_row(report_data, arm, pooled, [reference, *over], together, terms) for arm, pooled in pools.items()]
    left = [arm for arm in report_data.claimed if arm not in (*pools, reference)]
    notes = [
        _note(together, terms, report_data),
        *([f"Left out, not run on every panel: {', '.join(map(arm_title, left))}."] if left else []),
    ]
    return Table(f"over-{file_name(title + ' ' + shared)}", f"{title}: {panel_title(shared)}", columns, rows, notes)


def _row(
    report_data: ReportData, arm: str, pooled: Pooled, names: Sequence[str], together: PooledPanels, terms: Terms
) -> list[Cell]:
    decision, plain = pooled.decision, arm not in report_data.report.controls
    kind = KIND_OF[decision.outcome] if plain else decision.outcome
    unit = terms if together.one_unit else Terms()
    rises = bool(higher_is_better(together.comparisons[0].metrics[0]))
    over = [
        Cell("" if plain else "not run") if gain is None else _estimate(unit, gain, rises)
        for gain in map(decision.intervals.get, names)
    ]
    spread = number_cell(pooled.deviation, "{:.2g}")
    another, alone = (
        Cell() if each is None else _estimate(unit, each, rises) for each in (pooled.another, pooled.these)
    )
    panels = len(together.comparisons)
    why = with_titles(decision.reason, together.comparisons[0].rows)
    return [
        *(arm_cell(arm), Cell(kind, kind=kind), *over),
        *(spread, another, alone, Cell(str(panels), panels), Cell(why)),
    ]


def _note(together: PooledPanels, terms: Terms, report_data: ReportData) -> str:
    looks, shares = report_data.study.looks, report_data.shares
    arms = f"{together.family // (looks * shares)} arms" + f" and {looks} looks at the data" * (looks > 1)
    arms += f", with one of {shares} equal shares of the errors" * (shares > 1)
    scale = "in units of each panel's smallest effect of interest"
    if together.one_unit:
        metric = title_of(together.comparisons[0].metrics[0])
        smallest = amount_of(terms, together.smallest, bool(higher_is_better(together.comparisons[0].metrics[0])))
        unit = f"per cent of the {metric.partition(',')[0]}" if terms.log else metric
        scale = f"in {unit}; the smallest effect of interest"
        scale += f" is {rough(smallest)}{' %' * terms.log}"
    return (
        f"Mean gains over panels like these, of which these are a sample ({scale}). Intervals: Student's over the "
        "means of the panels (Knapp and Hartung, equal weights); over one reference or control they hold together "
        f"over {arms}. The outcome is that of the decision rule, with panels in the place of seeds. "
        "Tau: deviation of true gains between panels, on the scale that is judged. One more such panel: gain that it "
        "would show at as many seeds, each interval for itself. These panels alone: seeds are the only chance "
        "(stratified). Verdicts on these panels one by one are exploratory: this table has their share of the errors."
    )


def _estimate(terms: Terms, estimate: Estimate | PairedDifference, rises: bool) -> Cell:
    cell = estimate_cell(terms, estimate, rises, "+.3g")
    if cell.low is None or cell.low > FAR:
        return cell
    return replace(cell, text=cell.text.replace(f"[{cell.low:+.3g}", f"[below {FAR:g}"))


def sentences(report_data: ReportData, tables: Sequence[Table]) -> Iterator[str]:
    """For each of `pooled_tables`: which arms with controls have which outcome; titles without panels to pool."""
    for title, axes in report_data.report.over.items():
        if not sample_groups(report_data, title):
            yield f"{title}: no two panels with headroom differ in {' and '.join(axes)} alone."
    for table in tables:
        arms: dict[str, list[str]] = defaultdict(list)
        for arm, outcome, gain, *_ in table.rows:
            if arm.arm in report_data.report.controls:
                shown = f" ({gain.text})" * (outcome.text in SHOWN)
                arms[outcome.text].append(arm.text + shown)
        parts = [f"{outcome}: {', '.join(arms[outcome])}" for outcome in OUTCOMES if outcome in arms]
        if parts:
            family = len(table.rows) * report_data.study.looks * report_data.shares
            together = (
                f"n = {table.rows[0][PANELS].text} panels, a sample of such; each interval is one of {family} that "
                f"hold together with {report_data.report.level * 100:g} %"
            )
            yield f"{table.title}: {'; '.join(parts)} ({together})."
