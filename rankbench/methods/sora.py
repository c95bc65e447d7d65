"""SoRA: a proximal L1 step shrinks gates after each optimizer step; components whose gate is zero are removed."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from rankbench.config.registry import register
from rankbench.config.schema import Settings
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.parameter_stacks import on_host
from rankbench.core.site_adapter import Gate
from rankbench.methods.base import Allocator, Step, differing
from rankbench.methods.pruning import start_ranks


class SoRAConfig(Settings):
    """Settings of SoRA.

    Attributes:
        start_ratio: start budget over target (r_max); what is left at the end is an outcome.
        strength: weight lambda of the L1 term, in units of the gates' own step: at 1 and above even a gate whose
            gradient always points one way is pulled to zero. 0 prunes nothing.
        gate_rate: learning rate of the gates as a multiple of the run's.
        step: with t = learning rate x lambda, "printed" takes t off each |g| and stops at 0; "released" then zeroes
            what is below t, so that every |g| < 2 t dies.
        loss_l1: weight of the mean |g| of all gates in the loss, beside the proximal step.
    """

    start_ratio: float = Field(ge=1)
    strength: float = Field(ge=0)
    gate_rate: float = Field(gt=0)
    step: Literal["printed", "released"]
    loss_l1: float = Field(ge=0)


@register("method", "sora")
class SoRA(Allocator[SoRAConfig]):
    """B diag(g) A with g <- sign(g) max(|g| - lr * lambda, 0) after each step; a gate at zero may grow back."""

    needs = frozenset({"gates", "resize"})
    budget_kind = "implicit"
    source = "Ding et al. 2023 (arXiv 2311.11696); TsinghuaC3I/SoRA@7ca93d5"
    deviations = (
        "Gates start at 1; the released code draws them from N(0, 1).",
        "Threshold: learning rate x lambda, as printed; the released code's default leaves the learning rate out.",
        "Scale: the run's scale rule; the source has alpha / r_max throughout.",
        "One lambda per run; the sparsifying schedule of the source's second algorithm is left out.",
    )
    summary = "gates with an L1 proximal step; rank is an outcome"
    decides = "while training"
    signal = "learned gate"

    @classmethod
    def deviations_of(cls, config: SoRAConfig) -> tuple[str, ...]:
        """Where paper and released code are left: at any settings, and at these."""
        source = {
            "gate_rate": (
                1.0,
                "the source has one rate for all; in a short run a gate must be able to get from 1 to 0",
            ),
            "step": ("released", "the released code zeroes every gate below twice the threshold"),
            "loss_l1": (10.0, "the released script has the mean |g| in the loss with weight 10, the paper has not"),
        }
        return (*cls.deviations, *differing(config, source))

    def initial_ranks(self) -> dict[str, int]:
        """Uniform ranks above the target."""
        return start_ranks(self.config, self.context)

    def gate(self) -> Gate:
        """Gates that are free in sign and size, without decay but the L1 term."""
        return Gate(start=1.0, factors="lora", learning_rate=self.config.gate_rate, weight_decay=0.0)

    def penalty(self, adapters: AdapterSet, step: Step) -> Tensor | None:
        """Mean |g| over the gates of all sites, weighted."""
        if self.config.loss_l1 == 0:
            return None
        sizes = torch.cat([stack.gate.abs().flatten() for stack in adapters.stacks() if stack.gate is not None])
        return self.config.loss_l1 * sizes.mean()

    @torch.no_grad()
    def on_step_end(self, adapters: AdapterSet, step: Step) -> None:
        """Shrink all gates; those at zero count as dead until they move again."""
        gates: list[Tensor] = [gate for site in adapters.sites if (gate := adapters.gates(site.name)) is not None]
        threshold = self.config.strength * self.config.gate_rate * step.learning_rate
        shrink(gates, threshold, least=threshold if self.config.step == "released" else 0.0)
        alive = [gate != 0 for gate in on_host(gates)]
        adapters.zero(dict(zip((site.name for site in adapters.sites), alive, strict=True)), "proximal step")


def shrink(values: list[Tensor], threshold: float, least: float = 0.0) -> None:
    """Proximal step of threshold * ||.||_1, in place: every entry towards zero by `threshold` >= 0, none past it.

    What is then smaller than `least` becomes zero.
    """
    sizes = torch._foreach_abs(values)
    torch._foreach_sub_(sizes, threshold)
    torch._foreach_clamp_min_(sizes, 0.0)
    if least:
        for size in sizes:
            size.masked_fill_(size < least, 0.0)
    torch._foreach_sign_(values)
    torch._foreach_mul_(values, sizes)
