"""Who sees whom, entry by entry and against the papers' masks and other implementations, whole and in tiles."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from kernel_checks import Face, assert_close, check, faces, is_an_operator, normal
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from archspec.kernels.attention import blocks as attention_blocks
from archspec.kernels.attention import softmax as family
from archspec.kernels.attention import tiles as attention_tiles
from archspec.kernels.attention.blocks import Scores
from archspec.kernels.attention.mask import Rules, document_ids, visible
from archspec.kernels.attention.operators import attend, attend_one
from archspec.kernels.attention.softmax import attention
from archspec.kernels.attention.tiles import tiles

found = importlib.util.spec_from_file_location("attention_by_entry", Path(__file__).parent / "definitions/attention.py")
definition = importlib.util.module_from_spec(found)
found.loader.exec_module(definition)

B, H, SHARED, D, DV = 2, 6, 2, 8, 5
SHAPES = ((33, 33), (7, 40), (1, 20))
RULES = {
    "causal": {"causal": True},
    "window": {"causal": True, "window": 9},
    "local": {"window": 5},
    "dilated": {"causal": True, "window": 3, "dilation": 4},
    "dilated both ways": {"window": 3, "dilation": 2},
    "dilated without an end": {"causal": True, "dilation": 3, "key_mask": True},
    "dilated, prefix, global": {"causal": True, "window": 3, "dilation": 4, "prefix_len": 3, "global_tokens": True},
    "dilated, prefix": {"causal": True, "dilation": 3, "prefix_len": torch.tensor([5, 0])},
    "dilated both ways, prefix": {"window": 3, "dilation": 2, "prefix_len": 4},
    "strided": {"causal": True, "pattern": "strided", "stride": 6},
    "strided, all": {
        "causal": True,
        "pattern": "strided",
        "stride": 5,
        "global_tokens": True,
        "prefix_len": 3,
        "documents": True,
    },
    "fixed": {"causal": True, "pattern": "fixed", "stride": 6, "summary": 2},
    "fixed, all": {
        "causal": True,
        "pattern": "fixed",
        "stride": 9,
        "summary": 1,
        "global_tokens": True,
        "key_mask": True,
        "prefix_len": torch.tensor([0, 4]),
    },
    "prefix": {"causal": True, "window": 4, "prefix_len": torch.tensor([3, 0])},
    "documents": {"causal": True, "documents": True},
    "documents both ways": {"documents": True},
    "documents, window": {"documents": True, "window": 4, "key_mask": True},
    "longformer": {"window": 4, "global_tokens": True},
    "longformer, causal": {
        "causal": True,
        "window": 4,
        "global_tokens": True,
        "documents": True,
        "key_mask": True,
    },
    "padding": {"key_mask": True},
}
EXTRAS = {
    "plain": (),
    "softcap": ("softcap",),
    "sinks": ("sinks",),
    "alibi": ("alibi",),
    "bias": ("bias",),
    "all": ("softcap", "sinks", "alibi", "bias"),
}


def rules(name, S):
    """The rule with tokens of both sequences: padding on the left and a hole, documents of several lengths."""
    tokens = {
        "key_mask": torch.stack((torch.arange(S) >= min(S // 2, 5), torch.arange(S) != S // 3)),
        "documents": torch.stack((torch.arange(S) // 7, torch.arange(S) // 11 * 3 % 4)),
        "global_tokens": torch.stack(((torch.arange(S) % (S - 1)) == 0, torch.arange(S) == S // 2)),
    }
    return {k: tokens.get(k, v) for k, v in RULES[name].items()}


def tensors(T, S, extras=()):
    """q, k, v, and what is trained besides, by name."""
    extra = {"sinks": normal(H), "alibi": 0.2 * normal(H).abs(), "bias": normal(H, 1, S)}
    return [normal(B, H, T, D), normal(B, SHARED, S, D), normal(B, SHARED, S, DV)], {
        name: extra[name] for name in extras if name in extra
    }


@pytest.fixture
def in_tiles(monkeypatch):
    """Every call goes to the operator, in tiles so small that there are many."""
    monkeypatch.setattr(family, "PAIRS_AT_ONCE", 0)
    monkeypatch.setattr(family, "PAIRS_WRITTEN_OUT", 0)
    monkeypatch.setattr(attention_blocks, "ROWS", 8)
    monkeypatch.setattr(attention_tiles, "FEWEST_ROWS", 4)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("T", "S"), SHAPES)
def test_the_mask_is_its_definition(name, T, S):
    wanted = definition.mask(B, T, S, **rules(name, S))
    mask = visible(T, S, **rules(name, S))
    assert torch.equal(
        torch.ones(1, dtype=torch.bool).expand_as(wanted) if mask is None else mask.expand_as(wanted), wanted
    )


def same(name, T, S, extras, face=None, tolerance=None):
    seen = definition.mask(B, T, S, **rules(name, S))
    given, trained = tensors(T, S, extras)
    options = {"softcap": 3.0} if "softcap" in extras else {}

    def fast(q, k, v, *more):
        moved = {k: x.to(q.device) if isinstance(x, torch.Tensor) else x for k, x in rules(name, S).items()}
        return attention(q, k, v, **moved, **options, **dict(zip(trained, more, strict=True)))

    def naive(q, k, v, *more):
        return definition.attention(q, k, v, seen, **options, **dict(zip(trained, more, strict=True)))

    check(fast, naive, [*given, *trained.values()], face, tolerance)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("extras", EXTRAS.values(), ids=EXTRAS)
def test_tiles_are_the_definition(name, extras, in_tiles):
    # a slope's gradient is a sum over all pairs, rounded where the scores' gradients are
    loose = {torch.float16: 2e-2, torch.bfloat16: 1e-1} if "alibi" in extras else None
    same(name, 33, 33, extras, tolerance=loose)


@pytest.mark.parametrize("name", ["window", "local", "dilated, prefix, global", "documents", "longformer", "padding"])
@pytest.mark.parametrize(("T", "S"), [(7, 40), (40, 40), (1, 20)])
def test_tiles_of_a_continuation(name, T, S, in_tiles):
    same(name, T, S, ("softcap", "sinks"))


@pytest.mark.parametrize("name", RULES)
def test_the_whole_mask_is_the_definition(name):
    same(name, 33, 33, ())
    same(name, 1, 20, ("sinks", "bias"))


@faces("triton")
def test_the_operator_calls_triton(face: Face, in_tiles):
    seen = definition.mask(1, 5, 5, causal=True, window=3)
    check(
        lambda q, k, v, sinks: attention(q, k, v, causal=True, window=3, sinks=sinks),
        lambda q, k, v, sinks: definition.attention(q, k, v, seen, sinks=sinks),
        [normal(1, 2, 5, D), normal(1, 1, 5, D), normal(1, 1, 5, DV), normal(2)],
        face,
    )


@pytest.mark.parametrize("options", [{"window": 5}, {"key_mask": torch.arange(14).view(2, 7) > 2}], ids=list)
def test_more_queries_than_keys_in_tiles(options, in_tiles):
    seen = definition.mask(B, 40, 7, **options)
    check(
        lambda q, k, v, sinks: attention(q, k, v, **options, sinks=sinks),
        lambda q, k, v, sinks: definition.attention(q, k, v, seen, sinks=sinks),
        [*tensors(40, 7)[0], normal(H)],
    )


def test_queries_that_see_nothing_in_tiles(in_tiles):
    key_mask = torch.ones(B, 33, dtype=torch.bool)
    key_mask[0, :20] = False
    for extra in ({}, {"softcap": 5.0}, {"sinks": torch.full((H,), -torch.inf)}, {"alibi": torch.ones(H)}):
        q, k, v = (x.float().requires_grad_() for x in tensors(33, 33)[0])
        y = attention(q, k, v, causal=True, key_mask=key_mask, **extra)
        y.square().sum().backward()
        assert y[0, :, :20].abs().max() == 0
        assert y[0, :, 20:].abs().min() > 0
        assert all(x.grad.isfinite().all() for x in (q, k, v))


# Against the papers and others


@pytest.mark.parametrize(("stride", "summary"), [(4, 1), (7, 3), (1, 1), (50, 50)])
def test_the_sparse_transformers_masks(stride, summary):
    options = {"causal": True, "stride": stride, "summary": summary}
    assert torch.equal(visible(40, 40, pattern="strided", **options), definition.strided(40, stride))
    assert torch.equal(visible(40, 40, pattern="fixed", **options), definition.fixed(40, stride, summary))
    assert torch.equal(visible(40, 40, causal=True, window=stride), definition.sliding(40, stride))


def test_is_longformers_attention(in_tiles):
    """Same weights for local and global projections; its window counts the tokens on both sides."""
    modeling = pytest.importorskip("transformers.models.longformer.modeling_longformer")
    config = modeling.LongformerConfig(
        hidden_size=H * D, num_attention_heads=H, attention_window=[8], num_hidden_layers=1
    )
    theirs = modeling.LongformerSelfAttention(config, 0).double().eval()
    for name in ("query", "key", "value"):
        getattr(theirs, f"{name}_global").load_state_dict(getattr(theirs, name).state_dict())
    T = 32
    x, is_global = normal(B, T, H * D), torch.zeros(B, T, dtype=torch.bool)
    is_global[0, 0] = is_global[1, 5] = is_global[1, 20] = True
    wanted = theirs(
        x,
        attention_mask=torch.where(is_global, 10000.0, 0.0).double(),
        is_index_masked=torch.zeros(B, T, dtype=torch.bool),
        is_index_global_attn=is_global,
        is_global_attn=True,
    )[0]
    q, k, v = (getattr(theirs, n)(x).view(B, T, H, D).transpose(1, 2) for n in ("query", "key", "value"))
    got = attention(q, k, v, window=5, global_tokens=is_global).transpose(1, 2).reshape(B, T, H * D)
    assert_close("longformer", got, wanted, 1e-6)  # its softmax is in float32
    assert torch.equal(
        visible(T, T, window=5, global_tokens=is_global)[1, 0], definition.longformer(T, 4, is_global[1])
    )


@pytest.mark.parametrize("tiled", [False, True])
def test_is_gpt_oss_and_gemma_2(tiled, request):
    if tiled:
        request.getfixturevalue("in_tiles")
    oss = pytest.importorskip("transformers.models.gpt_oss.modeling_gpt_oss")
    gemma = pytest.importorskip("transformers.models.gemma2.modeling_gemma2")
    T = 20
    (q, k, v), _ = tensors(T, T)
    v = normal(B, SHARED, T, D)
    hidden = torch.zeros(T, T, dtype=torch.float64).masked_fill(~definition.sliding(T, 6), -torch.inf)[None, None]
    sinks = normal(H)
    module = SimpleNamespace(num_key_value_groups=H // SHARED, sinks=sinks, training=False, head_dim=D)
    wanted = oss.eager_attention_forward(module, q, k, v, hidden, D**-0.5)[0].transpose(1, 2)
    assert_close("gpt-oss", attention(q, k, v, causal=True, window=6, sinks=sinks), wanted)
    wanted = gemma.eager_attention_forward(module, q, k, v, hidden, 0.0, 0.3, 5.0)[0].transpose(1, 2)
    got = attention(q, k, v, causal=True, window=6, softcap=5.0, scale=0.3)
    assert_close("gemma 2", got, wanted, 1e-6)  # its softmax is in float32


@pytest.mark.parametrize("tiled", [False, True])
def test_documents_are_sequences_of_their_own(tiled, request):
    if tiled:
        request.getfixturevalue("in_tiles")
    lengths = torch.tensor([5, 1, 17, 9])
    T = int(lengths.sum()) + 3
    documents = document_ids(lengths, T)
    assert documents.tolist() == [0] * 5 + [1] + [2] * 17 + [3] * 9 + [4] * 3
    q, k, v = (x[:1].requires_grad_() for x in tensors(T, T)[0])
    packed = attention(q, k, v, causal=True, documents=documents[None])
    pieces = [(x.split([*lengths.tolist(), 3], dim=2)) for x in (q, k, v)]
    apart = torch.cat([attention(*one, causal=True) for one in zip(*pieces, strict=True)], dim=2)
    assert_close("documents", packed, apart)
    cotangent = torch.randn_like(packed)
    for ours, theirs in zip(*(torch.autograd.grad(y, (q, k, v), cotangent) for y in (packed, apart)), strict=True):
        assert_close("gradient", ours, theirs)


# What tiles are for


@pytest.mark.parametrize("name", [n for n, r in RULES.items() if "key_mask" not in r])
@pytest.mark.parametrize(("T", "S"), [(64, 64), (9, 64)])
def test_tiles_hold_every_visible_pair_once(name, T, S, in_tiles):
    given = rules(name, S)
    if isinstance(given.get("prefix_len"), int):
        given["prefix_len"] = torch.tensor([given["prefix_len"]])
    given = Rules(**given)
    count = torch.zeros(B, T, S, dtype=torch.long)
    near = torch.zeros(T, dtype=torch.long)
    i, j = torch.arange(S - T, S), torch.arange(S)
    for tile in tiles(T, given, 8, j):
        mask = attention_blocks.seen(i[tile.queries], j[tile.keys], given, tile.part)
        rows, columns = torch.arange(T)[tile.queries], j[tile.keys]
        count[:, rows[:, None], columns] += torch.ones(1).bool() if mask is None else mask.view(-1, *mask.shape[-2:])
        near[rows] += tile.part == "near"
    wanted = definition.mask(B, T, S, **rules(name, S))[:, 0]
    assert torch.equal(count, wanted.long())
    assert near.max() <= 1


class Largest(TorchDispatchMode):
    """The number of entries of the largest tensor that any operation makes."""

    size = 0

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        result = f(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else (result,):
            if isinstance(x, torch.Tensor):
                self.size = max(self.size, x.numel())
        return result


@pytest.mark.parametrize(
    "options",
    [
        {"causal": True, "window": 64},
        {"causal": True, "window": 64, "sinks": True},
        {"causal": True, "softcap": 5.0, "alibi": True},
        {"causal": True, "pattern": "strided", "stride": 32},
        {"causal": True, "pattern": "fixed", "stride": 64, "summary": 2},
        {"window": 64, "global_tokens": True},
        {"causal": True, "documents": True},
    ],
    ids=lambda o: " ".join(o),
)
def test_memory_does_not_grow_as_the_square(options, monkeypatch):
    monkeypatch.setattr(family, "PAIRS_AT_ONCE", 0)
    sizes = []
    for T in (512, 2048):
        made = {
            "sinks": torch.zeros(2),
            "alibi": torch.ones(2, requires_grad=True),
            "global_tokens": (torch.arange(T) % (T // 8) == 0)[None],
            "documents": (torch.arange(T) // 128)[None],
        }
        given = {k: made[k] if v is True and k in made else v for k, v in options.items()}
        q, k, v = (torch.randn(1, 2, T, 8, requires_grad=True) for _ in range(3))
        with Largest() as largest:
            attention(q, k, v, **given).sum().backward()
        sizes.append(largest.size)
    assert sizes[1] < 2048 * 2048 / 4
    assert sizes[1] <= 4.5 * sizes[0]


def test_later_tokens_do_not_reach_earlier_outputs_of_tiles(in_tiles):
    for options in ({"window": 9}, {"softcap": 4.0}, {"sinks": torch.zeros(H)}, {"pattern": "strided", "stride": 5}):
        q, k, v = (x.float() for x in tensors(40, 40)[0])
        before = attention(q, k, v, causal=True, **options)
        k[:, :, 25:], v[:, :, 25:], q[:, :, 25:] = 7.0, -3.0, 2.0
        assert torch.equal(attention(q, k, v, causal=True, **options)[:, :, :25], before[:, :, :25])


def test_strides_and_types_may_differ(in_tiles):
    q, k, v = (x.float() for x in tensors(33, 33)[0])
    wanted = attention(q, k, v, causal=True, window=9)
    turned = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in (q, k, v)]
    assert_close("strides", attention(*turned, causal=True, window=9), wanted, 1e-6)
    mixed = attention(q, k.double(), v.bfloat16(), causal=True, window=9)
    assert mixed.dtype == torch.bfloat16
    assert_close("types", mixed, wanted, 3e-2)


def test_a_bias_without_a_gradient(in_tiles):
    (q, k, v), _ = tensors(33, 33)
    bias = normal(1, H, 33, 33)
    seen = definition.mask(B, 33, 33, causal=True)
    check(
        lambda *x: attention(*x, causal=True, bias=bias.to(x[0].dtype)),
        lambda *x: definition.attention(*x, seen, bias=bias),
        [q, k, v],
        tolerance={torch.float16: 1e-2, torch.bfloat16: 6e-2},  # the bias is rounded here alone
    )


def test_the_log_sum_exp_has_a_gradient(in_tiles):
    (q, k, v), _ = tensors(33, 33)
    settings = (*Scores(0.3, 0.0, None, None), None, *Rules(causal=True, window=9, stride=1, summary=1))

    def naive(q, k):
        scores = q @ k.repeat_interleave(H // SHARED, 1).mT * 0.3
        return scores.masked_fill(~definition.sliding(33, 9), -torch.inf).logsumexp(-1)

    def gradients(f):
        leaves = [x.clone().requires_grad_() for x in (q, k)]
        return torch.autograd.grad(f(*leaves).square().sum(), leaves)

    for ours, theirs in zip(gradients(lambda q, k: attend(q, k, v, *settings)[1]), gradients(naive), strict=True):
        assert_close("gradient", ours, theirs)


# Operators and errors


def test_the_operators_are_operators():
    q, k, v = (x[:, :, :9].float().requires_grad_() for x in tensors(9, 9)[0])
    alibi, sinks = torch.rand(H, requires_grad=True), torch.randn(H, requires_grad=True)
    rules = Rules(causal=True, window=4, stride=1, summary=1)
    is_an_operator(attend, q, k, v, *Scores(0.3, 0.0, None, alibi), sinks, *rules)
    is_an_operator(attend_one, q[:, :, :1].detach().requires_grad_(), k, v, None, sinks, 0, 0.3, 2.0)


def test_one_query_of_the_decoding_operator():
    (q, k, v), _ = tensors(1, 20)
    key_mask = rules("padding", 20)["key_mask"]
    check(
        lambda q, k, v, s: attend_one(q, k, v, key_mask, s, 0, 0.3, 2.0),
        lambda q, k, v, s: definition.attention(q, k, v, key_mask[:, None, None], 0.3, 2.0, s),
        [q, k, v, normal(H)],
    )


def test_flops_are_those_of_pytorchs_operator(in_tiles):
    q, k, v = (torch.randn(2, 4, 16, 8, device="meta", requires_grad=True) for _ in range(3))
    totals = []
    for options in ({"window": 5, "causal": True}, {"causal": True}):
        with FlopCounterMode(display=False) as counter:
            y = attention(q, k, v, **options)
        totals.append(counter.get_total_flops())
        with FlopCounterMode(display=False) as counter:
            y.sum().backward()
        totals.append(counter.get_total_flops())
    assert totals[:1] == totals[2:3] == [2 * 2 * 4 * 16 * 16 * 16]
    assert totals[1] == 2.5 * totals[0]


def test_compiles_in_tiles(in_tiles):
    q, k, v = (x.float() for x in tensors(33, 33)[0])
    torch.compiler.reset()
    f = torch.compile(
        lambda *x: attention(*x, causal=True, window=9, prefix_len=3), fullgraph=True, backend="aot_eager"
    )
    assert_close("compiled", f(q, k, v), attention(q, k, v, causal=True, window=9, prefix_len=3), 1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": (2, 4, 9, 8)}, "q has 6 heads, expected a multiple of the 4 of k and v"),
        (
            {"q": (2, 6, 10, 8), "causal": True},
            "causal with 10 queries and 9 keys, expected no fewer keys than queries",
        ),
        ({"window": 0}, "window is 0, expected at least 1 key"),
        ({"dilation": 0}, "dilation is 0, expected at least 1"),
        ({"pattern": "random"}, "pattern is 'random', expected one of None, 'strided', 'fixed'"),
        ({"pattern": "fixed", "stride": 3}, "pattern 'fixed' is causal and has no window or dilation"),
        ({"pattern": "strided", "causal": True}, "stride is None, expected at least 1 with pattern 'strided'"),
        (
            {"pattern": "fixed", "causal": True, "stride": 3, "summary": 4},
            "summary is 4, expected 1 to stride = 3 with pattern 'fixed'",
        ),
        ({"key_mask": torch.ones(2, 9)}, "key_mask is torch.float32, expected torch.bool"),
        ({"documents": torch.ones(2, 9)}, "documents is torch.float32, expected whole numbers"),
        ({"documents": torch.ones(9)}, "documents has shape (9,), expected (B S) with B = 2, S = 9"),
        (
            {"global_tokens": torch.ones(2, 9).bool(), "q": (2, 6, 10, 8)},
            "global_tokens with 10 queries and 9 keys, expected no fewer keys than queries",
        ),
        ({"prefix_len": torch.ones(3).long()}, "prefix_len has shape (3,), expected (B) with B = 2"),
        ({"bias": torch.ones(3, 9)}, "bias has shape (3, 9), expected one that broadcasts to (2, 6, 9, 9)"),
        ({"sinks": torch.ones(2)}, "sinks has shape (2,), expected (H) with H = 6"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, dict) else "",
)
def test_a_broken_contract_is_one_clear_error(options, message):
    shapes = {"q": (2, 6, 9, 8), "k": (2, 2, 9, 8), "v": (2, 2, 9, 5)}
    given = {name: torch.zeros(options.get(name, shape)) for name, shape in shapes.items()}
    if given["k"].shape[1] != 2:
        given["v"] = torch.zeros(2, given["k"].shape[1], 9, 5)
    rest = {k: v for k, v in options.items() if k not in shapes}
    with pytest.raises((ValueError, TypeError)) as error:
        attention(*given.values(), **rest)
    assert str(error.value) == f"attention: {message}"


def test_the_example_arguments_fit():
    for sizes in family.EXAMPLES:
        given = family.example(**sizes)
        y = attention(**given)
        assert y.shape == (*given["q"].shape[:3], given["v"].shape[3])
