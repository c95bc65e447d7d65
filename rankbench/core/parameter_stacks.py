"""Parameters of one shape as one tensor, so that statistics need no loop over sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

STACK_SIZE = 2**18  # elements: 1 MB in fp32, so that what is computed on a stack stays in the cache


@dataclass(frozen=True)
class Stack:
    """Tensors of sites of one shape, stacked.

    Attributes:
        sites: indices into AdapterSet.sites, (n,).
        A: (n, r, d_in). B: (n, d_out, r). gate: (n, r), or None for methods without gates.
    """

    sites: tuple[int, ...]
    A: Tensor
    B: Tensor
    gate: Tensor | None

    def tensors(self) -> list[Tensor]:
        """A, B and, where there is one, gate."""
        return [self.A, self.B] if self.gate is None else [self.A, self.B, self.gate]


def together(parameters: Sequence[nn.Parameter]) -> Tensor:
    """What torch.stack makes of parameters of one shape, without a copy: gradients reach them, not to be written to.

    The first time, the parameters' data move to one place in memory, side by side.
    """
    first = parameters[0]
    start, step = first.data_ptr(), first.nbytes
    memory = first.untyped_storage()
    packed = memory.data_ptr() == start and memory.nbytes() == len(parameters) * step  # else pointers prove nothing
    if not packed or any(p.data_ptr() != start + step * index for index, p in enumerate(parameters)):
        whole = torch.stack([parameter.detach() for parameter in parameters])
        for parameter, row in zip(parameters, whole, strict=True):
            parameter.data = row
    whole = first.detach().as_strided((len(parameters), *first.shape), (first.numel(), *first.stride()))
    if not torch.is_grad_enabled():
        return whole
    result: Tensor = _Together.apply(whole, *parameters)  # type: ignore[no-untyped-call]
    return result


class _Together(torch.autograd.Function):
    """A tensor that holds parameters side by side, as a function of them."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, *parameters: Tensor) -> Tensor:
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *gradients[0].unbind())
