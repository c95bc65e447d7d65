"""Tiny models of many architectures: their configs, and the heads of their classifiers."""

import transformers

IDS = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WIDTHS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TWO_STACKS = {
    f"{stack}_{key}": value
    for stack in ("encoder", "decoder")
    for key, value in {"layers": 1, "attention_heads": 2, "ffn_dim": 24}.items()
}
EXPERTS = {**IDS, **WIDTHS, "num_key_value_heads": 2, "num_experts_per_tok": 2}
CONFIGS = {
    "gpt2": lambda: transformers.GPT2Config(**IDS, n_embd=16, n_layer=2, n_head=2, n_positions=32),
    "opt": lambda: transformers.OPTConfig(
        **IDS, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=24, word_embed_proj_dim=8
    ),
    "bart": lambda: transformers.BartConfig(**IDS, d_model=16, decoder_start_token_id=2, **TWO_STACKS),
    "t5": lambda: transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, decoder_start_token_id=0
    ),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=40, pad_token_id=0, dim=16, n_layers=2, n_heads=2, hidden_dim=24
    ),
    "mixtral": lambda: transformers.MixtralConfig(**EXPERTS, num_local_experts=4),
    "qwen2_moe": lambda: transformers.Qwen2MoeConfig(
        **EXPERTS, num_experts=4, moe_intermediate_size=8, shared_expert_intermediate_size=24
    ),
    "deepseek_v3": lambda: transformers.DeepseekV3Config(
        **{**EXPERTS, "num_key_value_heads": 2},
        moe_intermediate_size=8,
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
    ),
    "llama4_text": lambda: transformers.Llama4TextConfig(
        **EXPERTS, intermediate_size_mlp=24, head_dim=8, num_local_experts=4
    ),
    "mamba": lambda: transformers.MambaConfig(**IDS, hidden_size=16, num_hidden_layers=2, state_size=4),
}
HEADS = {
    "gpt2": ["score"],
    "opt": ["score"],
    "bart": ["classification_head"],
    "t5": ["classification_head"],
    "distilbert": ["pre_classifier", "classifier"],
}
