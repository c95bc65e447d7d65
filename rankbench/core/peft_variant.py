"""The variant slot of PEFT's LoRA layers (peft 0.21), used here and nowhere else.

Imported when an adapter with gates or a path is attached: PEFT takes seconds to import.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import LoraVariant
from torch import Tensor

from rankbench.core.gated_lora import _Slot, scaled, update


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
        at_point, derivative = (scaled(A, coefficients, path) for path in (slot.value, slot.jacobian))
        tensors: tuple[Tensor, ...] = (x, at_point.detach(), derivative, B)
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            tensors = tuple(tensor.to(dtype) for tensor in tensors)
        added: Tensor = _PathUpdate.apply(*tensors)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return result + added


class _PathUpdate(torch.autograd.Function):
    """The update at a point of the path; its factors get the derivative that belongs to another coefficient.

    So integrands are exact at every point of the path, its zero included.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, at_point: Tensor, derivative: Tensor, B: Tensor) -> Tensor:
        """Return B A x, of x (.., d_in), A at the point (r, d_in), A for the derivative (r, d_in) and B (d_out, r)."""
        ctx.save_for_backward(x, at_point, derivative, B)
        return F.linear(F.linear(x, at_point), B)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        """Pass on to x what the point says, to A and B what the derivative says."""
        x, at_point, derivative, B = ctx.saved_tensors
        hidden = gradient @ B
        vectors, to_A, to_B = x.flatten(0, -2), hidden.flatten(0, -2), gradient.flatten(0, -2)
        return hidden @ at_point, None, to_A.T @ vectors, to_B.T @ F.linear(vectors, derivative)
