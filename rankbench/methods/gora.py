"""GoRA: ranks from |weight x gradient| of the frozen weights before training, and a first step along that gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from rankbench.config.registry import register
from rankbench.config.schema import Settings
from rankbench.core.adapter_set import AdapterSet
from rankbench.methods.base import Allocator, Probe, RunContext, differing


class GoRAConfig(Settings):
    """Settings of GoRA.

    Attributes:
        use: the ranks, the initialisation of B, or both.
        batches: number n of calibration mini-batches whose weight gradients are averaged.
        gamma: the first update is gamma times the gradient's projection on the rows of A; unused with use=ranks.
        direction: that update steps "down" the gradient (as printed) or "up" (as released); unused with use=ranks.
        width: what a site's importance is divided by: the "root" of d_in + d_out (as printed) or the "sum" (released
            scripts); unused with use=init.
        least: r_min as a share of the budget's reference rank, rounded down.
        cap: r_max as a multiple of the budget's reference rank.
    """

    use: Literal["both", "ranks", "init"]
    batches: int = Field(ge=1)
    gamma: float = Field(ge=0)
    direction: Literal["down", "up"]
    width: Literal["root", "sum"]
    least: float = Field(ge=0, le=1)
    cap: float = Field(ge=1)


@register("method", "gora")
class GoRA(Allocator[GoRAConfig]):
    """G is the mean gradient of the loss by the frozen weight W; the first update is a step along it, as A allows.

    r_i proportional to mean |W_i * G_i| / sqrt(d_in + d_out)        s B = -gamma G A^T (A A^T)^-1
    """

    needs = frozenset({"base_gradients", "weights"})
    source = "He et al. 2025 (arXiv 2502.12171); hhnqqq/MyTransformers@2f7d63c"
    deviations = (
        "Scale: the run's scale rule (source: alpha / sqrt(r)); one learning rate (source: 16 times as much for B).",
    )
    summary = "ranks and initial B from the gradient of the frozen weights"
    decides = "before training"
    signal = "mean |W x gradient of W|"

    @classmethod
    def deviations_of(cls, config: GoRAConfig) -> tuple[str, ...]:
        """Where paper and released code are left: at any settings, and at these."""
        ranks = (
            "The budget is met exactly; the released code rounds each rank down by itself and spends 2 to 6 % less.",
            "r_min and r_max are multiples of the budget's rank: the source's 4 and 32 go with its 8.",
            *differing(config, {"width": ("sum", "released scripts divide by d_in + d_out, the paper by its root")}),
        )
        init = (
            "gamma multiplies the projected gradient itself; the source's comes with sqrt(d_in / r), which undoes what "
            "the projection shortens.",
            *differing(config, {"direction": ("up", "the released code steps up the gradient, the paper down")}),
        )
        used = {"both": (*ranks, *init), "ranks": ranks, "init": init}[config.use]
        batches = {"batches": (64, "the source averages the gradients of 64 mini-batches")}
        return (*cls.deviations, *differing(config, batches), *used)

    @classmethod
    def passes_of(cls, config: GoRAConfig) -> str:
        """One for each calibration mini-batch."""
        return f"{config.batches} x (forward + backward)"

    def extra_passes(self, batch_size: int) -> tuple[int, int]:
        """One for each calibration mini-batch."""
        return self.config.batches, self.config.batches

    def __init__(self, config: GoRAConfig, context: RunContext) -> None:
        super().__init__(config, context)
        self.static = config.use == "init"
        self.starts_at_identity = config.use == "ranks" or config.gamma == 0

    def initial_ranks(self) -> dict[str, int]:
        """Uniform ranks until the calibration is done."""
        return self.context.budget.uniform()

    def calibrate(self, adapters: AdapterSet, probe: Probe) -> None:
        """Begin at the ranks that the scores give, one step along the gradient from the base model."""
        gradients = mean_gradients(probe, self.config.batches)
        if self.config.use != "init":
            power = 0.5 if self.config.width == "root" else 1.0
            scores = torch.stack([advantage(adapters.weight(name), G, power) for name, G in gradients.items()])
            self.scores = dict(zip(gradients, scores.tolist(), strict=True))
            budget, reference = self.context.budget, self.context.budget.uniform_rank
            least, cap = int(self.config.least * reference), int(self.config.cap * reference)
            ranks = budget.allocate(self.scores, least=least, most=cap)
            adapters.restart(ranks, "weight x gradient", draw="start")
        if not self.starts_at_identity:
            length = self.config.gamma if self.config.direction == "up" else -self.config.gamma
            for name, G in gradients.items():
                A, _ = adapters.factors(name)
                if len(A):
                    B = compressed(G.to(A.device), A.detach()) * (length / adapters.scale(name))
                    adapters.set_factors(name, A.detach().clone(), B)


def mean_gradients(probe: Probe, count: int) -> dict[str, Tensor]:
    """Mean over `count` mini-batches of the gradient by each frozen weight: site name -> (d_out, d_in)."""
    total: Mapping[str, Tensor] = {}
    for batch in probe.batches(count):
        gradients = probe.weight_gradients(batch)
        total = {name: G + total[name] if total else G for name, G in gradients.items()}
    return {name: G / count for name, G in total.items()}


def advantage(weight: Tensor, gradient: Tensor, power: float) -> Tensor:
    """Mean |W * G| / (d_in + d_out)^power: the share of a site, already per rank: (). Both (d_out, d_in)."""
    importance = (weight * gradient.to(weight.device)).abs().double().mean()
    return importance / math.pow(sum(weight.shape), power)


def compressed(gradient: Tensor, A: Tensor) -> Tensor:
    """The B (d_out, r) for which B A is the projection of the gradient (d_out, d_in) on the rows of A (r, d_in)."""
    inverse: Tensor = torch.linalg.pinv(A.double())
    return (gradient.double() @ inverse).float()
