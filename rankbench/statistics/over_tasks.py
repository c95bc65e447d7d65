"""Several tasks at once: statistics of seeds x tasks matrices, with intervals from a stratified bootstrap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats

from rankbench.statistics.estimates import Array, Estimate, inside

DRAWS = 10000  # another seed of the draw moves an end by about 0.7 % of the width

Statistic = Callable[[Array], Array]
Rows = NDArray[np.int64]


def iqm(scores: ArrayLike) -> Array:
    """Interquartile mean (Agarwal et al. 2021, sec. 4.3): mean of the middle half of all runs of all tasks.

    A quarter of the runs, rounded down, is cut at either end; below four runs it is the mean.

    Args:
        scores: (..., seeds, tasks), on one scale for all tasks.

    Returns:
        (...): a number for one matrix.
    """
    values = np.asarray(scores, dtype=float)
    means: Array = scipy_stats.trim_mean(values.reshape(*values.shape[:-2], -1), 0.25, axis=-1)
    return means


def stratified_bootstrap(
    scores: ArrayLike, statistic: Statistic = iqm, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """Percentile interval of a statistic over runs, seeds drawn anew within each task (Agarwal et al. 2021, sec. 4.1).

    Of n seeds n - 1 are drawn, with replacement (McCarthy and Snowden 1985): the spread of a mean is then that of its
    unbiased variance. With n drawn, as in rliable, it is sqrt((n - 1) / n) of that, and at 5 seeds a 95 % interval
    covers about 90 %. Tasks are not drawn: the interval speaks of these tasks alone.

    Args:
        scores: (seeds, tasks, ...). For a paired difference of statistics, stack both sides on a last axis.
        statistic: (draws, seeds, tasks, ...) -> (draws,); it also gets the scores as they are, as one draw.
        level: coverage of the interval, in (0, 1).
        draws: number of bootstrap samples.
        seed: seed of the bootstrap's own generator.

    Returns:
        No interval for a single seed.

    Raises:
        ValueError: not a whole matrix of finite values, or a level outside (0, 1).
    """
    values = _matrix(scores, "scores")
    inside(level, "level")
    value = float(statistic(values[None])[0])
    if len(values) == 1:
        return Estimate(value, None, None)
    rows = _rows(np.random.default_rng(seed), values, draws)
    return _estimate(value, statistic(values[rows, np.arange(values.shape[1])]), level)


def probability_of_improvement(
    a: ArrayLike, b: ArrayLike, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """How probably a run of a beats one of b on a task drawn at random (Agarwal et al. 2021, sec. 4.3); a tie is half.

    Mean over tasks of the Mann-Whitney statistic; seeds of both sides are drawn as in `stratified_bootstrap`, each
    side for itself, so that pairs by seed are not used. More counts as better: negate losses. Where every run of one
    side wins, the interval has no width: there are too few seeds, it is not certain.

    Args:
        a, b: (seeds, tasks); the same tasks, each side with its own number of seeds.
        level, draws, seed: arguments of `stratified_bootstrap`.

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
