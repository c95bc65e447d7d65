"""Learning rates on equal terms: every arm tries the same rates on the same seeds, and validation alone chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rankbench.collect import frame
from rankbench.rates import best_rates, rate_curves
from rankbench.records.record import RunRecord


@dataclass(frozen=True)
class Choice:
    """The learning rate of an arm, and what it was chosen from; it goes into the record of each run it is used in.

    Attributes:
        chosen: the rate with the best mean; where no rate has all its seeds, the one that lacks the fewest.
        metric: of validation, that chose.
        seeds: of the trials.
        curve: [rate, mean of the metric (None: no run), trials missing] of each rate tried, ascending.
        edge: whether the chosen rate is the lowest or the highest tried.
        missing: trials of the chosen rate that failed; above 0 the choice is no choice.
        trials: run_ids.
    """

    chosen: float
    metric: str
    seeds: list[int]
    curve: list[list[float | None]]
    edge: bool
    missing: int
    trials: list[str]


def choose(trials: Sequence[RunRecord], metric: str, seeds: Sequence[int]) -> Choice:
    """The best rate of one arm.

    Args:
        trials: finished runs at every rate and seed, whatever their status.
        metric: of validation ("validation/loss").
        seeds: of the trials.

    Raises:
        SelectionError: the metric is none of validation, none of a known direction, or no trial has it.
    """
    data = frame(trials, names=["tuned"] * len(trials))
    (best,) = best_rates(data, metric, seeds).to_dict("records")
    curve = rate_curves(data, metric, seeds).to_dict("records")
    return Choice(
        float(best["learning_rate"]),
        metric,
        [int(seed) for seed in seeds],
        [[float(point["learning_rate"]), _mean(point), int(point["missing"])] for point in curve],
        bool(best["edge"]),
        int(best["missing"]),
        [record.run_id for record in trials],
    )


def _mean(point: dict[Any, Any]) -> float | None:
    return float(point["mean"]) if point["n"] else None


def widened(grid: Sequence[float], choices: Sequence[Choice]) -> list[float] | None:
    """The grid with a rate more at each end where a choice lies; None where none lies at an end.

    The new rate keeps the ratio of its two neighbours, to three digits. A grid of one rate has no ends.

    Args:
        grid: rates, ascending.
        choices: on this grid.
    """
    if len(grid) < 2:
        return None
    at_edge = {choice.chosen for choice in choices if choice.edge and not choice.missing}
    below = [_rounded(grid[0] ** 2 / grid[1])] if grid[0] in at_edge else []
    above = [_rounded(grid[-1] ** 2 / grid[-2])] if grid[-1] in at_edge else []
    return [*below, *grid, *above] if below or above else None


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")
