"""What of a machine reaches the arithmetic of a run: environment variables, refused or written down, and its bfloat16.

A run's numbers follow its configuration. Variables of Accelerate have no effect (rankbench.training.engine).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping

# Variables that change the precision or the kernels of a pass -> values with which they do not; libraries read them
# when they are loaded, so that a run cannot undo them.
REFUSED: Mapping[str, tuple[str, ...]] = {
    "NVIDIA_TF32_OVERRIDE": ("", "0"),
    "ONEDNN_DEFAULT_FPMATH_MODE": ("", "STRICT"),
    "DNNL_DEFAULT_FPMATH_MODE": ("", "STRICT"),
    "PYTORCH_MPS_FAST_MATH": ("", "0"),
    "PYTORCH_MPS_PREFER_METAL": ("", "0"),
    "PYTORCH_TUNABLEOP_ENABLED": ("", "0"),
    "TRANSFORMERS_SDPA_FORCE_GQA": ("", "0"),
    "XLA_DOWNCAST_BF16": ("", "0"),
    "XLA_USE_BF16": ("", "0"),
}
# Variables that change the order of sums, and with it the last digits.
RECORDED = (
    *("ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "DNNL_MAX_CPU_ISA", "FLASH_ATTENTION_DETERMINISTIC"),
    *("MKL_CBWR", "MKL_DYNAMIC", "MKL_ENABLE_INSTRUCTIONS", "MKL_NUM_THREADS", "NPY_DISABLE_CPU_FEATURES"),
    *("OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS"),
    *("TORCH_BLAS_PREFER_CUBLASLT", "TORCH_LINALG_PREFER_CUSOLVER", "USE_HUB_KERNELS"),
)


def refused() -> list[str]:
    """A sentence for each variable with which a number would not follow from the configuration."""
    values = {name: os.environ.get(name, "") for name in REFUSED}
    return [
        f"{name}={value}: this environment variable changes the arithmetic of a run unseen; unset it"
        for name, value in values.items()
        if value.upper() not in REFUSED[name]
    ]


def recorded() -> dict[str, str]:
    """The variables that a rounding error may depend on, as they are set."""
    return {name: os.environ[name] for name in RECORDED if name in os.environ}


def base_dtype(dtype: str) -> str:
    """What model.dtype is on this machine: "auto" is bfloat16 where something multiplies it, else float32.

    A configuration holds the answer, so that run_id, record and a frozen run name the dtype that is used.
    """
    if dtype != "auto":
        return dtype
    import torch  # takes a second to import, and most configurations name their dtype

    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes") or not (
        torch.accelerator.is_available()
    )
    return "float32" if on_cpu and not cpu_multiplies_bfloat16() else "bfloat16"


def cpu_multiplies_bfloat16() -> bool:
    """Whether the processor has units for products of bfloat16; others emulate them at a tenth of fp32's speed."""
    import torch  # takes a second to import

    if platform.machine().lower() in ("arm64", "aarch64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
