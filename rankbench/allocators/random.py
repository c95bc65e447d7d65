"""Random ranks at the same budget: what heterogeneity alone is worth."""

from __future__ import annotations

from dataclasses import dataclass

from rankbench.allocators.base import Allocator
from rankbench.config.registry import register
from rankbench.config.schema import number


@dataclass
class Config:
    """Settings of the random control.

    Attributes:
        concentration: of the symmetric Dirichlet the shares are drawn from; > 0, small is uneven.
        least_rank: every site keeps at least this rank.
    """

    name: str
    concentration: float = number(low=1e-3)
    least_rank: int = number(low=0)


@register("method", "random")
class Random(Allocator):
    """Shares of the sites are drawn from a Dirichlet distribution; the budget makes them integers."""

    static = True
    source = "control"
    summary = "random ranks at equal budget (control)"
    acts = "at the start"
    signal = "a random draw"
    Config = Config

    def initial_ranks(self) -> dict[str, int]:
        """One draw from the allocator's stream."""
        names = [site.name for site in self.setting.sites]
        shares = self.setting.rng.dirichlet([self.config.concentration] * len(names))
        return self.setting.budget.allocate(dict(zip(names, shares, strict=True)), least=self.config.least_rank)
