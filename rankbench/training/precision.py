"""How a run computes: what is stored, multiplied and summed in which precision, and by which kernels.

Two settings decide, and nothing else does: `model.dtype` is the storage of the frozen base, `train.precision` the
arithmetic of every pass, in training, calibration and evaluation alike, so the record's two settings say it for all of
its numbers. Only where base and arithmetic are in fp32, an evaluation folds the adapter into the weights
(rankbench.core.folding), which is the same up to fp32's rounding.

    train.precision       fp32                        tf32                 bf16
    products of the base  as stored (fp32 or bf16)    TF32 where in fp32   bf16
    products of adapter   fp32 (inputs are cast)      TF32                 bf16, of inputs as they come
    and head
    attention             as the base                 as the base          bf16, softmax summed in fp32 in the kernel
    norms, log-softmax    fp32                        fp32                 fp32
    and loss

    always in fp32: factors, gates, head and whatever else is trained, their gradients, AdamW's moments, the moving
    statistics and scores of methods, the exported adapter

bf16 is torch's autocast. A base that is stored in fp32 is then rounded anew for each product: model.dtype=bfloat16
stores it so, in half the memory. Products of bf16 are summed in fp32 throughout.

On a CPU a run repeats bit for bit. On a GPU it need not, as no kernel is forced to be deterministic: the backward pass
of fused attention adds in the order of the moment, and so does the sum of an example's losses (index_add), on whose
order no gradient depends. Whether an evaluation there folds depends on free memory, too.

Attention is `model.attention`: null leaves the choice to transformers (sdpa, or eager where the architecture has only
that); eager, sdpa and flash_attention_2 ask for one (rankbench.models.attention).
"""

from __future__ import annotations

from typing import Any

import torch

from rankbench.config.sections import Config

TF32_UNITS = 8  # compute capability of the NVIDIA GPUs that first had it (Ampere)


def set_kernels(precision: str) -> None:
    """Set the process-wide switches of torch that a run's precision asks for, whatever they were.

    Args:
        precision: train.precision.
    """
    tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32  # convolutions, where torch's default is TF32
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False  # partial sums stay in fp32


def autocast_of(precision: str) -> str:
    """Accelerate's name for the autocast of a run."""
    return "bf16" if precision == "bf16" else "no"


def refused(config: Config, device: torch.device) -> list[str]:
    """A sentence for each setting that the device of a run cannot follow, which would else be another run unseen."""
    train, problems = config.train, []
    if train.precision == "tf32" and not _has_tf32(device):
        problems.append(
            f"train.precision=tf32: the device of this run ({device.type}) has no TF32, which NVIDIA GPUs have from "
            "Ampere on; set train.precision=fp32"
        )
    if config.model.attention == "flash_attention_2" and device.type != "cuda":
        problems.append(
            f"model.attention=flash_attention_2: runs on a GPU alone, and the device of this run is {device.type}; "
            "set model.attention=sdpa"
        )
    return problems


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= TF32_UNITS


def slow_casts(config: Config, device: torch.device) -> str | None:
    """A sentence on a base that is rounded to bf16 in every pass; None where it is not, or on a CPU."""
    if config.train.precision != "bf16" or config.model.dtype != "float32" or device.type != "cuda":
        return None
    return (
        "train.precision=bf16 rounds the weights of a base in model.dtype=float32 anew in every pass; "
        "model.dtype=bfloat16 stores them so, which is another run"
    )


def spare_casts(model: Any) -> None:
    """Let PEFT's layers take their inputs as they come, for passes under autocast.

    PEFT casts them to the factors' fp32, and autocast casts that to bf16 again: the same values, but two copies of each
    input, of which the second is kept for the backward pass once for every site that reads it. (With dropout, a CPU
    rounds the factor of what is left to bf16 now.) Left alone are layers of DoRA, whose norms are computed in the dtype
    of the input.
    """
    for module in model.modules():
        if hasattr(module, "lora_A") and not module.lora_magnitude_vector:
            module.cast_input_dtype_enabled = False
