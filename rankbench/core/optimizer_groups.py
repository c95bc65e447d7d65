"""Optimizer groups of a run: each trained parameter stands in exactly one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from rankbench.core.site_adapter import Gate


def groups(
    factors: Sequence[nn.Parameter],
    gates: Sequence[nn.Parameter],
    gate: Gate | None,
    beside: Sequence[nn.Parameter],
    head: Sequence[nn.Parameter],
    weight_decay: float,
    head_rate: float | None = None,
) -> list[dict[str, Any]]:
    """Groups of torch's optimizers: factors, gates (with their own rate and decay), others of the method, head.

    Args:
        factors: all A, then all B.
        gates: one per site, [] for methods without gates.
        gate: how the method wants its gates; None for methods without.
        beside: other trained parameters of the method, [] for most.
        head: trained parameters outside the adapter.
        weight_decay: the run's, for groups without their own.
        head_rate: peak learning rate of the head; None: the run's.

    Returns:
        [{name, params, rate, weight_decay}]; `rate` is a factor on the run's learning rate, or on the `peak` of a group
        that has one, and a group with a `constant` that is not None keeps that learning rate instead.
    """
    result: list[dict[str, Any]] = [
        {"name": "factors", "params": list(factors), "rate": 1.0, "weight_decay": weight_decay}
    ]
    if gate is not None:
        decay = weight_decay if gate.weight_decay is None else gate.weight_decay
        rate = {"rate": gate.learning_rate, "constant": gate.constant_rate}
        result.append({"name": "gates", "params": list(gates), **rate, "weight_decay": decay})
    for name, parameters, peak in (("beside", beside, None), ("head", head, head_rate)):
        if parameters:
            group = {"name": name, "params": list(parameters), "rate": 1.0, "peak": peak}
            result.append({**group, "weight_decay": weight_decay})
    return result


def check_groups(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Check that each trained one of `parameters` stands in exactly one group.

    Raises:
        RuntimeError: a trained parameter is in no group, or in two.
    """
    seen = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    trained = [id(parameter) for parameter in parameters if parameter.requires_grad]
    if sorted(seen) != sorted(trained):
        missing, doubled = len(set(trained) - set(seen)), len(seen) - len(set(seen))
        raise RuntimeError(f"optimizer groups: {missing} trained parameters in no group, {doubled} in two")
