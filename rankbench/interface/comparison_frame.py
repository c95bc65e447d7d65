"""Comparisons as a pandas frame of numbers: what `StudyView.table` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from rankbench.analysis.comparison import Comparison, compare
from rankbench.analysis.labels import ARROWS
from rankbench.analysis.metrics import higher_is_better
from rankbench.reporting.amounts import amount_of

NUMBERS = (
    "mean",
    "sd",
    "difference",
    "low",
    "high",
    "detectable",
    "spent",
)  # columns that hold numbers, NaN where there is none


def comparison_frame(compared: Mapping[str, Comparison]) -> pd.DataFrame:
    """Arms down, the panel before them where there are several; the columns are those of `StudyView.table`.

    Args:
        compared: title of a panel -> its comparison; at least one.
    """
    table = pd.concat({title: _rows(comparison) for title, comparison in compared.items()}, names=["panel", "arm"])
    metrics = [comparison.metrics[0] for comparison in compared.values()]
    table.columns.name = ", ".join(dict.fromkeys(metric + ARROWS[higher_is_better(metric)] for metric in metrics))
    if all(each.terms.margin is None for each in compared.values()):
        table = table.drop(columns="finding")
    return table.droplevel("panel") if len(compared) == 1 else table


def compared_on(metric: str, comparison: Comparison) -> Comparison:
    """The same runs compared on a metric of which nothing was declared.

    Raises:
        SelectionError: no run has the metric.
    """
    terms = replace(comparison.terms, margin=None, log=False, ladder=None)
    return compare(comparison.data, [metric], comparison.reference, terms)


def _rows(comparison: Comparison) -> pd.DataFrame:
    rows = pd.DataFrame([_row(comparison, label) for label in comparison.rows], index=comparison.rows)
    return rows.astype(dict.fromkeys(NUMBERS, float))


def _row(comparison: Comparison, label: str) -> Mapping[str, object]:
    metric, terms = comparison.metrics[0], comparison.terms
    measured, difference = comparison.values[metric][label].dropna(), comparison.difference(metric, label)
    ends = (None, None, None) if difference is None else (difference.mean, difference.low, difference.high)
    shown = [None if end is None else amount_of(terms, end, rises=True) for end in ends]
    detectable = comparison.detectable(metric, label)
    return {
        "n": len(measured),
        "mean": measured.mean(),
        "sd": measured.std(ddof=1),
        **dict(zip(("difference", "low", "high"), shown, strict=True)),
        "unit": "%" if terms.log else metric,
        "finding": comparison.findings[label].text,
        "detectable": None if detectable is None else amount_of(terms, detectable, bool(higher_is_better(metric))),
        "spent": comparison.shares.get(label),
    }
