"""Parameters of one shape as one tensor, so that statistics need no loop over sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rankbench.core.site_adapter import SiteAdapter

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


def alike(adapters: Sequence[SiteAdapter]) -> list[tuple[int, ...]]:
    """Indices of the sites with components, grouped by shape, about STACK_SIZE elements at most: one per stack."""
    shapes: dict[tuple[int, int, int], list[int]] = {}
    for index, adapter in enumerate(adapters):
        if adapter.size:
            shapes.setdefault((adapter.size, adapter.site.d_out, adapter.site.d_in), []).append(index)
    groups = []
    for (size, d_out, d_in), indices in shapes.items():
        count = max(1, STACK_SIZE // (size * max(d_out, d_in)))
        groups += [tuple(indices[start : start + count]) for start in range(0, len(indices), count)]
    return groups


def iter_stacked(
    adapters: Sequence[SiteAdapter], of: Callable[[nn.Parameter], Tensor | None] | None = None
) -> Iterator[Tensor]:
    """Parameters stacked by shape, one tensor at a time: A, B and gate of the first stack, then of the second, ...

    Sites without components are left out.

    Args:
        adapters: one per site.
        of: makes from a parameter what is stacked instead (a copy); None, such as no gradient, counts as zero.
    """
    for indices in alike(adapters):
        for role in zip(*(adapters[index].roles for index in indices), strict=True):
            parameters = [parameter for parameter, _ in role]
            values = [parameter if of is None else of(parameter) for parameter in parameters]
            yield torch.stack(
                [torch.zeros_like(p) if v is None else v for p, v in zip(parameters, values, strict=True)]
            )


def stacks(adapters: Sequence[SiteAdapter]) -> Iterator[Stack]:
    """`iter_stacked(adapters)`, named."""
    tensors = iter_stacked(adapters)
    for indices in alike(adapters):
        A, B = next(tensors), next(tensors)
        yield Stack(indices, A, B, None if adapters[indices[0]].gate is None else next(tensors))


def on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Vectors (n,) of one dtype, copied to the CPU together: a host waits for its accelerator at each copy."""
    lengths = [len(tensor) for tensor in tensors]
    return list(torch.split(torch.cat(list(tensors)).detach().cpu(), lengths))
