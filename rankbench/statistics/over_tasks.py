"""Several tasks at once: the mean gain of an arm over these tasks and over tasks like these, and how often it wins.

Gains of different tasks are averaged in units of their own, such as each task's smallest effect of interest, frozen
before the runs; raw accuracies and losses of different tasks have no common scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from rankbench.statistics.estimates import Array, Estimate, finite, inside
from rankbench.statistics.family import LEVEL

DRAWS = 10000  # another seed of the draw moves an end by about 0.7 % of the width

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class RandomEffects:
    """Mean gain over tasks like these.

    Attributes:
        mean: estimate and interval, in the units of the tasks.
        deviation: tau, the standard deviation of true gains between tasks, >= 0.
        another: mean gain that would be seen on one more such task, at as many seeds, with its prediction interval.
    """

    mean: Estimate
    deviation: float
    another: Estimate


def standardised(gains: Sequence[ArrayLike], units: ArrayLike) -> list[Array]:
    """Gains of each task, divided by the task's unit.

    Args:
        gains: one list (n,) per task, pairs by seed.
        units: (tasks,), > 0: smallest effects of interest, or what else was fixed before the runs. The deviation of
            the gains themselves is no such unit: it depends on what the pairs share.

    Raises:
        ValueError: another number of units than of tasks, or a unit that is not > 0.
    """
    scale = finite(units, "units")
    if scale.size != len(gains) or not (scale > 0).all():
        raise ValueError(f"{len(gains)} tasks need as many units > 0, not {scale.tolist()}")
    return [finite(values, "gains") / unit for values, unit in zip(gains, scale, strict=True)]


def mean_of_these(gains: Sequence[ArrayLike], level: float = LEVEL) -> Estimate:
    """Mean of the true gains of these tasks: each weighs the same, seeds are the only chance.

    The standard error is sqrt(sum s^2 / n) / tasks, with the degrees of freedom of Welch and Satterthwaite (1946):
    each task has its own spread, which seed-wise means over tasks would average away. That 0 lies outside is the
    stratified test.

    Args:
        gains: one list (n,) per task, in one unit, two seeds or more.
        level: coverage of the interval, in (0, 1).

    Raises:
        ValueError: no task, a task with a single gain, one that is not finite, or a level outside (0, 1).
    """
    means, variances, freedoms = _tasks(gains, 1)
    inside(level, "level")
    total = variances.sum()
    if total == 0:
        return Estimate(float(means.mean()), None, None)
    freedom = total**2 / (variances**2 / freedoms).sum()
    return _interval(float(means.mean()), float(np.sqrt(total)) / means.size, freedom, level)


def mean_of_such(gains: Sequence[ArrayLike], level: float = LEVEL) -> RandomEffects:
    """Mean of the true gains of tasks like these, of which these are a sample (random effects).

    The interval is Student's over the means of the tasks, which Knapp and Hartung's (2003) is for equal weights; it
    takes in the spread of tasks and of seeds at once. Weights of 1 / (s^2 / n + tau^2) suit large studies: with five
    or ten seeds s^2 is so uncertain that their interval holds in 90 to 95 % of cases (tau by Paule and Mandel 1982;
    experiments/decision_rule.md). tau^2 = variance of the means - mean of s^2 / n, cut at 0 (Hedges and Olkin 1985).

    The prediction interval is that of one more value of a normal sample, mean -+ t s sqrt(1 + 1 / tasks): one for the
    true gain of that task needs tau, which a dozen tasks do not tell well enough (Partlett and Riley 2017).

    Args:
        gains: one list (n,) per task, in one unit; two tasks and two seeds of each, or more.
        level: coverage of the interval, in (0, 1).

    Raises:
        ValueError: as in `mean_of_these`, or a single task.
    """
    means, variances, _ = _tasks(gains, 2)
    inside(level, "level")
    spread = float(means.var(ddof=1))
    value, freedom = float(means.mean()), means.size - 1
    mean = _interval(value, np.sqrt(spread / means.size), freedom, level)
    another = _interval(value, np.sqrt(spread * (1 + 1 / means.size)), freedom, level)
    return RandomEffects(mean, float(np.sqrt(max(spread - variances.mean(), 0.0))), another)


def probability_of_improvement(
    a: ArrayLike, b: ArrayLike, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """How probably a run of a beats one of b on a task drawn at random (Agarwal et al. 2021, sec. 4.3); a tie is half.

    Mean over tasks of the Mann-Whitney statistic, with the percentile interval of a stratified bootstrap (ibid., sec.
    4.1): within each task n - 1 of n seeds are drawn with replacement (McCarthy and Snowden 1985), which gives a mean
    its unbiased variance, each side for itself, so that pairs by seed are not used. More counts as better: negate
    losses. Where every run of one side wins, the interval has no width: there are too few seeds, it is not certain.

    Args:
        a, b: (seeds, tasks); the same tasks, each side with its own number of seeds.
        level: coverage of the interval, in (0, 1).
        draws: number of bootstrap samples.
        seed: seed of the bootstrap's own generator.

    Returns:
        In [0, 1], 0.5 where neither is better; no interval where a side has a single seed.

    Raises:
        ValueError: not two whole matrices over the same tasks, or a level outside (0, 1).
    """
    first, second = _matrix(a, "first scores"), _matrix(b, "second scores")
    inside(level, "level")
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"shapes {first.shape} and {second.shape} are not (seeds, tasks) with the same tasks")
    x, y = first.T[:, :, None], second.T[:, None, :]
    wins = (x > y) + 0.5 * (x == y)  # (tasks, seeds of a, seeds of b)
    value = float(wins.mean())
    if 1 in wins.shape[1:]:
        return Estimate(value, None, None)
    generator = np.random.default_rng(seed)
    shares = [_shares(_rows(generator, scores, draws), len(scores)) for scores in (first, second)]
    return _estimate(value, ((shares[0] @ wins) * shares[1]).sum(axis=-1).mean(axis=0), level)


def _interval(mean: float, error: float, freedom: float, level: float) -> Estimate:
    half = float(special.stdtrit(freedom, (1 + level) / 2) * error)
    return Estimate(mean, mean - half, mean + half)


def _tasks(gains: Sequence[ArrayLike], least: int) -> tuple[Array, Array, Array]:
    """Means, variances of the means and degrees of freedom of each task, (tasks,)."""
    lists = [finite(values, "gains") for values in gains]
    if len(lists) < least or any(values.size < 2 for values in lists):
        sizes = [values.size for values in lists]
        raise ValueError(f"gains of {sizes} seeds: {least} task(s) with two seeds each are the least")
    means = np.array([values.mean() for values in lists])
    variances = np.array([values.var(ddof=1) / values.size for values in lists])
    return means, variances, np.array([values.size - 1 for values in lists])


def _rows(generator: np.random.Generator, scores: Array, draws: int) -> Rows:
    """Seeds drawn within each task, (draws, seeds - 1, tasks)."""
    seeds, tasks = scores.shape[:2]
    return generator.integers(seeds, size=(draws, seeds - 1, tasks))


def _shares(rows: Rows, seeds: int) -> Array:
    """Share of each seed in each draw, (tasks, draws, seeds)."""
    draws, size, tasks = rows.shape
    cell = (np.arange(tasks)[None, None] * draws + np.arange(draws)[:, None, None]) * seeds + rows
    counts = np.bincount(cell.ravel(), minlength=tasks * draws * seeds)
    shares: Array = counts.reshape(tasks, draws, seeds) / size
    return shares


def _estimate(value: float, draws: Array, level: float) -> Estimate:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high))


def _matrix(scores: ArrayLike, name: str) -> Array:
    values = np.asarray(scores, dtype=float)
    if values.ndim < 2 or 0 in values.shape:
        raise ValueError(f"{name}: a matrix of seeds x tasks is needed, not shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: {values[~np.isfinite(values)][0]} is not finite; leave out seeds not run everywhere")
    return values
