"""What a GGUF file says of its model besides the tensors, and what transformers leaves of it.

transformers 5.23 reads some keys for each architecture and passes over the others, also where they change what the
model computes. Here a key that it passes over is put into the config, or must agree with it, or is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from gguf import ReaderField
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

from rankbench.models.errors import ModelError

# Key -> the setting that it gives its value to, where the config has such a setting.
PUT = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "attention.sliding_window": "sliding_window",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "expert_feed_forward_length": "moe_intermediate_size",
}
# Keys without effect on what the model computes from its tensors.
HARMLESS = ("tensor_data_layout", "vocab_size", "context_length", "attention.causal", "rope.scaling.finetuned")
# Tensors that scale rotary frequencies; transformers drops them.
FREQUENCIES = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def apply(file: Path, fields: Mapping[str, ReaderField], tensors: Collection[str], config: Any) -> None:
    """Put into `config` what transformers has passed over, before a model is stored with it.

    Args:
        file: the GGUF file, for messages.
        fields: its metadata.
        tensors: names of its tensors.
        config: of the model as transformers read it; it is changed.

    Raises:
        ModelError: a key or tensor changes what the model computes, and nothing here reads it.
    """
    architecture = str(fields["general.architecture"].contents())
    mappings = cast(dict[str, dict[str, str | None]], GGUF_CONFIG_MAPPING)
    read, implied = mappings.get(config.model_type.removesuffix("_text"), {}), _implied(config)
    unread = [name for name in FREQUENCIES if name in tensors]
    for name, field in fields.items():
        key = name.removeprefix(f"{architecture}.")
        if key == name or key in HARMLESS or read.get(key) is not None:
            continue
        value, setting = field.contents(), PUT.get(key)
        if setting is not None and hasattr(config, setting):
            setattr(config, setting, value)
        elif key not in implied or value != implied[key]:
            unread.append(f"{name}={value}")
    if unread:
        raise ModelError(
            f"{file}: transformers passes over {', '.join(unread)}, so the model would not be the one that was stored; "
            "give the model's own folder instead: model.path=DIR"
        )


def _implied(config: Any) -> dict[str, Any]:
    """Values of further keys as the config already has them; those that do nothing have theirs, too."""
    heads = getattr(config, "num_attention_heads", None) or 1
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    rope = getattr(config, "rope_parameters", None) or {}
    share = rope.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0))
    kind = rope.get("rope_type", "default")
    return {
        "attention.key_length": width,
        "attention.value_length": width,
        "rope.dimension_count": int(width * share),
        "rope.freq_base": rope.get("rope_theta"),
        "rope.scaling.type": "none" if kind == "default" else kind,
        "rope.scaling.factor": rope.get("factor", 1.0),
        "rope.scaling.original_context_length": rope.get("original_max_position_embeddings"),
        "expert_count": 0,
        "expert_used_count": 0,
        "expert_shared_feed_forward_length": getattr(config, "shared_expert_intermediate_size", None),
        "logit_scale": 1.0,
        "use_parallel_residual": getattr(config, "use_parallel_residual", None),
        "feed_forward_length": 4 * config.hidden_size,
    }
