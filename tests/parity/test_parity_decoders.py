"""Decoders of the transformers library: logits of a whole text, and of one read as a prompt and then by the token."""

from typing import Any

import pytest
import torch
from parity_checks import (
    VOCAB,
    Family,
    Rules,
    assert_same,
    check_decoder,
    head_part,
    part,
    rows,
    tokens,
    transposed,
    transposed_part,
)

SIZES = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 48}
GATED = {**SIZES, "num_key_value_heads": 2, "intermediate_size": 56}
UNTIED = {**GATED, "tie_word_embeddings": False}
TIED = {**GATED, "tie_word_embeddings": True}
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
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


def fused(attention: str) -> Rules:
    """Query, key and value rows of each of four heads stand together."""
    theirs = f"{attention}.query_key_value.*"
    return {f"blocks.*.mixer.{x}_proj.*": head_part(theirs, i, 4) for i, x in enumerate("qkv")}


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
            "rope_parameters": {**PLAIN, "rope_theta": 500000.0},
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
            **LLAMA,
            "blocks.*.norm3.*": "model.layers.*.pre_feedforward_layernorm.*",
            "blocks.*.norm4.*": "model.layers.*.post_feedforward_layernorm.*",
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published(name: str) -> None:
    check_decoder(PUBLISHED[name])


def decoder(mixer: dict[str, Any], ffn: dict[str, Any], **top: Any) -> dict[str, Any]:
    """A spec of two equal blocks."""
    block = {"repeat": 2, "mixer": {"kind": "attention", "n_heads": 4, **mixer}, "ffn": ffn}
    small = {"d_model": 32, "vocab_size": VOCAB, "max_seq_len": 48, "blocks": [block]}
    return {"wiring": "pre", "head": {"kind": "lm", "tied": False}, **small, **top}


ROPE = {"kind": "rope", "theta": 10000}
GQA = {"n_kv_heads": 2, "position": ROPE}
SWIGLU = {"kind": "gated_mlp", "d_ff": 56}
MLP = {"kind": "mlp", "d_ff": 56, "bias": True}
BIASED = {"qkv_bias": True, "out_bias": True}
LAYERNORM = {"kind": "layernorm", "eps": 1e-5}
SHORT, LONG = [1.0, 1.1, 1.3, 1.7], [1.2, 2.0, 4.0, 9.0]

MORE = {
    "llama3 scaling": Family(
        decoder(
            {
                "n_kv_heads": 2,
                "position": {**ROPE, "scaling": {"kind": "llama3", "factor": 8, "original_max_seq_len": 24}},
            },
            SWIGLU,
            norm={"kind": "rmsnorm", "eps": 1e-6},
        ),
        (),
        "llama",
        "LlamaForCausalLM",
        {
            **UNTIED,
            "rope_parameters": {
                **PLAIN,
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 24,
            },
        },
        LLAMA,
    ),
    "qwen3": Family(
        decoder({**GQA, "head_dim": 16, "qk_norm": "head"}, SWIGLU, norm={"kind": "rmsnorm", "eps": 1e-6}),
        (),
        "qwen3",
        "Qwen3ForCausalLM",
        {**UNTIED, "head_dim": 16},
        LLAMA,
    ),
    "olmo2": Family(
        decoder({**GQA, "qk_norm": "whole"}, SWIGLU, norm={"kind": "rmsnorm", "eps": 1e-5}, wiring="inner_post"),
        (),
        "olmo2",
        "Olmo2ForCausalLM",
        UNTIED,
        {
            **LLAMA,
            "blocks.*.norm1.*": "model.layers.*.post_attention_layernorm.*",
            "blocks.*.norm2.*": "model.layers.*.post_feedforward_layernorm.*",
        },
    ),
    "granite": Family(
        decoder(
            {**GQA, "scale": 0.3},
            SWIGLU,
            norm={"kind": "rmsnorm", "eps": 1e-6},
            embedding={"kind": "token", "scale": 3},
            wiring=["x = x + 0.4 * mixer(norm1(x))", "x = x + 0.4 * ffn(norm2(x))"],
            head={"kind": "lm", "tied": True, "scale": 0.125},
        ),
        (),
        "granite",
        "GraniteForCausalLM",
        {
            **TIED,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.3,
            "residual_multiplier": 0.4,
            "logits_scaling": 8.0,
        },
        LLAMA,
    ),
    "cohere": Family(
        decoder(
            {"n_kv_heads": 2, "position": {**ROPE, "interleaved": True}},
            SWIGLU,
            norm={**LAYERNORM, "bias": False},
            wiring="parallel",
            head={"kind": "lm", "tied": True, "scale": 0.0625},
        ),
        (),
        "cohere",
        "CohereForCausalLM",
        {**TIED, "use_qk_norm": False, "rope_parameters": PLAIN},
        LLAMA,
    ),
    "phi3 with LongRoPE": Family(
        decoder(
            {
                "n_kv_heads": 2,
                "position": {
                    **ROPE,
                    "scaling": {
                        "kind": "longrope",
                        "original_max_seq_len": 24,
                        "short_factor": SHORT,
                        "long_factor": LONG,
                    },
                },
            },
            SWIGLU,
            norm={"kind": "rmsnorm", "eps": 1e-5},
        ),
        (),
        "phi3",
        "Phi3ForCausalLM",
        {
            **UNTIED,
            "original_max_position_embeddings": 24,
            "rope_parameters": {
                **PLAIN,
                "rope_type": "longrope",
                "short_factor": SHORT,
                "long_factor": LONG,
                "original_max_position_embeddings": 24,
            },
        },
        {
            "blocks.*.mixer.q_proj.*": rows("model.layers.*.self_attn.qkv_proj.*", 0, 32),
            "blocks.*.mixer.k_proj.*": rows("model.layers.*.self_attn.qkv_proj.*", 32, 48),
            "blocks.*.mixer.v_proj.*": rows("model.layers.*.self_attn.qkv_proj.*", 48, 64),
            "blocks.*.ffn.gate_proj.*": part("model.layers.*.mlp.gate_up_proj.*", 0, 2),
            "blocks.*.ffn.up_proj.*": part("model.layers.*.mlp.gate_up_proj.*", 1, 2),
            **LLAMA,
        },
    ),
    "gpt_neox": Family(
        decoder({**BIASED, "position": {**ROPE, "fraction": 0.25}}, MLP, norm=LAYERNORM, wiring="parallel_two_norms"),
        (),
        "gpt_neox",
        "GPTNeoXForCausalLM",
        {
            **SIZES,
            "intermediate_size": 56,
            "use_parallel_residual": True,
            "tie_word_embeddings": False,
            "rope_parameters": {**PLAIN, "partial_rotary_factor": 0.25},
        },
        {
            **fused("gpt_neox.layers.*.attention"),
            "embedding.token.weight": "gpt_neox.embed_in.weight",
            "blocks.*.norm1.*": "gpt_neox.layers.*.input_layernorm.*",
            "blocks.*.norm2.*": "gpt_neox.layers.*.post_attention_layernorm.*",
            "blocks.*.mixer.o_proj.*": "gpt_neox.layers.*.attention.dense.*",
            "blocks.*.ffn.up_proj.*": "gpt_neox.layers.*.mlp.dense_h_to_4h.*",
            "blocks.*.ffn.down_proj.*": "gpt_neox.layers.*.mlp.dense_4h_to_h.*",
            "norm.*": "gpt_neox.final_layer_norm.*",
            "head.proj.weight": "lm_head.weight",
        },
    ),
    "gptj": Family(
        decoder(
            {"position": {**ROPE, "interleaved": True, "fraction": 0.5}},
            {**MLP, "activation": "gelu_tanh"},
            norm=LAYERNORM,
            wiring="parallel",
            head={"kind": "lm", "tied": False, "bias": True},
        ),
        (),
        "gptj",
        "GPTJForCausalLM",
        {
            "vocab_size": VOCAB,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "rotary_dim": 4,
            "n_inner": 56,
            "n_positions": 48,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        {
            "embedding.token.weight": "transformer.wte.weight",
            "blocks.*.norm1.*": "transformer.h.*.ln_1.*",
            "blocks.*.mixer.o_proj.*": "transformer.h.*.attn.out_proj.*",
            "blocks.*.mixer.*": "transformer.h.*.attn.*",
            "blocks.*.ffn.up_proj.*": "transformer.h.*.mlp.fc_in.*",
            "blocks.*.ffn.down_proj.*": "transformer.h.*.mlp.fc_out.*",
            "norm.*": "transformer.ln_f.*",
            "head.proj.*": "lm_head.*",
        },
    ),
    "bloom": Family(
        decoder(
            {**BIASED, "position": "alibi"},
            {**MLP, "d_ff": 128, "activation": "gelu_tanh"},
            norm=LAYERNORM,
            embedding={"kind": "token", "norm": LAYERNORM},
            head={"kind": "lm", "tied": True},
        ),
        (),
        "bloom",
        "BloomForCausalLM",
        {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 2, "n_head": 4},
        {
            **fused("transformer.h.*.self_attention"),
            "embedding.token.weight": "transformer.word_embeddings.weight",
            "embedding.norm.*": "transformer.word_embeddings_layernorm.*",
            "blocks.*.norm1.*": "transformer.h.*.input_layernorm.*",
            "blocks.*.norm2.*": "transformer.h.*.post_attention_layernorm.*",
            "blocks.*.mixer.o_proj.*": "transformer.h.*.self_attention.dense.*",
            "blocks.*.ffn.up_proj.*": "transformer.h.*.mlp.dense_h_to_4h.*",
            "blocks.*.ffn.down_proj.*": "transformer.h.*.mlp.dense_4h_to_h.*",
            "norm.*": "transformer.ln_f.*",
        },
    ),
    "opt": Family(
        decoder(
            BIASED,
            {**MLP, "activation": "relu"},
            norm=LAYERNORM,
            embedding={"kind": "token", "position": {"kind": "learned", "offset": 2}},
            head={"kind": "lm", "tied": True},
        ),
        (),
        "opt",
        "OPTForCausalLM",
        {**SIZES, "ffn_dim": 56, "word_embed_proj_dim": 32},
        {
            "embedding.token.weight": "model.decoder.embed_tokens.weight",
            "embedding.position.table.weight": "model.decoder.embed_positions.weight",
            "blocks.*.norm1.*": "model.decoder.layers.*.self_attn_layer_norm.*",
            "blocks.*.norm2.*": "model.decoder.layers.*.final_layer_norm.*",
            "blocks.*.mixer.o_proj.*": "model.decoder.layers.*.self_attn.out_proj.*",
            "blocks.*.mixer.*": "model.decoder.layers.*.self_attn.*",
            "blocks.*.ffn.up_proj.*": "model.decoder.layers.*.fc1.*",
            "blocks.*.ffn.down_proj.*": "model.decoder.layers.*.fc2.*",
            "norm.*": "model.decoder.final_layer_norm.*",
        },
    ),
}


@pytest.mark.parametrize("name", MORE)
def test_written_here(name: str) -> None:
    check_decoder(MORE[name])


@torch.no_grad()
def test_longrope_in_a_text_beyond_the_training_length() -> None:
    ours, theirs = MORE["phi3 with LongRoPE"].pair()
    inputs = tokens(length=30)
    assert_same(ours(inputs), theirs(input_ids=inputs, use_cache=False).logits)
