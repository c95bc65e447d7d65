"""Differences as text: in the metric's unit, or in per cent where logarithms are judged.

One sign for all: a difference is arm minus reference in the metric itself, so less than 0 is better where the head of
the column has an arrow down. Gains, above 0 where the arm is better, are what is computed with, and are shown where
metrics of both directions are taken together, in units of their smallest effects.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd

from rankbench.analysis.comparison import Comparison, decimals
from rankbench.analysis.terms import Terms
from rankbench.reporting.table import NO_INTERVAL, Cell, interval_cell
from rankbench.statistics.estimates import Estimate, PairedDifference

FAR = 1000  # per cent: a multiple of it is as good as unlimited


def digits_of(comparison: Comparison, metric: str) -> int:
    """Digits after the point of the differences in a metric."""
    others = [label for label in comparison.rows if label != comparison.reference]
    pairs = pd.DataFrame({label: comparison.pairs(metric, label) for label in others})
    return decimals(100 * pairs, least=0) if terms_of(comparison, metric).log else decimals(pairs)


def terms_of(comparison: Comparison, metric: str) -> Terms:
    """The terms of a comparison; of a metric that is not judged, those of a plain difference."""
    return comparison.terms if metric == comparison.metrics[0] else Terms()


def difference_of(gain: PairedDifference, higher: bool) -> PairedDifference:
    """A gain, above 0 where the arm is better, as a difference in its metric, of which more is better or not."""
    if higher:
        return gain
    low, high = (None if end is None else -end for end in (gain.high, gain.low))
    return replace(gain, mean=-gain.mean, low=low, high=high)


def amount_of(terms: Terms, change: float, rises: bool = False) -> float:
    """A gain or difference as it is printed (Terms.amount); infinite where per cent of it are beyond all numbers.

    Few pairs in a large family have intervals of hundreds of logarithms.
    """
    try:
        return terms.amount(change, rises)
    except OverflowError:
        return math.copysign(math.inf, change)


def mean_text(terms: Terms, mean: float, digits: int) -> str:
    """A mean difference without its interval: "-12 %"; arguments of `difference_cell`."""
    return f"{amount_of(terms, mean, rises=True):+.{digits}f}{' %' * terms.log}"


def difference_cell(terms: Terms, difference: PairedDifference, digits: int, why: str = "no interval") -> Cell:
    """A mean difference in the metric, or in its logarithm as `terms` say: "-12 % [-18, -5]", "+0.3 [+0.1, +0.5]"."""
    return estimate_cell(terms, difference, rises=True, form=f"+.{digits}f", without=f" ({why})")


def estimate_cell(
    terms: Terms, gain: Estimate | PairedDifference, rises: bool, form: str, without: str = NO_INTERVAL
) -> Cell:
    """A gain or difference with its interval as they are printed (`amount_of`, `interval_cell`).

    Per cent of a loss have no end upwards: an end beyond `FAR` is printed as that.
    """
    mean = gain.value if isinstance(gain, Estimate) else gain.mean
    low, high = (None if end is None else amount_of(terms, end, rises) for end in (gain.low, gain.high))
    cell = interval_cell(amount_of(terms, mean, rises), low, high, form, " %" * terms.log, without)
    text = cell.text
    if terms.log and low is not None and low < -FAR:
        text = text.replace(f"[{low:{form}}", f"[below -{FAR:g}")
    if terms.log and high is not None and high > FAR:
        text = text.replace(f"{high:{form}}]", f"above +{FAR:g}]")
    return replace(cell, text=text)


def level_text(level: float) -> str:
    """A level in per cent, with digits enough that it is not 100: "95", "99.8", "99.996"."""
    text = f"{100 * level:.4g}"
    return text if text != "100" else f"{100 * level:.{1 - math.floor(math.log10(100 * (1 - level)))}f}"


def rough(value: float) -> str:
    """Two digits of a number, and no exponent of one of more: "0.35", "26", "101"."""
    return f"{value:.2g}" if abs(value) < 99.5 else f"{value:,.0f}"


def smallest_cell(terms: Terms) -> Cell:
    """The smallest effect of interest, in the unit that is printed."""
    return Cell(terms.smallest, terms.margin and amount_of(terms, terms.margin))


def worth_cell(worth: Estimate | None) -> Cell:
    """Budget at which uniform ranks are as good: "1.3 x [1.1, 1.8]"; an end beyond the ladder is open."""
    if worth is None:
        return Cell()
    low, high = ("beyond" if end is None else f"{end:.2g}" for end in (worth.low, worth.high))
    return Cell(f"{worth.value:.2g} x [{low}, {high}]", worth.value, worth.low, worth.high)
