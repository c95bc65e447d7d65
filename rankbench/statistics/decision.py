"""The decision on an arm: one of six outcomes, read off simultaneous intervals.

| outcome | what is shown |
| --- | --- |
| works | gain above 0 over the reference and every control |
| worthwhile | the same, and a gain over the reference above the smallest effect of interest |
| no worthwhile gain | gain over the reference below the smallest effect |
| harmful | gain over the reference below 0 |
| open | none of these yet |
| withheld | nothing: the runs are not those that were declared, or nothing can be seen here |

It treats both directions alike: of 100 families at most 5 hold any wrong word, works, harmful and no worthwhile gain
together, because all are read off intervals that hold together (`family`). That is so where gains scatter about evenly
to both sides; an arm whose few bad seeds make most of the spread is said to work too often
(experiments/decision_rule.md). That every control has to be beaten needs no correction: an arm that does not work fails
against one of them, and that one interval has to err (Berger 1982).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats

from rankbench.statistics.estimates import Array, PairedDifference, all_equal, finite, mean_interval
from rankbench.statistics.family import LEVEL, MOST, POWER, joint_level, pairs_needed

CONTROLS = {"uniform": "tuned uniform", "permuted": "its own permuted ranks", "random": "random ranks"}

Outcome = Literal["works", "worthwhile", "no worthwhile gain", "harmful", "open", "withheld"]
OUTCOMES: tuple[Outcome, ...] = ("works", "worthwhile", "no worthwhile gain", "harmful", "open", "withheld")


LOPSIDED = 1.0  # skewness; of normal samples of 10 and 20, 4 and 2 % lie beyond it on one side
FEW = "; in doubt, as a few seeds make most of the spread and more like them may be missing"


@dataclass(frozen=True)
class Declaration:
    """What was declared before the first run.

    Attributes:
        seeds: number of pairs with the reference and each control, by name as in the gains; one number for all.
        comparisons: size of the family: arms x panels x looks at the data.
        smallest_effect: smallest gain of interest, > 0, in the unit of the gains.
        level: probability that all intervals over one reference or control hold, in (0, 1).
        headroom: whether more budget helps here (`budget_ladder.headroom`); if not, no allocation could be seen to.
        unit: what the pairs are, in words: seeds, or panels of which each gives its mean.
    """

    seeds: int | Mapping[str, int]
    comparisons: int
    smallest_effect: float
    level: float = LEVEL
    headroom: bool = True
    unit: str = "seeds"

    def pairs(self, name: str) -> int:
        """Number of pairs declared with the reference or a control."""
        return self.seeds if isinstance(self.seeds, int) else self.seeds[name]


@dataclass(frozen=True)
class Decision:
    """What is shown of an arm.

    Attributes:
        outcome: one of OUTCOMES.
        reason: why, in a clause.
        intervals: name -> gain over the reference (first) and over each control, with its simultaneous interval.
        seeds: of an open question, the number of pairs that would close it with probability POWER if the truth is as
            seen; None where that is above MOST or no number would, and for all other outcomes.
    """

    outcome: Outcome
    reason: str
    intervals: Mapping[str, PairedDifference]
    seeds: int | None = None


def decide(
    gains: Mapping[str, ArrayLike],
    declaration: Declaration,
    absent: Sequence[str] = (),
    faults: Sequence[str] = (),
) -> Decision:
    """Decide on an arm.

    Args:
        gains: name of the reference (first), then of every control -> gains of the arm over it, (n,), pairs by seed,
            above 0 where the arm is better (`family.paired_gains`).
        declaration: what was declared before the first run.
        absent: controls that were never to be run, each with the reason ("random ranks: not run").
        faults: what else withholds a decision, each in a clause: declared runs that are lost, rates at an edge.

    Raises:
        ValueError: no gain, one that is not finite, or a smallest effect that is not > 0.
    """
    smallest = declaration.smallest_effect
    if not (smallest > 0 and np.isfinite(smallest)):
        raise ValueError(f"smallest effect {smallest} is not > 0; it is the smallest gain that would matter")
    pairs = {name: finite(values, f"gains over {name}") for name, values in gains.items()}
    intervals = {name: _interval(values, declaration) for name, values in pairs.items()}
    if reasons := [*_why_withheld(pairs, declaration), *faults]:
        return Decision("withheld", "; ".join(reasons), intervals)
    bounds = [(interval.low, interval.high) for interval in intervals.values()]
    low, high = np.array(bounds + [(-np.inf, np.inf)] * len(absent), dtype=float).T
    outcome: Outcome = str(outcomes(low, high, smallest))  # type: ignore[assignment]
    if outcome == "open":
        return _open(pairs, intervals, absent, declaration)
    doubt = FEW if lopsided(np.array(outcome), next(iter(pairs.values()))) else ""
    return Decision(outcome, _why_shown(outcome, intervals) + doubt, intervals)


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


def lopsided(outcome: NDArray[np.str_], gains: ArrayLike) -> NDArray[np.bool_]:
    """Whether pairs scatter far to the side on which an interval is too short: a doubt to be said with the outcome.

    A few bad seeds that make most of the spread of an arm may be missing among those that were run, so that it is said
    to work too often; with a few good ones it is said to be harmful, or without worthwhile gain. To withhold these
    outcomes would cost sound ones more than it saves (experiments/decision_rule.md).

    Args:
        outcome: (...), of OUTCOMES.
        gains: (..., n), over the reference.
    """
    skewness = scipy_stats.skew(gains, axis=-1)
    high, low = np.isin(outcome, ("works", "worthwhile")), np.isin(outcome, ("harmful", "no worthwhile gain"))
    doubt: NDArray[np.bool_] = (high & (skewness < -LOPSIDED)) | (low & (skewness > LOPSIDED))
    return doubt


def _interval(gains: Array, declaration: Declaration) -> PairedDifference:
    return mean_interval(gains, joint_level(declaration.comparisons, declaration.level))


def _why_withheld(pairs: Mapping[str, Array], declaration: Declaration) -> Iterator[str]:
    """What the pairs and the declaration alone say against a decision."""
    if not declaration.headroom:
        yield "no headroom: more budget is not shown to help here, so what its allocation is worth could not be seen"
    wrong: dict[tuple[int, int], list[str]] = {}
    for name, values in pairs.items():
        if values.size != declaration.pairs(name):
            wrong.setdefault((values.size, declaration.pairs(name)), []).append(name)
    for (size, declared), names in wrong.items():
        yield f"{size} pairs with {_listed(names)}, {declared} were declared"
    for name, values in pairs.items():
        if values.size > 1 and all_equal(values):
            yield f"all {values.size} pairs with {name} differ by the same: no spread to judge by"
    if min(values.size for values in pairs.values()) == 1:
        yield "a single pair has no spread to judge by"


def _why_shown(outcome: Outcome, intervals: Mapping[str, PairedDifference]) -> str:
    reference = next(iter(intervals))
    if outcome == "harmful":
        return f"worse than {reference}"
    if outcome == "no worthwhile gain":
        low = intervals[reference].low
        above = "above 0, but " if low is not None and low > 0 else ""
        return f"the gain over {reference} is {above}below the smallest effect of interest"
    more = f", and than {reference} by more than the smallest effect of interest" if outcome == "worthwhile" else ""
    return f"better than {_listed(list(intervals))}{more}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _open(
    pairs: Mapping[str, Array],
    intervals: Mapping[str, PairedDifference],
    absent: Sequence[str],
    declaration: Declaration,
) -> Decision:
    """An open question: what is not told, and how many seeds would tell it."""
    worse = [name for name, interval in intervals.items() if interval.resolved and interval.mean < 0]
    undecided = [name for name, interval in intervals.items() if not interval.resolved]
    if worse:  # it does not work, but against the reference there may be more to say
        undecided = [name for name in undecided if name == next(iter(intervals))]
    reference = next(iter(pairs))
    seeds = _seeds_that_close({name: pairs[name] for name in undecided}, reference, declaration) if undecided else None
    parts = [f"worse than {_listed(worse)}"] if worse else []
    if undecided:
        number = f"more than {MOST}" if seeds is None else f"{seeds}"
        parts.append(f"not told from {_listed(undecided)}")
        parts.append(f"{number} {declaration.unit} would tell with {POWER * 100:g} % probability")
    return Decision("open", "; ".join([*parts, *absent]), intervals, seeds)


def _seeds_that_close(pairs: Mapping[str, Array], reference: str, declaration: Declaration) -> int | None:
    """Pairs that would show gains like these to lie above 0, or the one over the reference below the smallest effect.

    A lucky mean promises no more than the smallest effect does; the largest deviation is taken for all. Where the gain
    over a control is not above 0 no number helps: that it is small is no outcome.
    """
    smallest = declaration.smallest_effect
    means = {name: float(values.mean()) for name, values in pairs.items()}
    deviations = {name: float(values.std(ddof=1)) for name, values in pairs.items()}
    ways = [(min(means.values()), max(deviations.values()), len(pairs))]
    if reference in pairs:
        ways.append((smallest - means[reference], deviations[reference], 1))
    numbers = [
        pairs_needed(min(effect, smallest), deviation, declaration.comparisons, controls, level=declaration.level)
        for effect, deviation, controls in ways
        if effect > 0
    ]
    enough = [number for number in numbers if number is not None]
    return max(min(enough), max(map(declaration.pairs, pairs)) + 1) if enough else None
