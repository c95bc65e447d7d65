"""The controls re-implemented: power iteration for the top singular value, ranks by layer, penalty entry by entry."""

from collections.abc import Sequence

import numpy as np
from reference.budget import apportion


def stable_rank(weight: np.ndarray) -> float:
    """Sum of squares over the largest eigenvalue of W^T W, by power iteration."""
    total = sum(float(entry) ** 2 for row in weight for entry in row)
    vector = np.ones(weight.shape[1])
    for _ in range(2000):
        vector = weight.T @ (weight @ vector)
        vector = vector / np.sqrt(sum(v * v for v in vector))
    return total / float(vector @ (weight.T @ (weight @ vector)))


def stable_ranks(weights: Sequence[np.ndarray], costs: Sequence[int], total: int, least: int) -> list[int]:
    high = [min(weight.shape) for weight in weights]
    return apportion([stable_rank(weight) for weight in weights], costs, total, [least] * len(high), high)


def depth_ranks(
    layers: Sequence[int | None], costs: Sequence[int], high: Sequence[int], total: int, slope: float, up: bool
) -> list[int]:
    """Share of layer l of L layers: 1, ..., slope in equal steps; the middle for a site outside the stack."""
    stack = [layer for layer in layers if layer is not None]
    steps = np.linspace(1, slope, max(stack) - min(stack) + 1)
    steps = steps if up else steps[::-1]
    middle = (1 + slope) / 2
    scores = [middle if layer is None else float(steps[layer - min(stack)]) for layer in layers]
    return apportion(scores, costs, total, [0] * len(high), high)


def orthogonality(factors: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Mean over A (r, d_in) and B (d_out, r) of the distance of their Gram matrices from the identity."""
    distances = []
    for A, B in factors:
        for rows in (A, B.T):
            square = 0.0
            for i, left in enumerate(rows):
                for j, right in enumerate(rows):
                    square += (float(left @ right) - (i == j)) ** 2
            distances.append(square**0.5)
    return sum(distances) / len(distances)
