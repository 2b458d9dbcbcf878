from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AlbertConfig,
    BertConfig,
    BertForSequenceClassification,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2ForSequenceClassification,
)
from transformers.models.albert.modeling_albert import AlbertMLMHead
from transformers.models.bert.modeling_bert import BertLMPredictionHead

from archspec.codegen import generate
from archspec.diagram.render import diagram
from archspec.errors import SpecError
from archspec.language.load import load
from archspec.language.resolve import make
from archspec.layers.ops import Op, Run
from archspec.layers.registry import find, kinds
from archspec.modules import submodule

SIZES = {"d_model": 16, "d_embedding": 16, "vocab_size": 11, "norm": {"kind": "layernorm", "eps": 1e-12}}
EXAMPLES = [(kind, fields) for kind in kinds("head") for fields in find("head", kind).examples]


def head(kind: str, **fields: object) -> nn.Module:
    return submodule(make("head", {"kind": kind, **fields}, **SIZES)).eval()


def size(ops: tuple[Op, ...]) -> int:
    return sum(p.numel for op in ops for p in op.params)


@pytest.mark.parametrize(("kind", "fields"), EXAMPLES)
def test_ops_are_the_module(kind, fields):
    with torch.device("meta"):
        module = head(kind, **fields)
    c = module.c
    declared = [(p.name, p.shape) for op in c.ops() for p in op.params]
    tied = {"proj.weight"} if getattr(c, "tied", False) else set()
    assert declared == [(name, tuple(p.shape)) for name, p in module.named_parameters() if name not in tied]
    with FlopCounterMode(display=False) as counter:
        y = module(torch.empty(2, 7, 16, device="meta"))
    assert sum(op.flops(Run(B=2, T=7)) for op in c.ops()) == counter.get_total_flops()
    wanted = c.ops()[-1].shape
    assert tuple(y.shape) == tuple({"B": 2, "T": 7}.get(d, d) for d in wanted)


@pytest.mark.parametrize(("kind", "fields"), EXAMPLES)
def test_compiles(kind, fields):
    torch._dynamo.reset()
    module, x = head(kind, **fields), torch.randn(2, 7, 16)
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(x), module(x))


def test_masked_lm_is_berts():
    theirs = BertLMPredictionHead(BertConfig(vocab_size=11, hidden_size=16, num_attention_heads=2))
    ours = head("masked_lm")
    ours.load_state_dict(
        {
            "transform.weight": theirs.transform.dense.weight,
            "transform.bias": theirs.transform.dense.bias,
            "norm.weight": theirs.transform.LayerNorm.weight,
            "norm.bias": theirs.transform.LayerNorm.bias,
            "proj.weight": theirs.decoder.weight,
            "proj.bias": theirs.decoder.bias,
        }
    )
    x = torch.randn(2, 7, 16)
    torch.testing.assert_close(ours(x), theirs(x))


def test_masked_lm_is_alberts():
    config = AlbertConfig(vocab_size=11, embedding_size=6, hidden_size=16, num_attention_heads=2)
    theirs = AlbertMLMHead(config)
    ours = head("masked_lm", d_embed=6, activation="gelu_tanh")
    ours.load_state_dict(
        {
            "transform.weight": theirs.dense.weight,
            "transform.bias": theirs.dense.bias,
            "norm.weight": theirs.LayerNorm.weight,
            "norm.bias": theirs.LayerNorm.bias,
            "proj.weight": theirs.decoder.weight,
            "proj.bias": theirs.decoder.bias,
        }
    )
    x = torch.randn(2, 7, 16)
    torch.testing.assert_close(ours(x), theirs(x))


def test_published_totals():
    """What stands around the 12 layers of BERT base and ViT base, by the published totals of the whole models."""
    layers = 12 * 7_087_872
    wide = {"d_model": 768, "d_embedding": 768, "norm": "layernorm", "vocab_size": 30522, "max_seq_len": 512}
    tokens = {"kind": "token", "position": "learned", "token_types": 2, "norm": "layernorm"}
    bert = size(make("embedding", tokens, **wide).ops()) + size(make("head", "masked_lm", **wide).ops())
    assert bert + layers == 109_514_298
    patches = {
        "kind": "patch",
        "image_size": 224,
        "patch_size": 16,
        "position": {"kind": "learned", "n_positions": 197},
    }
    classes = {"kind": "classification", "n_classes": 1000}
    vit = size(make("embedding", patches, **wide).ops()) + size(make("head", classes, **wide).ops())
    assert vit + layers + 2 * 768 == 86_567_656


SMALL = {"vocab_size": 11, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
         "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}  # fmt: skip


@pytest.mark.parametrize(
    ("theirs", "fields"),
    [
        (Gemma2ForCausalLM(Gemma2Config(**SMALL, final_logit_softcapping=2.0)), {"softcap": 2.0}),
        (CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.25)), {"scale": 0.25}),
    ],
    ids=["gemma2", "cohere"],
)
def test_lm_is_that_of_published_models(theirs, fields):
    ours, theirs = head("lm", tied=True, **fields), theirs.eval()
    ours.proj.weight = theirs.lm_head.weight
    nn.init.normal_(ours.proj.weight)
    tokens = torch.randint(1, 11, (2, 7))
    x = theirs.model(tokens).last_hidden_state
    torch.testing.assert_close(ours(x), theirs(tokens).logits)


def test_narrow_lm():
    module, x = head("lm", d_embed=6, bias=True), torch.randn(2, 7, 16)
    wanted = x @ module.project.weight.T @ module.proj.weight.T + module.proj.bias
    torch.testing.assert_close(module(x), wanted)
    assert make("head", "lm", **(SIZES | {"d_embedding": 6})).d_embed == 6


def test_classification_is_berts():
    config = BertConfig(
        vocab_size=11, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=3
    )
    theirs = BertForSequenceClassification(config).eval()
    ours = head("classification", n_classes=3, hidden=16, dropout=0.1)
    ours.pooler.load_state_dict(theirs.bert.pooler.dense.state_dict())
    ours.proj.load_state_dict(theirs.classifier.state_dict())
    tokens = torch.randint(11, (2, 7))
    torch.testing.assert_close(ours(theirs.bert(tokens).last_hidden_state), theirs(tokens).logits)


def test_last_real_token_is_gpt2s():
    config = GPT2Config(vocab_size=11, n_embd=16, n_layer=1, n_head=2, n_positions=32, num_labels=3, pad_token_id=0)
    theirs = GPT2ForSequenceClassification(config).eval()
    ours = head("classification", n_classes=3, pool="last", bias=False)
    ours.proj.load_state_dict(theirs.score.state_dict())
    tokens = torch.randint(1, 11, (3, 7))
    tokens[0, 4:], tokens[1, 6:] = 0, 0
    x = theirs.transformer(tokens).last_hidden_state
    torch.testing.assert_close(ours(x, tokens != 0), theirs(tokens).logits)
    torch.testing.assert_close(ours(x)[2], theirs(tokens).logits[2])


@pytest.mark.parametrize("module", [head("classification", n_classes=3, pool="mean"), head("regression")], ids=type)
def test_mean_of_real_tokens(module):
    x, mask = torch.randn(2, 7, 16), torch.ones(2, 7, dtype=torch.bool)
    torch.testing.assert_close(module(x, mask), module(x))
    mask[0, 4:] = False
    wanted = module.proj(torch.stack((x[0, :4].mean(0), x[1].mean(0))))
    torch.testing.assert_close(module(x, mask), wanted)
    assert module.c.arguments == ("mask",)
    assert not module.c.causal


def test_regression_and_none():
    x = torch.randn(2, 7, 16)
    tracks = head("regression", n_outputs=3, pool="none")
    assert torch.equal(tracks(x), tracks.proj(x))
    assert tracks.c.causal
    first, last = head("regression", pool="first"), head("regression", pool="last")
    torch.testing.assert_close(first(x), first.proj(x[:, 0]))
    torch.testing.assert_close(last(x), last.proj(x[:, -1]))
    assert head("none")(x) is x


@pytest.mark.parametrize("n_patches", [4, 9])
def test_middle_token_is_the_class_token(n_patches):
    side = 4 * int(n_patches**0.5)
    patches = {"kind": "patch", "image_size": side, "patch_size": 4, "class_token": "middle"}
    embed, classify = submodule(make("embedding", patches, **SIZES)), head("classification", n_classes=3, pool="middle")
    found = classify(embed(torch.randn(1, 3, side, side)))
    torch.testing.assert_close(found, classify.proj(embed.class_token[0]))


def test_dropout_only_in_training():
    x = torch.randn(2, 7, 16)
    for kind, fields in (("classification", {"n_classes": 3}), ("regression", {"pool": "none"})):
        module = head(kind, dropout=0.5, **fields)
        assert torch.equal(module(x), module(x))
        module.train()
        assert not torch.equal(module(x), module(x))


def test_an_unknown_pool_is_refused():
    with pytest.raises(SpecError, match="pool = 'max' must be one of first, middle, last, mean"):
        head("classification", n_classes=3, pool="max")


@pytest.mark.parametrize(
    ("head", "mixer", "said"),
    [
        ("lm", {"mask": "causal"}, "logits of the next token"),
        ("lm", {"mask": "prefix"}, "logits of the next token"),
        ("lm", {"mask": "bidirectional", "position": "rope"}, "logits of every token"),
        ("masked_lm", {"mask": "bidirectional", "position": "rope"}, "logits of every token"),
        ({"kind": "classification", "n_classes": 3, "pool": "mean"}, {}, "class scores"),
        ("regression", {}, "predictions"),
        ({"kind": "regression", "pool": "none"}, {}, "predictions for every token"),
        ("none", {}, "hidden states"),
    ],
)
def test_the_model_says_what_its_head_gives(head: Any, mixer: dict[str, Any], said: str) -> None:
    blocks = [{"mixer": {"kind": "attention", "n_heads": 2, **mixer}}]
    spec = load({"d_model": 8, "vocab_size": 5, "max_seq_len": 8, "blocks": blocks, "head": head})
    assert f'"""Tokens in, {said} out."""' in generate(spec)
    assert said in diagram(spec).replace("&#160;", " ")
