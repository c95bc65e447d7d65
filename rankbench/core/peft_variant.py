"""The variant slot of PEFT's LoRA layers (peft 0.21), used here and nowhere else.

Imported when an adapter with gates or a path is attached: PEFT takes seconds to import.
"""

from __future__ import annotations

from typing import Any

from peft.tuners.lora.layer import LoraVariant
from torch import Tensor

from rankbench.core.gated_lora import _Slot, update


class SlotVariant(LoraVariant):
    """The gated, masked and path-scaled forward pass, through PEFT's variant slot (peft 0.21)."""

    @staticmethod
    def forward(module: Any, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        """Add the update to `result`, the output of the frozen layer."""
        slot: _Slot = module.rankbench_slot
        A, B = module.lora_A[active_adapter].weight, module.lora_B[active_adapter].weight
        coefficients = slot.coefficients()
        x = module.lora_dropout[active_adapter](x)
        if slot.value == slot.jacobian:
            return result + update(x, A, B, coefficients, slot.value)
        # Two copies of one value: gradients reach the factors with `jacobian` and the input with `value`, so that
        # integrands are exact at every point of the path, its zero included.
        detached = coefficients.detach() if isinstance(coefficients, Tensor) else coefficients
        to_input = update(x, A.detach(), B.detach(), detached, slot.value)
        to_factors = update(x.detach(), A, B, coefficients, slot.jacobian)
        return result + to_input + (to_factors - to_factors.detach())
