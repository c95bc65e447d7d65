"""The true ranks of a planted task: the best any allocator can do there."""

from __future__ import annotations

from dataclasses import dataclass

from rankbench.allocators.base import Allocator
from rankbench.config.registry import register


@dataclass
class Config:
    """The oracle has no settings."""

    name: str


@register("method", "oracle")
class Oracle(Allocator):
    """Ranks are the ones the task planted, scaled to the budget if it differs from their sum."""

    needs = frozenset({"truth"})
    static = True
    source = "control"
    summary = "the true ranks (planted task only)"
    acts = "at the start"
    signal = "the task's true ranks"
    Config = Config

    def initial_ranks(self) -> dict[str, int]:
        """The true map."""
        truth, budget = self.setting.true_ranks, self.setting.budget
        assert truth is not None, "validated before the run"
        if budget.spent(truth) == budget.target:
            return dict(truth)
        return budget.allocate({name: float(rank) for name, rank in truth.items()})
