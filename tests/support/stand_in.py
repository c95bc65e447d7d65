"""A stand-in for a GPU: tensors that call themselves "meta" and compute on the CPU, for tests of where tensors lie.

What a GPU refuses is refused: operations on tensors of both devices (but copies, scalars and indices, as on a GPU), a
generator of the CPU, and `numpy()`. The values are real, so a run on it has the numbers of the CPU, bit for bit. The
name is "meta" since torch's autograd takes no other device that it was not built for.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _foreach_utils as foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
aten = torch.ops.aten
BETWEEN = {aten.copy_.default, aten._to_copy.default}  # operations that may read one device and write the other
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}


class MixedDevicesError(RuntimeError):
    """An operation on tensors of both devices."""


class OnDevice(Tensor):
    """A tensor on the stand-in; `host` has its values."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls, host.size(), strides=host.stride(), storage_offset=host.storage_offset(), dtype=host.dtype,
            layout=host.layout, device=DEVICE,
        )  # fmt: skip
        made.host = host.detach()
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnDevice({self.host!r})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.numpy:
            raise TypeError("can't convert a tensor on the stand-in to numpy")
        if func in (Tensor.tolist, Tensor.data_ptr):
            return func(args[0].host)
        if func == Tensor.data.__set__ and isinstance(args[0], OnDevice):
            args[0].host = args[1].host  # a CPU tensor has none: an error, as on a GPU
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return OnDevice, (self.host,)  # saved, and back on the device when it is loaded

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do an operation on the values of its arguments, and put its results where a GPU would."""
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    of_device = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
    target = kwargs.get("device")
    target = torch.device(target) if target is not None else None
    if not of_device and target != DEVICE:
        return func(*args, **kwargs)
    if of_device and func not in BETWEEN:
        _check(func, args, tensors)
        if any(isinstance(leaf, torch.Generator) for leaf in leaves):
            raise MixedDevicesError(f"{func}: the generator is one of the CPU")
    lies_there = target == DEVICE if target is not None else True
    if func is aten.copy_.default:
        lies_there = isinstance(args[0], OnDevice)
    plain = {**kwargs, "device": torch.device("cpu")} if target is not None else kwargs
    if plain.get("pin_memory"):
        plain["pin_memory"] = False
    result = func(*tree_map(_host, args), **tree_map(_host, plain))
    if func is aten.copy_.default:
        return args[0]
    if not lies_there:  # a copy of its own, even where nothing had to be converted
        return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, result)
    wrapped = OnDevice(result) if type(result) is Tensor else tree_map(_wrap, result)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if of_device and _aliases(func) else wrapped


def _check(func: Any, args: Any, tensors: list[Tensor]) -> None:
    if func in INDEXED and isinstance(args[0], OnDevice):
        tensors = [t for t in tensors if not any(t is index for index in args[1])]  # indices may lie on the CPU
    if "foreach" in str(func) or "fused" in str(func):
        away = [t for t in tensors if not isinstance(t, OnDevice)]
    else:
        away = [t for t in tensors if not isinstance(t, OnDevice) and t.dim() > 0]
    if away:
        shapes = [("device" if isinstance(t, OnDevice) else "CPU", tuple(t.shape)) for t in tensors]
        raise MixedDevicesError(f"{func}: {shapes}")


@functools.cache
def _aliases(func: Any) -> bool:
    """Whether a result is a view of an argument, or the argument itself."""
    return any(argument.alias_info is not None for argument in func._schema.arguments)


def _wrap(value: Any) -> Any:
    return OnDevice(value) if isinstance(value, Tensor) else value


def _host(value: Any) -> Any:
    return value.host if isinstance(value, OnDevice) else value


class _Factories(TorchDispatchMode):
    """Tensors that are made on the stand-in, or moved to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """`torch.tensor(..., device=)` makes its tensor out of the sight of dispatch modes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == DEVICE:
            del kwargs["device"]
            return func(*args, **kwargs).to(DEVICE)
        return func(*args, **kwargs)


@contextmanager
def stand_in() -> Iterator[torch.device]:
    """Let the stand-in be there inside the block, as the device of every Accelerator."""
    enabled, autocast = torch.is_autocast_enabled, torch.autocast
    kinds = [*foreach_utils._get_fused_kernels_supported_devices(), DEVICE.type]
    with pytest.MonkeyPatch.context() as patch, _Literals(), _Factories():
        patch.setattr(sys.modules["torch.optim.optimizer"], "_get_fused_kernels_supported_devices", lambda: kinds)
        patch.setattr(Accelerator, "device", property(lambda accelerator: DEVICE))
        patch.setattr(torch, "is_autocast_enabled", lambda *kind: kind != ("meta",) and enabled(*kind))
        patch.setattr(
            torch, "autocast", lambda kind, **settings: autocast("cpu" if kind == "meta" else kind, **settings)
        )
        yield DEVICE
