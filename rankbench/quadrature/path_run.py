"""One trained run, measured along the path of its update: how long the path is, its integrand, and what was found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.progress import track
from torch import nn

from rankbench.core.adapter_set import AdapterSet
from rankbench.methods.base import Probe
from rankbench.quadrature.errors import DELTA, ErrorStudy, Point, fits
from rankbench.quadrature.integrand import Integrand, NoPathError, float64, grids, measure
from rankbench.terminal import console


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        intervals: M of the sampling study.
        nodes: every M of the trapezoid.
        samples: every N of the sampling study.
        repeats: estimates per point of the sampling study.
        reference: intervals of the reference, even.
        double: whether the nodes are evaluated in float64.
    """

    intervals: int
    nodes: Sequence[int]
    samples: Sequence[int]
    repeats: int
    reference: int
    double: bool


@dataclass(frozen=True)
class Measurement:
    """What was measured.

    Attributes:
        points: errors of the trapezoid, then those of the sampling.
        completeness: sums of attributions against the loss difference, a row for each rule and role.
        end_error: relative error of the gradient at the end alone.
        facts: settings of the integrand and numbers that quadrature.json holds beside the points.
    """

    points: Sequence[Point]
    completeness: Sequence[dict[str, Any]]
    end_error: float
    facts: dict[str, Any]


def relative_update(adapters: AdapterSet) -> float:
    """||dW|| / ||W0|| over all sites, Frobenius.

    Raises:
        NoPathError: the update is zero, so there is no path.
    """
    update = base = 0.0
    for site in adapters.sites:
        layer: Any = adapters.model.get_submodule(f"base_model.model.{site.name}")
        update += float(adapters.delta(site.name).double().square().sum())
        base += float(layer.get_base_layer().weight.detach().double().square().sum())
    if update == 0:
        raise NoPathError("the update is zero, so there is no path to measure on: raise --train-steps")
    return math.sqrt(update / base)


def models_of(model: nn.Module, task: object) -> list[nn.Module]:
    """The adapted model, and those that the task keeps for itself (a teacher)."""
    values = vars(task).values()
    kept = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return [model, *(item for item in kept if isinstance(item, nn.Module))]


def measure_path(
    adapters: AdapterSet, probe: Probe, models: Iterable[nn.Module], settings: Settings, rng: np.random.Generator
) -> Measurement:
    """Measure all errors at the present adapter, on one batch of the probe.

    Args:
        models: those that compute the loss; float64 is set in all of them.
        rng: draws the nodes of the sampling study.
    """
    f = _integrand(adapters, probe, models, settings)
    study = ErrorStudy(f, settings.intervals, settings.reference)
    points = [*study.trapezoids(settings.nodes), *study.samples(settings.samples, settings.repeats, rng)]
    completeness, end_error = study.completeness(), study.end_error()
    facts = {
        "instantaneous_error": end_error,
        "parameters": f.size,
        "losses": f.losses,
        "integral_norm": float(f.norm(study.integral)),
        "constants": {"curvature": f.curvature, "inner_range": f.inner_range, "range": f.range, "delta": DELTA},
        "fits": [asdict(fit) for fit in fits(points)],
        "completeness": completeness,
    }
    return Measurement(points, completeness, end_error, facts)


def _integrand(adapters: AdapterSet, probe: Probe, models: Iterable[nn.Module], settings: Settings) -> Integrand:
    out = console()
    (batch,) = probe.batches(1)
    nodes = grids([*settings.nodes, 1, settings.intervals, settings.reference])
    out.print(f"{len(nodes)} nodes of the path, {len(batch)} examples")
    shown = track(nodes, "nodes", console=out, disable=not out.is_terminal, transient=True)
    with float64(models) if settings.double else nullcontext():
        return measure(adapters, probe, batch, shown, settings.intervals)
