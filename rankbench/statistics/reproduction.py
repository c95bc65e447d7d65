"""Whether runs of ours agree with a published mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from rankbench.statistics.estimates import Array, Estimate, all_equal, finite, mean_interval
from rankbench.statistics.items import wilson

ReproductionOutcome = Literal["equivalent", "consistent", "contradicted", "not comparable", "not run"]
REPRODUCTION_OUTCOMES: tuple[ReproductionOutcome, ...] = get_args(ReproductionOutcome)
Sign = Literal["confirmed", "contradicted", "not shown"]
WIDEST = 4  # margins: an interval that is wider on either side contains whatever one likes
LEVEL = 0.95


@dataclass(frozen=True)
class Reproduction:
    """What the rule says of one number, and why.

    Attributes:
        ours: our mean, and the interval in which the published number has to lie.
        sign: of a published difference, whether our pairs show its direction; None for other numbers.
    """

    outcome: ReproductionOutcome
    ours: Estimate
    reason: str
    sign: Sign | None = None


def reproduction(
    values: ArrayLike,
    published: float,
    margin: float,
    rounding: float = 0.0,
    published_runs: int | None = None,
    items: int | None = None,
    difference: bool = False,
) -> Reproduction:
    """Whether runs of ours agree with a published mean.

    The interval is where the mean of `published_runs` more runs like ours would lie in 95 of 100 cases: our mean
    +- t (n - 1) s sqrt(1 / n + 1 / m), since the published number is a draw as well as ours (prediction interval for a
    replication, Spence and Stanley 2016). Of a single run there is no s, nor of runs that are all equal; it is Wilson's
    interval over the items of one. Then:

    1. equivalent: the whole interval lies within the margin of the published number; this alone shows agreement.
    2. consistent: it contains the published number, and reaches no further than WIDEST margins to either side.
       Nothing speaks against the number, which is less than agreement.
    3. not comparable: it contains the published number because it is wider than that, or there is no interval.
    4. contradicted: it does not contain the published number.

    The half digit lost to rounding is given to the published number everywhere. The sign of a difference is confirmed
    where the Student interval of our mean lies on the published side of 0, and contradicted where it lies on the other.

    Args:
        values: (n,), one per seed: a metric, or the difference of two methods paired by seed.
        published: the published number, in the unit of `values`.
        margin: > 0, what does not matter.
        rounding: half of the last digit printed; of a difference, of both its numbers.
        published_runs: m; None where it is not known: 1, which is the kindest to the paper.
        items: that a value is a share of; None: it is no share, or nobody knows of how many.
        difference: whether the number is a difference of two methods, which has a sign.

    Raises:
        ValueError: no value, one that is not finite, or a margin that is not > 0.
    """
    numbers = finite(values, "values")
    if not margin > 0:
        raise ValueError(f"margin {margin} is not > 0; it is the largest difference that does not matter")
    ours = _interval(numbers, published_runs or 1, items)
    outcome, reason = _outcome(ours, published, margin, rounding)
    return Reproduction(outcome, ours, reason, _sign(numbers, published) if difference else None)


def _outcome(ours: Estimate, published: float, margin: float, rounding: float) -> tuple[ReproductionOutcome, str]:
    if ours.low is None or ours.high is None:
        return "not comparable", "no spread, no interval: more seeds are needed"
    room = margin + rounding
    if published - room <= ours.low and ours.high <= published + room:
        return "equivalent", "within the margin"
    if not ours.low - rounding <= published <= ours.high + rounding:
        return "contradicted", "outside of our interval"
    reach = max(ours.high - ours.value, ours.value - ours.low)
    if reach > WIDEST * margin:
        return "not comparable", "our interval is too wide to tell: more seeds are needed"
    return "consistent", "inside of our interval"


def _sign(values: Array, published: float) -> Sign:
    mean = mean_interval(values, LEVEL)
    if not mean.resolved or published == 0:
        return "not shown"
    return "confirmed" if mean.mean * published > 0 else "contradicted"


def _interval(values: Array, published_runs: int, items: int | None) -> Estimate:
    mean, n = float(values.mean()), values.size
    if all_equal(values):  # a single run, or several that show no spread: as much as one
        return Estimate(mean, None, None) if items is None else wilson(round(mean * items), items, LEVEL)
    half = float(special.stdtrit(n - 1, (1 + LEVEL) / 2) * values.std(ddof=1) * np.sqrt(1 / n + 1 / published_runs))
    return Estimate(mean, mean - half, mean + half)
