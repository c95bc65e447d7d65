"""The gated, masked, path-scaled computation of one site: its scale, its coefficients, its update."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

NAME = "default"  # the adapter's name inside PEFT
MAGNITUDE = "lora_magnitude_vector"  # in PEFT's names of DoRA's magnitudes


@dataclass(frozen=True)
class Scale:
    """The factor s, as an explicit rule.

    Attributes:
        rule: "fixed" alpha / reference_rank (the same at every rank; under Adam the gain of a site's first step then
            grows with its rank, as with a learning rate), "live" alpha / r (that gain is the same at every rank),
            "rslora" alpha / sqrt(r) (it grows with the root; Kalajdzievski 2023).
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

    def coefficients(self) -> Tensor | float:
        """The product s * g * m: (r,), or a float where nothing differs between components."""
        parts = [part for part in (self.gate, self.mask) if part is not None]
        result: Tensor | float = self.scale
        for part in parts:
            result = result * part
        return result


def update(x: Tensor, A: Tensor, B: Tensor, coefficients: Tensor | float, path: float) -> Tensor:
    """The update path * B diag(coefficients) A x, with the factor on A: r * d_in products, not tokens * d_out."""
    return F.linear(F.linear(x, scaled(A, coefficients, path)), B)


def scaled(A: Tensor, coefficients: Tensor | float, path: float) -> Tensor:
    """The product path * diag(coefficients) A, of A (r, d_in) and coefficients (r,) or one for all."""
    if isinstance(coefficients, Tensor):
        coefficients = coefficients[:, None]
    if path != 1.0:  # most passes: a kernel less in each direction
        coefficients = coefficients * path
    return A * coefficients
