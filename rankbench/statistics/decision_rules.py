"""The verdict on an allocator on one task: does it work?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from rankbench.statistics.estimates import Array, Estimate, PairedDifference, finite
from rankbench.statistics.items import wilson

Outcome = Literal["works", "does not work", "not resolved"]

NOT_RUN = "not run"
CONTROLS = {"uniform": "tuned uniform", "shuffled": "its own shuffled ranks", "random": "random ranks"}


@dataclass(frozen=True)
class Verdict:
    """What the comparisons with the controls say together, and each by itself.

    Attributes:
        outcome: what the rule in `works` says.
        reasons: one sentence per control.
    """

    outcome: Outcome
    reasons: tuple[str, ...]


def works(
    differences: Mapping[str, PairedDifference | None],
    higher_is_better: bool = True,
    absent: Mapping[str, str] = MappingProxyType({}),
) -> Verdict:
    """An allocator works on a task if it beats every control named, intervals beyond 0.

    It does not work where one of the intervals lies on the wrong side of 0. Everything else is not resolved: a tie is
    shown by `estimates.equivalence`, never by an interval that contains 0. All have to be beaten, so their number needs
    no correction: the rule errs no more often than one comparison does.

    Args:
        differences: key of CONTROLS -> allocator minus control, paired by seed, at rates chosen on validation; None
            where there is no such pair.
        higher_is_better: direction of the metric.
        absent: key of CONTROLS -> why there is no pair, where the reason is not that the control was not run.
    """
    sides = {
        role: f"{absent.get(role, NOT_RUN)}:" if difference is None else _side(difference, higher_is_better)
        for role, difference in differences.items()
    }
    outcome: Outcome = "not resolved"
    if "worse than" in sides.values():
        outcome = "does not work"
    elif set(sides.values()) == {"better than"}:
        outcome = "works"
    return Verdict(
        outcome, tuple(_reason(CONTROLS[role], sides[role], difference) for role, difference in differences.items())
    )


def _side(difference: PairedDifference, higher_is_better: bool) -> str:
    if not difference.resolved:
        return "not resolved from"
    return "better than" if (difference.mean > 0) == higher_is_better else "worse than"


def _reason(name: str, side: str, difference: PairedDifference | None) -> str:
    if difference is None:
        return f"{side} {name}"
    if difference.low is None:
        return f"{side} {name}: {difference.mean:+.4g} (1 pair: no interval)"
    return f"{side} {name}: {difference.mean:+.4g} [{difference.low:+.4g}, {difference.high:+.4g}], n = {difference.n}"


ReproductionOutcome = Literal["reproduced", "not reproduced", "not comparable", "not run"]
REPRODUCTION_OUTCOMES: tuple[ReproductionOutcome, ...] = ("reproduced", "not reproduced", "not comparable", "not run")
WIDEST = 4  # margins: an interval that is wider on either side contains whatever one likes
LEVEL = 0.95


@dataclass(frozen=True)
class Reproduction:
    """What the rule says of one number, and why.

    Attributes:
        ours: our mean, and the interval in which the published number has to lie.
    """

    outcome: ReproductionOutcome
    ours: Estimate
    reason: str


def reproduction(
    values: ArrayLike,
    published: float,
    margin: float,
    rounding: float = 0.0,
    published_runs: int | None = None,
    items: int | None = None,
) -> Reproduction:
    """Whether runs of ours agree with a published mean.

    The interval is where the mean of `published_runs` more runs like ours would lie in 95 of 100 cases: our mean
    +- t (n - 1) s sqrt(1 / n + 1 / m), since the published number is a draw as well as ours (prediction interval for a
    replication, Spence and Stanley 2016). Of a single run there is no s; it is Wilson's interval over its items. Then:

    1. reproduced: the whole interval lies within the margin of the published number (they are equivalent).
    2. reproduced: it contains the published number, and reaches no further than WIDEST margins to either side.
    3. not comparable: it contains the published number because it is wider than that, or there is no interval.
    4. not reproduced: it does not contain the published number.

    The half digit lost to rounding is given to the published number everywhere.

    Args:
        values: (n,), one per seed: a metric, or the difference of two methods paired by seed.
        published: the published number, in the unit of `values`.
        margin: > 0, what does not matter.
        rounding: half of the last digit printed; of a difference, of both its numbers.
        published_runs: m; None where it is not known: 1, which is the kindest to the paper.
        items: that a single value is a share of; None: it is no share, or nobody knows of how many.

    Raises:
        ValueError: no value, one that is not finite, or a margin that is not > 0.
    """
    numbers = finite(values, "values")
    if not margin > 0:
        raise ValueError(f"margin {margin} is not > 0; it is the largest difference that does not matter")
    ours = _interval(numbers, published_runs or 1, items)
    if ours.low is None or ours.high is None:
        return Reproduction("not comparable", ours, "one run, no interval: more seeds are needed")
    room = margin + rounding
    if published - room <= ours.low and ours.high <= published + room:
        return Reproduction("reproduced", ours, "within the margin")
    if not ours.low - rounding <= published <= ours.high + rounding:
        return Reproduction("not reproduced", ours, "outside of our interval")
    reach = max(ours.high - ours.value, ours.value - ours.low)
    if reach > WIDEST * margin:
        return Reproduction("not comparable", ours, "our interval is too wide to tell: more seeds are needed")
    return Reproduction("reproduced", ours, "inside of our interval")


def _interval(values: Array, published_runs: int, items: int | None) -> Estimate:
    mean, n = float(values.mean()), values.size
    if n == 1:
        return Estimate(mean, None, None) if items is None else wilson(round(mean * items), items, LEVEL)
    half = float(special.stdtrit(n - 1, (1 + LEVEL) / 2) * values.std(ddof=1) * np.sqrt(1 / n + 1 / published_runs))
    return Estimate(mean, mean - half, mean + half)
