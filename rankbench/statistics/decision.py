"""The decision on an arm: one of six outcomes, read off simultaneous intervals.

| outcome | what is shown |
| --- | --- |
| works | gain above 0 over the reference and every control |
| worthwhile | the same, and a gain over the reference above the smallest effect of interest |
| no worthwhile gain | gain over the reference below the smallest effect |
| harmful | gain over the reference below 0 |
| open | none of these; more seeds would close it |
| withheld | nothing: the runs are not those that were declared, or nothing can be seen here |

It treats both directions alike: of 100 families at most 5 hold any wrong word, works, harmful and no worthwhile gain
together, because all are read off intervals that hold together (`family`). That every control has to be beaten needs
no correction: an arm that does not work fails against one of them, and that one interval has to err (Berger 1982).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankbench.statistics.estimates import Array, PairedDifference, all_equal, finite
from rankbench.statistics.family import MOST, POWER, seeds_needed, simultaneous_bounds

Outcome = Literal["works", "worthwhile", "no worthwhile gain", "harmful", "open", "withheld"]
OUTCOMES: tuple[Outcome, ...] = ("works", "worthwhile", "no worthwhile gain", "harmful", "open", "withheld")


@dataclass(frozen=True)
class Declaration:
    """What was declared before the first run.

    Attributes:
        seeds: number of pairs, >= 2.
        comparisons: size of the family: arms x panels x looks at the data.
        smallest_effect: smallest gain of interest, > 0, in the unit of the gains.
        headroom: whether more budget helps here (`budget_ladder.headroom`); if not, its allocation cannot matter.
    """

    seeds: int
    comparisons: int
    smallest_effect: float
    headroom: bool = True


@dataclass(frozen=True)
class Decision:
    """What is shown of an arm.

    Attributes:
        outcome: one of OUTCOMES.
        reason: why, in a clause.
        intervals: name -> gain over the reference (first) and over each control, with its simultaneous interval;
            there is no entry for what was not run.
        seeds: of an open question, the number of pairs that would close it with probability POWER; None where that
            is above MOST or a control was not run, and for all other outcomes.
    """

    outcome: Outcome
    reason: str
    intervals: Mapping[str, PairedDifference]
    seeds: int | None = None


def decide(gains: Mapping[str, ArrayLike], declaration: Declaration, lost: int = 0, at_edge: bool = False) -> Decision:
    """Decide on an arm.

    Args:
        gains: name of the reference (first), then of every control -> gains of the arm over it, (n,), pairs by seed,
            above 0 where the arm is better (`family.paired_gains`); empty where the control was not run.
        declaration: what was declared before the first run.
        lost: seeds whose run of the arm, the reference or a control failed, was inert or over its budget.
        at_edge: whether the learning rate of the arm, the reference or a control lies at an edge of its grid.

    Raises:
        ValueError: a gain that is not finite, or a smallest effect that is not > 0.
    """
    smallest = declaration.smallest_effect
    if not (smallest > 0 and np.isfinite(smallest)):
        raise ValueError(f"smallest effect {smallest} is not > 0; it is the smallest gain that would matter")
    pairs = {name: finite(values, f"gains over {name}") for name, values in gains.items() if np.size(values)}
    intervals = {name: _interval(values, declaration.comparisons) for name, values in pairs.items()}
    if reason := _why_withheld(gains, pairs, declaration, lost, at_edge):
        return Decision("withheld", reason, intervals)
    absent = [name for name in gains if name not in pairs]
    bounds = [(interval.low, interval.high) for interval in intervals.values()]
    low, high = np.array(bounds + [(-np.inf, np.inf)] * len(absent), dtype=float).T
    outcome: Outcome = str(outcomes(low, high, smallest))  # type: ignore[assignment]
    if outcome != "open":
        return Decision(outcome, _why_shown(outcome, intervals, smallest), intervals)
    seeds = _seeds_that_close([pairs[name] for name in _not_beaten(intervals)], declaration)
    return Decision("open", _why_open(intervals, absent, seeds), intervals, seeds)


def outcomes(low: Array, high: Array, smallest_effect: float) -> NDArray[np.str_]:
    """The rule itself, for many arms at once.

    "No worthwhile gain" goes before "works": a gain shown to lie between 0 and the smallest effect is too small.

    Args:
        low, high: (..., 1 + controls): bounds of the gain over the reference (first) and over each control.
        smallest_effect: > 0.

    Returns:
        (...), of OUTCOMES without "withheld".
    """
    beaten = (low > 0).all(axis=-1)
    shown = {
        "harmful": high[..., 0] < 0,
        "no worthwhile gain": high[..., 0] < smallest_effect,
        "worthwhile": beaten & (low[..., 0] > smallest_effect),
        "works": beaten,
    }
    return np.select(list(shown.values()), list(shown), "open")


def _interval(gains: Array, comparisons: int) -> PairedDifference:
    mean = float(gains.mean())
    if all_equal(gains):
        return PairedDifference(gains.size, mean, None, None)
    low, high = simultaneous_bounds(gains, comparisons)
    return PairedDifference(gains.size, mean, float(low), float(high))


def _not_beaten(intervals: Mapping[str, PairedDifference]) -> list[str]:
    return [name for name, interval in intervals.items() if interval.low is None or interval.low <= 0]


def _why_withheld(
    gains: Mapping[str, ArrayLike], pairs: Mapping[str, Array], declaration: Declaration, lost: int, at_edge: bool
) -> str | None:
    reference = next(iter(gains))
    if not declaration.headroom:
        return "no headroom: more budget does not help here, so its allocation cannot matter"
    if at_edge:
        return "a learning rate lies at an edge of its grid: extend the grid"
    if lost:
        return f"{lost} of {declaration.seeds} seeds are lost: repair their runs"
    if reference not in pairs:
        return f"no pair with {reference}"
    for name, values in pairs.items():
        if values.size != declaration.seeds:
            return f"{values.size} pairs with {name}, {declaration.seeds} were declared"
        if all_equal(values):
            return f"{values.size} pairs with {name}, all {values[0]:+.3g}: there is no spread to judge by"
    return None


def _why_shown(outcome: Outcome, intervals: Mapping[str, PairedDifference], smallest: float) -> str:
    reference, *controls = intervals
    low = intervals[reference].low
    if outcome == "harmful":
        return f"worse than {reference}"
    if outcome == "no worthwhile gain":
        above = "above 0, but " if low is not None and low > 0 else ""
        return f"the gain over {reference} is {above}below {smallest:.3g}"
    beaten = " and ".join(filter(None, [", ".join([reference, *controls][:-1]), [reference, *controls][-1]]))
    return f"better than {beaten}" + f", and than {reference} by more than {smallest:.3g}" * (outcome == "worthwhile")


def _why_open(intervals: Mapping[str, PairedDifference], absent: Sequence[str], seeds: int | None) -> str:
    worse = [name for name, interval in intervals.items() if interval.high is not None and interval.high < 0]
    undecided = [name for name in _not_beaten(intervals) if name not in worse]
    parts = [
        f"{what} {', '.join(names)}"
        for what, names in (("worse than", worse), ("not told from", undecided), ("not run:", absent))
        if names
    ]
    if undecided:
        number = f"more than {MOST}" if seeds is None else f"{seeds}"
        parts.append(f"{number} seeds would close it with {POWER:.0%} probability")
    return "; ".join(parts)


def _seeds_that_close(pairs: Sequence[Array], declaration: Declaration) -> int | None:
    """Pairs that would show a gain like the least of those not shown to lie above 0, or below the smallest effect.

    A lucky mean promises no more than the smallest effect does; the largest deviation is taken for all.
    """
    if not pairs:
        return None
    least, smallest = min(float(values.mean()) for values in pairs), declaration.smallest_effect
    effect = min(max(least, smallest - least), smallest)
    deviation = max(float(values.std(ddof=1)) for values in pairs)
    seeds = seeds_needed(effect, deviation, declaration.comparisons, len(pairs))
    return None if seeds is None else max(seeds, declaration.seeds + 1)
