"""L1RA: an L1 penalty closes gates in training; closed components are removed, and other sites get their ranks."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field

from rankbench.config.registry import register
from rankbench.config.schema import Settings
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.apportionment import distribute
from rankbench.core.parameter_stacks import on_host
from rankbench.core.site_adapter import Gate
from rankbench.methods.base import Allocator, RunContext, Step, differing


class L1RAConfig(Settings):
    """Settings of L1RA.

    Attributes:
        l1: strength lambda of the L1 penalty on the gates; 0 is the control that leaves pruning to Adam alone.
        l1_form: "decoupled" eta_c * lambda off each gate after the optimizer's step (our reading of the released
            optimizer), or in the "loss" as lambda times the mean over sites of the gates' sum (the first released
            form).
        gate_rate: constant learning rate eta_c of the gates.
        checks: share of the steps between two checks (rank_update_ratio).
        last_check: share of the steps after which no check is made; ranks given out late would stay untrained.
        threshold: gates below it are pruned.
        reassign: give freed ranks to other sites; else only prune.
        receivers: who comes first: the site whose smallest gate is largest (as released), whose mean gate is largest,
            or a random order. Gates count as the optimizer left them, before they are clipped to 1.
        exclude_pruned: sites with a closed gate receive none at this check, the last rank of a site included.
        carry_over: ranks that no site has room for are given out at the next check; else they are lost (as released).
        rank_cap: largest rank of a site as a multiple of the budget's reference rank; null: no cap.
        moments: "reset" the adapter's optimizer state at a check that pruned, or "keep" that of kept components.
        factors: draw of the initial A: "normal" N(0, 1 / r^2) (as released) or "lora" (uniform, as for plain LoRA).
    """

    l1: float = Field(ge=0)
    l1_form: Literal["decoupled", "loss"]
    gate_rate: float = Field(gt=0)
    checks: float = Field(gt=0, le=1)
    last_check: float = Field(gt=0, le=1)
    threshold: float = Field(ge=0, lt=1)
    reassign: bool
    receivers: Literal["min_gate", "mean_gate", "random"]
    exclude_pruned: bool
    carry_over: bool
    rank_cap: float | None = Field(ge=1)
    moments: Literal["reset", "keep"]
    factors: Literal["normal", "lora"]


@register("method", "l1ra")
class L1RA(Allocator[L1RAConfig]):
    """Gates c in [0, 1] start open, c <- clip(Adam(c) - eta_c lambda, 0, 1); what is closed at a check is removed.

    A check comes before the clip, as released: saturated gates keep their order. The freed budget goes one rank at a
    time to the sites whose weakest gate is strongest; a new rank starts with B = 0 and c = 1, so the output does not
    change under a scale rule that does not follow the rank.
    """

    needs = frozenset({"gates", "resize"})
    budget_kind = "at_most"
    source = "Singh et al. 2025 (arXiv 2509.04884); raul-singh/L1RA@76be3bb"
    deviations = (
        "The shrink, eta_c lambda off every gate, is our reading of a released optimizer whose kernel is missing. "
        "With the gate's sign in it, other ranks are pruned in 1 of 30 runs at l1=0.005 and in most at 0.1 and above.",
        "Checks fall on optimizer steps; the released code counts micro-batches.",
        "A site grows to its full rank at the most; the released code has no bound.",
        "Freed budget counts in the budget's unit: parameters by default, ranks (as released) with budget.unit=ranks.",
        "What is too little for a rank of any receiver stays for the next check.",
        "Weight decay of the factors is the run's (released runs: 0.1); of the gates 0.",
    )
    summary = "gates with an L1 penalty; closed components are removed, other sites get their ranks"
    decides = "while training"
    signal = "learned gates under an L1 penalty"
    provoked_by = ("method.gate_rate=0.2",)

    @classmethod
    def deviations_of(cls, config: L1RAConfig) -> tuple[str, ...]:
        """Where the released code is left: at any settings, and at these."""
        moments = {
            "reset": "The classification head keeps its optimizer state at a check; the released code drops it, too.",
            "keep": "New ranks share Adam's step count with their site: their first updates are larger.",
        }
        source = {
            "l1_form": (
                "decoupled",
                "the released optimizer shrinks the gates; an earlier form has the term in the loss",
            ),
            "last_check": (1.0, "the released code checks to the end, and ranks of the last checks stay untrained"),
            "reassign": (True, "the released code gives freed ranks to other sites"),
            "receivers": ("min_gate", "the released code orders sites by their smallest gate"),
            "exclude_pruned": (True, "the released code leaves out sites that lose a rank"),
            "carry_over": (False, "the released code loses what no site has room for"),
            "rank_cap": (None, "the released code has no cap"),
            "moments": ("reset", "the released code makes a fresh optimizer whenever a rank is removed"),
            "factors": ("normal", "the released code draws A from N(0, 1 / r^2)"),
        }
        return (*cls.deviations, moments[config.moments], *differing(config, source))

    def __init__(self, config: L1RAConfig, context: RunContext) -> None:
        super().__init__(config, context)
        self._spare = 0  # freed budget that is not given out yet, in the budget's unit
        self._resets = 0

    def initial_ranks(self) -> dict[str, int]:
        """Uniform ranks at the budget."""
        return self.context.budget.uniform()

    def gate(self) -> Gate:
        """Gates that are open at the start, with their own learning rate and without weight decay."""
        spread = 1 / self.context.budget.uniform_rank
        rate = self.config.gate_rate
        return Gate(1.0, self.config.factors, spread=spread, constant_rate=rate, weight_decay=0.0)

    def penalty(self, adapters: AdapterSet, step: Step) -> torch.Tensor | None:
        """Lambda times the mean over sites of the gates' L1 norm (l1_form=loss alone)."""
        if self.config.l1_form != "loss" or self.config.l1 == 0:
            return None
        norms = [stack.gate.abs().sum() for stack in adapters.stacks() if stack.gate is not None]
        weight: float = self.config.l1
        return weight * torch.stack(norms).sum() / len(adapters.sites)

    @torch.no_grad()
    def on_step_end(self, adapters: AdapterSet, step: Step) -> None:
        """Shrink the gates; at a check, prune and give out the freed ranks; then clip the gates."""
        shrink = self.config.gate_rate * self.config.l1 if self.config.l1_form == "decoupled" else 0.0
        torch._foreach_sub_(list(_gates(adapters).values()), shrink)
        interval = max(1, int(self.config.checks * step.total))
        if step.index % interval == 0 and step.index <= self.config.last_check * step.total:
            self._check(adapters, step)
        gates = list(_gates(adapters).values())
        torch._foreach_clamp_min_(gates, 0.0)
        torch._foreach_clamp_max_(gates, 1.0)

    def _check(self, adapters: AdapterSet, step: Step) -> None:
        gates = _gates(adapters)
        gates = dict(zip(gates, on_host(list(gates.values())), strict=True))
        order, threshold = self._order(gates, step), self.config.threshold
        closed = {name for name, gate in gates.items() if bool((gate < threshold).any())}
        lost = self._prune(adapters, gates)
        if self.config.reassign:
            able = [name for name in order if not (self.config.exclude_pruned and name in closed)]
            self._reassign(adapters, able)
        if lost and self.config.moments == "reset":
            adapters.forget_moments()
            self._resets += 1

    def _order(self, gates: dict[str, torch.Tensor], step: Step) -> list[str]:
        """Names of the sites, first receiver first, by the gates before pruning and clipping."""
        if self.config.receivers == "random":
            return [list(gates)[index] for index in step.rng.permutation(len(gates))]
        statistic = torch.amin if self.config.receivers == "min_gate" else torch.mean
        return sorted(gates, key=lambda name: -float(statistic(gates[name])))

    def _prune(self, adapters: AdapterSet, gates: dict[str, torch.Tensor]) -> int:
        """Remove closed components but the last one of a site and return how many went."""
        total = 0
        for name, gate in gates.items():
            keep = gate >= self.config.threshold
            keep[-1] |= not keep.any()
            lost = int((~keep).sum())
            if lost:
                adapters.resize(name, keep, reason="gate closed")
                self._spare += lost * self.context.budget.costs[name]
                total += lost
        return total

    def _reassign(self, adapters: AdapterSet, able: list[str]) -> None:
        """Give the freed ranks to the receivers, in rounds."""
        budget, ranks, cap = self.context.budget, adapters.ranks(), self.config.rank_cap
        limit = math.inf if cap is None else int(cap * budget.uniform_rank)
        room = {name: int(min(budget.full_ranks[name], limit)) - ranks[name] for name in able}
        grown, self._spare = distribute(room, budget.costs, self._spare)
        for name, count in grown.items():
            adapters.resize(name, range(ranks[name]), grow=count, reason="freed rank")
        if not self.config.carry_over and all(grown.get(name, 0) == free for name, free in room.items()):
            self._spare = 0  # no site can take any more

    def state_dict(self) -> dict[str, Any]:
        """Budget that is not given out yet, and optimizer resets so far."""
        return {"spare": self._spare, "resets": self._resets}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._spare, self._resets = state["spare"], state["resets"]

    def diagnostics(self) -> dict[str, float]:
        """Budget that is not given out yet, and optimizer resets so far."""
        return {"spare": float(self._spare), "optimizer_resets": float(self._resets)}


def _gates(adapters: AdapterSet) -> dict[str, torch.Tensor]:
    """Gates of the sites that have components."""
    gates = {site.name: adapters.gates(site.name) for site in adapters.sites}
    return {name: gate.data for name, gate in gates.items() if gate is not None and gate.numel()}
