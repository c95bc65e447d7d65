"""PARA: uniform LoRA, then one global threshold on the singular values of all updates, after training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from rankbench.config.registry import register
from rankbench.config.schema import Settings
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.apportionment import select
from rankbench.core.parameter_stacks import on_host
from rankbench.methods.base import Allocator, RunContext, Step
from rankbench.methods.pruning import final_total, start_ranks


class PARAConfig(Settings):
    """Settings of PARA.

    Attributes:
        start_ratio: start budget over target; 1 truncates nothing.
        then: "deploy" the truncated update, or "retrain" plain LoRA from scratch at its ranks.
        search_share: share of the run's steps spent on finding ranks; unused with then=deploy.
    """

    start_ratio: float = Field(ge=1)
    then: Literal["deploy", "retrain"]
    search_share: float = Field(gt=0, lt=1)


@register("method", "para")
@register("method", "para_retrain")
class PARA(Allocator[PARAConfig]):
    """One class, two presets: `para` truncates the trained update, `para_retrain` trains again at the ranks it leaves.

    Kept are the largest singular values of s B A, all sites together, that the budget pays for.
    """

    needs = frozenset({"resize"})
    source = "PARA (arXiv 2604.27796), paper only"
    deviations = (
        "The threshold is the one that meets the budget; the source's keeps a share of the energy.",
        "Singular values are of the update with its scale; the source's are of B A.",
    )
    summary = "uniform LoRA, truncated by singular value after training (para_retrain: trained again at those ranks)"
    decides = "after training"
    signal = "singular values of the trained update"

    @classmethod
    def deviations_of(cls, config: PARAConfig) -> tuple[str, ...]:
        """Where the paper is left: at any settings, and at these."""
        ours = "Training again at the ranks is ours; search and training share the run's steps."
        return (*cls.deviations, ours) if config.then == "retrain" else cls.deviations

    def __init__(self, config: PARAConfig, context: RunContext) -> None:
        super().__init__(config, context)
        self.static = config.start_ratio == 1
        self.total = final_total(config, context)

    def initial_ranks(self) -> dict[str, int]:
        """Uniform ranks above the target."""
        return start_ranks(self.config, self.context)

    def stages(self) -> tuple[int, ...]:
        """One stage, or the search for ranks and the training from scratch at them."""
        horizon = self.context.horizon
        if self.config.then == "deploy" or self.static:
            return (horizon,)
        first = min(max(1, round(self.config.search_share * horizon)), horizon - 1)
        return (first, horizon - first)

    def on_step_end(self, adapters: AdapterSet, step: Step) -> None:
        """Begin again at the ranks of the search when it ends."""
        if len(self.stages()) == 2 and step.index == self.stages()[0]:
            adapters.restart(self.ranks(adapters), "retrain", draw="start")

    def finish(self, adapters: AdapterSet) -> None:
        """Truncate, if that is what is deployed."""
        if len(self.stages()) == 2 or self.static:
            return
        for name, rank in self.ranks(adapters).items():
            truncate(adapters, name, rank)

    def ranks(self, adapters: AdapterSet) -> dict[str, int]:
        """The number of singular values to keep, by site; the adapters are rewritten as their decompositions."""
        adapters.refactor()
        names = [site.name for site in adapters.sites]
        values = [part.numpy() for part in on_host([singular_values(adapters, name) for name in names])]
        return dict(
            zip(names, truncated(values, [self.context.budget.costs[n] for n in names], self.total), strict=True)
        )


def singular_values(adapters: AdapterSet, site: str) -> Tensor:
    """Singular values (r,) of the update of a decomposed site (see AdapterSet.refactor), scale included, falling."""
    A, B = adapters.folded(site)
    values: Tensor = adapters.scale(site) * torch.linalg.vector_norm(A.double(), dim=1) * B.double().norm(dim=0)
    return values


def truncated(values: Sequence[np.ndarray[Any, Any]], costs: Sequence[float], total: float) -> list[int]:
    """Number of singular values to keep at each site: the largest of all sites that fit into `total`.

    Args:
        values: (r,) per site, >= 0, falling.
        costs: price of one singular value, per site.
        total: budget that may be spent.
    """
    lengths = [len(of_site) for of_site in values]
    # within a site never a later value without the earlier ones, whatever rounding makes of equal ones
    falling = np.concatenate([np.minimum.accumulate(of_site) for of_site in values])
    kept = select(falling, np.repeat(np.asarray(costs, dtype=float), lengths), total)
    return [int(part.sum()) for part in np.split(kept, np.cumsum(lengths)[:-1])]


def truncate(adapters: AdapterSet, site: str, rank: int) -> None:
    """Keep the first `rank` components of a site, and that part of its update as it is, whatever the scale rule."""
    before = adapters.scale(site)
    adapters.resize(site, list(range(rank)), reason="truncate")
    if rank and adapters.scale(site) != before:
        A, B = (factor.detach().clone() for factor in adapters.factors(site))
        adapters.set_factors(site, A, B * (before / adapters.scale(site)))
