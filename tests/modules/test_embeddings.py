import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AlbertConfig, BertConfig, GPT2Config, OPTConfig, ViTConfig
from transformers.models.albert.modeling_albert import AlbertEmbeddings
from transformers.models.bert.modeling_bert import BertEmbeddings
from transformers.models.gpt2.modeling_gpt2 import GPT2Model
from transformers.models.m2m_100.modeling_m2m_100 import M2M100SinusoidalPositionalEmbedding
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding
from transformers.models.opt.modeling_opt import OPTLearnedPositionalEmbedding
from transformers.models.vit.modeling_vit import ViTEmbeddings

from archspec.errors import SpecError
from archspec.language.resolve import make
from archspec.layers.ops import Run
from archspec.layers.registry import find, kinds
from archspec.modules import submodule

SIZES = {"d_model": 16, "vocab_size": 11, "max_seq_len": 32}
EXAMPLES = [(kind, fields) for kind in kinds("embedding") for fields in find("embedding", kind).examples]


def embedding(kind: str = "token", **fields: object) -> nn.Module:
    return submodule(make("embedding", {"kind": kind, **fields}, **SIZES)).eval()


def position(kind: str, **fields: object) -> nn.Module:
    return submodule(make("absolute_position", {"kind": kind, **fields}, **SIZES))


def copy(module: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Load tensors by our names, every one of them."""
    module.load_state_dict(tensors, strict=True)


def inputs(c, B: int = 2, T: int = 7, device: str = "cpu") -> torch.Tensor:
    shape = Run(B=B, T=T).shape(c.input_shape)
    if c.n_ids is None:
        return torch.randn(shape, device=device)
    return torch.zeros(shape, dtype=torch.long, device=device) if device == "meta" else torch.randint(c.n_ids, shape)


@pytest.mark.parametrize(("kind", "fields"), EXAMPLES)
def test_ops_are_the_module(kind, fields):
    with torch.device("meta"):
        module = embedding(kind, **fields)
    c = module.c
    declared = [(p.name, p.shape) for op in c.ops() for p in op.params]
    assert declared == [(name, tuple(p.shape)) for name, p in module.named_parameters()]
    with FlopCounterMode(display=False) as counter:
        y = module(inputs(c, device="meta"))
    assert sum(op.flops(Run(B=2, T=7)) for op in c.ops()) == counter.get_total_flops()
    assert y.shape == (2, 7 if c.n_tokens == "T" else c.n_tokens, 16)


@pytest.mark.parametrize(("kind", "fields"), EXAMPLES)
def test_compiles(kind, fields):
    module = embedding(kind, **fields)
    x = inputs(module.c)
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(x), module(x))


@pytest.mark.parametrize(("kind", "fields"), [(k, f) for k, f in EXAMPLES if k != "patch"])
def test_one_by_one_is_all_at_once(kind, fields):
    module = embedding(kind, **fields).double()
    x = inputs(module.c)
    x = x.double() if x.is_floating_point() else x
    whole, state, pieces = module(x), {}, {}
    steps = [module(x[:, t : t + 1], **({"state": state} if "state" in module.c.arguments else {})) for t in range(7)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=0, atol=1e-12)
    if "state" in module.c.arguments:
        parts = [module(x[:, :3], pieces), module(x[:, 3:], pieces)]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-12)


def test_bert():
    config = BertConfig(
        vocab_size=11, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=32,
        layer_norm_eps=1e-3,
    )  # fmt: skip
    theirs = BertEmbeddings(config).eval()
    norm = {"kind": "layernorm", "eps": 1e-3}
    ours = embedding(position="learned", token_types=2, norm=norm)
    copy(
        ours,
        {
            "token.weight": theirs.word_embeddings.weight,
            "position.table.weight": theirs.position_embeddings.weight,
            "token_type.weight": theirs.token_type_embeddings.weight,
            "norm.weight": theirs.LayerNorm.weight,
            "norm.bias": theirs.LayerNorm.bias,
        },
    )
    tokens, segments = torch.randint(11, (2, 9)), torch.randint(2, (2, 9))
    torch.testing.assert_close(ours(tokens), theirs(tokens))
    torch.testing.assert_close(ours(tokens, token_types=segments), theirs(tokens, token_type_ids=segments))


def test_albert_is_factorised():
    config = AlbertConfig(
        vocab_size=11, embedding_size=6, hidden_size=16, num_attention_heads=2, max_position_embeddings=32
    )
    theirs, widen = AlbertEmbeddings(config).eval(), nn.Linear(6, 16)
    norm = {"kind": "layernorm", "eps": config.layer_norm_eps}
    ours = embedding(position={"kind": "learned", "dim": 6}, token_types=2, norm=norm, d_factor=6)
    copy(
        ours,
        {
            "token.weight": theirs.word_embeddings.weight,
            "position.table.weight": theirs.position_embeddings.weight,
            "token_type.weight": theirs.token_type_embeddings.weight,
            "norm.weight": theirs.LayerNorm.weight,
            "norm.bias": theirs.LayerNorm.bias,
            "project.weight": widen.weight,
            "project.bias": widen.bias,
        },
    )
    tokens = torch.randint(11, (2, 9))
    torch.testing.assert_close(ours(tokens), widen(theirs(tokens)))
    assert ours.c.table_width == 6


def test_gpt2_with_and_without_a_past():
    config = GPT2Config(vocab_size=11, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    theirs = GPT2Model(config).eval()
    ours = embedding(position="learned")
    copy(ours, {"token.weight": theirs.wte.weight, "position.table.weight": theirs.wpe.weight})
    tokens, state = torch.randint(11, (2, 9)), {}
    wanted = theirs(tokens, output_hidden_states=True).hidden_states[0]
    torch.testing.assert_close(ours(tokens), wanted)
    torch.testing.assert_close(torch.cat((ours(tokens[:, :5], state), ours(tokens[:, 5:], state)), dim=1), wanted)


def test_vit():
    config = ViTConfig(hidden_size=16, image_size=12, patch_size=4, num_attention_heads=2)
    theirs = ViTEmbeddings(config).eval()
    nn.init.normal_(theirs.position_embeddings)
    ours = embedding("patch", image_size=12, patch_size=4, position={"kind": "learned", "n_positions": 10})
    projection = theirs.patch_embeddings.projection
    copy(
        ours,
        {
            "class_token": theirs.cls_token,
            "project.weight": projection.weight,
            "project.bias": projection.bias,
            "position.table.weight": theirs.position_embeddings[0],
        },
    )
    images = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(ours(images), theirs(images))


def test_class_token_in_the_middle():
    module = embedding("patch", image_size=12, patch_size=4, class_token="middle", channels=1)
    images = torch.randn(2, 1, 12, 12)
    y = module(images)
    assert torch.equal(y[:, 4], module.class_token[0].expand(2, -1))
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4).reshape(2, 9, 16)  # row by row
    wanted = patches @ module.project.weight.flatten(1).T + module.project.bias
    torch.testing.assert_close(torch.cat((y[:, :4], y[:, 5:]), dim=1), wanted, atol=1e-5, rtol=1e-5)


def test_scale_multiplies_the_token_alone():
    module = embedding(scale="sqrt(d_model)", position="learned")
    tokens = torch.randint(11, (2, 5))
    assert torch.equal(module(tokens), module.token.weight[tokens] * 4 + module.position.table.weight[:5])


def test_sinusoidal_is_the_papers_formula():
    module = position("sinusoidal")
    y = module(torch.zeros(1, 6, 16, dtype=torch.float64), 40)
    assert y.dtype == torch.float64
    for t in range(6):
        for i in range(8):
            angle = (40 + t) / 10000 ** (2 * i / 16)
            assert y[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert y[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_sinusoidal_is_marians_and_fairseqs():
    x = torch.zeros(1, 9, 16)
    marian = MarianSinusoidalPositionalEmbedding(9, 16)
    marian.weight.data = marian.create_weight()
    torch.testing.assert_close(position("sinusoidal", layout="half")(x), marian.weight[:9], atol=1e-6, rtol=1e-5)
    fairseq = M2M100SinusoidalPositionalEmbedding(20, 16, padding_idx=1)
    ours = position("sinusoidal", layout="half", endpoint=True, offset=2)
    torch.testing.assert_close(ours(x), fairseq.weights[2:11], atol=1e-6, rtol=1e-5)


def test_learned_offset_is_opts():
    config = OPTConfig(max_position_embeddings=32, hidden_size=16)
    theirs = OPTLearnedPositionalEmbedding(config.max_position_embeddings, config.hidden_size)
    ours = position("learned", offset=2)
    ours.table.load_state_dict(theirs.state_dict())
    assert torch.equal(ours(torch.zeros(1, 9, 16)), theirs(torch.ones(1, 9, dtype=torch.long))[0])


def test_more_tokens_than_positions():
    module = embedding(position={"kind": "learned", "n_positions": 4})
    state = {}
    module(torch.zeros(1, 4, dtype=torch.long), state)
    for tokens, past in ((5, None), (1, state)):
        with pytest.raises(IndexError, match="5 tokens, but there are learned positions for 4: cut the sequence to 4"):
            module(torch.zeros(1, tokens, dtype=torch.long), past)


def test_images_of_another_size():
    module = embedding("patch", image_size=8, patch_size=4)
    with pytest.raises(ValueError, match=r"images are \(2, 3, 8, 9\); they must be \(B, 3, 8, 8\)"):
        module(torch.zeros(2, 3, 8, 9))


def test_dropout_only_in_training():
    for kind, fields in (("token", {}), ("features", {"d_input": 3}), ("patch", {"image_size": 8, "patch_size": 4})):
        module = embedding(kind, dropout=0.5, **fields)
        x = inputs(module.c)
        assert torch.equal(module(x), module(x))
        assert (module.train()(x) == 0).float().mean() > 0.3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"kind": "token", "d_factor": 6, "position": {"kind": "learned", "dim": 16}},
            "position.dim = 16 must be the width of the token table, 6",
        ),
        ({"kind": "token", "factor_bias": False}, "factor_bias has no effect when d_factor is none"),
        ({"kind": "patch", "image_size": 9, "patch_size": 4}, "image_size = 9 must be a multiple of patch_size = 4"),
        (
            {"kind": "patch", "image_size": 8, "patch_size": 4, "position": "learned"},
            "position.n_positions = 32 must be 5, the tokens of an image",
        ),
        (
            {"kind": "features", "d_input": 3, "position": {"kind": "learned", "dim": 8}},
            "position.dim = 8 must be d_model = 16",
        ),
        (
            {"kind": "token", "position": {"kind": "sinusoidal", "endpoint": True}},
            "endpoint has no effect when layout is",
        ),
    ],
)
def test_what_embeddings_refuse(fields, message):
    with pytest.raises(SpecError) as error:
        make("embedding", fields, **SIZES)
    assert message in str(error.value)


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_positions_are_as_wide_as_a_factorised_table(position: str) -> None:
    c = make(
        "embedding", {"kind": "token", "d_factor": 4, "position": position}, d_model=16, vocab_size=5, max_seq_len=8
    )
    assert c.position.dim == 4  # type: ignore[attr-defined]
    wide = {"kind": "token", "d_factor": 4, "position": {"kind": position, "dim": 16}}
    with pytest.raises(SpecError, match="must be the width of the token table, 4"):
        make("embedding", wide, d_model=16, vocab_size=5, max_seq_len=8)
