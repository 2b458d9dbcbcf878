"""Decoders of the transformers library: logits of a whole text, and of one read as a prompt and then by the token."""

import pytest
from parity_checks import VOCAB, Family, Rules, check_decoder, head_part, part, transposed, transposed_part

SIZES = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 48}
GATED = {**SIZES, "num_key_value_heads": 2, "intermediate_size": 56}
UNTIED = {**GATED, "tie_word_embeddings": False}
TIED = {**GATED, "tie_word_embeddings": True}
SMALL = ("d_model=32", f"vocab_size={VOCAB}", "max_seq_len=48")
ONE_BLOCK = (*SMALL, "blocks[0].repeat=2", "blocks[0].mixer.n_heads=4")

LLAMA: Rules = {
    "embedding.token.weight": "model.embed_tokens.weight",
    "blocks.*.norm1.*": "model.layers.*.input_layernorm.*",
    "blocks.*.norm2.*": "model.layers.*.post_attention_layernorm.*",
    "blocks.*.mixer.*": "model.layers.*.self_attn.*",
    "blocks.*.ffn.*": "model.layers.*.mlp.*",
    "norm.*": "model.norm.*",
    "head.proj.weight": "lm_head.weight",
}
GPT2: Rules = {
    "embedding.token.weight": "transformer.wte.weight",
    "embedding.position.table.weight": "transformer.wpe.weight",
    "blocks.*.norm1.*": "transformer.h.*.ln_1.*",
    "blocks.*.norm2.*": "transformer.h.*.ln_2.*",
    "blocks.*.mixer.q_proj.bias": part("transformer.h.*.attn.c_attn.bias", 0, 3),
    "blocks.*.mixer.k_proj.bias": part("transformer.h.*.attn.c_attn.bias", 1, 3),
    "blocks.*.mixer.v_proj.bias": part("transformer.h.*.attn.c_attn.bias", 2, 3),
    "blocks.*.mixer.o_proj.bias": "transformer.h.*.attn.c_proj.bias",
    "blocks.*.mixer.q_proj.weight": transposed_part("transformer.h.*.attn.c_attn.weight", 0, 3),
    "blocks.*.mixer.k_proj.weight": transposed_part("transformer.h.*.attn.c_attn.weight", 1, 3),
    "blocks.*.mixer.v_proj.weight": transposed_part("transformer.h.*.attn.c_attn.weight", 2, 3),
    "blocks.*.mixer.o_proj.weight": transposed("transformer.h.*.attn.c_proj.weight"),
    "blocks.*.ffn.up_proj.bias": "transformer.h.*.mlp.c_fc.bias",
    "blocks.*.ffn.down_proj.bias": "transformer.h.*.mlp.c_proj.bias",
    "blocks.*.ffn.up_proj.weight": transposed("transformer.h.*.mlp.c_fc.weight"),
    "blocks.*.ffn.down_proj.weight": transposed("transformer.h.*.mlp.c_proj.weight"),
    "norm.*": "transformer.ln_f.*",
}


def fused(ours: str, theirs: str) -> Rules:
    """Query, key and value rows of each of four heads stand together."""
    return {
        f"blocks.*.mixer.{x}_proj.*": head_part(f"{theirs}.query_key_value.*", i, 4) for i, x in enumerate(("q", "k", "v"))
    }


PUBLISHED = {
    "gpt2": Family(
        "gpt2",
        ONE_BLOCK,
        "gpt2",
        "GPT2LMHeadModel",
        {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 48},
        GPT2,
    ),
    "llama2": Family(
        "llama2_7b",
        (*ONE_BLOCK, "blocks[0].ffn.d_ff={of: 8/3 * d_model, multiple_of: 8}"),
        "llama",
        "LlamaForCausalLM",
        {**UNTIED, "num_key_value_heads": 4, "intermediate_size": 88, "rms_norm_eps": 1e-5},
        LLAMA,
    ),
    "llama3": Family(
        "llama3_8b",
        (*ONE_BLOCK, "blocks[0].mixer.n_kv_heads=2"),
        "llama",
        "LlamaForCausalLM",
        {
            **UNTIED,
            "intermediate_size": 112,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        },
        LLAMA,
    ),
    "mistral": Family(
        "mistral_7b",
        (*ONE_BLOCK, "blocks[0].mixer.n_kv_heads=2", "blocks[0].mixer.window=5"),
        "mistral",
        "MistralForCausalLM",
        {**UNTIED, "intermediate_size": 112, "sliding_window": 5, "rms_norm_eps": 1e-5},
        LLAMA,
    ),
    "gemma2": Family(
        "gemma2_2b",
        (
            *SMALL,
            "blocks=(local full)x2",
            "define.full.mixer.n_heads=4",
            "define.full.mixer.n_kv_heads=2",
            "define.full.mixer.head_dim=16",
            "define.local.mixer.window=5",
        ),
        "gemma2",
        "Gemma2ForCausalLM",
        {
            **TIED,
            "num_hidden_layers": 4,
            "intermediate_size": 128,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 5,
        },
        {
            "blocks.*.norm2.*": "model.layers.*.post_attention_layernorm.*",
            "blocks.*.norm3.*": "model.layers.*.pre_feedforward_layernorm.*",
            "blocks.*.norm4.*": "model.layers.*.post_feedforward_layernorm.*",
            **LLAMA,
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published(name: str) -> None:
    check_decoder(PUBLISHED[name])
