"""One family of comparisons: intervals that hold together, their power, and the seeds they need.

A family is all that a study says of gains: arms x panels x looks at the data. Its intervals hold together with 95 %
probability, so whatever is read off them is right in 95 of 100 families, all statements at once.

The correction is Bonferroni's (Dunn 1961): each of m intervals is a Student interval of level 1 - 0.05 / m. It holds
where Student's interval does, for two pairs as for twenty, whatever the dependence of the arms, and where arms have
other seeds; and its power has a formula, so that a design can be judged before its runs. A joint critical value from
sign flips would make intervals of 12 arms 4 % shorter for normal values and needs nine pairs
(experiments/decision_rule.md).
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from rankbench.statistics.estimates import Array, inside, pairs

LEVEL = 0.95
POWER = 0.8
MOST = 500  # seeds: a study that needs more is not planned but given up
DRAWS = 5_000  # of the power against several controls: standard error at most 0.7 points


def paired_gains(values: ArrayLike, reference: ArrayLike, higher_is_better: bool, log: bool = False) -> Array:
    """Gains of an arm over a reference pair by pair: above 0 where the arm is better.

    Args:
        values, reference: (n,), pair by pair.
        higher_is_better: direction of the metric.
        log: difference of natural logarithms, for losses and divergences whose spread grows with their size: a gain
            of 0.1 is then about 10 % less loss. To be declared before the runs.

    Returns:
        (n,).

    Raises:
        ValueError: no pairs (as in `estimates.paired_difference`), or with `log` a value that is not > 0.
    """
    first, second = pairs(values, reference)
    if log:
        if min(first.min(), second.min()) <= 0:
            raise ValueError(f"{min(first.min(), second.min()):g} has no logarithm; compare this metric as it is")
        first, second = np.log(first), np.log(second)
    return first - second if higher_is_better else second - first


def joint_level(comparisons: int, level: float = LEVEL) -> float:
    """Level of each interval of a family that holds together at `level`: 1 - (1 - level) / comparisons (Dunn 1961).

    Args:
        comparisons: size of the family, >= 1: arms x panels x looks at the data.
        level: probability that no interval of the family misses its mean, in (0, 1).

    Raises:
        ValueError: no comparison, or a level outside (0, 1).
    """
    inside(level, "level")
    if comparisons < 1:
        raise ValueError(f"{comparisons} comparisons are no family: one at least is needed")
    return 1 - (1 - level) / comparisons


def simultaneous_bounds(gains: ArrayLike, comparisons: int, level: float = LEVEL) -> tuple[Array, Array]:
    """Lower and upper bounds of mean gains, which hold together for the whole family: mean -+ t s / sqrt(n).

    They are those of `estimates.mean_interval` at `joint_level`, for many rows at once: t is Student's quantile for
    n - 1 degrees of freedom, s the standard deviation of the n pairs.

    Args:
        gains: (..., n), n >= 2; each row is one comparison.
        comparisons, level: as in `joint_level`; the family may have more comparisons than `gains` has rows.

    Returns:
        Two arrays (...).

    Raises:
        ValueError: fewer than two pairs, no comparison, or a level outside (0, 1).
    """
    values = np.asarray(gains, dtype=float)
    n, mean = values.shape[-1], values.mean(axis=-1)
    half = _critical(n, comparisons, level) * values.std(axis=-1, ddof=1) / np.sqrt(n)
    return mean - half, mean + half


def power(effect: float, deviation: float, n: int, comparisons: int, controls: int = 1, level: float = LEVEL) -> float:
    """Probability that the simultaneous intervals of a true gain lie above 0, against each of some controls.

    Of one control it is the upper tail of the noncentral t distribution with shift sqrt(n) effect / deviation. It is
    also the probability of showing "no worthwhile gain" below a smallest effect of this size where there is none.
    Against several controls, all beaten by the same effect, it is counted over DRAWS draws (fixed seed) in which the
    runs of all arms are equally noisy and independent: two differences then correlate by 1/2, the arm being common.

    Args:
        effect: true mean gain, > 0, in the unit of `deviation`.
        deviation: standard deviation of the gains over seeds, > 0.
        n: pairs, more than there are controls.
        comparisons: size of the family, as in `simultaneous_bounds`.
        controls: how many have to be beaten, >= 1.
        level: as in `simultaneous_bounds`.

    Raises:
        ValueError: an effect, deviation or number out of bounds.
    """
    if not (effect > 0 and deviation > 0):
        raise ValueError(f"effect {effect} and deviation {deviation} are both to be > 0")
    if not 1 <= controls < n:
        raise ValueError(f"{n} pairs and {controls} controls: one control, and more pairs than controls, are needed")
    critical, shift = _critical(n, comparisons, level), np.sqrt(n) * effect / deviation
    if controls == 1:
        below = special.nctdtr(n - 1, shift, critical)
        return 1.0 - float(np.nan_to_num(below))  # nan: so far below the shift that scipy's series gives up
    means, deviations = _draws(n, controls)
    return float(((shift + means) / deviations > critical).all(axis=1).mean())


def pairs_needed(
    effect: float,
    deviation: float,
    comparisons: int,
    controls: int = 1,
    target: float = POWER,
    level: float = LEVEL,
) -> int | None:
    """Fewest pairs, more than there are controls, whose `power` reaches the target; None where MOST are too few.

    Args:
        effect, deviation, comparisons, controls, level: arguments of `power`.
        target: in (0, 1).

    Raises:
        ValueError: as in `power`, or a target outside (0, 1).
    """
    inside(target, "power")
    enough = controls + 1
    if controls > 1:  # start where one of them is beaten so often: the formula is quicker than draws
        enough = max(enough, pairs_needed(effect, deviation, comparisons, 1, target, level) or MOST)
    few = enough - 1
    while power(effect, deviation, enough, comparisons, controls, level) < target:
        if enough == MOST:
            return None
        few, enough = enough, min(enough + enough // 4 + 1, MOST)
    while enough - few > 1:
        middle = (few + enough) // 2
        if power(effect, deviation, middle, comparisons, controls, level) < target:
            few = middle
        else:
            enough = middle
    return enough


def _critical(n: int, comparisons: int, level: float) -> float:
    if n < 2:
        raise ValueError(f"pairs: {n} has no spread to make an interval of; two at least are needed")
    return float(special.stdtrit(n - 1, (1 + joint_level(comparisons, level)) / 2))


@functools.lru_cache(maxsize=64)
def _draws(n: int, controls: int) -> tuple[Array, Array]:
    """Standardised means and deviations of n gains over each control, (DRAWS, controls); correlated through the arm."""
    generator, root = np.random.default_rng(0), np.linalg.cholesky((np.eye(controls) + 1) / 2)
    means: Array = generator.standard_normal((DRAWS, controls)) @ root.T
    factor = np.tril(generator.standard_normal((DRAWS, controls, controls)), -1)  # Bartlett 1933
    places = np.arange(controls)
    factor[:, places, places] = np.sqrt(generator.chisquare(n - 1 - places, (DRAWS, controls)))
    deviations: Array = np.sqrt(((root @ factor) ** 2).sum(axis=2) / (n - 1))
    return means, deviations
