"""How scores become integer ranks, exactly within a budget."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rankbench import RankbenchError


class BudgetError(RankbenchError, ValueError):
    """A budget that no allocation can meet."""


def apportion(
    scores: Sequence[float], costs: Sequence[int], total: int, low: Sequence[int], high: Sequence[int]
) -> list[int]:
    """Integer ranks proportional to scores, as close below `total` as integers allow.

    Starts every site at `low` and hands out one rank at a time to the site with the largest score / (rank + 1/2)
    (the divisor method of Webster and Sainte-Lague), skipping what no longer fits. Hence: exact (what is left is less
    than the cheapest rank still open), within bounds, and monotone: of two sites with equal cost and bounds the
    higher score never gets the lower rank. Ties go to the earlier site. Infinite scores are served first and scores of
    zero last, evenly among themselves.

    Args:
        scores: (n,) >= 0, inf allowed.
        costs: (n,) > 0, price of one rank at each site, in the unit of `total`.
        total: what may be spent.
        low: (n,) least rank per site.
        high: (n,) greatest rank per site.

    Raises:
        BudgetError: a score is negative or NaN, or total is below the cost of `low` or above that of `high`.
    """
    bad = [index for index, score in enumerate(scores) if not score >= 0]
    if bad:
        raise BudgetError(f"scores must be >= 0: site {bad[0]} has {scores[bad[0]]}")
    if any(least > most for least, most in zip(low, high, strict=True)):
        raise BudgetError("a site's least rank is above its greatest rank")
    least_cost, most_cost = (sum(c * r for c, r in zip(costs, bound, strict=True)) for bound in (low, high))
    if total < least_cost:
        raise BudgetError(f"budget {total} is below the cost {least_cost} of the least ranks")
    if total > most_cost:
        raise BudgetError(f"budget {total} is above the cost {most_cost} of the greatest ranks")
    ranks, left = list(low), total - least_cost
    tiers = [0 if math.isinf(score) else 1 if score > 0 else 2 for score in scores]

    def claim(index: int) -> tuple[int, float, int]:
        weight = scores[index] if tiers[index] == 1 else 1.0
        return (tiers[index], -weight / (ranks[index] + 0.5), index)

    claims = [claim(index) for index in range(len(ranks)) if ranks[index] < high[index]]
    heapq.heapify(claims)
    while claims:
        index = heapq.heappop(claims)[-1]
        if costs[index] > left:
            continue  # what is left only shrinks: this site is done
        ranks[index] += 1
        left -= costs[index]
        if ranks[index] < high[index]:
            heapq.heappush(claims, claim(index))
    return ranks


def select(
    scores: npt.NDArray[np.float64], costs: npt.NDArray[np.float64], total: float, refill: bool = True
) -> npt.NDArray[np.bool_]:
    """The components to keep: best score first, each kept if it still fits into `total`.

    Ties go to the earlier component, so no more than the budget is kept even when scores are equal.

    Args:
        scores: (n,), higher is kept; NaN is an error.
        costs: (n,) > 0, price of each component.
        total: what may be spent; 0 keeps none.
        refill: go on past a component that does not fit, to cheaper ones with lower scores; else stop there.

    Raises:
        BudgetError: a score is NaN.
    """
    if np.isnan(scores).any():
        raise BudgetError(f"{int(np.isnan(scores).sum())} of {scores.size} component scores are NaN")
    order = np.argsort(-scores, kind="stable")
    keep = np.zeros(scores.size, dtype=bool)
    if scores.size and costs.min() == costs.max():
        keep[order[: max(0, int((total + 1e-9) // costs[0]))]] = True
        return keep
    left = total + 1e-9
    for index, cost in zip(order.tolist(), costs[order].tolist(), strict=True):
        if cost <= left:
            keep[index] = True
            left -= cost
        elif not refill:
            break
    return keep


def distribute(
    room: Mapping[str, int], costs: Mapping[str, int], purse: int, enough: tuple[float, float] = (math.inf, math.inf)
) -> tuple[dict[str, int], int]:
    """Distribute a remaining budget round-robin, one rank per receiver and round, while any next rank can be paid.

    Args:
        room: ranks that each receiver can still take, first receiver first.
        costs: price of one rank, by name.
        purse: the remaining budget.
        enough: (ranks, cost); distribution ends as soon as both have been given.

    Returns:
        Ranks per receiver, without receivers of none, and what is left of the purse.
    """
    ranks, count, spent, before = dict.fromkeys(room, 0), 0, 0, -1
    while spent > before:
        before = spent
        for name in room:
            if count >= enough[0] and spent >= enough[1]:
                break
            if spent + costs[name] <= purse and ranks[name] < room[name]:
                ranks[name] += 1
                count, spent = count + 1, spent + costs[name]
    return {name: count for name, count in ranks.items() if count}, purse - spent
