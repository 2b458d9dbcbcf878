import itertools

import pytest
import torch
from kernel_checks import assert_close, check, compiles, normal, pieces

from archspec.kernels.attention.mask import visible
from archspec.kernels.attention.position_bias import alibi_slopes, t5_buckets
from archspec.kernels.attention.softmax import attention, reference
from archspec.kernels.state import append

B, H, SHARED, D, DV = 2, 6, 2, 8, 5
SHAPES = [(1, 1), (63, 63), (100, 100), (7, 40), (1, 33), (40, 7)]
OPTIONS = {
    "all": {},
    "causal": {"causal": True},
    "scale": {"causal": True, "scale": 0.3},
    "window": {"causal": True, "window": 9},
    "window_of_one": {"causal": True, "window": 1},
    "wide_window": {"causal": True, "window": 1000},
    "local": {"window": 5},
    "prefix": {"causal": True, "prefix_len": 6},
    "prefix_each": {"causal": True, "prefix_len": torch.tensor([3, 0])},
    "prefix_window": {"causal": True, "window": 4, "prefix_len": 3},
    "padding": {"key_mask": True},
    "causal_padding": {"causal": True, "key_mask": True},
    "window_padding": {"causal": True, "window": 3, "key_mask": True},
    "alibi": {"causal": True, "alibi": alibi_slopes(H).double()},
    "alibi_both_ways": {"alibi": alibi_slopes(H).double(), "key_mask": True},
    "everything": {"causal": True, "window": 7, "prefix_len": 2, "key_mask": True, "alibi": alibi_slopes(H).double()},
}


def inputs(T, S):
    return [normal(B, H, T, D), normal(B, SHARED, S, D), normal(B, SHARED, S, DV)]


def key_mask(S):
    """Padding on the left of the first sequence, a hole in the second."""
    mask = torch.ones(B, S, dtype=torch.bool)
    mask[0, : min(S // 2, 5)] = False
    mask[1, S // 3] = False
    return mask


def spelled_out(T, S, causal=False, window=None, prefix_len=None, key_mask=None, alibi=None):
    """Mask (B, 1, T, S) and bias, entry by entry from the words of the docstring."""
    mask, bias = torch.zeros(B, 1, T, S, dtype=torch.bool), torch.zeros(H, T, S, dtype=torch.float64)
    prefix = torch.as_tensor(0 if prefix_len is None else prefix_len).expand(B).tolist()
    window = S + T if window is None else window
    for b, i, j in itertools.product(range(B), range(T), range(S)):
        distance = i + S - T - j
        near = 0 <= distance < window if causal else abs(distance) < window
        mask[b, 0, i, j] = (near or j < prefix[b]) and (key_mask is None or bool(key_mask[b, j]))
        bias[:, i, j] = 0 if alibi is None else -alibi * abs(distance)
    return mask, bias


@pytest.mark.parametrize(
    ("name", "T", "S"),
    # causal attention has at least as many keys as queries
    [(name, T, S) for name in OPTIONS for T, S in SHAPES if T <= S or "causal" not in OPTIONS[name]],
)
def test_attention(name, T, S):
    options = dict(OPTIONS[name])
    if "key_mask" in options:
        options["key_mask"] = key_mask(S)
    mask, bias = spelled_out(T, S, **{k: v for k, v in options.items() if k != "scale"})

    def naive(q, k, v):
        return reference(q, k, v, mask, bias, options.get("scale"))

    check(lambda q, k, v: attention(q, k, v, **options), naive, inputs(T, S))


@pytest.mark.parametrize("name", ["causal", "window", "prefix_each", "window_padding", "everything"])
def test_the_explicit_path_agrees_with_the_fused_one(name):
    options = dict(OPTIONS[name])
    if "key_mask" in options:
        options["key_mask"] = key_mask(50)
    unheard = torch.full((H,), -torch.inf)  # a sink of weight zero

    def fused(q, k, v):
        return attention(q, k, v, **options)

    check(lambda q, k, v: attention(q, k, v, sinks=unheard, **options), fused, inputs(50, 50))


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize(("T", "S"), [(50, 50), (1, 20), (3, 20)])
def test_sinks_and_softcap(T, S, softcap):
    def naive(q, k, v, sinks, bias):
        k, v = k.repeat_interleave(H // SHARED, 1), v.repeat_interleave(H // SHARED, 1)
        scores = q @ k.mT * D**-0.5
        scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
        seen = spelled_out(T, S, causal=True, window=8)[0]
        weights = (scores + bias).exp() * seen
        return weights / (weights.sum(-1, keepdim=True) + sinks.exp()[:, None, None]) @ v

    def fast(q, k, v, sinks, bias):
        return attention(q, k, v, causal=True, window=8, softcap=softcap, sinks=sinks, bias=bias)

    check(fast, naive, [*inputs(T, S), normal(H), normal(1, H, T, S)])


@pytest.mark.parametrize("shape", [(H, 30, 30), (B, 1, 30, 30), (1, 1, 1, 30)])
def test_the_bias_has_a_gradient(shape):
    mask = spelled_out(30, 30, causal=True)[0]
    check(
        lambda q, k, v, bias: attention(q, k, v, causal=True, bias=bias),
        lambda q, k, v, bias: reference(q, k, v, mask, bias),
        [*inputs(30, 30), normal(*shape)],
    )


@pytest.mark.parametrize("extra", [{}, {"softcap": 5.0}, {"sinks": torch.zeros(H)}, {"alibi": alibi_slopes(H)}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_queries_that_see_no_key_give_zero_and_finite_gradients(extra, dtype):
    q, k, v = (x.to(dtype).requires_grad_() for x in inputs(9, 9))
    mask = torch.ones(B, 9, dtype=torch.bool)
    mask[0, :4] = False
    y = attention(q, k, v, causal=True, key_mask=mask, **extra)
    y.float().square().sum().backward()
    assert y[0, :, :4].abs().max() == 0
    assert y[0, :, 4:].abs().min() > 0
    assert all(x.grad.isfinite().all() for x in (q, k, v))


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("extra", [{}, {"softcap": 3.0}, {"alibi": alibi_slopes(H).double()}])
def test_whole_is_in_pieces_is_token_by_token(window, extra):
    q, k, v = inputs(29, 29)
    options = {"causal": True, "window": window, **extra}
    whole = attention(q, k, v, **options)
    for cuts in pieces(29):
        state, parts = {}, []
        with torch.no_grad():
            for c in cuts:
                keep = None if window is None else window - 1
                keys, values = append(state, keep=keep, k=k[:, :, c], v=v[:, :, c])
                parts.append(attention(q[:, :, c], keys, values, **options))
        assert_close("pieces", torch.cat(parts, 2), whole)


def test_later_tokens_do_not_reach_earlier_outputs():
    q, k, v = (x.float() for x in inputs(40, 40))
    before = attention(q, k, v, causal=True)
    k[:, :, 25:], v[:, :, 25:], q[:, :, 25:] = 7.0, -3.0, 2.0
    assert torch.equal(attention(q, k, v, causal=True)[:, :, :25], before[:, :, :25])


def test_dropout_keeps_the_mean():
    q, k, v = (x.float() for x in inputs(8, 64))
    v = torch.ones_like(v)
    for extra in ({}, {"softcap": 10.0}):
        y = torch.stack([attention(q, k, v, dropout=0.5, **extra) for _ in range(200)])
        assert y.std() > 0.05
        assert abs(y.mean() - 1) < 0.02


def test_no_mask_is_made_where_none_is_needed():
    assert visible(3, 5) is None
    assert visible(3, 5, causal=True).shape == (3, 5)


def test_alibi_slopes():
    assert alibi_slopes(8).tolist() == [2.0**-h for h in range(1, 9)]
    twelve = alibi_slopes(12)
    assert torch.equal(twelve[:8], alibi_slopes(8))
    assert torch.equal(twelve[8:], alibi_slopes(16)[::2][:4])
    assert alibi_slopes(1).tolist() == [2.0**-8]


@pytest.mark.parametrize("bidirectional", [True, False])
def test_t5_buckets_are_those_of_transformers(bidirectional):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    relative = torch.arange(300)[None] - torch.arange(300)[:, None]
    wanted = t5.T5Attention._relative_position_bucket(relative, bidirectional, 32, 100)
    assert torch.equal(t5_buckets(300, 300, 32, 100, bidirectional), wanted)
    assert torch.equal(t5_buckets(2, 300, 32, 100, bidirectional), wanted[-2:])


def test_meta():
    q, k, v = (x.to("meta", torch.bfloat16) for x in inputs(9, 9))
    for options in ({}, {"causal": True}, {"causal": True, "window": 3}, {"softcap": 2.0, "causal": True}):
        assert attention(q, k, v, **options).shape == (B, H, 9, DV)


def test_compile():
    q, k, v = (x.float() for x in inputs(12, 12))
    compiles(lambda q, k, v: attention(q, k, v, causal=True, window=5), q, k, v)
    compiles(lambda q, k, v: attention(q, k, v, causal=True, softcap=5.0), q, k, v)
    compiles(lambda q, k, v: attention(q, k, v, causal=True), q, k, v)


OF_EVERY_PATH = [
    {"causal": True},
    {"causal": True, "window": 5},
    {"causal": True, "softcap": 5.0},
    {"causal": True, "sinks": torch.zeros(H)},
    {"causal": True, "alibi": alibi_slopes(H)},
    {"window": 5},
]


@pytest.mark.parametrize("options", OF_EVERY_PATH, ids=" ".join)
def test_compiles_for_any_length(options):
    torch.compiler.reset()
    f = torch.compile(lambda *x: attention(*x, **options), fullgraph=True, dynamic=True, backend="aot_eager")
    for T in (12, 33):
        q, k, v = (x.float() for x in inputs(T, T))
        assert_close("compiled", f(q, k, v), attention(q, k, v, **options), 1e-5)


@pytest.mark.parametrize("options", OF_EVERY_PATH, ids=" ".join)
def test_exports_with_a_length_left_open(options):
    """Also for lengths on the other side of every choice by length."""

    class Model(torch.nn.Module):
        def forward(self, q, k, v):
            return attention(q, k, v, **options)

    length = torch.export.Dim("length", min=2, max=4096)
    given = tuple(x.float() for x in inputs(12, 12))
    program = torch.export.export(Model(), given, dynamic_shapes=({2: length},) * 3).module()
    for T in (3, 600):
        q, k, v = (x.float() for x in inputs(T, T))
        assert_close("exported", program(q, k, v), attention(q, k, v, **options), 1e-5)


@pytest.mark.parametrize("options", OF_EVERY_PATH, ids=" ".join)
@pytest.mark.parametrize("T", [12, 520])
def test_autocast_leaves_the_type_of_the_values(options, T):
    q, k, v = (x.float() for x in inputs(T, T))
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(q, k, v, **options).dtype == torch.float32
        assert attention(q, k, v.bfloat16(), **options).dtype == torch.bfloat16


@pytest.mark.parametrize("options", OF_EVERY_PATH, ids=" ".join)
def test_products_larger_than_float16_are_no_overflow(options):
    q, k, v = (x.half() for x in inputs(12, 12))
    q, k = 300 * q, 300 * k
    wanted = attention(q.double(), k.double(), v.double(), **options)
    assert (q.double() @ k.double().repeat_interleave(H // SHARED, 1).mT).abs().max() > 1e5
    assert_close("output", attention(q, k, v, **options), wanted, 1e-3)
