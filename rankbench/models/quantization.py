"""A frozen base of 4 or 8 bits, by bitsandbytes: QLoRA (Dettmers et al. 2023) and LLM.int8() (Dettmers et al. 2022).

Quantised are the linear layers but the output embedding and an encoder's head; embeddings and norms stay in the base's
dtype, in which the passes compute, too. What reads a weight gets it dequantised (rankbench.core.site_adapter).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal

import torch
from transformers import BitsAndBytesConfig

from rankbench.models.errors import ModelError, quiet

Quantization = Literal["nf4", "int8"]
BY_BATCH = (
    "model.quantization=int8: LLM.int8() multiplies a feature in full precision as soon as one text of the batch has a "
    "value above 6 in it, so that losses depend slightly on which texts are read together"
)


def settings(quantization: Quantization | None, dtype: torch.dtype, head: Sequence[str]) -> dict[str, Any]:
    """Arguments of `from_pretrained`; {} for a base that is not quantised.

    NF4 with its scales quantised again, as in the runs of L1RA (Singh et al. 2025).

    Args:
        quantization: model.quantization.
        dtype: storage of what is not quantised, and what the passes compute in.
        head: modules of an encoder that are trained in full.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    if quantization is None:
        return {}
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            f"model.quantization={quantization} needs bitsandbytes; run: pip install 'rankbench[quantization]'"
        )
    skipped = list(head) or None  # None: transformers leaves out the output embedding
    if quantization == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)  # type: ignore[no-untyped-call]
    else:
        config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=skipped,
        )
    return {"quantization_config": config}


def quantize(model: Any, arguments: dict[str, Any]) -> Any:
    """A model made in memory, quantised: bitsandbytes quantises while it reads files."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        model.save_pretrained(folder)
        chosen = model.config._attn_implementation
        quantized = type(model).from_pretrained(folder, dtype=model.dtype, attn_implementation=chosen, **arguments)
    quantized.name_or_path = model.name_or_path  # the folder is gone
    return quantized


def settle(model: Any) -> None:
    """Let quantised layers compute alike in training and evaluation, and wherever they are moved.

    On processors with AVX512-BF16, bitsandbytes would repack weights of 4 bits in evaluation and compute in bf16. A
    weight of 8 bits loses the scales of its rows when it is moved after a forward pass.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
        if hasattr(module, "init_8bit_state"):
            module.register_forward_hook(_keep_scales)


def _keep_scales(module: Any, inputs: Any, output: Any) -> None:
    module.weight.SCB = module.state.SCB
