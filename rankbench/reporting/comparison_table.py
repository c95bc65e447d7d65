"""Methods beside a reference, paired by seed: `rankbench records table SOURCE --metric test/kl [--by task.map]`.

One row per label. Failed runs are counted, not averaged. rankbench.analysis.selection says which records may stand
together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from rankbench.analysis.comparison import OFF, SHOWN, Comparison, decimals
from rankbench.analysis.frame import OWN
from rankbench.analysis.labels import arm_title, metric_title, with_titles
from rankbench.analysis.metrics import higher_is_better
from rankbench.reporting.amounts import amount_of, difference_cell, digits_of, level_text, rough, terms_of, worth_cell
from rankbench.reporting.table import (
    Cell,
    Column,
    Table,
    arm_cell,
    count_statuses,
    linked_rows,
    mean_cell,
    number_cell,
    number_column,
)

METHOD, N, DETECTABLE = "method", "n", "detectable"  # heads of columns
# For a report, whose tables have findings.
NOTE = (
    "Mean ± standard deviation over seeds. Differences are arm minus reference in the metric itself, paired by seed: "
    "below 0 is better where the arrow points down. Their intervals hold together over all arms, panels and looks at "
    "the data (Bonferroni); in per cent where the metric is judged by its logarithm. "
    "Finding: better or worse, the interval lies beyond 0; no worthwhile gain, each gain in it is smaller than the "
    "smallest effect of interest, the grey band; open, neither, with the number of seeds that would tell; withheld, "
    "nothing is said, for the reason given. Detectable: the true difference whose interval would leave out 0 with 80 "
    "% probability. Worth: the budget at which uniform ranks are as good, read off a ladder of budgets."
)
OTHER_SEEDS = "Means are over different seeds where n differs: compare the differences, not the means."
EXPLORATORY = "Exploratory: a family of its own, beside that of the verdict; nothing here is part of it."


def make_table(
    comparison: Comparison, name: str = "", title: str = "", links: Mapping[str, str] | None = None
) -> Table:
    """The table of a comparison: counts, metrics, differences, budget; with a margin findings, without it costs."""
    columns, count = _columns(comparison), _common_n(comparison)
    rows = linked_rows(columns, _ordered(comparison), links or {})
    notes = [*_about_intervals(comparison), *_about_budget(comparison.off, comparison.reference)]
    notes += [OTHER_SEEDS] * (comparison.reference is not None and count is None)
    heads, margin = list(columns), comparison.terms.margin
    return Table(
        name,
        title,
        heads,
        rows,
        notes,
        strip=next((index for index, head in enumerate(heads) if "difference" in head), None),
        margin=margin and amount_of(comparison.terms, margin),
        legend=_legend(comparison, count),
        details=[DETECTABLE, _share_title(comparison.data), *([N] if count else [])],
    )


def _legend(comparison: Comparison, count: int | None) -> list[str]:
    """What a caption has to say: n, directions, how differences are made, and what is bold."""
    lines = [f"Mean ± standard deviation over {f'n = {count}' if count else 'n'} seeds."]
    for metric in comparison.metrics:
        if (higher := higher_is_better(metric)) is not None:
            head, meaning = metric_title(metric, arrow=True, short=True), metric_title(metric)
            lines.append(f"{head[:1].upper()}{head[1:]}: {meaning}, {'higher' if higher else 'lower'} is better.")
    if comparison.reference is not None:
        reference = arm_title(comparison.reference)
        lines.append(
            f"Difference: method minus {reference}, paired by seed; its interval decides, so no p value is given."
        )
    if any(finding.kind in SHOWN for finding in comparison.findings.values()):
        lines.append("Bold: better, the interval lies beyond 0.")
    return lines


def _common_n(comparison: Comparison) -> int | None:
    """Number of values of every row, None where rows differ."""
    counts = set(comparison.values[comparison.metrics[0]].count())
    return int(counts.pop()) if len(counts) == 1 else None


def _ordered(comparison: Comparison) -> list[str]:
    """The reference, then the others from the best paired difference to the worst; those without one last."""
    metric, higher = comparison.metrics[0], higher_is_better(comparison.metrics[0])
    if higher is None:
        return comparison.rows
    losses = {label: (-1 if higher else 1) * float(comparison.pairs(metric, label).mean()) for label in comparison.rows}
    return sorted(
        comparison.rows,
        key=lambda label: (label != comparison.reference, math.isnan(losses[label]), losses[label]),
    )


def _columns(comparison: Comparison) -> dict[str, Column]:
    """Columns: for a report, which has tables of costs beside it, with findings; for any records all that is known."""
    is_judged = comparison.terms.margin is not None
    columns = _arms(comparison) | _lost(comparison.data, is_judged)
    for metric in comparison.metrics:
        columns[metric_title(metric, arrow=True, short=True)] = _means(comparison, metric)
        if comparison.reference is not None:
            columns[_difference_title(comparison, metric)] = _differences(comparison, metric)
    if is_judged and comparison.reference is not None:
        columns["finding"] = {label: _finding(comparison, label) for label in comparison.rows}
        columns[DETECTABLE] = _detectable(comparison)
        if comparison.terms.ladder is not None:
            columns["worth"] = {label: worth_cell(comparison.worth(label)) for label in comparison.rows}
    columns[_share_title(comparison.data)] = number_column(comparison.shares * 100, "{:.4g} %")
    return columns if is_judged else columns | _costs(comparison.data)


def _difference_title(comparison: Comparison, metric: str) -> str:
    """Head of the differences in a metric, which it names where there are several."""
    name = f"{metric_title(metric, short=True)} " if len(comparison.metrics) > 1 else ""
    return f"{name}difference [{comparison.terms.level * 100:g} % CI]"


def _arms(comparison: Comparison) -> dict[str, Column]:
    """Names of the arms, and their runs that are ok."""
    ok = (comparison.data["status"] == "ok").groupby(comparison.data["label"]).sum()
    counts = {str(label): Cell(str(count), int(count)) for label, count in ok.items()}
    return {METHOD: {label: arm_cell(label) for label in comparison.rows}, N: counts}


def _lost(data: pd.DataFrame, is_judged: bool) -> dict[str, Column]:
    """What became of the runs that are not ok, where there are some; without a judgement, how many of all are ok."""
    is_ok = data["status"] == "ok"
    if is_ok.all():
        return {}
    if is_judged:
        return {"lost": _statuses(data[~is_ok])}
    shares = {str(label): Cell(f"{each.sum()}/{len(each)}") for label, each in is_ok.groupby(data["label"])}
    return {"ok/all": shares, "status": _statuses(data)}


def _statuses(data: pd.DataFrame) -> Column:
    return {str(label): Cell(count_statuses(statuses)) for label, statuses in data.groupby("label")["status"]}


def _means(comparison: Comparison, metric: str) -> Column:
    """Means and deviations; of how many values, where not all runs that are ok have one."""
    values = comparison.values[metric]
    runs = (comparison.data["status"] == "ok").groupby(comparison.data["label"]).sum()
    digits, column = decimals(values), {}
    for label in comparison.rows:
        measured = values[label].dropna()
        count = "" if len(measured) == runs[label] else f"({len(measured)} values)"
        strong = metric == comparison.metrics[0] and comparison.findings[label].kind in SHOWN
        column[label] = mean_cell(measured, digits, strong, count) if len(measured) else Cell(count)
    return column


def _differences(comparison: Comparison, metric: str) -> Column:
    others = [label for label in comparison.rows if label != comparison.reference]
    digits = digits_of(comparison, metric)
    return {label: _difference(comparison, metric, label, digits) for label in others}


def _difference(comparison: Comparison, metric: str, label: str, digits: int) -> Cell:
    """Mean over the seeds both have, interval, and what the number of pairs can see where 0 is inside."""
    difference = comparison.difference(metric, label)
    if difference is None:
        return Cell("no common seed")
    why = "1 pair" if difference.n == 1 else f"all {difference.n} pairs equal"
    cell = difference_cell(terms_of(comparison, metric), difference, digits, why=f"{why}: no interval")
    if difference.low is None or comparison.terms.margin is not None:
        return cell
    text = cell.text
    if not difference.resolved:
        text += f" not resolved (detectable: {comparison.detectable(metric, label):.{digits}f})"
    if difference.n != comparison.values[metric][label].count():
        text += f" ({difference.n} pairs)"
    return replace(cell, text=text)


def _detectable(comparison: Comparison) -> Column:
    """The smallest gain in the first metric that the pairs of each label would have found."""
    metric, terms = comparison.metrics[0], comparison.terms
    rises = bool(higher_is_better(metric))
    smallest = {label: comparison.detectable(metric, label) for label in comparison.rows}
    digits = decimals(comparison.values[metric]) + 1
    column = {}
    for label, value in smallest.items():
        amount = math.nan if value is None else amount_of(terms, value, rises)
        column[label] = number_cell(amount, f"{rough(amount)} %" if terms.log else f"{{:.{digits}f}}")
    return column


def _finding(comparison: Comparison, label: str) -> Cell:
    finding = comparison.findings[label]
    return Cell(with_titles(finding.text, comparison.rows), strong=finding.kind in SHOWN, kind=finding.kind)


def _share_title(data: pd.DataFrame) -> str:
    return f"{' or '.join(sorted(set(data['match'].dropna())))}/target"


def _costs(data: pd.DataFrame) -> dict[str, Column]:
    """Means over runs that are ok: parameters, and what the method's own calibration and decisions took."""
    means = data[data["status"] == "ok"].groupby("label").mean(numeric_only=True)
    own = means[["calibration/seconds", "allocation/seconds"]].sum(axis=1, skipna=False)
    return {
        "final params": number_column(means["final/params"], "{:,.0f}"),
        "peak params": number_column(means["peak/params"], "{:,.0f}"),
        "own passes": number_column(means[OWN].sum(axis=1, skipna=False), "{:,.0f}"),
        "own s": number_column(own, "{:.1f}"),
    }


def _about_intervals(comparison: Comparison) -> list[str]:
    if not comparison.judged:
        return ["No pair to compare."]
    terms, together = comparison.terms, f"{comparison.terms.level * 100:g} %"
    family = f"so that those of {comparison.family} comparisons hold together with {together}"
    each = f"{level_text(comparison.level)} % each, {family}"
    note = f"Intervals: Student's, {each}." if comparison.family > 1 else f"Interval: Student's, {together}."
    return [note] + ([f"Smallest effect of interest: {terms.smallest}, {terms.source}."] if terms.smallest else [])


def _about_budget(off: pd.Series, reference: str | None) -> list[str]:
    """Who did not spend the budget, and what follows from it."""
    notes = [
        f"{arm_title(str(name))}: {share * 100:.4g} % of the target{', by chance' * (abs(share - 1) <= OFF)}, "
        "so not at an equal budget: not judged, to be shown on a frontier."
        for name, share in off.items()
    ]
    return notes + [f"No method is judged: the reference {arm_title(str(reference))} is off the target."] * (
        reference in off
    )
