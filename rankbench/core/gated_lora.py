"""The gated, masked, path-scaled computation of one site, through the variant slot of PEFT's LoRA layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import LoraVariant
from torch import Tensor, nn

NAME = "default"  # the adapter's name inside PEFT


@dataclass(frozen=True)
class Scale:
    """The factor s, as an explicit rule.

    Attributes:
        rule: "fixed" alpha / reference_rank (a rank change is not a learning-rate change), "live" alpha / r,
            "rslora" alpha / sqrt(r) (Kalajdzievski 2023).
        alpha: lora_alpha.
        reference_rank: uniform rank of the budget.
    """

    rule: str
    alpha: float
    reference_rank: int

    def at(self, rank: int) -> float:
        """Scale of a site whose live rank is `rank`; 0 at rank 0."""
        if rank == 0:
            return 0.0
        divisor = {"fixed": float(self.reference_rank), "live": float(rank), "rslora": math.sqrt(rank)}
        return self.alpha / divisor[self.rule]


@dataclass
class _Slot:
    """What the variant reads at each forward pass of one layer."""

    scale: float
    gate: nn.Parameter | None
    mask: Tensor | None = None
    value: float = 1.0  # path coefficient of the update
    jacobian: float = 1.0  # path coefficient of the factors' gradient
    truncate: int | None = None

    def coefficients(self, rank: int) -> Tensor | float:
        """The product s * g * m, truncated: (r,), or a float where nothing differs between components."""
        parts = [part for part in (self.gate, self.mask) if part is not None]
        if self.truncate is not None:
            device = self.gate.device if self.gate is not None else None
            parts.append(torch.arange(rank, device=device) < self.truncate)
        result: Tensor | float = self.scale
        for part in parts:
            result = result * part
        return result


class _SlotVariant(LoraVariant):
    """The gated, masked and path-scaled forward pass, through PEFT's variant slot (peft 0.21)."""

    @staticmethod
    def forward(module: Any, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        slot: _Slot = module.rankbench_slot
        A, B = module.lora_A[active_adapter].weight, module.lora_B[active_adapter].weight
        coefficients = slot.coefficients(A.shape[0])
        x = module.lora_dropout[active_adapter](x)
        if slot.value == slot.jacobian:
            return result + _update(x, A, B, coefficients, slot.value)
        # Two copies of one value: gradients reach the factors with `jacobian` and the input with `value`, so that
        # integrands are exact at every point of the path, its zero included.
        detached = coefficients.detach() if isinstance(coefficients, Tensor) else coefficients
        to_input = _update(x, A.detach(), B.detach(), detached, slot.value)
        to_factors = _update(x.detach(), A, B, coefficients, slot.jacobian)
        return result + to_input + (to_factors - to_factors.detach())


def _update(x: Tensor, A: Tensor, B: Tensor, coefficients: Tensor | float, path: float) -> Tensor:
    """The update path * B diag(coefficients) A x, with the factor on A: r * d_in products, not tokens * d_out."""
    if isinstance(coefficients, Tensor):
        coefficients = coefficients[:, None]
    return F.linear(F.linear(x, A * (coefficients * path)), B)
