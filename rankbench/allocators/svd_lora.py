"""SVD-LoRA: AdaLoRA's form and penalty at uniform rank, to tell its parametrisation from its allocation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rankbench.allocators.base import Allocator, Setting, Step
from rankbench.allocators.scores import penalty
from rankbench.config.registry import register
from rankbench.config.schema import number
from rankbench.core.adapter_set import AdapterSet
from rankbench.core.site_adapter import Gate


@dataclass(kw_only=True)
class Config:
    """Settings of SVD-LoRA.

    Attributes:
        orthogonality: weight of the orthogonality penalty; 0 switches it off.
        gate_start: initial lambda; 0 starts at the base model.
    """

    name: str
    orthogonality: float = number(low=0)
    gate_start: float


@register("method", "svd_lora")
class SVDLoRA(Allocator):
    """P diag(lambda) Q with soft orthogonality; nothing is ever pruned."""

    needs = frozenset({"gates"})
    static = True
    source = "control; form of Zhang et al. 2023 (arXiv 2303.10512)"
    deviations = ("Penalty: mean of un-squared norms over all factors, as in adalora.",)
    summary = "SVD form at uniform rank (control)"
    acts = "at the start"
    signal = "none"
    Config = Config

    def __init__(self, config: Any, setting: Setting) -> None:
        super().__init__(config, setting)
        self.starts_at_identity = config.gate_start == 0

    def initial_ranks(self) -> dict[str, int]:
        """The budget, dealt evenly."""
        return self.setting.budget.uniform()

    def gate(self) -> Gate:
        """Lambda, trained like the factors."""
        return Gate(start=self.config.gate_start)

    def penalty(self, adapters: AdapterSet, step: Step) -> Tensor | None:
        """Gamma * R(P, Q)."""
        return penalty(adapters.stacks(), "full", self.config.orthogonality)
