"""Errors of estimates of the integrated gradients: of the trapezoid over M, of the stochastic estimators over N.

Relative: || estimate - integral || / || integral ||, Euclidean over the attributions of all adapter parameters; of
random estimates the root mean square over the repeats. The bound is Theorem 1 of IGU-LoRA in the form that holds (with
the factor M - 1, see scores.quadrature), for all P elements at once with probability 1 - DELTA:

    curvature / (12 M^2)  +  (M - 1) / M * range * sqrt(log(2 P / DELTA) / (2 N))

Its constants are estimated on the nodes of M, so from below. It says nothing of biased estimators: no bound there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rankbench.methods.importance import quadrature
from rankbench.quadrature.integrand import Array, Integrand, simpson

DELTA = 0.05  # the bound holds with probability 1 - DELTA
ABOVE = 3.0  # times the rounding floor: points that a slope is fitted to
ESTIMATORS = ("printed", "printed_rescaled", "none", "unbiased", "sampled")


@dataclass(frozen=True)
class Point:
    """One error.

    Attributes:
        kind: "trapezoid" or "sampling".
        estimator: "trapezoid" or one of ESTIMATORS (see scores.quadrature).
        M: intervals. N: independent draws averaged, None for the trapezoid.
        error: relative, >= 0. floor: of it, what rounding explains. bound: of the theorem, None where it has none.
        reference: what the error is taken against, "integral" or "trapezoid" (of the same M).
    """

    kind: str
    estimator: str
    M: int
    N: int | None
    error: float
    floor: float
    bound: float | None
    reference: str


@dataclass(frozen=True)
class Fit:
    """A slope in log-log, and the first and last M or N it was fitted to; None where fewer than two points serve."""

    kind: str
    estimator: str
    reference: str
    slope: float | None
    first: int | None
    last: int | None


class ErrorStudy:
    """Errors of estimates of the integral.

    Args:
        integrand: evaluated at the nodes of all M below, and of the reference.
        intervals: M of the sampling study.
        reference: intervals of Simpson's rule, even.
    """

    def __init__(self, integrand: Integrand, intervals: int, reference: int) -> None:
        self.integrand, self.intervals = integrand, intervals
        self.integral = integrand.weights(simpson(reference))
        self._size = float(integrand.norm(self.integral))
        self._noise = integrand.noise(reference) / self._size

    def trapezoid(self, intervals: int) -> Array:
        """Weights of the trapezoid rule on the integrand's nodes."""
        return self.integrand.weights(quadrature("trapezoid", "", intervals, np.random.default_rng(0)))  # draws nothing

    def end_error(self) -> float:
        """Error of the gradient at the end of the path alone (estimator "instantaneous": AdaLoRA's signal)."""
        points = quadrature("instantaneous", "", 1, np.random.default_rng(0))
        return self._error(self.integrand.weights(points) - self.integral)[0]

    def trapezoids(self, counts: Sequence[int]) -> Iterator[Point]:
        """Error of the rule for each M."""
        for M in counts:
            error, floor = self._error(self.trapezoid(M) - self.integral)
            bound = self.integrand.curvature / (12 * M * M) / self._size
            yield Point("trapezoid", "trapezoid", M, None, error, floor, bound, "integral")

    def samples(self, counts: Sequence[int], repeats: int, rng: np.random.Generator) -> Iterator[Point]:
        """Error of the mean of N draws, for each estimator and N, against the integral and against the trapezoid."""
        M = self.intervals
        targets = {"integral": self.integral, "trapezoid": self.trapezoid(M)}
        for estimator in ESTIMATORS:
            for N in counts:
                drawn = self.draw(estimator, N, repeats, rng)
                for reference, target in targets.items():
                    bound = self._bound(estimator, N, reference)
                    yield Point("sampling", estimator, M, N, *self._error(drawn - target), bound, reference)

    def draw(self, estimator: str, count: int, repeats: int, rng: np.random.Generator) -> Array:
        """Weights of `repeats` estimates, each the mean of `count` draws: (repeats, n)."""
        estimates = np.zeros((repeats, len(self.integrand.nodes)))
        column = {a: index for index, a in enumerate(self.integrand.nodes)}
        for row in estimates:
            for _ in range(count):
                for a, weight in quadrature("stochastic", estimator.partition("_")[0], self.intervals, rng):
                    row[column[a]] += weight / count
        return estimates / estimates.sum(axis=1, keepdims=True) if estimator.endswith("rescaled") else estimates

    def _error(self, weights: Array) -> tuple[float, float]:
        """Root mean square over the rows, relative, and what rounding contributes to it."""
        rows = np.atleast_2d(weights)
        error = math.sqrt(float(np.mean(self.integrand.norm(rows) ** 2))) / self._size
        return error, self._noise * math.sqrt(float(np.mean((rows**2).sum(axis=1))))

    def _bound(self, estimator: str, N: int, reference: str) -> float | None:
        f, M = self.integrand, self.intervals
        ranges = {"unbiased": (M - 1) / M * f.inner_range, "sampled": f.range}
        if estimator not in ranges:
            return None
        sampling = ranges[estimator] * math.sqrt(math.log(2 * f.size / DELTA) / (2 * N))
        trapezoid = f.curvature / (12 * M * M) if reference == "integral" else 0.0
        return (sampling + trapezoid) / self._size

    def completeness(self) -> list[dict[str, Any]]:
        """Sum of the attributions of each role beside the loss difference, by rule."""
        f = self.integrand
        difference = f.losses[1] - f.losses[0]
        rules = {"reference": self.integral, f"M={self.intervals}": self.trapezoid(self.intervals)}
        rules["M=1"] = self.trapezoid(1)
        return [
            {"rule": rule, "role": role, "sum": total, "difference": difference, "gap": total / difference - 1}
            for rule, weights in rules.items()
            for role, total in ((role, float(sums @ weights)) for role, sums in f.sums.items())
        ]


def fits(points: Sequence[Point]) -> list[Fit]:
    """A slope for each line of points, fitted where the error is more than ABOVE times what rounding explains."""
    slopes = []
    for line in dict.fromkeys((p.kind, p.estimator, p.reference) for p in points):
        used = [p for p in points if (p.kind, p.estimator, p.reference) == line and p.error > ABOVE * p.floor]
        x = [p.M if p.N is None else p.N for p in used]
        if len(x) < 2:
            slopes.append(Fit(*line, None, None, None))
        else:
            slope = float(np.polyfit(np.log(x), np.log([p.error for p in used]), 1)[0])
            slopes.append(Fit(*line, slope, x[0], x[-1]))
    return slopes
