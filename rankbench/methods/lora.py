"""Uniform LoRA: the reference every allocator is compared with."""

from __future__ import annotations

from rankbench.config.registry import register
from rankbench.methods.base import Allocator


@register("method", "lora")
class Uniform(Allocator):
    """The same rank at every site; where the budget is not a multiple of that, earlier sites get one more."""

    static = True
    source = "Hu et al. 2022 (arXiv 2106.09685); peft 0.21"
    deviations = ("Where the budget is no multiple of one rank everywhere, earlier sites get one rank more.",)
    summary = "uniform rank (the reference)"
    decides = "at the start"
    signal = "none"

    def initial_ranks(self) -> dict[str, int]:
        """The budget, distributed evenly."""
        return self.context.budget.uniform()
