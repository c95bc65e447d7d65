"""Does it matter where ranks are? The spread of the true effects of rank maps, from maps x seeds crossed.

Every map is run at every seed, once: y = mean + map + seed + rest, all random. The standard deviation of the map's part
bounds what any allocator can gain that chooses among maps like these, whatever its score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import integrate, special

from rankbench.statistics.estimates import Array, Estimate, inside
from rankbench.statistics.family import LEVEL, POWER
from rankbench.statistics.seeds_and_items import mean_squares

BEST_OF = 100  # maps whose best one is the ceiling: 2.5 deviations above their mean


@dataclass(frozen=True)
class MapEffect:
    """What maps x seeds show.

    Attributes:
        deviation: sigma_map, the standard deviation of the true effects of maps, >= 0, with its interval.
        residual: standard deviation of a run where map and seed are fixed, with its interval.
        p: of maps that differ as much or more where none matters (F test).
        ceiling: expected gain of the best of BEST_OF such maps over their mean, if it were known which it is.
    """

    deviation: Estimate
    residual: Estimate
    p: float
    ceiling: Estimate


def map_effect(values: ArrayLike, level: float = LEVEL) -> MapEffect:
    """Standard deviation of the true effects of maps, and what it bounds.

    sigma_map^2 = (MS maps - MS rest) / seeds, cut at 0: analysis of variance, which is REML in a whole table (Searle et
    al. 1992, sec. 3.8). Its interval is Tukey's and Williams' (Williams 1962): the bounds of MS maps over a chi-square
    quantile, less what F allows MS rest. It is exact for maps that differ by far and holds 0 in 97.5 of 100 cases where
    they do not differ; between, it holds in about 95 if the effects are normal. Effects with heavy tails make it too
    short (experiments/decision_rule.md).

    Args:
        values: (maps, seeds), two or more of each: one run per cell, in the unit of the gains. Whole: a run that is
            lost or not done yet takes its seed out of the table, for all maps, and is to be said.
        level: coverage of the intervals, in (0, 1).

    Returns:
        Deviation without an interval where it would be empty: the maps differ by less than chance nearly always makes
        them; and where all values are equal.

    Raises:
        ValueError: not such a table, or a level outside (0, 1).
    """
    table = _whole(values, level)
    squares, freedoms = mean_squares(table)
    of_maps, rest = float(squares[0]), float(squares[2])
    between, within, seeds = float(freedoms[0]), float(freedoms[2]), table.shape[1]
    value = np.sqrt(max(of_maps - rest, 0.0) / seeds)
    tails = np.array([(1 + level) / 2, (1 - level) / 2])
    excess = of_maps - rest * special.fdtri(between, within, tails)
    low, high = np.sqrt(np.maximum(excess, 0) * between / (seeds * special.chdtri(between, 1 - tails)))
    empty = excess[1] <= 0
    deviation = Estimate(float(value), None, None) if empty else Estimate(float(value), float(low), float(high))
    p = float(special.fdtrc(between, within, of_maps / rest)) if rest > 0 else float(of_maps == 0)
    return MapEffect(deviation, residual(table, level), p, _times(expected_best(BEST_OF), deviation))


def residual(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """Standard deviation of a run where map and seed are fixed, with its chi-square interval.

    It tells nothing of which map is better, so that the number of seeds of a later comparison may be fixed by it when a
    few seeds are done (blinded re-estimation: Kieser and Friede 2003). Two runs of a seed differ by sqrt(2) times this.

    Args:
        values, level: as in `map_effect`.

    Raises:
        ValueError: as in `map_effect`.
    """
    table = _whole(values, level)
    squares, freedoms = mean_squares(table)
    value, freedom = float(np.sqrt(squares[2])), float(freedoms[2])
    if value == 0:
        return Estimate(0.0, None, None)
    low, high = value * np.sqrt(freedom / special.chdtri(freedom, [(1 - level) / 2, (1 + level) / 2]))
    return Estimate(value, float(low), float(high))


def expected_best(maps: int) -> float:
    """Expected maximum of so many standard normal values: 2.51 for a hundred (Tippett 1925).

    Raises:
        ValueError: no map.
    """
    if maps < 1:
        raise ValueError(f"{maps} maps have no best one: one at least is needed")
    above, _ = integrate.quad(lambda z: 1 - special.ndtr(z) ** maps, 0, np.inf)
    below, _ = integrate.quad(lambda z: special.ndtr(z) ** maps, -np.inf, 0)
    return float(above - below)


def detectable_deviation(
    maps: int, seeds: int, residual_deviation: float, power: float = POWER, level: float = LEVEL
) -> float:
    """Smallest sigma_map whose interval leaves out 0 with probability `power`, in the unit of the residual.

    MS maps / MS rest is (1 + seeds sigma_map^2 / residual^2) times a value of the F distribution.

    Args:
        maps, seeds: of the table, two or more of each.
        residual_deviation: standard deviation of a run where map and seed are fixed, > 0.
        power: in (0, 1).
        level: coverage of the interval, in (0, 1).

    Raises:
        ValueError: a number, deviation, power or level out of bounds.
    """
    inside(power, "power")
    inside(level, "level")
    if min(maps, seeds) < 2 or not residual_deviation > 0:
        raise ValueError(
            f"{maps} maps, {seeds} seeds and a residual of {residual_deviation}: two, two and more than 0 are the least"
        )
    freedoms = maps - 1, (maps - 1) * (seeds - 1)
    ratio = special.fdtri(*freedoms, (1 + level) / 2) / special.fdtri(*freedoms, 1 - power)
    return float(residual_deviation * np.sqrt(max(ratio - 1, 0.0) / seeds))


def _times(factor: float, estimate: Estimate) -> Estimate:
    ends = (None if end is None else factor * end for end in (estimate.low, estimate.high))
    return Estimate(factor * estimate.value, *ends)


def _whole(values: ArrayLike, level: float) -> Array:
    inside(level, "level")
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise ValueError(
            f"maps x seeds, two or more of each and all finite, are needed, not shape {table.shape} with "
            f"{int((~np.isfinite(table)).sum())} missing; take out the seeds at which a map has no run"
        )
    return table
