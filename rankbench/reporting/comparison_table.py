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
from rankbench.reporting.table import Cell, Column, Table, arm_cell, linked_rows, number_cell, number_column

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
EXPLORATORY = "Exploratory: a family of its own, beside that of the verdict; nothing here is part of it."


def make_table(
    comparison: Comparison, name: str = "", title: str = "", links: Mapping[str, str] | None = None
) -> Table:
    """The table of a comparison: counts, metrics, differences, budget; with a margin findings, without it costs.

    Args:
        comparison: comparison of one model, task and budget.
        name, title: file stem and title of the table.
        links: label -> list of its records, on the page.
    """
    columns = _with_costs(comparison) if comparison.terms.margin is None else _with_findings(comparison)
    rows = linked_rows(columns, _ordered(comparison), links or {})
    notes = [*_about_intervals(comparison), *_about_budget(comparison.off, comparison.reference), *_about_n(comparison)]
    heads, margin = list(columns), comparison.terms.margin
    return Table(
        name,
        title,
        heads,
        rows,
        notes,
        strip=next((index for index, head in enumerate(heads) if "difference" in head), None),
        margin=margin and amount_of(comparison.terms, margin),
        legend=_legend(comparison),
        details=[DETECTABLE, _share_title(comparison.data), *([N] if _common_n(comparison) else [])],
    )


def _legend(comparison: Comparison) -> list[str]:
    """What a caption has to say: n, directions, how differences are made, and what is bold."""
    count = _common_n(comparison)
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
    sign = -1 if higher else 1
    means = {label: sign * float(comparison.pairs(metric, label).mean()) for label in comparison.rows}
    return sorted(
        comparison.rows,
        key=lambda label: (label != comparison.reference, math.inf if math.isnan(means[label]) else means[label]),
    )


def _about_n(comparison: Comparison) -> list[str]:
    """That means over different seeds are not to be compared."""
    if comparison.reference is None or _common_n(comparison) is not None:
        return []
    return ["Means are over different seeds where n differs: compare the differences, not the means."]


def _with_costs(comparison: Comparison) -> dict[str, Column]:
    """Columns for any records: one table that says all."""
    columns = {METHOD: _arms(comparison)} | _counts(comparison.data)
    for metric in comparison.metrics:
        columns[metric_title(metric, arrow=True, short=True)] = _means(comparison, metric)
        if comparison.reference is not None:
            columns[_difference_title(comparison, metric)] = _differences(comparison, metric)
    columns[_share_title(comparison.data)] = number_column(comparison.shares * 100, "{:.4g} %")
    return columns | {title: number_column(values, form) for title, (values, form) in _costs(comparison.data).items()}


def _with_findings(comparison: Comparison) -> dict[str, Column]:
    """Columns for a report, which has tables of costs beside it."""
    metric, counts = comparison.metrics[0], _counts(comparison.data)
    columns: dict[str, Column] = {METHOD: _arms(comparison), N: counts[N]}
    if "status" in counts:
        columns["lost"] = _not_ok(comparison.data)
    columns[metric_title(metric, arrow=True, short=True)] = _means(comparison, metric)
    if comparison.reference is not None:
        columns[_difference_title(comparison, metric)] = _differences(comparison, metric)
        columns["finding"] = {label: _finding(comparison, label) for label in comparison.rows}
        columns[DETECTABLE] = _detectable(comparison)
        if comparison.terms.ladder is not None:
            columns["worth"] = {label: worth_cell(comparison.worth(label)) for label in comparison.rows}
    columns[_share_title(comparison.data)] = number_column(comparison.shares * 100, "{:.4g} %")
    return columns


def _arms(comparison: Comparison) -> Column:
    return {label: arm_cell(label) for label in comparison.rows}


def _difference_title(comparison: Comparison, metric: str) -> str:
    """Head of the differences in a metric, which it names where there are several."""
    name = f"{metric_title(metric, short=True)} " if len(comparison.metrics) > 1 else ""
    return f"{name}difference [{comparison.terms.level * 100:g} % CI]"


def _not_ok(data: pd.DataFrame) -> Column:
    """What became of the runs that are not ok."""
    not_ok = data[data["status"] != "ok"]
    return {str(label): Cell(count_statuses(status)) for label, status in not_ok.groupby("label")["status"]}


def _counts(data: pd.DataFrame) -> dict[str, Column]:
    """Runs that are ok; where some are not, of how many, and what became of the others."""
    statuses = {str(label): status for label, status in data.groupby("label")["status"]}
    ok = {label: int((status == "ok").sum()) for label, status in statuses.items()}
    columns: dict[str, Column] = {N: {label: Cell(str(count), count) for label, count in ok.items()}}
    if (data["status"] == "ok").all():
        return columns
    columns["ok/all"] = {label: Cell(f"{ok[label]}/{len(status)}") for label, status in statuses.items()}
    columns["status"] = {label: Cell(count_statuses(status)) for label, status in statuses.items()}
    return columns


def count_statuses(statuses: pd.Series) -> str:
    """How many of each: "3 ok, 1 nan"."""
    return ", ".join(f"{count} {name}" for name, count in statuses.value_counts().items())


def _means(comparison: Comparison, metric: str) -> Column:
    values = comparison.values[metric]
    runs = (comparison.data["status"] == "ok").groupby(comparison.data["label"]).sum()
    digits = decimals(values)
    return {
        label: _mean(
            values[label],
            int(runs[label]),
            digits,
            metric == comparison.metrics[0] and comparison.findings[label].kind in SHOWN,
        )
        for label in comparison.rows
    }


def _mean(values: pd.Series, runs: int, digits: int, strong: bool) -> Cell:
    """Mean and deviation; of how many values, where not all `runs` that are ok have one."""
    measured = values.dropna()
    count = "" if len(measured) == runs else f"({len(measured)} values)"
    if measured.empty:
        return Cell(count)
    spread = f"± {measured.std(ddof=1):.{digits}f}" if len(measured) > 1 else ""
    text = " ".join(filter(None, [f"{measured.mean():.{digits}f}", spread, count]))
    return Cell(text, float(measured.mean()), strong=strong)


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


def _costs(data: pd.DataFrame) -> dict[str, tuple[pd.Series, str]]:
    """Means over runs that are ok: parameters, and what the method's own calibration and decisions took."""
    means = data[data["status"] == "ok"].groupby("label").mean(numeric_only=True)
    own = means[["calibration/seconds", "allocation/seconds"]].sum(axis=1, skipna=False)
    return {
        "final params": (means["final/params"], "{:,.0f}"),
        "peak params": (means["peak/params"], "{:,.0f}"),
        "own passes": (means[OWN].sum(axis=1, skipna=False), "{:,.0f}"),
        "own s": (own, "{:.1f}"),
    }


def _about_intervals(comparison: Comparison) -> list[str]:
    if not comparison.judged:
        return ["No pair to compare."]
    together = comparison.terms.level * 100
    note = f"Interval: Student's, {together:g} %."
    if comparison.family > 1:
        note = (
            f"Intervals: Student's, {level_text(comparison.level)} % each, so that those of {comparison.family} "
            f"comparisons hold together with {together:g} %."
        )
    terms = comparison.terms
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
