"""Maps drawn alike, run at the same seeds: how far their true effects spread, and where other arms stand among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rankbench.analysis.comparison import NOT_RUN, Comparison
from rankbench.analysis.labels import sort_key
from rankbench.analysis.metrics import higher_is_better
from rankbench.statistics.decision import Outcome
from rankbench.statistics.estimates import PairedDifference, mean_interval
from rankbench.statistics.map_effect import MapEffect, detectable_deviation, map_effect


@dataclass(frozen=True)
class MapSpread:
    """What the maps of one comparison show.

    Attributes:
        maps: their labels.
        seeds: number of seeds at which all of them have a run that is ok: the others are left out, for all maps.
        effect: spread of their true effects, above 0 where a map is better, in the unit of the gains.
        detectable: smallest deviation that would be found with 80 % probability; None where runs do not scatter.
        gains: label -> gain over the mean of the maps at the seeds that both have, with an interval of its own.
        outcome: works: maps matter; worthwhile: and the best of a hundred would be so; no worthwhile gain: not even
            that one would be.
        reason: why it is withheld; "" for other outcomes.
    """

    maps: list[str]
    seeds: int
    effect: MapEffect
    detectable: float | None
    gains: Mapping[str, PairedDifference]
    outcome: Outcome
    reason: str


def map_spread(comparison: Comparison, maps: Sequence[str], level: float) -> MapSpread | None:
    """The spread of maps, and the gain of every arm over their mean.

    Args:
        comparison: comparison of the maps among other arms; its first metric is shown, by its terms.
        maps: labels of maps that are drawn alike; those that were not run withhold the outcome.
        level: coverage of the intervals of the spread, in (0, 1).

    Returns:
        None where fewer than two maps share two seeds, or where nobody knows which direction of the metric is better.
    """
    metric = comparison.metrics[0]
    higher, present = higher_is_better(metric), [arm for arm in maps if arm in comparison.rows]
    if higher is None or len(present) < 2:
        return None
    values = comparison.values[metric].apply(np.log) if comparison.terms.log else comparison.values[metric]
    values = values * (1 if higher else -1)
    table = values[present].dropna()
    if len(table) < 2:
        return None
    effect, shape = map_effect(table.to_numpy(float).T, level), (len(present), len(table))
    rest = effect.residual.value
    over_mean = values.sub(table.mean(axis=1), axis=0)
    pairs = {label: over_mean[label].dropna() for label in comparison.rows}
    reasons = list(_faults(comparison, maps, len(table)))
    return MapSpread(
        present,
        len(table),
        effect,
        detectable_deviation(*shape, rest, level=level) if rest > 0 else None,
        {label: mean_interval(gains) for label, gains in pairs.items() if len(gains)},
        "withheld" if reasons else _shown(effect, comparison.terms.margin),
        "; ".join(reasons),
    )


def _shown(effect: MapEffect, smallest: float | None) -> Outcome:
    """The outcome of `decision.decide`, of the best map there may be; its ceiling has the interval."""
    low, high = effect.ceiling.low, effect.ceiling.high
    if low is None or high is None or smallest is None:
        return "open"
    if high < smallest:
        return "no worthwhile gain"
    if low > smallest:
        return "worthwhile"
    return "works" if low > 0 else "open"


def _faults(comparison: Comparison, maps: Sequence[str], seeds: int) -> Iterator[str]:
    """What withholds the outcome."""
    terms, data = comparison.terms, comparison.data
    if terms.fault:
        yield terms.fault
    if not terms.headroom:
        yield "no headroom"
    if absent := [arm for arm in maps if arm not in comparison.rows]:
        yield f"{' and '.join(absent)}: {NOT_RUN}"
    if off := [arm for arm in maps if arm in comparison.off.index]:
        yield f"{' and '.join(off)}: not at an equal budget"
    declared = comparison.declared(maps)
    if seeds < declared:
        yield f"all maps have a run that is ok at {seeds} of {declared} seeds"
    at_edge = set(data["label"][data["at_edge"].eq(True)])
    if edges := sorted(at_edge & set(maps), key=sort_key):
        yield f"no learning rate inside of its grid was chosen for {' and '.join(edges)}"


def frame_of(spread: MapSpread) -> pd.DataFrame:
    """Frame of arm, whether it is one of the maps, mean, low, high and n of its gain, from the best to the worst."""
    rows = [(arm, arm in spread.maps, gain.mean, gain.low, gain.high, gain.n) for arm, gain in spread.gains.items()]
    data = pd.DataFrame(rows, columns=["arm", "map", "mean", "low", "high", "n"])
    return data.astype({"low": float, "high": float}).sort_values("mean", ascending=False, ignore_index=True)
