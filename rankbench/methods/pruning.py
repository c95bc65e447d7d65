"""Shared by methods that start above their budget and cut components: settings, schedule, and the cut itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from rankbench.config.schema import Settings
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.apportionment import select
from rankbench.core.budget import Decay
from rankbench.core.parameter_stacks import on_host
from rankbench.methods.base import RunContext


class PruningConfig(Settings):
    """Settings of every pruning method.

    Attributes:
        start_ratio: start budget over target; 1 starts at the target and prunes nothing.
        warmup_share: share of the (first) stage before the first cut (t_i / T).
        final_share: share of the (first) stage trained at the final ranks (t_f / T).
        every: steps between cuts (Delta_T).
        schedule: how the budget falls between warm-up and final phase.
        beta1: EMA factor of the sensitivity.
        beta2: EMA factor of its deviation.
        orthogonality: weight of the orthogonality penalty; 0 switches it off.
        gate_start: initial lambda; 0 starts at the base model.
        cut: where a component does not fit into what is left of the budget, "refill" goes on to cheaper components
            with lower scores and "stop" keeps none of them.
    """

    start_ratio: float = Field(ge=1)
    warmup_share: float = Field(ge=0, le=1)
    final_share: float = Field(ge=0, le=1)
    every: int = Field(ge=1)
    schedule: Literal["cubic", "linear", "oneshot"]
    beta1: float = Field(ge=0, lt=1)
    beta2: float = Field(ge=0, lt=1)
    orthogonality: float = Field(ge=0)
    gate_start: float
    cut: Literal["refill", "stop"]


class AboveBudget(Protocol):
    """Settings of a method that starts above its budget (see PruningConfig)."""

    start_ratio: float


def start_ranks(config: AboveBudget, context: RunContext) -> dict[str, int]:
    """Uniform ranks above the target by `start_ratio`; at the target, if the peak is what must match."""
    return context.budget.uniform(1.0 if context.budget.match == "peak" else config.start_ratio)


def final_total(config: AboveBudget, context: RunContext) -> int:
    """Budget left at the end: the target; below it by `start_ratio`, if the peak is what must match."""
    return int(context.budget.target * _final_share(config, context))


def _final_share(config: AboveBudget, context: RunContext) -> float:
    return 1.0 if context.budget.match == "final" else 1 / config.start_ratio


def decay(config: PruningConfig, context: RunContext, horizon: int, costs: Mapping[str, float] | None = None) -> Decay:
    """The schedule from the start ranks to the target.

    Args:
        horizon: steps of the stage that prunes.
        costs: price of one component by site, where the cuts do not count in the budget's unit.
    """
    budget, start = context.budget, start_ranks(config, context)
    peak, target = budget.spent(start), final_total(config, context)
    if costs is not None:
        uniform = budget.uniform(_final_share(config, context))
        peak, target = (int(sum(costs[name] * rank for name, rank in ranks.items())) for ranks in (start, uniform))
    phases = config.warmup_share, config.final_share, config.every
    return Decay.over(horizon, config.schedule, peak, target, *phases)


def prune(
    adapters: AdapterSet,
    scores: Sequence[Tensor],
    costs: Mapping[str, float],
    total: float,
    refill: bool,
    hard: bool = False,
) -> None:
    """Keep the best components of all sites together at a total cost; the rest is zeroed (soft) or masked (hard).

    Args:
        scores: one (n, r) tensor per entry of `adapters.alike()`, higher is kept. Masked components cannot return.
        costs: price of one component, by site name.
        total: what may be kept.
        refill: see rankbench.core.apportionment.select.
    """
    indices = [index for stacked in adapters.alike() for index in stacked]
    rows = on_host([row for stacked in scores for row in stacked])
    by_site = {index: row.double().numpy() for index, row in zip(indices, rows, strict=True)}
    order = sorted(by_site)  # site order decides ties
    names = [adapters.sites[index].name for index in order]
    if hard:
        for index, name in zip(order, names, strict=True):
            by_site[index] = np.where(adapters.live(name).numpy(), by_site[index], -np.inf)
    lengths = [len(by_site[index]) for index in order]
    flat_costs = np.repeat([float(costs[name]) for name in names], lengths)
    kept = select(np.concatenate([by_site[index] for index in order]), flat_costs, total, refill)
    decision = dict(zip(names, torch.split(torch.from_numpy(kept), lengths), strict=True))
    if not hard:
        adapters.zero(decision, "prune")
        return
    for name, keep in decision.items():
        if not torch.equal(keep & adapters.live(name), adapters.live(name)):
            adapters.set_mask(name, keep & adapters.live(name), "prune")
