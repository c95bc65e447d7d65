"""Re-implementation of rankbench.methods.importance: NumPy, float64, one element or one matrix at a time."""

from collections.abc import Sequence

import numpy as np

Array = np.ndarray


def moving(signals: Sequence[Array], beta1: float, beta2: float) -> tuple[Array, Array]:
    """Mean and deviation after all signals, element by element."""
    mean, deviation = np.zeros(signals[0].shape), np.zeros(signals[0].shape)
    for signal in signals:
        for place in np.ndindex(*signal.shape):
            mean[place] = beta1 * mean[place] + (1 - beta1) * signal[place]
            deviation[place] = beta2 * deviation[place] + (1 - beta2) * abs(signal[place] - mean[place])
    return mean, deviation


def combined(
    kind: str, means: Sequence[Array], deviations: Sequence[Array], epsilon: float, relative: bool
) -> list[Array]:
    """Elementwise importance of each tensor; the relative epsilon refers to all elements of all tensors."""
    average = sum(d.sum() for d in deviations) / sum(d.size for d in deviations)
    found = []
    for mean, deviation in zip(means, deviations, strict=True):
        if kind == "sensitivity":
            found.append(mean)
        elif kind == "product":
            found.append(mean * deviation)
        elif relative:
            found.append(mean / (deviation + epsilon * average))
        else:
            found.append((mean + epsilon) / (deviation + epsilon))
    return found


def triplet(A: Array, B: Array, gate: Array) -> Array:
    """A (r, d_in), B (d_out, r), gate (r,) of one site: (r,)."""
    scores = []
    for k in range(len(gate)):
        row = sum(A[k, j] for j in range(A.shape[1])) / A.shape[1]
        column = sum(B[j, k] for j in range(B.shape[0])) / B.shape[0]
        scores.append(gate[k] + row + column)
    return np.array(scores)


def orthogonality(factors: Sequence[tuple[Array, Array]], kind: str) -> float:
    """Mean of un-squared norms over A and B of every site that has components."""
    norms = []
    for A, B in factors:
        for vectors in (A, B.T):
            total = 0.0
            for i in range(len(vectors)):
                for j in range(len(vectors)):
                    dot = float(vectors[i] @ vectors[j])
                    if i == j:
                        total += (dot - 1) ** 2 if kind == "full" else 0.0
                    else:
                        total += dot**2
            if len(vectors):
                norms.append(total**0.5)
    return sum(norms) / len(norms)


def trapezoid(steps: int) -> dict[float, float]:
    """Node -> weight of the composite trapezoidal rule."""
    weights = dict.fromkeys((k / steps for k in range(steps + 1)), 0.0)
    for k in range(steps):
        weights[k / steps] += 0.5 / steps
        weights[(k + 1) / steps] += 0.5 / steps
    return weights
