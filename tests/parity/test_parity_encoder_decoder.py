"""Encoder-decoders of the transformers library, with padding in the encoder, at once and by the token."""

import pytest
import torch
from parity_checks import TOKENS, VOCAB, Family, Rules, assert_same, decoded, padded, stacked, tokens

SMALL = (
    "d_model=32",
    f"vocab_size={VOCAB}",
    "max_seq_len=48",
    "define.enc.mixer.n_heads=4",
    "define.dec.cross.n_heads=4",
)
SIZES = {
    "vocab_size": VOCAB,
    "d_model": 32,
    "d_kv": 8,
    "num_heads": 4,
    "d_ff": 128,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}


def stack(name: str, ffn: int, dense: str, experts: int = 0) -> Rules:
    """The tensors of one stack, whose feed-forward network is sub-layer `ffn` of a block."""
    block, layer = f"{name}.blocks.*", f"{name}.block.*.layer"
    table = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    rules = {
        f"{name}.position_bias.table.weight": table,
        f"{block}.norm1.weight": f"{layer}.0.layer_norm.weight",
        f"{block}.norm{ffn + 1}.weight": f"{layer}.{ffn}.layer_norm.weight",
        f"{block}.norm2.weight": f"{layer}.1.layer_norm.weight",
        f"{block}.mixer.*_proj.weight": f"{layer}.0.SelfAttention.*.weight",
        f"{block}.cross.*_proj.weight": f"{layer}.1.EncDecAttention.*.weight",
        f"{block}.ffn.up_proj.weight": f"{layer}.{ffn}.{dense}.wi.weight",
        f"{block}.ffn.down_proj.weight": f"{layer}.{ffn}.{dense}.wo.weight",
        f"{name}.norm.weight": f"{name}.final_layer_norm.weight",
    }
    if experts:
        each = f"{layer}.{ffn}.{dense}.experts.expert_{{}}"
        rules[f"{block}.ffn.router.weight"] = f"{layer}.{ffn}.{dense}.router.classifier.weight"
        rules[f"{block}.ffn.experts.up_proj"] = stacked(f"{each}.wi.weight", experts)
        rules[f"{block}.ffn.experts.down_proj"] = stacked(f"{each}.wo.weight", experts)
    return rules


def both(dense: str, experts: int = 0) -> Rules:
    """The one table of tokens and both stacks."""
    return {
        "encoder.embedding.token.weight": "shared.weight",
        **stack("encoder", 1, dense, experts),
        **stack("decoder", 2, dense, experts),
    }


FAMILIES = {
    "t5": Family(
        "t5_small",
        (*SMALL, "stacks.encoder.blocks=enc x2", "stacks.decoder.blocks=dec x3"),
        "t5",
        "T5ForConditionalGeneration",
        {**SIZES, "num_layers": 2, "num_decoder_layers": 3},
        both("DenseReluDense"),
    ),
    "switch_base": Family(
        "switch_base_8",
        (
            *SMALL,
            "stacks.encoder.blocks=(enc enc_moe)x2",
            "stacks.decoder.blocks=(dec dec_moe)x2",
            "define.enc_moe.ffn.n_experts=5",
            "define.dec_moe.ffn.n_experts=5",
        ),
        "switch_transformers",
        "SwitchTransformersForConditionalGeneration",
        {
            **SIZES,
            "num_layers": 4,
            "num_decoder_layers": 4,
            "num_sparse_encoder_layers": 2,
            "num_sparse_decoder_layers": 2,
            "num_experts": 5,
        },
        both("mlp", 5),
    ),
    "switch_c": Family(
        "switch_c",
        (
            *SMALL,
            "stacks.encoder.blocks=enc x2",
            "stacks.decoder.blocks=dec x2",
            "define.enc.mixer.head_dim=16",
            "define.dec.cross.head_dim=16",
            "define.enc.ffn.n_experts=6",
            "define.enc.ffn.d_ff=24",
        ),
        "switch_transformers",
        "SwitchTransformersForConditionalGeneration",
        {
            **SIZES,
            "d_kv": 16,
            "d_ff": 24,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "num_sparse_encoder_layers": 2,
            "num_sparse_decoder_layers": 2,
            "num_experts": 6,
        },
        both("mlp", 6),
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_published(name: str) -> None:
    ours, theirs = FAMILIES[name].pair()
    source, target = tokens(), tokens(seed=2, length=13)
    for mask in (None, padded(TOKENS, 9)):
        given = {} if mask is None else {"attention_mask": mask.long()}
        expected = theirs(input_ids=source, decoder_input_ids=target, use_cache=False, **given).logits
        assert_same(ours(source, target, encoder_mask=mask), expected)
        assert_same(decoded(ours, target, source, encoder_mask=mask), expected)
