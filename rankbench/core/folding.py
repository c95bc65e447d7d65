"""The adapter folded into the frozen weights for a while, so that each layer costs one product: W0 + s B diag(g m) A.

Where W0 is dense and in fp32 it holds the update up to fp32's rounding. Other weights stay as they are, and their
layers compute the update beside them, as in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rankbench.core.gated_lora import NAME
from rankbench.core.site_adapter import SiteAdapter

SHARE = 0.5  # of the free memory of a GPU that the folded weights may take; the passes need the rest


@contextmanager
def folding(adapters: Sequence[SiteAdapter]) -> Iterator[None]:
    """Fold inside the block, without gradients; afterwards every layer has the very weight that it had before.

    The folded weights are a second copy of the adapted ones. A GPU that has no room for it computes as in training.

    Args:
        adapters: one per site.
    """
    sites = [adapter for adapter in adapters if _foldable(adapter)]
    if not _fits([adapter.layer.get_base_layer().weight for adapter in sites]):
        sites = []
    frozen: list[tuple[Any, Any, nn.Parameter]] = []
    with torch.no_grad():
        try:
            for adapter in sites:
                layer, base = adapter.layer, adapter.layer.get_base_layer()
                frozen.append((layer, base, base.weight))
                # a new parameter: another module that shares this weight keeps it without the update
                base.weight = nn.Parameter(_folded(adapter, base.weight), requires_grad=False)
                layer._disable_adapters = True
            yield
        finally:
            for layer, base, weight in frozen:
                base.weight, layer._disable_adapters = weight, False


def _foldable(adapter: SiteAdapter) -> bool:
    """Whether W0 + update, multiplied by the site's input, is what the layer computes with the adapter beside W0."""
    from transformers.pytorch_utils import Conv1D  # transformers takes seconds to import

    layer, base = adapter.layer, adapter.layer.get_base_layer()
    if layer.disable_adapters or layer.training or layer.use_dora[NAME] or type(base) not in (nn.Linear, Conv1D):
        return False
    if base._forward_hooks or base._forward_pre_hooks or base.weight.device != adapter.A.device:
        return False
    return base.weight.dtype == torch.float32 and _multiplies_in_fp32(base.weight.device)


def _multiplies_in_fp32(device: torch.device) -> bool:
    """Whether products have fp32's precision: in fewer bits the sum would lose a part of the update."""
    return not torch.is_autocast_enabled(device.type) and torch.get_float32_matmul_precision() == "highest"


def _fits(weights: Sequence[Tensor]) -> bool:
    """Whether a GPU has room for a copy of these weights, within this process's share of it (hydra.launcher.slots)."""
    if not weights or weights[0].device.type != "cuda":
        return True
    device = weights[0].device
    free, total = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    unused = torch.cuda.memory_reserved(device) - allocated
    own = torch.cuda.get_per_process_memory_fraction(device) * total - allocated
    return sum(weight.nbytes for weight in weights) <= SHARE * min(free + unused, own)


def _folded(adapter: SiteAdapter, weight: Tensor) -> Tensor:
    """The weight plus what the layer adds to its output, as a matrix, in the layout of the weight."""
    factor = adapter.coefficients()
    A = adapter.A * (factor[:, None] if isinstance(factor, Tensor) else factor)
    left, right = (A.T, adapter.B.T) if adapter.layer.fan_in_fan_out else (adapter.B, A)
    return torch.addmm(weight, left, right)
