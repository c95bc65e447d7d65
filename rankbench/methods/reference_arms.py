"""Reference arms that papers print beside their tables: DoRA, full fine-tuning, BitFit. None of them keeps a budget."""

from __future__ import annotations

from rankbench.config.registry import register
from rankbench.methods.base import Allocator


@register("method", "dora")
class DoRA(Allocator):
    """m (W0 + s B A) / |W0 + s B A|, norms by output row, A and B at uniform rank; PEFT's layers."""

    trains = "adapter and magnitudes"
    budget_kind = "implicit"
    static = True
    source = "Liu et al. 2024 (arXiv 2402.09353); peft 0.21"
    deviations = (
        "The magnitudes count as parameters and come on top of the budget, so the arm is never an equal one.",
    )
    summary = "uniform rank with trained magnitudes (reference arm)"
    decides = "at the start"
    signal = "none"

    def initial_ranks(self) -> dict[str, int]:
        """The budget, distributed evenly."""
        return self.context.budget.uniform()


@register("method", "full")
class FullFineTuning(Allocator):
    """Every parameter of the base model is trained, in float32."""

    trains = "base"
    budget_kind = "implicit"
    static = True
    source = "plain fine-tuning; AdamW of torch"
    deviations = (
        "The run's weight decay holds for every parameter; common recipes leave out biases and norms.",
        "The trained model is evaluated and not kept: there is no adapter to export.",
    )
    summary = "full fine-tuning (reference arm)"
    decides = "at the start"
    signal = "none"

    def initial_ranks(self) -> dict[str, int]:
        """Rank 0 everywhere: the sites carry nothing."""
        return dict.fromkeys(self.context.budget.costs, 0)


@register("method", "bitfit")
class BitFit(Allocator):
    """The biases of the base model are trained, in float32."""

    trains = "biases"
    budget_kind = "implicit"
    static = True
    source = "Ben Zaken et al. 2022 (arXiv 2106.10199), paper only"
    deviations = ("The trained biases are evaluated and not kept: there is no adapter to export.",)
    summary = "biases of the base model (reference arm)"
    decides = "at the start"
    signal = "none"

    def initial_ranks(self) -> dict[str, int]:
        """Rank 0 everywhere: the sites carry nothing."""
        return dict.fromkeys(self.context.budget.costs, 0)
