"""Stable rank: ranks from the frozen weights alone, no data and no passes (SR-LoRA's score within a budget)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rankbench.config.registry import register
from rankbench.config.schema import Settings
from rankbench.core.adapter_set import AdapterSet
from rankbench.methods.base import Allocator, Probe


class StableRankConfig(Settings):
    """Settings of the stable-rank control.

    Attributes:
        least_rank: every site keeps at least this rank.
    """

    least_rank: int = Field(ge=0)


@register("method", "stable_rank")
class StableRank(Allocator[StableRankConfig]):
    """r_i proportional to ||W_i||_F^2 / ||W_i||_2^2 of the frozen weight."""

    needs = frozenset({"weights"})
    source = "SR-LoRA (arXiv 2507.00327), paper only"
    deviations = (
        "The source takes the stable rank itself as the rank, so its budget is an outcome; here it is a share of one.",
    )
    summary = "ranks from the stable rank of the frozen weights"
    decides = "before training"
    signal = "stable rank of the frozen weight"

    def initial_ranks(self) -> dict[str, int]:
        """Uniform ranks until the weights are scored."""
        return self.context.budget.uniform()

    def calibrate(self, adapters: AdapterSet, probe: Probe) -> None:
        """Score the weights, then begin at the ranks that the scores give."""
        scores = torch.stack([stable_rank(adapters.weight(site.name)) for site in adapters.sites])
        self.scores = dict(zip((site.name for site in adapters.sites), scores.tolist(), strict=True))
        ranks = self.context.budget.allocate(self.scores, least=self.config.least_rank)
        adapters.restart(ranks, "stable rank", draw="start")


def stable_rank(weight: Tensor) -> Tensor:
    """||W||_F^2 / ||W||_2^2 of W (d_out, d_in): (), in [1, min(d_out, d_in)], or 0 where W is zero."""
    values = torch.linalg.svdvals(weight).double()
    largest = values.max()
    return torch.where(largest == 0, 0.0, (values / largest).square().sum())
