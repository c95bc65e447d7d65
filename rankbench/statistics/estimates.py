"""Comparisons of runs: pure functions on arrays.

Pairs are runs of one seed: same data order, same initialisation. What so few runs cannot measure is None.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special
from scipy import stats as scipy_stats

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a - b over n pairs and its interval; low and high are None for one pair, and where all are equal."""

    n: int
    mean: float
    low: float | None
    high: float | None

    @property
    def resolved(self) -> bool:
        """Whether there is an interval and 0 lies outside it."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Estimate:
    """A statistic and its interval; low and high are None where the data hold no spread to make one of."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho and Kendall's tau-b, each in [-1, 1]; None where one side is constant and has no order."""

    spearman: float | None
    kendall: float | None


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> PairedDifference:
    """Mean difference of paired values with its Student interval (Student 1908), n - 1 degrees of freedom.

    Args:
        a, b: (n,), pair by pair.
        level: coverage of the two-sided interval, in (0, 1).

    Raises:
        ValueError: no pair, unequal lengths, a value that is not finite, or a level outside (0, 1).
    """
    first, second = pairs(a, b)
    inside(level, "level")
    differences = first - second
    mean = float(differences.mean())
    if all_equal(differences):
        return PairedDifference(differences.size, mean, None, None)
    half = _critical(differences.size, level) * _standard_error(differences)
    return PairedDifference(differences.size, mean, mean - half, mean + half)


def mean_interval(values: ArrayLike, level: float = 0.95) -> PairedDifference:
    """Mean and interval of values, or of differences made elsewhere, as `paired_difference` computes them.

    Args:
        values: (n,).
        level: coverage of the two-sided interval, in (0, 1).

    Raises:
        ValueError: as in `paired_difference`.
    """
    return paired_difference(values, np.zeros_like(np.asarray(values, dtype=float)), level)


def smallest_difference(differences: ArrayLike, power: float = 0.8, level: float = 0.95) -> float | None:
    """Smallest true mean difference that the two-sided paired t-test finds with probability `power`, >= 0.

    Solved on the noncentral t distribution (four digits), with the deviation observed taken for the true one; the
    normal approximation would promise too much (n = 5: 1.25 deviations where 1.68 are needed).

    Args:
        differences: (n,), one per pair at hand.
        power: probability of finding it, in (1 - level, 1).
        level: coverage of the interval that has to leave out 0, in (0, 1).

    Returns:
        In the unit of the differences; None for a single pair, and where all are equal.

    Raises:
        ValueError: no difference, one that is not finite, or a power or level out of bounds.
    """
    values = finite(differences, "differences")
    _inside_power(power, level)
    if all_equal(values):
        return None
    # One tail of t: the other adds nothing visible, and scipy's inverse for F = t^2 ends at a shift of 100 (two pairs).
    shift = special.nctdtrinc(values.size - 1, 1 - power, _critical(values.size, level))
    return float(shift) * _standard_error(values)


def seeds_needed(effect: float, deviation: float, paired: bool = True, power: float = 0.8, level: float = 0.95) -> int:
    """Fewest seeds with which the two-sided t-test finds a true difference with probability `power`, >= 2.

    For pairs the inverse of `smallest_difference`; else of two groups of that many seeds each (noncentral t, Welch's
    test has nearly the same power where the deviations are equal).

    Args:
        effect: the true difference, > 0.
        deviation: standard deviation of the differences of pairs, or of either group; >= 0, in the unit of the effect.
        paired: pairs by seed.
        power: probability of finding it, in (1 - level, 1).
        level: coverage of the interval that has to leave out 0, in (0, 1).

    Raises:
        ValueError: an effect that is not > 0, a deviation below 0, or a power or level out of bounds.
    """
    if not effect > 0 or not deviation >= 0:
        raise ValueError(f"effect {effect} and deviation {deviation}: the first is to be > 0, the second >= 0")
    _inside_power(power, level)
    fewest, enough = 2, 2
    while _power(effect, deviation, enough, paired, level) < power:
        fewest, enough = enough + 1, 2 * enough
    while fewest < enough:
        middle = (fewest + enough) // 2
        if _power(effect, deviation, middle, paired, level) < power:
            fewest = middle + 1
        else:
            enough = middle
    return enough


def _power(effect: float, deviation: float, n: int, paired: bool, level: float) -> float:
    """Probability that the t-test of n pairs, or of n against n, finds the effect."""
    if deviation == 0:
        return 1.0
    freedom, share = (n - 1, n) if paired else (2 * n - 2, n / 2)
    critical = special.stdtrit(freedom, (1 + level) / 2)
    return 1.0 - float(special.ncfdtr(1, freedom, share * (effect / deviation) ** 2, critical**2))


def deviation(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Standard deviation (n - 1) of normal values, with its chi-square interval.

    Args:
        values: (n,), n >= 2.
        level: coverage of the interval, in (0, 1).

    Returns:
        0 without an interval where all are equal.

    Raises:
        ValueError: fewer than two values, one that is not finite, or a level outside (0, 1).
    """
    numbers = finite(values, "values")
    inside(level, "level")
    if numbers.size == 1:
        raise ValueError("one value has no deviation; give at least two")
    if all_equal(numbers):
        return Estimate(0.0, None, None)
    freedom, value = numbers.size - 1, float(numbers.std(ddof=1))
    tails = (1 - level) / 2, (1 + level) / 2  # chdtri takes the upper tail
    low, high = (value * float(np.sqrt(freedom / special.chdtri(freedom, tail))) for tail in tails)
    return Estimate(value, low, high)


def rank_correlation(x: ArrayLike, y: ArrayLike) -> RankCorrelation:
    """How far two lists put the same items in the same order, ties allowed (Spearman 1904; Kendall 1945, tau-b).

    Args:
        x, y: (n,), item by item.

    Raises:
        ValueError: no item, unequal lengths, or a value that is not finite.
    """
    first, second = pairs(x, y)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return RankCorrelation(None, None)
    spearman, kendall = scipy_stats.spearmanr(first, second), scipy_stats.kendalltau(first, second)
    return RankCorrelation(float(spearman.statistic), float(kendall.statistic))


def _inside_power(power: float, level: float) -> None:
    inside(level, "level")
    if not 1 - level < power < 1:
        raise ValueError(f"power {power} is not in ({1 - level:g}, 1): that much is found where there is no difference")


def all_equal(values: Array) -> bool:
    """Whether values are equal up to rounding (0.53 - 0.5 is not 0.59 - 0.56): no deviation can be estimated."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _critical(n: int, level: float) -> float:
    return float(special.stdtrit(n - 1, (1 + level) / 2))


def _standard_error(values: Array) -> float:
    return float(values.std(ddof=1) / np.sqrt(values.size))


def pairs(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    """Check two lists of the same length, (n,) each.

    Raises:
        ValueError: they are none.
    """
    first, second = finite(a, "first values"), finite(b, "second values")
    if first.size != second.size:
        raise ValueError(f"{first.size} and {second.size} values make no pairs; give two of the same length")
    return first, second


def finite(values: ArrayLike, name: str) -> Array:
    """Check a list with at least one value, all finite, (n,).

    Raises:
        ValueError: it is none, by its `name`.
    """
    numbers = np.asarray(values, dtype=float)
    if numbers.ndim != 1 or numbers.size == 0:
        raise ValueError(f"{name}: one list with at least one value is needed, not shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name}: {numbers[~np.isfinite(numbers)][0]} is not finite; leave out what was not measured")
    return numbers


def inside(share: float, name: str) -> None:
    """Refuse what is not in (0, 1).

    Raises:
        ValueError: by its `name`.
    """
    if not 0 < share < 1:
        raise ValueError(f"{name} {share} is not in (0, 1); 0.95 is usual")
