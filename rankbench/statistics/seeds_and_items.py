"""Mean difference of two arms over seeds and test items, both a sample: what it would be on other seeds and items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from rankbench.statistics.estimates import Array, Estimate, finite, inside
from rankbench.statistics.family import LEVEL


@dataclass(frozen=True)
class CrossedMean:
    """Mean over seeds x items, and where its variance comes from.

    Attributes:
        mean: estimate and interval.
        error: standard error of the mean.
        of_seeds, of_items, of_both: parts of the variance of the mean, >= 0, that more seeds, more items, and either
            of them would make smaller.
    """

    mean: Estimate
    error: float
    of_seeds: float
    of_items: float
    of_both: float


def crossed_mean(differences: ArrayLike, weights: ArrayLike | None = None, level: float = LEVEL) -> CrossedMean:
    """Mean of seeds x items under d = mean + seed + item + rest, all three random (Searle et al. 1992, ch. 4).

    The variance of the mean is (MS seeds + MS items - MS rest) / (S I), the mean squares of the two-way table; it is
    no less than MS seeds / (S I) or MS items / (S I), which a negative component would make it. The degrees of freedom
    are Satterthwaite's (1946). An interval over seeds alone speaks of these very items: where 10 % of the variance of
    items is shared by the seeds, it holds for other items in 77 of 100 cases at 20 seeds.

    Args:
        differences: (seeds, items), two or more of each: arm minus reference by seed and item.
        weights: (items,), > 0, such as the units of each item's loss: the mean is that of the split, and the variance
            that of a ratio, linearised (Cochran 1977, sec. 6.4). None weighs the items equally.
        level: coverage of the interval, in (0, 1).

    Raises:
        ValueError: not such a table, weights that are none, or a level outside (0, 1).
    """
    table = np.asarray(differences, dtype=float)
    inside(level, "level")
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise ValueError(f"seeds x items, two or more of each and all finite, are needed, not shape {table.shape}")
    weight = np.ones(table.shape[1]) if weights is None else finite(weights, "weights")
    if weight.size != table.shape[1] or weight.min() <= 0:
        raise ValueError(f"weights: {table.shape[1]} values > 0 are needed, one per item")
    mean = float(np.average(table, axis=1, weights=weight).mean())
    squares, freedoms = mean_squares((table - mean) * weight / weight.mean())
    seeds, items, rest = squares
    total = max(seeds + items - rest, seeds, items)
    if total == 0:
        return CrossedMean(Estimate(mean, None, None), 0.0, 0.0, 0.0, 0.0)
    freedom = total**2 / (squares**2 / freedoms).sum()
    error = float(np.sqrt(total / table.size))
    half = float(special.stdtrit(freedom, (1 + level) / 2)) * error
    parts = np.array([max(seeds - rest, 0), max(items - rest, 0), rest]) / table.size
    return CrossedMean(Estimate(mean, mean - half, mean + half), error, *map(float, parts))


def mean_squares(table: Array) -> tuple[Array, Array]:
    """Mean squares of rows, columns and the rest of a two-way table, 0 but for rounding is 0; their degrees of freedom.

    Args:
        table: (rows, columns), two or more of each, one value per cell.

    Returns:
        Two arrays (3,): rows, columns, rest.
    """
    rows, columns = table.shape
    of_rows, of_columns = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    parts = of_rows - table.mean(), of_columns - table.mean(), table - of_rows - of_columns + table.mean()
    freedoms = np.array([rows - 1, columns - 1, (rows - 1) * (columns - 1)])
    rounding = 1e-12 * np.abs(table).max()
    sums = [(np.where(np.abs(part) > rounding, part, 0) ** 2).sum() for part in parts]
    return np.array(sums) * (columns, rows, 1) / freedoms, freedoms
