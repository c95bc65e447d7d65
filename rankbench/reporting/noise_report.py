"""What `rankbench noise` prints: the spread between repetitions and between seeds, and the seeds that effects need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rankbench.statistics.estimates import deviation, seeds_needed

POINTS = {"accuracy", "exact_match", "f1", "matthews", "pearson", "spearman"}  # shown in points: per cent of 1
EFFECTS = (0.1, 0.2, 0.5, 1.0, 2.0)  # points; for other metrics, shares of the deviation between seeds
CORRELATIONS = (0.0, 0.5, 0.9)  # assumed between two methods over seeds, where none was measured
LEGEND = (
    "Seeds for 80 % power at 95 %. Unpaired: of each of two methods with this deviation. Paired: of both, where their "
    "values over the same seeds correlate by r."
)


@dataclass(frozen=True)
class Runs:
    """Values of one metric; failed runs have none.

    Attributes:
        first: seed whose run was repeated.
        seeds: seed -> value.
        again: values of the repetitions.
        against: seed -> value of the other configuration; {} without one.
    """

    first: int
    seeds: dict[int, float]
    again: list[float]
    against: dict[int, float]

    def scaled(self, factor: float) -> Runs:
        """All values times `factor`: another unit."""
        seeds, against = ({seed: factor * value for seed, value in part.items()} for part in (self.seeds, self.against))
        return Runs(self.first, seeds, [factor * value for value in self.again], against)


def spread_sentences(runs: Runs, metric: str) -> list[str]:
    """Sentences on the spread between reruns and between seeds."""
    runs, unit = (runs.scaled(100), " points") if _in_points(metric) else (runs, "")
    return [_between_reruns(runs, unit), _between_seeds(runs, unit)]


def needed_seeds(runs: Runs, metric: str) -> pd.DataFrame | None:
    """A row per effect: seeds without pairs, and with pairs of each correlation; None where there is no spread."""
    in_points = _in_points(metric)
    runs = runs.scaled(100) if in_points else runs
    if len(runs.seeds) < 2 or not (spread := deviation(list(runs.seeds.values())).value) > 0:
        return None
    paired = _paired_deviations(runs, spread)
    rows = []
    for size in EFFECTS:
        effect = size if in_points else size * spread
        title = f"{size:g} points" if in_points else f"{effect:.3g} ({size:g} deviations)"
        needed = [seeds_needed(effect, spread, paired=False), *(seeds_needed(effect, s) for s in paired.values())]
        rows.append([title, *(f"{seeds:,}" for seeds in needed)])
    return pd.DataFrame(rows, columns=["effect", "unpaired", *paired])


def _in_points(metric: str) -> bool:
    return metric.rpartition("/")[2] in POINTS


def _between_reruns(runs: Runs, unit: str) -> str:
    values = [*(value for seed, value in runs.seeds.items() if seed == runs.first), *runs.again]
    if len(values) < 2:
        return f"Seed {runs.first}: not run twice."
    if len(set(values)) == 1:
        return f"Seed {runs.first}, {len(values)} runs: bit for bit the same ({values[0]:.6g}{unit})."
    span = max(values) - min(values)
    return f"Seed {runs.first}, {len(values)} runs: {_spread(values, unit)}, from smallest to largest {span:.3g}{unit}."


def _between_seeds(runs: Runs, unit: str) -> str:
    values = list(runs.seeds.values())
    if len(values) < 2:
        return f"{len(values)} seed: no deviation."
    return f"{len(values)} seeds: mean {np.mean(values):.5g}{unit}, {_spread(values, unit)}."


def _spread(values: Sequence[float], unit: str) -> str:
    spread = deviation(values)
    interval = "" if spread.low is None else f" [{spread.low:.3g}, {spread.high:.3g}]"
    return f"deviation {spread.value:.3g}{interval}{unit}"


def _paired_deviations(runs: Runs, spread: float) -> dict[str, float]:
    """Title -> deviation of the differences: measured, or of two methods with this deviation and some correlation."""
    both = [(runs.seeds[seed], runs.against[seed]) for seed in runs.seeds if seed in runs.against]
    if len(both) < 3:
        return {f"paired, r = {r:g}": spread * (2 * (1 - r)) ** 0.5 for r in CORRELATIONS}
    a, b = np.array(both).T
    measured = float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else 0.0
    return {f"paired, r = {measured:.2f} (measured)": deviation(a - b).value}
