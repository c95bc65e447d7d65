"""Re-implementation of IncreLoRA: one triplet, one site and one rank at a time."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

Factors = tuple[np.ndarray, np.ndarray, np.ndarray]  # A (r, d_in), B (d_out, r), gate (r,)


def signal(values: Factors, gradients: Factors) -> float:
    """Mean over triplets of |w g|: of the gate, plus the mean of the row of A, plus the mean of the column of B."""
    (A, B, gate), (dA, dB, dgate) = values, gradients
    scores = []
    for k in range(len(gate)):
        row, column = np.abs(A[k] * dA[k]), np.abs(B[:, k] * dB[:, k])
        scores.append(abs(gate[k] * dgate[k]) + row.sum() / len(row) + column.sum() / len(column))
    return sum(scores) / len(scores)


def smooth(signals: Sequence[Sequence[float]], beta1: float, beta2: float) -> list[float]:
    """Score of each site after a history of signals, oldest first."""
    scores = []
    for site in range(len(signals[0])):
        mean = deviation = 0.0
        for moment in signals:
            mean = beta1 * mean + (1 - beta1) * moment[site]
            deviation = beta2 * deviation + (1 - beta2) * abs(moment[site] - mean)
        scores.append(mean * deviation)
    return scores


def due(step: int, begin: int, end: int, start: int, target: int) -> int:
    """What must have been spent after step `step`: on the straight line from `start` to `target`, rounded down."""
    return int(start + Fraction(target - start) * Fraction(min(step, end) - begin, end - begin))


def grow(
    ranks: Sequence[int],
    scores: Sequence[float],
    costs: Sequence[int],
    high: Sequence[int],
    target: int,
    due: int,
    top_h: int,
) -> list[int]:
    ranks, given = list(ranks), 0
    waiting: list[int] = []
    idle = 0
    while True:
        spent = sum(rank * cost for rank, cost in zip(ranks, costs, strict=True))
        if given >= top_h and spent >= due:
            return ranks
        if not waiting:  # a new round
            waiting = list(range(len(ranks)))
        best = max(waiting, key=lambda i: (scores[i], -i))
        waiting.remove(best)
        if ranks[best] < high[best] and spent + costs[best] <= target:
            ranks[best] += 1
            given, idle = given + 1, 0
        else:
            idle += 1
            if idle > 2 * len(ranks):
                return ranks
