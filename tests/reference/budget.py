"""Re-implementation of rankbench.core.budget: one rank at a time, in exact fractions, checking every site each time."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np


def claim(score: float, rank: int) -> tuple[int, Fraction]:
    """Higher is served first: infinite scores before positive ones before zero, then score / (rank + 1/2)."""
    tier = 2 if np.isinf(score) else 1 if score > 0 else 0
    return tier, Fraction(score if tier == 1 else 1) / (rank + Fraction(1, 2))


def apportion(
    scores: Sequence[float], costs: Sequence[int], total: int, low: Sequence[int], high: Sequence[int]
) -> list[int]:
    ranks = list(low)
    while True:
        left = total - sum(cost * rank for cost, rank in zip(costs, ranks, strict=True))
        open_sites = [i for i in range(len(ranks)) if ranks[i] < high[i] and costs[i] <= left]
        if not open_sites:
            return ranks
        best = max(claim(scores[i], ranks[i]) for i in open_sites)
        first = next(i for i in open_sites if claim(scores[i], ranks[i]) == best)
        ranks[first] += 1


def select(scores: Sequence[float], costs: Sequence[float], total: float, refill: bool = True) -> list[bool]:
    keep, left = [False] * len(scores), Fraction(total)
    waiting = list(range(len(scores)))
    while waiting:
        best = max(scores[i] for i in waiting)
        first = next(i for i in waiting if scores[i] == best)
        waiting.remove(first)
        if Fraction(costs[first]) <= left:
            keep[first] = True
            left -= Fraction(costs[first])
        elif not refill:
            return keep
    return keep


def released_cut(scores: Sequence[float], costs: Sequence[float], total: float) -> list[bool]:
    """IGU-LoRA as released: the lowest scores go until what they cost is at least the excess, ties all together."""
    excess, removed = Fraction(sum(map(Fraction, costs))) - Fraction(total), Fraction(0)
    for index in sorted(range(len(scores)), key=lambda i: scores[i]):
        removed += Fraction(costs[index])
        if removed >= excess:
            return [score > scores[index] for score in scores]
    return [False] * len(scores)


def decayed(kind: str, step: int, start: int, target: int, begin: int, end: int) -> int:
    """Budget after step `step`, in exact fractions."""
    if step <= begin:
        return start
    if step >= end:
        return target
    remaining = Fraction(end - step, end - begin)
    return target + int((start - target) * {"cubic": remaining**3, "linear": remaining, "oneshot": Fraction(1)}[kind])
