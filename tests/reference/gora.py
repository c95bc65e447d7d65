"""Re-implementation of GoRA: importance entry by entry, normal equations for B."""

from collections.abc import Sequence

import numpy as np
from reference.budget import apportion


def ranks(
    weights: Sequence[np.ndarray],
    gradients: Sequence[np.ndarray],
    costs: Sequence[int],
    total: int,
    least: int,
    most: int,
    power: float = 0.5,
) -> list[int]:
    """From (d_out, d_in) weights and mean gradients."""
    importance = []
    for W, G in zip(weights, gradients, strict=True):
        entries = [abs(float(w) * float(g)) for w, g in zip(W.flatten(), G.flatten(), strict=True)]
        importance.append(sum(entries) / len(entries))
    shares = [value / sum(importance) for value in importance]
    scores = [share / (W.shape[0] + W.shape[1]) ** power for share, W in zip(shares, weights, strict=True)]
    high = [min(*W.shape, most) for W in weights]
    return apportion(scores, costs, total, [min(least, bound) for bound in high], high)


def initial_B(gradient: np.ndarray, A: np.ndarray, gamma: float, scale: float) -> np.ndarray:
    """B (d_out, r), row by row the least-squares fit of -gamma / scale times a row of the gradient by the rows of A."""
    fits = [np.linalg.solve(A @ A.T, A @ row) for row in gradient]
    return -gamma / scale * np.array(fits)
