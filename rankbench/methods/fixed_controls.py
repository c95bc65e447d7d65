"""Controls that decide before they see data or weights: true ranks, random ranks, ranks by depth, SVD form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from rankbench.config.registry import register
from rankbench.config.schema import Settings
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.site_adapter import Gate
from rankbench.core.sites import Site
from rankbench.methods.base import Allocator, RunContext, Step
from rankbench.methods.importance import penalty


@register("method", "oracle")
class Oracle(Allocator):
    """The ranks that the task planted, the best any allocator can do; scaled to the budget if it is not their sum."""

    needs = frozenset({"truth"})
    static = True
    source = "control"
    summary = "the true ranks (planted task only)"
    decides = "at the start"
    signal = "the task's true ranks"

    def initial_ranks(self) -> dict[str, int]:
        """The true rank map."""
        truth, budget = self.context.true_ranks, self.context.budget
        assert truth is not None, "validated before the run"
        if budget.spent(truth) == budget.target:
            return dict(truth)
        return budget.allocate({name: float(rank) for name, rank in truth.items()})


class RandomConfig(Settings):
    """Settings of the random control.

    Attributes:
        concentration: parameter of the symmetric Dirichlet that the shares are drawn from; small values are uneven.
        least_rank: every site keeps at least this rank.
    """

    concentration: float = Field(ge=1e-3)
    least_rank: int = Field(ge=0)


@register("method", "random")
class Random(Allocator[RandomConfig]):
    """Shares of the sites are drawn from a Dirichlet distribution; the budget makes them integers."""

    static = True
    source = "control"
    summary = "random ranks at equal budget (control)"
    decides = "at the start"
    signal = "a random draw"

    def initial_ranks(self) -> dict[str, int]:
        """Ranks from one draw of the allocator's random stream."""
        names = [site.name for site in self.context.sites]
        shares = self.context.rng.dirichlet([self.config.concentration] * len(names))
        return self.context.budget.allocate(dict(zip(names, shares, strict=True)), least=self.config.least_rank)


class LinearDepthConfig(Settings):
    """Settings of the depth control.

    Attributes:
        direction: the deepest layers get the largest ranks ("up") or the smallest ("down").
        slope: largest rank of a layer over the smallest, before rounding; 1 is uniform.
        least_rank: every site keeps at least this rank.
    """

    direction: Literal["up", "down"]
    slope: float = Field(ge=1)
    least_rank: int = Field(ge=0)


@register("method", "linear_depth")
class LinearDepth(Allocator[LinearDepthConfig]):
    """Within a layer all sites have the same share; sites outside the stack have that of its middle."""

    static = True
    source = "control; rank rule of PRILoRA (Benedek and Wolf 2024, arXiv 2401.11316)"
    deviations = ("Ranks alone: PRILoRA also prunes A during training.",)
    summary = "ranks linear in depth (control)"
    decides = "at the start"
    signal = "index of the layer"

    def initial_ranks(self) -> dict[str, int]:
        """The budget, distributed by depth."""
        shares = depth_shares(self.context.sites, self.config.slope, self.config.direction == "up")
        return self.context.budget.allocate(shares, least=self.config.least_rank)


def depth_shares(sites: Sequence[Site], slope: float, up: bool) -> dict[str, float]:
    """Site name -> share in [1, slope], linear in the layer's index between the first and the last adapted layer."""
    layers = [site.layer for site in sites if site.layer is not None] or [0]
    first, last = min(layers), max(layers)
    shares = {}
    for site in sites:
        depth = 0.5 if site.layer is None or first == last else (site.layer - first) / (last - first)
        shares[site.name] = 1 + (slope - 1) * (depth if up else 1 - depth)
    return shares


class SVDLoRAConfig(Settings):
    """Settings of SVD-LoRA.

    Attributes:
        orthogonality: weight of the orthogonality penalty; 0 switches it off.
        gate_start: initial lambda; 0 starts at the base model.
    """

    orthogonality: float = Field(ge=0)
    gate_start: float


@register("method", "svd_lora")
class SVDLoRA(Allocator[SVDLoRAConfig]):
    """P diag(lambda) Q with soft orthogonality; nothing is ever pruned."""

    needs = frozenset({"gates"})
    static = True
    source = "control; form of Zhang et al. 2023 (arXiv 2303.10512)"
    deviations = ("Penalty: mean of un-squared norms over all factors, as in adalora.",)
    summary = "SVD form at uniform rank (control)"
    decides = "at the start"
    signal = "none"

    def __init__(self, config: SVDLoRAConfig, context: RunContext) -> None:
        super().__init__(config, context)
        self.starts_at_identity = config.gate_start == 0

    def initial_ranks(self) -> dict[str, int]:
        """The budget, distributed evenly."""
        return self.context.budget.uniform()

    def gate(self) -> Gate:
        """Lambda, trained like the factors."""
        return Gate(start=self.config.gate_start)

    def penalty(self, adapters: AdapterSet, step: Step) -> Tensor | None:
        """Gamma * R(P, Q)."""
        return penalty(adapters.stacks(), "full", self.config.orthogonality)
