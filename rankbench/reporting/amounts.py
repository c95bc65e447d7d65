"""Gains and differences as text: in the metric's unit, or in per cent where logarithms are judged."""

from __future__ import annotations

import pandas as pd

from rankbench.analysis.comparison import Comparison, decimals
from rankbench.analysis.terms import Terms
from rankbench.reporting.table import Cell
from rankbench.statistics.estimates import Estimate, PairedDifference


def digits_of(comparison: Comparison, metric: str) -> int:
    """Digits after the point of the differences in a metric."""
    others = [label for label in comparison.rows if label != comparison.reference]
    pairs = pd.DataFrame({label: comparison.pairs(metric, label) for label in others})
    return decimals(100 * pairs, least=0) if terms_of(comparison, metric).log else decimals(pairs)


def terms_of(comparison: Comparison, metric: str) -> Terms:
    """The terms of a comparison; of a metric that is not judged, those of a plain difference."""
    return comparison.terms if metric == comparison.metrics[0] else Terms()


def mean_text(terms: Terms, mean: float, digits: int, rises: bool) -> str:
    """A mean without its interval: "-12 %"; arguments of `amount_cell`."""
    return f"{terms.amount(mean, rises):+.{digits}f}{' %' * terms.log}"


def amount_cell(terms: Terms, amount: PairedDifference, digits: int, rises: bool, why: str = "no interval") -> Cell:
    """A mean and its interval: "-12 % [-18, -5]", "+0.031 [+0.012, +0.050]".

    Args:
        terms: on what scale.
        amount: a gain or a difference, on that scale.
        digits: after the point.
        rises: whether the metric rises with it, as in `Terms.amount`.
        why: what to say where there is no interval.
    """
    mean, text = terms.amount(amount.mean, rises), mean_text(terms, amount.mean, digits, rises)
    if amount.low is None or amount.high is None:
        return Cell(f"{text} ({why})", mean)
    low, high = terms.amount(amount.low, rises), terms.amount(amount.high, rises)
    return Cell(f"{text} [{low:+.{digits}f}, {high:+.{digits}f}]", mean, low, high)


def smallest_cell(terms: Terms) -> Cell:
    """The smallest effect of interest, in the unit that is printed."""
    return Cell(terms.smallest, terms.margin and terms.amount(terms.margin))


def worth_cell(worth: Estimate | None) -> Cell:
    """Budget at which uniform ranks are as good: "1.3 x [1.1, 1.8]"; an end beyond the ladder is open."""
    if worth is None:
        return Cell()
    low, high = ("beyond" if end is None else f"{end:.2g}" for end in (worth.low, worth.high))
    return Cell(f"{worth.value:.2g} x [{low}, {high}]", worth.value, worth.low, worth.high)
