"""Mixtures of experts of the transformers library, from the published specs with small sizes."""

import pytest
from parity_checks import VOCAB, Family, Rules, check_decoder, part

SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 48,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SMALL = ("d_model=32", f"vocab_size={VOCAB}", "max_seq_len=48")
ONE_BLOCK = (*SMALL, "blocks[0].repeat=2", "blocks[0].mixer.n_heads=4")
LATENT = {"kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 16, "v_head_dim": 8}
LATENT_HERE = (
    *SMALL,
    "define.dense.mixer.n_heads=4",
    "define.dense.mixer.kv_lora_rank=16",
    "define.dense.mixer.qk_nope_head_dim=8",
    "define.dense.mixer.qk_rope_head_dim=16",
    "define.dense.mixer.position.scaling.original_max_seq_len=12",
    "define.dense.ffn.d_ff=56",
    "define.moe.ffn.d_ff=24",
)
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 12,
    "beta_fast": 32,
    "beta_slow": 1,
}

ROUTED: Rules = {
    "embedding.token.weight": "model.embed_tokens.weight",
    "blocks.*.norm1.*": "model.layers.*.input_layernorm.*",
    "blocks.*.norm2.*": "model.layers.*.post_attention_layernorm.*",
    "blocks.*.mixer.kv_a_proj.*": "model.layers.*.self_attn.kv_a_proj_with_mqa.*",
    "blocks.*.mixer.kv_a_norm.*": "model.layers.*.self_attn.kv_a_layernorm.*",
    "blocks.*.mixer.q_a_norm.*": "model.layers.*.self_attn.q_a_layernorm.*",
    "blocks.*.mixer.*": "model.layers.*.self_attn.*",
    "blocks.*.ffn.router.*": "model.layers.*.mlp.gate.*",
    "blocks.*.ffn.correction_bias": "model.layers.*.mlp.gate.e_score_correction_bias",
    "blocks.*.ffn.experts.gate_proj": part("model.layers.*.mlp.experts.gate_up_proj", 0, 2, dim=1),
    "blocks.*.ffn.experts.up_proj": part("model.layers.*.mlp.experts.gate_up_proj", 1, 2, dim=1),
    "blocks.*.ffn.experts.down_proj": "model.layers.*.mlp.experts.down_proj",
    "blocks.*.ffn.shared_gate.*": "model.layers.*.mlp.shared_expert_gate.*",
    "blocks.*.ffn.shared_*": "model.layers.*.mlp.shared_experts.*",
    "blocks.*.ffn.*": "model.layers.*.mlp.*",
    "norm.*": "model.norm.*",
    "head.proj.weight": "lm_head.weight",
}

FAMILIES = {
    "mixtral": Family(
        "mixtral_8x7b",
        (*ONE_BLOCK, "blocks[0].mixer.n_kv_heads=2"),
        "mixtral",
        "MixtralForCausalLM",
        {
            **SIZES,
            "num_key_value_heads": 2,
            "intermediate_size": 112,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "sliding_window": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        },
        ROUTED,
    ),
    "qwen2_moe": Family(
        "qwen1_5_moe_a2_7b",
        (*ONE_BLOCK, "blocks[0].ffn.d_ff=24", "blocks[0].ffn.n_experts=12"),
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        {
            **SIZES,
            "num_experts": 12,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 96,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        },
        {**ROUTED, "blocks.*.ffn.shared_*": "model.layers.*.mlp.shared_expert.*"},
    ),
    "deepseek_v2_lite": Family(
        "deepseek_v2_lite",
        (*LATENT_HERE, "blocks=dense moe x2", "define.moe.ffn.n_experts=12"),
        "deepseek_v2",
        "DeepseekV2ForCausalLM",
        {
            **SIZES,
            **LATENT,
            "num_hidden_layers": 3,
            "q_lora_rank": None,
            "intermediate_size": 56,
            "moe_intermediate_size": 24,
            "n_routed_experts": 12,
            "n_shared_experts": 2,
            "num_experts_per_tok": 6,
            "first_k_dense_replace": 1,
            "topk_method": "greedy",
            "norm_topk_prob": False,
            "routed_scaling_factor": 1.0,
            "rope_parameters": {**YARN, "mscale": 0.707, "mscale_all_dim": 0.707},
        },
        ROUTED,
    ),
    "deepseek_v3": Family(
        "deepseek_v3",
        (*LATENT_HERE, "blocks=dense x1 moe x2", "define.dense.mixer.q_lora_rank=12", "define.moe.ffn.n_experts=32"),
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        {
            **SIZES,
            **LATENT,
            "num_hidden_layers": 3,
            "q_lora_rank": 12,
            "intermediate_size": 56,
            "moe_intermediate_size": 24,
            "n_routed_experts": 32,
            "n_shared_experts": 1,
            "num_experts_per_tok": 8,
            "n_group": 8,
            "topk_group": 4,
            "first_k_dense_replace": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
            "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
        },
        ROUTED,
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_published(name: str) -> None:
    check_decoder(FAMILIES[name])
