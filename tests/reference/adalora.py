"""AdaLoRA by PEFT: its layers, penalty, statistics, schedule and masks, in the loop of its documentation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import AdaLoraConfig, get_peft_model
from torch import Tensor, nn


@dataclass
class Trace:
    """After each step: the last rank pattern (None before the first cut) and lambda, by site.

    `losses` are of the steps' forward passes, with the penalty in them, as PEFT reports them.
    """

    patterns: list[dict[str, list[bool]] | None] = field(default_factory=list)
    lambdas: list[dict[str, Tensor]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def train(
    model: nn.Module,
    factors: Mapping[str, tuple[Tensor, Tensor]],
    batches: Sequence[Tensor],
    rates: Sequence[float],
    *,
    target_r: int,
    scale: float,
    tinit: int,
    tfinal: int,
    every: int,
    orthogonality: float,
    max_grad_norm: float,
    weight_decay: float,
) -> Trace:
    """Language modelling on `batches` (one per step) from given A, B and lambda = 0.

    PEFT scales by lora_alpha / (init_r + 1e-5): alpha is chosen so that this is `scale`.
    """
    init_r = next(iter(factors.values()))[0].shape[0]
    config: Any = AdaLoraConfig(
        task_type="CAUSAL_LM",  # without one, PeftModel passes by the tuner's forward and with it the penalty
        target_modules=list(factors),
        init_r=init_r,
        target_r=target_r,
        lora_alpha=scale * (init_r + 1e-5),
        tinit=tinit,
        tfinal=tfinal,
        deltaT=every,
        total_step=len(batches),
        beta1=0.85,
        beta2=0.85,
        orth_reg_weight=orthogonality,
    )
    peft_model = get_peft_model(model, config)
    modules = dict(peft_model.named_modules())
    layers = {name: modules[f"base_model.model.{name}"] for name in factors}
    for name, (A, B) in factors.items():
        layers[name].lora_A["default"].data.copy_(A)
        layers[name].lora_B["default"].data.copy_(B)
    trained = [parameter for parameter in peft_model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1.0, weight_decay=weight_decay)
    trace = Trace()
    peft_model.train()
    for step, (ids, rate) in enumerate(zip(batches, rates, strict=True), start=1):
        optimizer.param_groups[0]["lr"] = rate
        loss = peft_model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, max_grad_norm)
        optimizer.step()
        peft_model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
        trace.losses.append(float(loss.detach()))
        pattern = config.rank_pattern or None
        trace.patterns.append(pattern and {name: pattern[f"{name}.lora_E.default"] for name in factors})
        trace.lambdas.append({name: layers[name].lora_E["default"].detach().flatten().clone() for name in factors})
    return trace
