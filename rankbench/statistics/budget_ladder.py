"""Uniform ranks at half, once, twice and four times the budget: the yardstick of gains.

Between the rungs a gain is interpolated linearly in log2 of the budget; means that are not in order are made so by
isotonic regression (Barlow et al. 1972). The ladder is run on tuning seeds and frozen before the runs it judges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from rankbench.statistics.estimates import Array, Estimate, finite, inside, mean_interval
from rankbench.statistics.family import LEVEL

FACTORS = (0.5, 1.0, 2.0, 4.0)  # of the budget
RUNGS = np.log2(FACTORS)
BASE, TOP = 1, 3  # rungs of the budget itself and of the largest
WORTHWHILE = 1.25  # factor of the budget whose gain is the smallest of interest
HEADROOM = 3.0  # smallest effects that the largest budget has to gain
TINY = np.finfo(float).tiny
GRID = np.linspace(RUNGS[0], RUNGS[-1], 769)  # 256 budgets an octave: 0.3 % apart


@dataclass(frozen=True)
class BudgetLadder:
    """Gains of uniform ranks over uniform ranks at the budget itself, by seed.

    Attributes:
        gains: (seeds, 4), at FACTORS of the budget, above 0 where that is better; column BASE is 0.
    """

    gains: Array

    @property
    def means(self) -> Array:
        """Mean gain at each of FACTORS, (4,): not decreasing, 0 at the budget itself."""
        fit = optimize.isotonic_regression(self.gains.mean(axis=0)).x
        means: Array = fit - fit[BASE]
        return means


def budget_ladder(values: ArrayLike, higher_is_better: bool, log: bool = False) -> BudgetLadder:
    """Make a ladder of a metric's values.

    Args:
        values: (seeds, 4), of uniform ranks at FACTORS of the budget, two seeds or more.
        higher_is_better, log: as in `family.paired_gains`.

    Raises:
        ValueError: another shape, a value that is not finite, or with `log` one that is not > 0.
    """
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] != len(FACTORS):
        raise ValueError(f"a ladder is seeds x {len(FACTORS)} budgets with two seeds or more, not shape {table.shape}")
    if not np.isfinite(table).all() or (log and table.min() <= 0):
        raise ValueError(f"a ladder needs finite values{', > 0 for logarithms' * log}; run its failed seeds again")
    table = np.log(table) if log else table
    gains = (table - table[:, [BASE]]) * (1 if higher_is_better else -1)
    return BudgetLadder(gains)


def smallest_effect(ladder: BudgetLadder, least: float = 0.0) -> float:
    """Smallest gain of interest: what WORTHWHILE times the budget buys, but no less than `least`; >= 0.

    Args:
        ladder: yardstick.
        least: gain that matters to nobody, whatever budget it costs, such as half a point of accuracy; >= 0.
    """
    return max(least, float(np.interp(np.log2(WORTHWHILE), RUNGS, ladder.means)))


def headroom(ladder: BudgetLadder, smallest: float, level: float = LEVEL) -> bool:
    """Whether more budget helps enough here for its allocation to matter.

    The gain of four times the budget is at least HEADROOM smallest effects, and its Student interval (paired by seed)
    lies above 0: with two or three seeds the first alone would let noise pass.

    Args:
        ladder: yardstick.
        smallest: smallest effect of interest, in the unit of the ladder.
        level: coverage of that interval, in (0, 1).
    """
    gain = mean_interval(ladder.gains[:, TOP], level)
    return smallest > 0 and gain.mean >= HEADROOM * smallest and gain.low is not None and gain.low > 0


def budget_equivalent(gains: ArrayLike, ladder: BudgetLadder, level: float = LEVEL) -> Estimate:
    """Factor of the budget at which uniform ranks are as good as an arm at the budget itself.

    The interval holds the factors x at which gain and ladder do not differ, | mean gain - h(x) | <= t se(x): Fieller's
    inversion (1954). h(x) is the mean over the ladder's seeds, interpolated; se(x) joins the standard errors of both,
    with Welch's degrees of freedom, as the seeds of the ladder are others than those of the arm. That the truth is
    linear between rungs is assumed, not covered.

    Args:
        gains: (n,), of the arm over uniform ranks at the budget, two or more.
        ladder: yardstick, in the same unit.
        level: coverage of the interval, in (0, 1).

    Returns:
        A factor in [FACTORS[0], FACTORS[-1]], at an end where the gain lies beyond it; low is None where it lies below
        the ladder, high where it lies above.

    Raises:
        ValueError: fewer than two gains, one that is not finite, or a level outside (0, 1).
    """
    values = finite(gains, "gains")
    inside(level, "level")
    if values.size < 2:
        raise ValueError("one gain has no spread to make an interval of; give at least two")
    rising = ladder.means + RUNGS * 1e-12  # so that a flat step has an inverse
    value = 2 ** float(np.interp(values.mean(), rising, RUNGS))
    of_seeds = np.array([np.interp(GRID, RUNGS, gains_of_seed) for gains_of_seed in ladder.gains])  # (seeds, grid)
    errors = values.var(ddof=1) / values.size, of_seeds.var(axis=0, ddof=1) / len(of_seeds)
    total = np.maximum(errors[0] + errors[1], TINY)
    freedom = total**2 / np.maximum(errors[0] ** 2 / (values.size - 1) + errors[1] ** 2 / (len(of_seeds) - 1), TINY)
    distance = (values.mean() - of_seeds.mean(axis=0)) / (special.stdtrit(freedom, (1 + level) / 2) * np.sqrt(total))
    too_small, too_large = distance > 1, distance < -1  # factors at which uniform ranks are worse, and better
    return Estimate(value, _first_left(GRID, too_small), _first_left(GRID[::-1], too_large[::-1]))


def _first_left(logarithms: Array, excluded: NDArray[np.bool_]) -> float | None:
    """First factor not excluded, the last where all are; None where not even the first is."""
    if not excluded[0]:
        return None
    return float(2 ** logarithms[-1 if excluded.all() else excluded.argmin()])
