"""The integrand of integrated gradients along the path, at nodes of one fixed batch, and the size of any sum of it.

    f(a) = w * g(a),  g(a) = dL(W0 + a dW)/dw      the attribution of a parameter w is the integral of f over [0, 1]

w runs over the P parameters of the adapter; a trained head stays as it is along the path. An estimate of the integral
is a weighted sum of nodes, and so is its error: with the nodes' Gram matrix K its squared norm is c'Kc. K is made once,
n x n; after that a draw of a stochastic estimator costs n^2 products instead of P n, and thousands are free.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rankbench import RankbenchError
from rankbench.core.adapter_set import AdapterSet
from rankbench.methods.base import Probe

Array = NDArray[np.float64]
Points = Sequence[tuple[float, float]]  # (a, weight), as scores.quadrature gives them

ORDER = 6  # of the differences that show rounding: of a smooth integrand next to nothing is left at that order
COLUMNS = 2**16  # elements looked at together: about 50 MB in float64 at 80 nodes


class NoPathError(RankbenchError, ValueError):
    """There is no update, so no path to measure on."""


@dataclass(frozen=True)
class Integrand:
    """f at its nodes, reduced to what norms, sums and the theorem's constants need.

    Attributes:
        nodes: (n,), increasing, from 0 to 1.
        gram: (n + 2, n + 2), inner products of f(0), f(1) - f(0) and each node's distance from the straight line
            between the two. Both ends and the slope drop out of a trapezoid's error; kept in one sum with the
            distances, they would drown it at the square root of the machine's precision.
        sums: role ("A", "B", "gate") -> (n,), f summed over the elements of the role.
        losses: L at the ends of the path, 0 and 1.
        size: P.
        curvature: || sup_a |f''(a)| ||, the supremum by element, estimated by second differences on the grid below.
        inner_range, range: || max f - min f ||, by element, over the inner nodes of that grid, and over all of it.
    """

    nodes: tuple[float, ...]
    gram: Array
    sums: dict[str, Array]
    losses: tuple[float, float]
    size: int
    curvature: float
    inner_range: float
    range: float

    def weights(self, points: Points) -> Array:
        """The coefficients (n,) of a weighted sum of nodes."""
        coefficients = np.zeros(len(self.nodes))
        for a, weight in points:
            coefficients[self.nodes.index(a)] += weight
        return coefficients

    def norm(self, weights: Array) -> Array:
        """|| sum_k weights_k f(a_k) ||, Euclidean over all elements: (..., n) -> (...)."""
        moments = np.stack([weights.sum(-1), weights @ np.array(self.nodes)], axis=-1)
        whole = np.concatenate([moments, weights], axis=-1)
        squared: Array = ((whole @ self.gram) * whole).sum(-1)
        return np.sqrt(np.maximum(squared, 0.0))

    def noise(self, intervals: int) -> float:
        """Rounding error of one node, as a norm: from differences of order 6 on the grid of so many intervals.

        Rounding errors of neighbours are unrelated and add up to sqrt(C(12, 6)) times one; a smooth f leaves h^6.
        """
        signed = [(-1) ** k * comb(ORDER, k) for k in range(ORDER + 1)]
        differences = [
            self.weights([((start + k) / intervals, sign) for k, sign in enumerate(signed)])
            for start in range(intervals - ORDER + 1)
        ]
        return float(np.sqrt(np.mean(self.norm(np.array(differences)) ** 2) / comb(2 * ORDER, ORDER)))


def simpson(intervals: int) -> list[tuple[float, float]]:
    """Nodes and weights of the composite Simpson rule, error O(intervals^-4); `intervals` is even."""
    inner = (4.0, 2.0)
    return [
        (k / intervals, (1.0 if k in (0, intervals) else inner[(k + 1) % 2]) / (3 * intervals))
        for k in range(intervals + 1)
    ]


def grids(intervals: Iterable[int]) -> list[float]:
    """The nodes k / M of all these M, each once, increasing."""
    return sorted({k / count for count in intervals for k in range(count + 1)})


@torch.no_grad()
def measure(adapters: AdapterSet, probe: Probe, batch: Any, nodes: Iterable[float], grid: int) -> Integrand:
    """Evaluate the integrand at `nodes` (0 and 1 among them): one forward and one backward pass each.

    The path is the update's own (kind "delta") with its exact Jacobian: what `igu` runs by default. All rows stay in
    memory, n * P numbers of the adapter's type, until their products are made.

    Args:
        batch: one of the probe's.
        nodes: positions in [0, 1]; 0, 1 and the nodes of `grid` are among them.
        grid: intervals M >= 2 on which the theorem's constants are estimated.
    """
    parameters, losses, rows, places = adapters.parameters(), [], None, tuple(nodes)
    for index, a in enumerate(places):
        adapters.set_path_point(a, "delta", "exact")
        if a in (0.0, 1.0):
            losses.append(probe.loss(batch))
        products = probe.gradients(batch, parameters)
        torch._foreach_mul_(products, [parameter.detach() for parameter in parameters])
        row = torch.cat([product.reshape(-1) for product in products]).cpu()
        rows = row.new_empty(len(places), row.numel()) if rows is None else rows
        rows[index] = row
    adapters.reset_path()
    assert rows is not None, "there are nodes"
    constants = _constants(rows, [places.index(k / grid) for k in range(grid + 1)])
    sums = _sums(rows, adapters)
    return Integrand(places, _gram(rows, places), sums, (losses[0], losses[-1]), rows.shape[1], *constants)


def _sums(rows: Tensor, adapters: AdapterSet) -> dict[str, Array]:
    """Rows summed over the elements of each role, in the order of `AdapterSet.parameters`."""
    parameters, sites = adapters.parameters(), len(adapters.sites)
    sums, start = {}, 0
    for role, first in zip(("A", "B", "gate"), range(0, len(parameters), sites), strict=False):
        stop = start + sum(parameter.numel() for parameter in parameters[first : first + sites])
        sums[role] = rows[:, start:stop].sum(dim=1, dtype=torch.float64).numpy()
        start = stop
    return sums


def _columns(rows: Tensor) -> Iterator[Tensor]:
    return (part.double() for part in torch.split(rows, COLUMNS, dim=1))


def _gram(rows: Tensor, nodes: Sequence[float]) -> Array:
    a = torch.tensor(nodes, dtype=torch.float64)[:, None]
    total = torch.zeros(len(nodes) + 2, len(nodes) + 2, dtype=torch.float64)
    for part in _columns(rows):
        start, line = part[:1], part[-1:] - part[:1]
        basis = torch.cat([start, line, part - start - a * line])
        total += basis @ basis.T
    return total.numpy()


def _constants(rows: Tensor, grid: Sequence[int]) -> tuple[float, float, float]:
    """Norms of the elementwise suprema: second derivative, range over the inner nodes of the grid, range over all."""
    total, intervals = torch.zeros(3, dtype=torch.float64), len(grid) - 1
    for part in _columns(rows):
        f = part[list(grid)]
        second = (f[2:] - 2 * f[1:-1] + f[:-2]).abs().amax(0) * intervals**2
        ranges = [values.amax(0) - values.amin(0) for values in (f[1:-1], f)]
        total += torch.stack([value.square().sum() for value in (second, *ranges)])
    curvature, inner, whole = total.sqrt().tolist()
    return curvature, inner, whole


class _Wide(TorchFunctionMode):
    """Casts to float32 become casts to float64: normalisation layers and losses ask for "at least" single precision."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call it with the wider type."""
        wider = {name: _wider(value) for name, value in (kwargs or {}).items()}
        return (Tensor.double if func is Tensor.float else func)(*map(_wider, args), **wider)


def _wider(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


@contextmanager
def float64(models: Iterable[nn.Module]) -> Iterator[None]:
    """Run models in float64 inside the block, their casts to float32 included. They stay in float64 afterwards."""
    for model in models:
        model.double()
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Wide():
            yield
    finally:
        torch.set_default_dtype(default)
