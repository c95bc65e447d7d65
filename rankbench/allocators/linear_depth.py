"""Ranks that grow or fall linearly with depth: what a rule that looks at nothing is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rankbench.allocators.base import Allocator
from rankbench.config.registry import register
from rankbench.config.schema import choice, number
from rankbench.core.sites import Site


@dataclass
class Config:
    """Settings of the depth control.

    Attributes:
        direction: the deepest layers get the largest ranks ("up") or the smallest ("down").
        slope: rank of the layer with the largest over that of the layer with the smallest, before rounding; 1 is
            uniform.
        least_rank: every site keeps at least this rank.
    """

    name: str
    direction: str = choice("up", "down")
    slope: float = number(low=1)
    least_rank: int = number(low=0)


@register("method", "linear_depth")
class LinearDepth(Allocator):
    """Within a layer all sites have the same share; sites outside the stack have that of its middle."""

    static = True
    source = "control; rank rule of PRILoRA (Benedek and Wolf 2024, arXiv 2401.11316)"
    deviations = ("Ranks alone: PRILoRA also prunes A during training.",)
    summary = "ranks linear in depth (control)"
    acts = "at the start"
    signal = "index of the layer"
    Config = Config

    def initial_ranks(self) -> dict[str, int]:
        """The budget, dealt by depth."""
        shares = depth_shares(self.setting.sites, self.config.slope, self.config.direction == "up")
        return self.setting.budget.allocate(shares, least=self.config.least_rank)


def depth_shares(sites: Sequence[Site], slope: float, up: bool) -> dict[str, float]:
    """Site name -> share in [1, slope], linear in the layer's index between the first and the last adapted layer."""
    layers = [site.layer for site in sites if site.layer is not None] or [0]
    first, last = min(layers), max(layers)
    shares = {}
    for site in sites:
        depth = 0.5 if site.layer is None or first == last else (site.layer - first) / (last - first)
        shares[site.name] = 1 + (slope - 1) * (depth if up else 1 - depth)
    return shares
