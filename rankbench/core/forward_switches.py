"""Transient settings of the forward pass: hooks on frozen layers, the base model alone, a point of the path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rankbench.core.site_adapter import SiteAdapter


@contextmanager
def watching(adapters: Sequence[SiteAdapter], site_hook: Callable[[str], Callable[..., Any]]) -> Iterator[None]:
    """Run a forward hook on the frozen layer of every site inside the block.

    Args:
        adapters: one per site.
        site_hook: site name -> hook of torch's `register_forward_hook`.
    """
    handles = [
        adapter.layer.get_base_layer().register_forward_hook(site_hook(adapter.site.name)) for adapter in adapters
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def disabled(adapters: Sequence[SiteAdapter]) -> Iterator[None]:
    """Run the base model alone inside the block."""
    layers = [adapter.layer for adapter in adapters]
    before = [layer._disable_adapters for layer in layers]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer._disable_adapters = value


def set_path(adapters: Sequence[SiteAdapter], a: float, kind: str, jacobian: str) -> None:
    """Evaluate at a point of the straight path from no adapter (a = 0) to the adapter (a = 1), until set anew.

    Args:
        adapters: one per site.
        a: position on the path, in [0, 1].
        kind: "delta" multiplies the update by a; "factor" multiplies each of B, g and A by a (the update by a^3).
        jacobian: what the factors' gradient is multiplied by: "raw" the same as the update (autograd through the
            coefficient), "exact" the derivative with respect to the point itself (1 for delta, a^2 for factor).
    """
    value = a if kind == "delta" else a**3
    factor = value if jacobian == "raw" else {"delta": 1.0, "factor": a * a}[kind]
    for adapter in adapters:
        adapter.slot.value, adapter.slot.jacobian = value, factor
