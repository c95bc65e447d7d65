"""Sensitivity-LoRA: ranks from the diagonal of the inputs' autocorrelation, forward passes only."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import Tensor, float64, split, stack

from rankbench.config.registry import register
from rankbench.config.schema import Settings
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.parameter_stacks import on_host
from rankbench.methods.base import Allocator, Probe, differing

Floats = npt.NDArray[np.float64]


class SensitivityConfig(Settings):
    """Settings of Sensitivity-LoRA.

    Attributes:
        batches: number of calibration mini-batches.
        metrics: "both" global and local, or one of them alone (ablations of the paper's table 7).
        weights: weights of the metrics: "cv" the coefficient of variation over the mean (eq. 11, 13, 14), "equal" 0.5
            over the mean (table 7).
        topk_share: entries of the local top-k metric over all entries.
        mass: share of the diagonal's sum that defines the effective rank.
        scope: "row" one block of d_in entries, which all output rows share; "full" all d_out copies.
        least_rank: every site keeps at least this rank.
    """

    batches: int = Field(ge=1)
    metrics: Literal["both", "global", "local"]
    weights: Literal["cv", "equal"]
    topk_share: float = Field(gt=0, le=1)
    mass: float = Field(gt=0, le=1)
    scope: Literal["row", "full"]
    least_rank: int = Field(ge=0)


@register("method", "sensitivity")
class Sensitivity(Allocator[SensitivityConfig]):
    """diag(H)_j = sum_t x_tj^2 at every site; ranks proportional to a mix of its trace, top-k mean and effective rank.

    Sites that read the same input (q, k, v; gate, up) score the same: neither labels, loss nor weights enter.
    """

    needs = frozenset({"probe_forward"})
    source = "Zhang et al. 2025 (arXiv 2509.09119); paper only"
    deviations = (
        "Integer ranks by apportionment, so the budget is met exactly; the paper does not say how it rounds.",
        "Massive activations can take the budget, as the formula has it; only full rank bounds a site here. On "
        "smollm2-135m and arithmetic at r8 three down_proj get the ranks 576, 365 and 73, and 206 of 210 sites rank 1.",
        "Padding is left out of the statistics; the paper does not say.",
        "Budget counts parameters unless budget.unit=ranks; the paper counts ranks.",
        "Calibrated on the training split; the paper takes PIQA or training data.",
    )
    summary = "ranks from the energy of the inputs, forward only"
    decides = "before training"
    signal = "diagonal of the inputs' autocorrelation: trace, top-k mean, effective rank"

    @classmethod
    def deviations_of(cls, config: SensitivityConfig) -> tuple[str, ...]:
        """Where the paper is left: at any settings, and at these."""
        source = {
            "metrics": ("both", "the paper's method has both, table 7 one of them"),
            "weights": ("cv", "the paper's method weighs by eq. 11 to 13, table 7 equally"),
            "scope": ("row", "the paper's matrix is shared by all output rows (app. E)"),
        }
        return (*cls.deviations, *differing(config, source))

    @classmethod
    def passes_of(cls, config: SensitivityConfig) -> str:
        """One for each calibration mini-batch."""
        return f"{config.batches} x forward"

    def extra_passes(self, batch_size: int) -> tuple[int, int]:
        """One for each calibration mini-batch."""
        return self.config.batches, 0

    def initial_ranks(self) -> dict[str, int]:
        """Uniform ranks until the calibration is done."""
        return self.context.budget.uniform()

    def calibrate(self, adapters: AdapterSet, probe: Probe) -> None:
        """Sum squares of the inputs, score, then begin at the ranks that the scores give."""
        config, sites = self.config, self.context.sites
        diagonals = {site.name: adapters.factors(site.name)[0].new_zeros(site.d_in, dtype=float64) for site in sites}
        seen: dict[str, Any] = {"input": None}

        def see(site: str, x: Tensor) -> None:
            if seen["input"] is None or seen["input"]() is not x:  # sites that read the same input share the sums
                seen.update(input=weakref.ref(x), sums=sum_of_squares(x))
            diagonals[site] += seen["sums"]

        for batch in probe.batches(config.batches):
            probe.activations(batch, see)
        copies = [site.d_out if config.scope == "full" else 1 for site in sites]
        metrics = [
            diagonal_metrics(diagonal.numpy(), config.topk_share, config.mass, count)
            for diagonal, count in zip(on_host(list(diagonals.values())), copies, strict=True)
        ]
        theta = combine_metrics(np.array(metrics), config.metrics, config.weights)
        self.scores = dict(zip((site.name for site in sites), theta.tolist(), strict=True))
        ranks = self.context.budget.allocate(self.scores, least=config.least_rank)
        adapters.restart(ranks, "sensitivity", draw="start")


def sum_of_squares(x: Tensor) -> Tensor:
    """Sum over tokens, (tokens, d) -> (d,), float64; in parts, so that the squares stay in the cache."""
    parts = [part.float().square().sum(0) for part in split(x, 256)]
    return stack(parts).double().sum(0)


def diagonal_metrics(diagonal: Floats, topk_share: float, mass: float, copies: int = 1) -> tuple[float, float, float]:
    """Trace, mean of the largest entries, and entries that hold a share of the trace. Zhang et al. 2025, eq. 8-10.

    Args:
        diagonal: (d_in,), >= 0.
        topk_share: k over d_in, rounded down, at least one entry.
        mass: share of the trace, in (0, 1].
        copies: how often each entry counts.
    """
    entries = np.sort(diagonal)[::-1]
    cumulated = np.cumsum(entries)
    top = entries[: max(1, int(topk_share * entries.size))]
    enough = (
        int(np.argmax(cumulated >= mass * cumulated[-1] * (1 - 1e-12))) + 1
    )  # a cumulated sum may fall short of itself
    return float(cumulated[-1]) * copies, float(top.mean()), float(enough * copies)


def combine_metrics(metrics: Floats | Sequence[Any], which: str, weights: str) -> Floats:
    """Score of each site. Zhang et al. 2025, eq. 11-14; weights 0.5 / mean in their table 7.

    Args:
        metrics: (n, 3) trace, top-k mean, effective rank, each >= 0.
        which: "both", "global" (trace alone) or "local" (the other two alone).
        weights: "cv" or "equal".

    Returns:
        (n,), >= 0; all ones if nothing varies, so that ranks are uniform.
    """
    trace, top, effective = np.asarray(metrics, dtype=np.float64).T
    local = _mix([top, effective], weights)
    return _mix({"both": [trace, local], "global": [trace], "local": [local]}[which], weights)


def _mix(parts: Sequence[Floats], weights: str) -> Floats:
    """Sum of the parts, each weighted by sigma / mu^2 or 0.5 / mu; parts that do not vary say nothing under "cv"."""
    total = np.zeros_like(parts[0])
    for part in parts:
        mean = part.mean()
        if mean > 0:
            spread = part.std() / mean if weights == "cv" else 0.5
            total += (spread if spread > 1e-12 else 0.0) * part / mean
    return total if total.any() else np.ones_like(total)
