"""State space models and the hybrid of them with attention, from the published specs with small sizes."""

import pytest
from parity_checks import TOLERANCE, VOCAB, Family, Rules, Take, check_decoder, part

SMALL = ("d_model=32", f"vocab_size={VOCAB}", "max_seq_len=48")
SIZES = {"vocab_size": VOCAB, "hidden_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
STATE_SPACE: Rules = {
    "embedding.token.weight": "backbone.embeddings.weight",
    "blocks.*.norm1.*": "backbone.layers.*.norm.*",
    "blocks.*.mixer.*": "backbone.layers.*.mixer.*",
    "norm.*": "backbone.norm_f.*",
    "head.proj.weight": "lm_head.weight",
}


def shares(pattern: str) -> Take:
    """Theirs are (1, 1, channels)."""
    return Take(pattern, lambda t: t.flatten())


TIME_MIXING, CHANNEL_MIXING = "rwkv.blocks.*.attention", "rwkv.blocks.*.feed_forward"
RWKV4: Rules = {
    "embedding.token.weight": "rwkv.embeddings.weight",
    "embedding.norm.*": "rwkv.blocks.0.pre_ln.*",
    **{f"blocks.*.norm{i}.*": f"rwkv.blocks.*.ln{i}.*" for i in (1, 2)},
    **{
        f"blocks.*.{ours}.time_mix_{name[0]}": shares(f"{theirs}.time_mix_{name}")
        for ours, theirs in (("mixer", TIME_MIXING), ("ffn", CHANNEL_MIXING))
        for name in ("key", "value", "receptance")
    },
    **{
        f"blocks.*.{ours}.{name[0]}_proj.weight": f"{theirs}.{name}.weight"
        for ours, theirs in (("mixer", TIME_MIXING), ("ffn", CHANNEL_MIXING))
        for name in ("key", "value", "receptance")
    },
    "blocks.*.mixer.out_proj.weight": f"{TIME_MIXING}.output.weight",
    "blocks.*.mixer.*": f"{TIME_MIXING}.*",
    "norm.*": "rwkv.ln_out.*",
    "head.proj.weight": "head.weight",
}

FAMILIES = {
    "rwkv4": Family(
        "rwkv4_169m",
        (*SMALL, "blocks[0].repeat=3"),
        "rwkv",
        "RwkvForCausalLM",
        {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "rescale_every": 0},
        RWKV4,
    ),
    "mamba": Family(
        "mamba_130m",
        (*SMALL, "blocks[0].repeat=2"),
        "mamba",
        "MambaForCausalLM",
        {**SIZES, "num_hidden_layers": 2, "time_step_rank": 2, "tie_word_embeddings": True},
        STATE_SPACE,
    ),
    "mamba2": Family(
        "mamba2_130m",
        (*SMALL, "blocks[0].repeat=2", "blocks[0].mixer.head_dim=16", "blocks[0].mixer.d_state=24"),
        "mamba2",
        "Mamba2ForCausalLM",
        {
            **SIZES,
            "num_hidden_layers": 2,
            "num_heads": 4,
            "head_dim": 16,
            "state_size": 24,
            "n_groups": 1,
            "tie_word_embeddings": True,
        },
        STATE_SPACE,
    ),
    "mamba2 with groups and chunks": Family(
        "mamba2_130m",
        (
            *SMALL,
            "blocks[0].repeat=2",
            "blocks[0].mixer.head_dim=16",
            "blocks[0].mixer.d_state=24",
            "blocks[0].mixer.n_groups=2",
            "blocks[0].mixer.chunk=4",
        ),
        "mamba2",
        "Mamba2ForCausalLM",
        {
            **SIZES,
            "num_hidden_layers": 2,
            "num_heads": 4,
            "head_dim": 16,
            "state_size": 24,
            "n_groups": 2,
            "chunk_size": 8,
            "tie_word_embeddings": True,
        },
        STATE_SPACE,
    ),
    "falcon_mamba": Family(
        "falcon_mamba_7b",
        (*SMALL, "blocks[0].repeat=2"),
        "falcon_mamba",
        "FalconMambaForCausalLM",
        {**SIZES, "num_hidden_layers": 2, "time_step_rank": 2, "tie_word_embeddings": False},
        STATE_SPACE,
    ),
    "jamba": Family(
        "jamba_v0_1",
        (
            *SMALL,
            "d_model=96",
            "blocks=ssm ssm_moe ssm ssm_moe attn ssm_moe ssm ssm_moe",
            "define.attn.mixer.n_heads=4",
            "define.attn.mixer.n_kv_heads=2",
            "define.ssm_moe.ffn.n_experts=6",
        ),
        "jamba",
        "JambaForCausalLM",
        {
            **SIZES,
            "hidden_size": 96,
            "num_hidden_layers": 8,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 336,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "mamba_dt_rank": 6,
            "tie_word_embeddings": False,
        },
        {
            "embedding.token.weight": "model.embed_tokens.weight",
            "blocks.*.norm1.*": "model.layers.*.input_layernorm.*",
            "blocks.*.norm2.*": "model.layers.*.pre_ff_layernorm.*",
            **{f"blocks.4.mixer.{x}_proj.*": f"model.layers.4.self_attn.{x}_proj.*" for x in "qkvo"},
            "blocks.*.mixer.*_norm.*": "model.layers.*.mamba.*_layernorm.*",
            "blocks.*.mixer.*": "model.layers.*.mamba.*",
            "blocks.*.ffn.experts.gate_proj": part("model.layers.*.feed_forward.experts.gate_up_proj", 0, 2, dim=1),
            "blocks.*.ffn.experts.up_proj": part("model.layers.*.feed_forward.experts.gate_up_proj", 1, 2, dim=1),
            "blocks.*.ffn.*": "model.layers.*.feed_forward.*",
            "norm.*": "model.final_layernorm.*",
            "head.proj.weight": "lm_head.weight",
        },
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_published(name: str) -> None:
    # The library's Jamba rounds to float32 before it normalises the few numbers from which step sizes are made.
    check_decoder(FAMILIES[name], 1e-5 if name == "jamba" else TOLERANCE)
