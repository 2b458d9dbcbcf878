"""Bidirectional encoders of the transformers library, with segments and padding."""

import pytest
import torch
from parity_checks import TOKENS, VOCAB, Family, Rules, assert_same, built, library, padded, tokens

SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
SMALL = ("d_model=32", f"vocab_size={VOCAB}", "max_seq_len=48")
BERT: Rules = {
    "embedding.token.weight": "bert.embeddings.word_embeddings.weight",
    "embedding.position.table.weight": "bert.embeddings.position_embeddings.weight",
    "embedding.token_type.weight": "bert.embeddings.token_type_embeddings.weight",
    "embedding.norm.*": "bert.embeddings.LayerNorm.*",
    "blocks.*.mixer.q_proj.*": "bert.encoder.layer.*.attention.self.query.*",
    "blocks.*.mixer.k_proj.*": "bert.encoder.layer.*.attention.self.key.*",
    "blocks.*.mixer.v_proj.*": "bert.encoder.layer.*.attention.self.value.*",
    "blocks.*.mixer.o_proj.*": "bert.encoder.layer.*.attention.output.dense.*",
    "blocks.*.norm1.*": "bert.encoder.layer.*.attention.output.LayerNorm.*",
    "blocks.*.ffn.up_proj.*": "bert.encoder.layer.*.intermediate.dense.*",
    "blocks.*.ffn.down_proj.*": "bert.encoder.layer.*.output.dense.*",
    "blocks.*.norm2.*": "bert.encoder.layer.*.output.LayerNorm.*",
    "head.transform.*": "cls.predictions.transform.dense.*",
    "head.norm.*": "cls.predictions.transform.LayerNorm.*",
    "head.proj.bias": "cls.predictions.bias",
}
LAYER = "albert.encoder.albert_layer_groups.0.albert_layers.0"
ALBERT: Rules = {
    "embedding.token.weight": "albert.embeddings.word_embeddings.weight",
    "embedding.position.table.weight": "albert.embeddings.position_embeddings.weight",
    "embedding.token_type.weight": "albert.embeddings.token_type_embeddings.weight",
    "embedding.norm.*": "albert.embeddings.LayerNorm.*",
    "embedding.project.*": "albert.encoder.embedding_hidden_mapping_in.*",
    "blocks.0.mixer.q_proj.*": f"{LAYER}.attention.query.*",
    "blocks.0.mixer.k_proj.*": f"{LAYER}.attention.key.*",
    "blocks.0.mixer.v_proj.*": f"{LAYER}.attention.value.*",
    "blocks.0.mixer.o_proj.*": f"{LAYER}.attention.dense.*",
    "blocks.0.norm1.*": f"{LAYER}.attention.LayerNorm.*",
    "blocks.0.ffn.up_proj.*": f"{LAYER}.ffn.*",
    "blocks.0.ffn.down_proj.*": f"{LAYER}.ffn_output.*",
    "blocks.0.norm2.*": f"{LAYER}.full_layer_layer_norm.*",
    "head.transform.*": "predictions.dense.*",
    "head.norm.*": "predictions.LayerNorm.*",
    "head.proj.bias": "predictions.bias",
}
ALBERT_SPEC = {
    "d_model": 32,
    "vocab_size": VOCAB,
    "max_seq_len": 48,
    "mask": "bidirectional",
    "norm": {"kind": "layernorm", "eps": 1e-12},
    "wiring": "post",
    "embedding": {
        "kind": "token",
        "d_factor": 16,
        "position": {"kind": "learned", "dim": 16},
        "token_types": 2,
        "norm": {"kind": "layernorm", "eps": 1e-12},
    },
    "blocks": [
        {
            "repeat": 3,
            "share": True,
            "mixer": {"kind": "attention", "n_heads": 4, "qkv_bias": True, "out_bias": True},
            "ffn": {"kind": "mlp", "d_ff": 56, "activation": "gelu_tanh", "bias": True},
        }
    ],
    "head": {"kind": "masked_lm", "tied": True, "activation": "gelu_tanh"},
}
XLM: Rules = {
    "embedding.token.weight": "transformer.embeddings.weight",
    "embedding.position.table.weight": "transformer.position_embeddings.weight",
    "embedding.channels.langs.weight": "transformer.lang_embeddings.weight",
    "embedding.norm.*": "transformer.layer_norm_emb.*",
    "blocks.*.mixer.q_proj.*": "transformer.attentions.*.q_lin.*",
    "blocks.*.mixer.k_proj.*": "transformer.attentions.*.k_lin.*",
    "blocks.*.mixer.v_proj.*": "transformer.attentions.*.v_lin.*",
    "blocks.*.mixer.o_proj.*": "transformer.attentions.*.out_lin.*",
    "blocks.*.norm1.*": "transformer.layer_norm1.*.*",
    "blocks.*.ffn.up_proj.*": "transformer.ffns.*.lin1.*",
    "blocks.*.ffn.down_proj.*": "transformer.ffns.*.lin2.*",
    "blocks.*.norm2.*": "transformer.layer_norm2.*.*",
    "head.proj.bias": "pred_layer.proj.bias",
}
LONGFORMER: Rules = {
    **{
        name: theirs.replace("bert.", "longformer.", 1)
        for name, theirs in BERT.items()
        if isinstance(theirs, str) and name.partition(".")[0] in ("embedding", "blocks")
    },
    "head.transform.*": "lm_head.dense.*",
    "head.norm.*": "lm_head.layer_norm.*",
    "head.proj.bias": "lm_head.bias",
}

FAMILIES = {
    "bert": Family(
        "bert_base",
        (*SMALL, "blocks[0].repeat=2", "blocks[0].mixer.n_heads=4"),
        "bert",
        "BertForMaskedLM",
        {**SIZES, "num_hidden_layers": 2, "intermediate_size": 128},
        BERT,
    ),
    "albert": Family(
        ALBERT_SPEC,
        (),
        "albert",
        "AlbertForMaskedLM",
        {**SIZES, "num_hidden_layers": 3, "embedding_size": 16, "intermediate_size": 56},
        ALBERT,
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_masked_lm(name: str) -> None:
    ours, theirs = FAMILIES[name].pair()
    inputs = tokens()
    segments = (torch.arange(TOKENS) >= 7).long().expand(2, -1)
    mask = padded(TOKENS, 9)
    assert_same(ours(inputs), theirs(input_ids=inputs).logits)
    assert_same(ours(inputs, token_types=segments), theirs(input_ids=inputs, token_type_ids=segments).logits)
    expected = theirs(input_ids=inputs, token_type_ids=segments, attention_mask=mask.long()).logits
    actual = ours(inputs, token_types=segments, mask=mask)
    assert_same(actual[mask], expected[mask])


@torch.no_grad()
def test_xlm_knows_the_language_of_each_token() -> None:
    sizes = {
        "vocab_size": VOCAB,
        "emb_dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "n_langs": 5,
        "max_position_embeddings": 48,
    }
    settings = (*SMALL, "blocks[0].repeat=2", "blocks[0].mixer.n_heads=4", "embedding.channels.langs=5")
    ours, theirs = Family("xlm_15", settings, "xlm", "XLMWithLMHeadModel", sizes, XLM).pair()
    inputs, mask = tokens(), padded(TOKENS, 9)
    langs = (torch.arange(TOKENS) // 4).expand(2, -1)
    assert_same(ours(inputs, langs=langs), theirs(input_ids=inputs, langs=langs).logits)
    expected = theirs(input_ids=inputs, langs=langs, attention_mask=mask.long()).logits
    assert_same(ours(inputs, langs=langs, mask=mask)[mask], expected[mask])
    assert (ours(inputs) - ours(inputs, langs=langs)).abs().max() > 1e-3


@torch.no_grad()
def test_longformer_whose_global_tokens_share_the_projections() -> None:
    sizes = {**SIZES, "pad_token_id": 1, "max_position_embeddings": 50, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    sizes |= {"num_hidden_layers": 2, "intermediate_size": 128, "attention_window": [6, 6]}
    theirs = library("longformer", "LongformerForMaskedLM", **sizes)
    for layer in theirs.longformer.encoder.layer:  # type: ignore[union-attr]
        own = layer.attention.self  # type: ignore[union-attr]
        for name in ("query", "key", "value"):
            getattr(own, f"{name}_global").load_state_dict(getattr(own, name).state_dict())
    unused = [name for name, _ in theirs.named_parameters() if "_global" in name]
    settings = (*SMALL, "blocks[0].repeat=2", "blocks[0].mixer.n_heads=4", "blocks[0].mixer.window=4")
    ours = built("longformer_shared", theirs, LONGFORMER, settings, unused)
    inputs, mask = tokens(), padded(TOKENS, 11)
    flags = torch.zeros(2, TOKENS, dtype=torch.bool)
    flags[:, 0] = flags[0, 9] = True
    for real in (torch.ones_like(mask), mask):
        ids = inputs.masked_fill(~real, 1)  # their positions are counted by the padding token
        expected = theirs(input_ids=ids, attention_mask=real.long(), global_attention_mask=flags.long()).logits
        assert_same(ours(ids, mask=real, global_mask=flags)[real], expected[real])
    local = theirs(input_ids=inputs, attention_mask=torch.ones_like(inputs)).logits
    assert_same(ours(inputs), local)
