"""The attention implementation of a model: what may be asked of transformers, refused before weights are read."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from rankbench.models.errors import ModelError

SUPPORT = {"sdpa": "_supports_sdpa", "flash_attention_2": "_supports_flash_attn"}  # transformers' marks of a class


def arguments(asked: str | None, cls: Any) -> dict[str, Any]:
    """Arguments of `from_pretrained` and `from_config`; {} where the choice is transformers'.

    Args:
        asked: model.attention.
        cls: the model's class in transformers.

    Raises:
        ModelError: the model's class lacks the implementation that is asked for, or a package for it is missing here.
    """
    if asked is None:
        return {}
    if asked == "flash_attention_2" and find_spec("flash_attn") is None:
        raise ModelError(
            "model.attention=flash_attention_2 needs the package flash-attn, which is not installed here; "
            "install it, or set model.attention=sdpa"
        )
    if asked in SUPPORT and not getattr(cls, SUPPORT[asked], False):
        raise ModelError(
            f"model.attention={asked}: {cls.__name__} does not have it in transformers; set model.attention=null"
        )
    return {"attn_implementation": asked}
