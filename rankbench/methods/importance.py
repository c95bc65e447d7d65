"""Importance formulas: pure functions of tensors, and the moving statistics built on them.

w is a parameter, g its loss gradient, both of any shape; a component (triplet) is one row of A, one column of B and
one gate entry. Stacked shapes are those of rankbench.core.parameter_stacks.Stack.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from rankbench.core.parameter_stacks import Stack


def sensitivity(w: Tensor, g: Tensor) -> Tensor:
    """|w * g|, elementwise, >= 0. Zhang et al. 2023, eq. 10. The gradient is used up as work space."""
    return g.mul_(w).abs_()


class MeanDeviation:
    """Moving mean of a signal and of its deviation from that mean. Zhang et al. 2023, eq. 11-12.

        mean <- beta1 mean + (1 - beta1) x        deviation <- beta2 deviation + (1 - beta2) |x - mean|

    Both start at zero, without bias correction; the deviation uses the mean already updated.

    Args:
        beta1, beta2: in [0, 1), decay per update.
    """

    def __init__(self, beta1: float, beta2: float) -> None:
        self.beta1, self.beta2 = beta1, beta2
        self.mean: list[Tensor] = []
        self.deviation: list[Tensor] = []
        self.updates = 0

    @torch.no_grad()
    def update(self, values: Iterable[Tensor]) -> None:
        """Take in one signal: tensors of any shapes, the same at each call; each is used up as work space.

        They are taken one at a time, so that a generator keeps one of them in memory (and in the cache), not all.
        """
        for index, value in enumerate(values):
            if index == len(self.mean):
                self.mean.append(torch.zeros_like(value))
                self.deviation.append(torch.zeros_like(value))
            value.sub_(self.mean[index])  # x - old mean; beta1 times that is x - new mean
            self.mean[index].add_(value, alpha=1 - self.beta1)
            self.deviation[index].mul_(self.beta2).add_(value.abs_(), alpha=(1 - self.beta2) * self.beta1)
        self.updates += 1

    def clear(self) -> None:
        """Forget everything; the memory is freed."""
        self.mean, self.deviation, self.updates = [], [], 0

    def state_dict(self) -> dict[str, object]:
        """Mean, deviation and count, as plain values and tensors."""
        return {"mean": self.mean, "deviation": self.deviation, "updates": self.updates}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Inverse of `state_dict`."""
        self.mean, self.deviation, self.updates = state["mean"], state["deviation"], state["updates"]  # type: ignore[assignment]


def combine(
    kind: str, mean: Sequence[Tensor], deviation: Sequence[Tensor], epsilon: float = 0.0, relative: bool = True
) -> Iterator[Tensor]:
    """Elementwise importance from the moving statistics, one tensor at a time.

    Args:
        kind: "product" mean * deviation (Zhang et al. 2023, eq. 13); "ratio" mean / deviation (IGU-LoRA, eq. 11: a
            signal-to-noise ratio); "sensitivity" the mean alone.
        epsilon: guards the ratio. `relative`: epsilon times the mean deviation of all elements is added to the
            denominator, so the score does not depend on the scale of the loss. Else epsilon itself is added to
            numerator and denominator (the released code), which lets magnitude back in where |w g| is near epsilon.
    """
    if kind == "sensitivity":
        return iter(mean)
    if kind == "product":
        return (m * d for m, d in zip(mean, deviation, strict=True))
    if not relative:
        return ((m + epsilon) / (d + epsilon) for m, d in zip(mean, deviation, strict=True))
    sums = torch.stack([d.sum(dtype=torch.float64) for d in deviation])
    average = sums.cumsum(0)[-1] / sum(d.numel() for d in deviation)  # added in order, and left on the device
    floor = (epsilon * average).clamp_min(torch.finfo(torch.float32).tiny)
    return (m / (d + floor) for m, d in zip(mean, deviation, strict=True))


def triplet(A: Tensor, B: Tensor, gate: Tensor) -> Tensor:
    """Score of each component: gate + mean over its row of A + mean over its column of B. Zhang et al. 2023, eq. 9.

    Args:
        A: (n, r, d_in). B: (n, d_out, r). gate: (n, r); elementwise scores.

    Returns:
        (n, r).
    """
    return gate + A.mean(dim=-1) + B.mean(dim=-2)


def triplets(elements: Iterable[Tensor]) -> list[Tensor]:
    """`triplet` for A, B, gate, A, B, gate, ... as `AdapterSet.each` gives them."""
    each = iter(elements)
    return [triplet(A, B, gate) for A, B, gate in zip(each, each, each, strict=True)]


def orthogonality(stacks: Iterable[Stack], kind: str) -> Tensor:
    """Mean over all A and B of the Frobenius norm (not squared) of their deviation from orthonormal rows or columns.

    Args:
        kind: "full" ||C - I|| (AdaLoRA as released and in PEFT; its paper squares and sums), "offdiag" ||C - diag C||
            (IGU-LoRA as released), with C = A A^T or B^T B.

    Returns:
        Scalar.
    """
    by_rank: dict[int, list[Tensor]] = {}
    for stack in stacks:
        A, B = stack.A, stack.B
        # Both are symmetric: half the gradient comes through each side, and one is computed.
        by_rank.setdefault(A.shape[1], []).extend((A @ A.detach().mT, B.detach().mT @ B))
    norms = []
    for rank, parts in by_rank.items():
        covariance = torch.cat(parts)
        eye = torch.eye(rank, device=covariance.device, dtype=covariance.dtype)
        target = eye if kind == "full" else covariance * eye
        norms.append(torch.linalg.matrix_norm(covariance - target))
    half = torch.cat(norms)
    return (2 * half - half.detach()).mean()  # the same value, with the whole gradient


def penalty(stacks: Iterable[Stack], kind: str, weight: float) -> Tensor | None:
    """`orthogonality` times `weight` >= 0; None, and nothing computed, at weight 0."""
    return weight * orthogonality(stacks, kind) if weight else None


def quadrature(estimator: str, endpoints: str, steps: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Points of the path and their weights for one estimate of the integral over [0, 1] of a gradient.

    Args:
        estimator: "trapezoid" all steps + 1 nodes k / steps (IGU-LoRA, eq. 5); "stochastic" random nodes; or
            "instantaneous" the end of the path alone.
        endpoints: nodes of the stochastic estimator. "sampled" one node, drawn with the trapezoid's weights: unbiased
            for the trapezoid with one pass. "none" one node of {1/steps, ..., 1}, as released. "printed" one inner node
            and both ends with the weights of eq. 6, whose expectation is not the integral. "unbiased" the same with the
            missing factor steps - 1.
        steps: quadrature steps M >= 1 (the paper writes N); printed and unbiased need >= 2.
        rng: random stream that draws the node.

    Returns:
        [(a, weight)], a in [0, 1].
    """
    if estimator == "instantaneous":
        return [(1.0, 1.0)]
    if estimator == "trapezoid":
        return [(k / steps, (0.5 if k in (0, steps) else 1.0) / steps) for k in range(steps + 1)]
    if endpoints == "none":
        return [(int(rng.integers(1, steps + 1)) / steps, 1.0)]
    if endpoints == "sampled":
        k = int(rng.integers(0, 2 * steps))  # 2 * steps half-intervals: inner nodes own two, the ends one
        return [((k + 1) // 2 / steps, 1.0)]
    inner = 2.0 if endpoints == "printed" else 2.0 * (steps - 1)
    weight = 1 / (2 * steps)
    return [(0.0, weight), (int(rng.integers(1, steps)) / steps, inner * weight), (1.0, weight)]


class SecondMoment:
    """Elementwise second moment of a sequence of tensors, or its unbiased variance.

    Args:
        centred: subtract the mean; needs two samples.
    """

    def __init__(self, centred: bool) -> None:
        self._centred = centred
        self._mean: list[Tensor] = []
        self._squares: list[Tensor] = []
        self._count = 0

    @torch.no_grad()
    def add(self, values: Sequence[Tensor]) -> None:
        """Add one sample: tensors of any shapes, the same at each call. Centred by the update of Welford 1962."""
        if not self._squares:
            self._squares = [torch.zeros_like(value) for value in values]
            self._mean = [torch.zeros_like(value) for value in values] if self._centred else []
        self._count += 1
        if not self._centred:
            for square, value in zip(self._squares, values, strict=True):
                square.addcmul_(value, value)
        for square, mean, value in zip(self._squares, self._mean, values, strict=False):
            before = value - mean
            mean.add_(before, alpha=1 / self._count)
            square.addcmul_(before, value - mean)

    def value(self) -> list[Tensor]:
        """Elementwise sum x^2 / n, or sum (x - mean)^2 / (n - 1); >= 0."""
        return [square / (self._count - self._centred) for square in self._squares]
