"""One rank map out of several: the mean of what runs at different seeds give each site, and how far they agree."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rankbench.statistics.estimates import Array, rank_correlation


@dataclass(frozen=True)
class Agreement:
    """How far rank maps of several seeds agree, each a mean over all pairs of maps.

    Attributes:
        spearman: Spearman's rho, in [-1, 1], over the pairs in which neither map is uniform; None without one.
        overlap: share of the budget that both maps of a pair spend at the same sites, in [0, 1].
    """

    spearman: float | None
    overlap: float


def mean_shares(values: ArrayLike) -> Array:
    """The mean over runs of each site's share: every run counts the same, whatever its total.

    Args:
        values: (runs, sites) >= 0, scores or ranks.

    Returns:
        (sites,), sum 1.

    Raises:
        ValueError: a value that is negative or not finite, or a run whose values are all 0.
    """
    rows = np.asarray(values, dtype=float)
    totals = rows.sum(axis=1, keepdims=True)
    if not (np.isfinite(rows).all() and (rows >= 0).all() and (totals > 0).all()):
        raise ValueError("shares of a total need values >= 0 that are finite, and not 0 throughout a run")
    mean: Array = (rows / totals).mean(axis=0)
    return mean


def agreement(ranks: ArrayLike, costs: ArrayLike) -> Agreement:
    """How far the rank maps of several runs agree.

    Args:
        ranks: (runs >= 2, sites) >= 0.
        costs: (sites,) > 0, price of one rank.

    Raises:
        ValueError: a single map, or one without any rank.
    """
    maps = np.asarray(ranks, dtype=float)
    spent = maps * np.asarray(costs, dtype=float)
    if len(maps) < 2 or not (spent.sum(axis=1) > 0).all():
        raise ValueError("agreement needs two rank maps or more, none of them empty")
    shares = spent / spent.sum(axis=1, keepdims=True)
    pairs = list(itertools.combinations(range(len(maps)), 2))
    correlations = [rank_correlation(maps[first], maps[second]).spearman for first, second in pairs]
    measured = [value for value in correlations if value is not None]
    overlaps = [float(np.minimum(shares[first], shares[second]).sum()) for first, second in pairs]
    return Agreement(float(np.mean(measured)) if measured else None, float(np.mean(overlaps)))


def variation(ranks: Iterable[int]) -> float:
    """Standard deviation of ranks over sites, over their mean; 0 of a uniform map. Four digits."""
    values = np.array(list(ranks), dtype=float)
    return round(float(values.std() / values.mean()), 4)
