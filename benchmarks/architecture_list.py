"""Architectures of transformers, each with what makes it tiny beyond the sizes that all share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Settings = dict[str, Any]
SIZES: Settings = {
    **{"vocab_size": 264, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2},
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
    **{"intermediate_size": 64, "max_position_embeddings": 256},
}
MOE: Settings = {
    **{"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2},
    **{"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
}
LATENT: Settings = {
    **{"n_group": 2, "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 16},
    **{"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "head_dim": 8},
    "num_key_value_heads": 4,
}
BART: Settings = {
    **{"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64},
    **{"encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_start_token_id": 2},
}
T5: Settings = {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 1}
OPT: Settings = {"ffn_dim": 64, "word_embed_proj_dim": 32}
XLNET: Settings = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "max_position_embeddings": None}
XLM: Settings = {"emb_dim": 32, "n_layers": 2, "n_heads": 4}


def alike(names: str, settings: Settings | None = None) -> dict[str, Settings]:
    """The same settings for each of some model types."""
    return {name: settings or {} for name in names.split()}


# None leaves one of the shared sizes out.
DECODERS = {
    **alike("gpt2 gpt_bigcode gpt_neox bloom mpt openai-gpt biogpt llama mistral qwen2 qwen3 gemma gemma2"),
    **alike(
        "gemma3_text phi phi3 olmo olmo2 cohere cohere2 granite stablelm starcoder2 nemotron persimmon smollm3 glm"
    ),
    **alike("exaone4 diffllama apertus modernbert-decoder electra"),
    **alike("mixtral granitemoe jetmoe minimax qwen2_moe qwen3_moe olmoe gpt_oss", MOE),
    "phimoe": {**MOE, "router_jitter_noise": 0.0},  # noise is drawn in training, as dropout is
    **alike("bert roberta", {"is_decoder": True}),
    **alike("gptj codegen", {"rotary_dim": 4}),
    "falcon": {"head_dim": None},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 16},
    "opt": OPT,
    "ctrl": {"dff": 64},
    "xglm": {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4},
    "deepseek_v3": {**MOE, **LATENT},
    **alike("mamba falcon_mamba", {"state_size": 8}),
    "mamba2": {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8},
    "rwkv": {"attention_hidden_size": 32, "context_length": 256},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 64},
    "jamba": {**MOE, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False, "mamba_d_state": 8},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "xlnet": XLNET,
}
ENCODER_DECODERS = {
    **alike("t5 mt5 umt5 longt5", T5),
    "switch_transformers": {
        **T5,
        **{"num_experts": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
        "router_jitter_noise": 0.0,
    },
    **alike("bart mbart pegasus blenderbot blenderbot-small marian plbart mvp m2m_100", BART),
    "pegasus_x": {**BART, "block_size": 8, "num_global_tokens": 4},
    "led": {**BART, "attention_window": 8, "max_encoder_position_embeddings": 256},
}
ENCODERS = {
    **alike("bert roberta xlm-roberta electra deberta mpnet ernie modernbert eurobert nomic_bert roformer fnet"),
    **alike("megatron-bert ibert nystromformer yoso big_bird gpt2 gpt_neox llama qwen2 gemma phi3"),
    **alike("convbert squeezebert", {"embedding_size": 32}),
    **alike("xlm flaubert", XLM),
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
    "albert": {"embedding_size": 16},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "longformer": {"attention_window": 8},
    "xlnet": XLNET,
    "opt": OPT,
    "bart": BART,
    "t5": T5,
}


def architectures() -> Iterator[tuple[str, str, Settings]]:
    """Kind, model type and settings of each architecture."""
    for kind, chosen in (("decoder", DECODERS), ("encoder_decoder", ENCODER_DECODERS), ("encoder", ENCODERS)):
        for name, settings in chosen.items():
            sizes = {**SIZES, **({"num_labels": 2} if kind == "encoder" else {}), **settings}
            yield kind, name, {key: value for key, value in sizes.items() if value is not None}
