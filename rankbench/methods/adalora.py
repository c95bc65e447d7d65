"""AdaLoRA: SVD-form adapter, triplets pruned to a falling budget by smoothed sensitivity times uncertainty."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rankbench.config.registry import register
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.site_adapter import Gate
from rankbench.methods.base import NEVER, Allocator, RunContext, Step, differing
from rankbench.methods.importance import MeanDeviation, combine, penalty, sensitivity, triplets
from rankbench.methods.pruning import PruningConfig, decay, prune, start_ranks


class AdaLoRAConfig(PruningConfig):
    """Settings of AdaLoRA.

    Attributes:
        compact: remove pruned triplets at the last cut; else zero them after every step to the end (as PEFT does),
            where their rows still take part in the penalty.
    """

    compact: bool


@register("method", "adalora")
class AdaLoRA(Allocator[AdaLoRAConfig]):
    """P diag(lambda) Q with soft orthogonality; every few steps the triplets with the lowest S_i are zeroed.

    S_i = s(lambda_i) + mean_j s(P_ji) + mean_j s(Q_ij),    s(w) = EMA(|w g|) * EMA(||w g| - EMA|)
    """

    needs = frozenset({"gates", "resize"})
    source = "Zhang et al. 2023 (arXiv 2303.10512); QingruZhang/AdaLoRA@d10f5eb; peft 0.21"
    deviations = (
        "Scale: the run's scale rule; the sources use alpha / initial rank throughout.",
        "Budget counts parameters unless budget.unit=ranks; the paper counts ranks.",
        "Ties are broken by site order, so the budget is met exactly; the sources remove all tied triplets.",
    )
    summary = "SVD form, pruned by sensitivity x uncertainty"
    decides = "while training"
    signal = "|w g| x its deviation, smoothed"

    @classmethod
    def deviations_of(cls, config: AdaLoRAConfig) -> tuple[str, ...]:
        """Where the sources are left: at any settings, and at these."""
        source = {
            "compact": (False, "the sources hold pruned triplets at zero to the end"),
            "cut": (NEVER, "the sources count ranks, where all triplets cost the same and nothing is left over"),
            "schedule": ("cubic", "the sources have a cubic schedule"),
        }
        norms = "Penalty: mean of un-squared norms over all factors, as released (the paper sums squares)."
        return (*cls.deviations, *((norms,) if config.orthogonality else ()), *differing(config, source))

    def __init__(self, config: AdaLoRAConfig, context: RunContext) -> None:
        super().__init__(config, context)
        self.starts_at_identity = config.gate_start == 0
        self.static = config.start_ratio == 1  # nothing to prune: an SVD-form uniform arm
        self.decay = decay(config, context, context.horizon)
        self.statistics = MeanDeviation(config.beta1, config.beta2)

    def initial_ranks(self) -> dict[str, int]:
        """Uniform ranks above the target."""
        return start_ranks(self.config, self.context)

    def gate(self) -> Gate:
        """Lambda, trained like the factors."""
        return Gate(start=self.config.gate_start)

    def penalty(self, adapters: AdapterSet, step: Step) -> Tensor | None:
        """Gamma * R(P, Q)."""
        return penalty(adapters.stacks(), "full", self.config.orthogonality)

    def on_step_end(self, adapters: AdapterSet, step: Step) -> None:
        """Statistics from the updated parameters and the clipped gradient of this step; cut where the schedule says."""
        if self.static:
            return
        end, statistics = self.decay.end, self.statistics
        if step.index > end:
            if not self.config.compact:
                adapters.zero({site.name: adapters.live(site.name) for site in adapters.sites}, "hold")
            return
        if step.index < end or not statistics.updates:
            self._observe(adapters)
        if self.decay.cuts(step.index):
            scores = triplets(combine("product", statistics.mean, statistics.deviation))
            refill, total = self.config.cut == "refill", self.decay.total(step.index)
            prune(adapters, scores, self.context.budget.costs, total, refill)
        if step.index == end:
            statistics.clear()
            if self.config.compact:
                adapters.compact("compact")

    @torch.no_grad()
    def _observe(self, adapters: AdapterSet) -> None:
        pairs = zip(adapters.iter_stacked(), adapters.iter_stacked(lambda p: p.grad), strict=True)
        self.statistics.update(sensitivity(w, g) for w, g in pairs)

    def state_dict(self) -> dict[str, Any]:
        """The moving statistics."""
        return self.statistics.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The moving statistics."""
        self.statistics.load_state_dict(state)

    def diagnostics(self) -> dict[str, float]:
        """Updates of the statistics so far."""
        return {"score_updates": float(self.statistics.updates)}
