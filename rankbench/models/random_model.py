"""A model made on the spot: Qwen2 architecture, random weights, one token per byte."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rankbench.config.sections import Shape
from rankbench.core.seeding import Streams
from rankbench.models.attention import arguments


def random_model(shape: Shape, dtype: torch.dtype, attention: str | None = None) -> tuple[Any, Any, str]:
    """A Qwen2 with random weights, the same for every run's seed, its byte tokenizer and the hash of its weights."""
    tokenizer = byte_tokenizer()
    with Streams(0).ambient("init", "base"):
        config = config_of(shape, tokenizer)
        config._attn_implementation = arguments(attention, Qwen2ForCausalLM).get("attn_implementation")
        model: Any = Qwen2ForCausalLM(config)
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return model.to(dtype), tokenizer, digest.hexdigest()


def config_of(shape: Shape, tokenizer: Any) -> Qwen2Config:
    """The config of that model."""
    return Qwen2Config(
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_position_embeddings,
        vocab_size=shape.vocab_size,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def byte_tokenizer() -> Any:
    """One token per byte, then <pad>, <bos> and <eos>; none of them is added to a text."""
    specials = ["<pad>", "<bos>", "<eos>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet + specials)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    pad, bos, eos = specials
    wrap: Any = PreTrainedTokenizerFast
    return wrap(tokenizer_object=backend, pad_token=pad, bos_token=bos, eos_token=eos)
