"""Two runs compared item by item, and the accuracy of one: statements about these items, not about other seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

from rankbench.statistics.estimates import Array, Estimate, finite, inside, pairs

DRAWS = 5000
AT_ONCE = 2**22  # values of one batch of draws: 32 MiB


@dataclass(frozen=True)
class McNemar:
    """Items that one side alone has right, and the p-values of their being equally many.

    Attributes:
        only_first, only_second: counts.
        p: exact, two-sided (binomial).
        mid_p: half of the probability of the counts seen taken off each tail; nearer to its size than the exact one.
    """

    only_first: int
    only_second: int
    p: float
    mid_p: float


def mcnemar(a: ArrayLike, b: ArrayLike) -> McNemar:
    """Are two runs right equally often on the same items (McNemar 1947; mid-p: Fagerland et al. 2013)?

    Args:
        a, b: (n,), item by item, 1 where right and 0 where wrong.

    Raises:
        ValueError: no pairs (as in `estimates.paired_difference`), or a value other than 0 and 1.
    """
    first, second = pairs(a, b)
    for values in (first, second):
        if not np.isin(values, (0, 1)).all():
            raise ValueError(f"{values[~np.isin(values, (0, 1))][0]:g} is neither right (1) nor wrong (0)")
    counts = int((first > second).sum()), int((second > first).sum())
    one_sided = scipy_stats.binom(sum(counts), 0.5)
    mid_p = 2 * one_sided.cdf(min(counts) - 1) + one_sided.pmf(min(counts))
    p = scipy_stats.binomtest(counts[0], sum(counts)).pvalue if sum(counts) else 1.0
    return McNemar(*counts, float(p), float(mid_p))


def paired_bootstrap_items(
    a: ArrayLike, b: ArrayLike, weights: ArrayLike | None = None, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """Mean of a - b over items, with the percentile interval of items drawn anew (Efron 1979).

    Args:
        a, b: (n,), item by item.
        weights: (n,), >= 0, such as the units of each item's loss; None weighs them equally.
        level: coverage of the interval, in (0, 1).
        draws: number of bootstrap samples.
        seed: seed of the bootstrap's own generator.

    Returns:
        No interval for a single item.

    Raises:
        ValueError: no pairs (as in `estimates.paired_difference`), weights that are none, or a level outside (0, 1).
    """
    first, second = pairs(a, b)
    inside(level, "level")
    weight = np.ones(first.size) if weights is None else finite(weights, "weights")
    if weight.size != first.size or weight.min() < 0 or weight.sum() == 0:
        raise ValueError(f"weights: {first.size} values >= 0 with a sum above 0 are needed, one per item")
    parts = (weight * (first - second), weight)
    value = float(_ratio(*parts))
    if first.size == 1:
        return Estimate(value, None, None)
    interval = scipy_stats.bootstrap(
        parts,
        _ratio,
        n_resamples=draws,
        batch=max(1, AT_ONCE // first.size),
        vectorized=True,
        paired=True,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high))


def wilson(successes: int, n: int, level: float = 0.95) -> Estimate:
    """Share of n items that are right, with its score interval (Wilson 1927), which stays inside [0, 1].

    Raises:
        ValueError: not 0 <= successes <= n with n >= 1, or a level outside (0, 1).
    """
    inside(level, "level")
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} of {n} is no share: 0 <= successes <= n and n >= 1 are needed")
    interval = scipy_stats.binomtest(successes, n).proportion_ci(level, "wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high))


def _ratio(values: Array, weights: Array, axis: int = -1) -> Any:
    return values.sum(axis=axis) / weights.sum(axis=axis)
