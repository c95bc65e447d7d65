"""Counts how often a block of code would make the host wait for an accelerator, on a CPU, where nothing waits."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

aten = torch.ops.aten
READS = {  # operators whose result, or its shape, the host must know
    *(aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.is_nonzero, aten._unique2),
    *(aten.unique_dim, aten.unique_consecutive, aten.bincount),
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
TO_HOST = {Tensor.cpu, Tensor.tolist, Tensor.numpy}


class HostReads(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Waits of the host inside the block, as if the model lay on an accelerator.

    On the device are the model's tensors, what is computed from them, and what is put on `device=` or by `.to`; the
    rest, such as a mask made with NumPy, is the host's. Operators are seen in forward and backward passes.

    Args:
        model: whose parameters and buffers are on the device.

    Attributes:
        reads: operator -> how often the host waited for a value, or for a shape that depends on values.
        copies: how often something was copied to the device, and the host waited for that (no `non_blocking`).
        operators: operators run on the device, without those that give another view of a tensor.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads: Counter[str] = Counter()
        self.copies = self.operators = 0
        self._on_device: set[int] = set()
        self._calls = _Calls(self)
        for tensor in [*model.parameters(), *model.buffers()]:
            self.put(tensor)

    def __enter__(self) -> HostReads:
        """Begin to count."""
        self._calls.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        """Stop counting."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._calls.__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator; what it makes of the device's tensors is on the device."""
        result = func(*args, **(kwargs or {}))
        if any(map(self.has, _tensors([args, *(kwargs or {}).values()]))):
            self.operators += not func.is_view
            operator = func.overloadpacket
            if operator in READS:
                self.reads[operator.__name__] += 1
            if operator in INDEXING:
                indices = [index for index in args[1] if index is not None]
                self.reads["boolean index"] += sum(index.dtype == torch.bool for index in indices)
                self.copies += sum(not self.has(index) for index in indices)
            for tensor in _tensors([result]):
                self.put(tensor)
        return result

    def has(self, tensor: Tensor) -> bool:
        """Whether the tensor is on the device."""
        return tensor.untyped_storage()._cdata in self._on_device

    def put(self, tensor: Tensor) -> None:
        """Take the tensor as one of the device, until it is freed."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._on_device:
            self._on_device.add(storage._cdata)
            weakref.finalize(storage, self._on_device.discard, storage._cdata)


class _Calls(TorchFunctionMode):
    """What Python asks of tensors that no operator shows where host and device are one: copies between them."""

    def __init__(self, counter: HostReads) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the call; a copy becomes a tensor of its own, so that host and device share none."""
        counter, kwargs = self._counter, kwargs or {}
        owner = args[0] if args and isinstance(args[0], Tensor) else None
        if func in TO_HOST and owner is not None and counter.has(owner):
            counter.reads[func.__name__] += 1
            return func(owner, *args[1:], **kwargs) if func is Tensor.tolist else _host_copy(func, owner)
        result = func(*args, **kwargs)
        device = kwargs.get("device") is not None or (func is Tensor.to and _names_device(counter, args[1:]))
        if device and isinstance(result, Tensor) and not counter.has(result):
            if result is owner:
                result = result.clone()
            copied = func in (Tensor.to, torch.tensor, torch.as_tensor) and result.numel() > 0
            counter.copies += copied and not kwargs.get("non_blocking")
            counter.put(result)
        return result


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among arguments or results, also in lists and tuples."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _names_device(counter: HostReads, arguments: tuple[Any, ...]) -> bool:
    """Whether `.to` is called with a device, or with a tensor that is on it."""
    return any(
        isinstance(value, torch.device | str) or (isinstance(value, Tensor) and counter.has(value))
        for value in arguments
    )


def _host_copy(func: Callable[..., Any], tensor: Tensor) -> Any:
    """The result of `func` on a copy of the tensor that is the host's."""
    with _disable_current_modes():
        return func(tensor.detach().clone())
