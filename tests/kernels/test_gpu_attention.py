"""The Triton kernels of attention against their definition, called as they are, in blocks so small that many meet."""

from typing import Any

import pytest
import torch
from kernel_checks import TOLERANCE, assert_close, poisoned
from torch import Tensor

pytest.importorskip("triton")
if torch.cuda.is_available():
    pytest.skip("the tests of the operator run these kernels on the GPU", allow_module_level=True)

from archspec.kernels.attention.blocks import Scores
from archspec.kernels.attention.mask import Rules
from archspec.kernels.gpu import attention, attention_backward, decode_attention

SETTINGS: dict[str, Any] = {
    "bias": None,
    "alibi": None,
    "sinks": None,
    "key_mask": None,
    "prefix_len": None,
    "documents": None,
    "global_tokens": None,
    "causal": False,
    "window": 0,
    "dilation": 1,
    "pattern": "",
    "stride": 0,
    "summary": 0,
    "scale": 0.3,
    "softcap": 0.0,
}
B, H, SHARED, D, DV = 2, 3, 1, 20, 12


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    small = {"ROWS": 16, "COLUMNS": 16, "num_warps": 4, "num_stages": 1}
    monkeypatch.setattr(attention, "_sizes", lambda *_: small)
    monkeypatch.setattr(attention_backward, "_sizes", lambda *_: small)
    monkeypatch.setattr(attention_backward, "ENOUGH", 1)
    monkeypatch.setattr(decode_attention, "ENOUGH", 12)
    monkeypatch.setattr(decode_attention, "SHORTEST", 16)
    monkeypatch.setattr(
        decode_attention, "_sizes", lambda *_: {"LINES": 16, "COLUMNS": 16, "num_warps": 4, "num_stages": 1}
    )


def arguments(s: dict[str, Any]) -> tuple[Scores, Tensor | None, Rules]:
    """Settings as the kernels take them."""
    return Scores(*(s[n] for n in Scores._fields)), s["sinks"], Rules(*(s[n] for n in Rules._fields))


def visible(T: int, S: int, batch: int, s: dict[str, Any]) -> Tensor:
    """(B, T, S), pair by pair."""
    seen = torch.zeros(batch, T, S, dtype=torch.bool)
    for b in range(batch):
        for t in range(T):
            for j in range(S):
                seen[b, t, j] = sees(b, S - T + t, j, s)
    return seen


def sees(b: int, i: int, j: int, s: dict[str, Any]) -> bool:
    d = i - j
    ordered = d >= 0 or not (s["causal"] or s["pattern"])
    near = ordered and d % s["dilation"] == 0 and (not s["window"] or abs(d) < s["window"] * s["dilation"])
    if s["pattern"] == "strided":
        near = near and (d < s["stride"] or d % s["stride"] == 0)
    elif s["pattern"] == "fixed":
        near = near and (i // s["stride"] == j // s["stride"] or j % s["stride"] >= s["stride"] - s["summary"])
    if s["global_tokens"] is not None:
        wide = s["global_tokens"][b]
        near = near or (ordered and bool(wide[j] or (i >= 0 and wide[i])))
    if s["prefix_len"] is not None:
        near = near or j < s["prefix_len"][b]
    if s["documents"] is not None:
        near = near and bool(s["documents"][b, i] == s["documents"][b, j])
    return near and (s["key_mask"] is None or bool(s["key_mask"][b, j]))


def distances(T: int, S: int) -> Tensor:
    return torch.arange(S - T, S)[:, None] - torch.arange(S)


def definition(q: Tensor, k: Tensor, v: Tensor, s: dict[str, Any]) -> tuple[Tensor, Tensor]:
    group, T, S = q.shape[1] // k.shape[1], q.shape[2], k.shape[2]
    scores = torch.einsum("bhtd,bhsd->bhts", q, k.repeat_interleave(group, 1)) * s["scale"]
    if s["softcap"]:
        scores = s["softcap"] * torch.tanh(scores / s["softcap"])
    if s["bias"] is not None:
        scores = scores + s["bias"]
    if s["alibi"] is not None:
        scores = scores - s["alibi"][:, None, None] * distances(T, S).abs()
    scores = scores.masked_fill(~visible(T, S, q.shape[0], s)[:, None], -torch.inf)
    if s["sinks"] is not None:
        scores = torch.cat((scores, s["sinks"][:, None, None].expand(*scores.shape[:3], 1)), -1)
    some = (scores > -torch.inf).any(-1, keepdim=True)
    lse = torch.where(some, scores, 0.0).logsumexp(-1, keepdim=True)
    weights = torch.where(some, torch.exp(scores - lse), 0.0)[..., :S]
    return weights @ v.repeat_interleave(group, 1), torch.where(some, lse, -torch.inf).squeeze(-1)


def agree(
    T: int,
    S: int,
    dtypes: tuple[torch.dtype, ...] = (torch.float32,),
    sizes: tuple[int, ...] = (B, H, SHARED, D, DV),
    **options: Any,
) -> None:
    """Outputs and every gradient of one case."""
    batch, heads, shared, d, dv = sizes
    for dtype in dtypes:
        s = {n: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for n, x in options.items()}
        s = SETTINGS | s
        # as models make them: heads cut out of one row of features
        q, k, v = (
            torch.randn(batch, n, h, w).to(dtype).transpose(1, 2)
            for n, h, w in ((T, heads, d), (S, shared, d), (S, shared, dv))
        )
        compare(q, k, v, s, dtype)


def compare(q: Tensor, k: Tensor, v: Tensor, s: dict[str, Any], dtype: torch.dtype) -> None:
    trained = [n for n in ("bias", "alibi", "sinks") if s[n] is not None]
    leaves = [x.double().requires_grad_() for x in (q, k, v, *(s[n] for n in trained))]
    wanted = definition(*leaves[:3], s | dict(zip(trained, leaves[3:], strict=True)))
    with poisoned():
        out, lse = attention.forward(q, k, v, *arguments(s))
    seen = ~wanted[1].isinf()
    assert out.dtype == dtype
    assert torch.equal(~lse.isinf(), seen)
    assert_close("out", out, wanted[0], TOLERANCE[dtype])
    assert_close("lse", lse[seen], wanted[1][seen], TOLERANCE[dtype])
    dout = torch.randn(()).to(dtype).expand_as(out) if q.shape[2] == 1 else torch.randn_like(out)
    dlse = torch.randn_like(lse)
    right = torch.autograd.grad(wanted, leaves, (dout.double(), dlse.double()))
    with poisoned():
        got = attention.backward([dout, dlse], [out, lse], q, k, v, *arguments(s))
    for name, ours, theirs in zip(("q", "k", "v", *trained), got, right, strict=True):
        assert_close(f"gradient of {name}", ours, theirs, TOLERANCE[dtype])


BOTH = (torch.float32, torch.float16)
PADDING = torch.arange(37) < torch.tensor([[30], [0]])  # the second sequence sees nothing
PACKED = torch.tensor([[0] * 5 + [1] * 20 + [2] * 12, [3] * 36 + [1]])
LEFT = torch.arange(37) >= torch.tensor([[21], [3]])
GLOBAL = (torch.arange(37) % 15 == 1) & torch.tensor([[True], [False]])


@pytest.mark.parametrize(
    ("T", "S", "causal"),
    [(33, 33, True), (17, 37, True), (17, 37, False), (1, 37, True), (40, 18, False), (40, 18, True)],
)
def test_lengths(T, S, causal):
    agree(T, S, BOTH if T < 33 else (torch.float32,), sizes=(1, H if T == 1 else 1, 1, D, DV), causal=causal)


def test_widths_that_fill_blocks_and_heads_of_their_own():
    agree(32, 32, sizes=(1, 2, 2, 16, 32), causal=True)


def test_groups_split_for_few_keys(monkeypatch):
    monkeypatch.setattr(attention_backward, "ENOUGH", 16)
    agree(9, 20, sizes=(2, 4, 1, 8, 8), causal=True)


@pytest.mark.parametrize(
    "options",
    [
        {"causal": True, "window": 5},
        {"causal": True, "window": 20},
        {"window": 6},
        {"window": 18},
        {"window": 4, "dilation": 3},
        {"causal": True, "window": 9, "dilation": 2},
        {"causal": True, "dilation": 4},
        {"causal": True, "pattern": "strided", "stride": 7},
        {"causal": True, "pattern": "fixed", "stride": 20, "summary": 2},
        {"key_mask": PADDING},
        {"causal": True, "key_mask": LEFT},
        {"causal": True, "prefix_len": torch.tensor([25, 0])},
        {"causal": True, "window": 3, "prefix_len": torch.tensor([18, 40])},
        {"causal": True, "documents": PACKED},
        {"documents": PACKED, "key_mask": LEFT},
        {"window": 3, "global_tokens": GLOBAL},
        {"causal": True, "window": 3, "global_tokens": GLOBAL},
        {"causal": True, "documents": PACKED, "prefix_len": torch.tensor([7, 30]), "key_mask": PADDING},
        {"causal": True, "pattern": "strided", "stride": 18, "global_tokens": GLOBAL, "key_mask": LEFT},
        {"window": 4, "prefix_len": torch.tensor([2, 20]), "global_tokens": GLOBAL, "documents": PACKED},
    ],
    ids=" ".join,
)
def test_who_sees_whom(options):
    agree(20, 37, sizes=(B, 1, 1, 4, 6), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"sinks": (2,)},
        {"softcap": 2.0},
        {"alibi": (2,)},
        {"bias": (B, 2, 17, 20)},
        {"bias": (1, 2, 17, 20), "causal": True},
        {"bias": torch.where(torch.rand(17, 20) < 0.3, -torch.inf, 1.0).index_fill(0, torch.tensor([4]), -torch.inf)},
        {"bias": (B, 1, 1, 20)},
        {"bias": (2, 17, 1), "softcap": 3.0},
        {"bias": (1, 1, 1, 1), "window": 9},
        {"sinks": (2,), "key_mask": PADDING[:, 14:34], "softcap": 1.5, "causal": True},
        {"bias": (2, 17, 20), "alibi": (2,), "sinks": (2,), "window": 8, "softcap": 4.0, "documents": PACKED[:, 12:32]},
    ],
    ids=" ".join,
)
def test_scores(options):
    drawn = {n: torch.randn(x) if isinstance(x, tuple) else x for n, x in options.items()}
    agree(17, 20, BOTH if len(options) == 4 else (torch.float32,), sizes=(B, 2, 1, D, DV), **drawn)


def test_large_scores_and_absent_sinks():
    q, k, v = torch.randn(1, 2, 9, D), torch.randn(1, 1, 20, D), torch.randn(1, 1, 20, DV)
    options = SETTINGS | {"causal": True, "scale": 300.0, "sinks": torch.tensor([-torch.inf, 700.0])}
    out, _ = attention.forward(q, k, v, *arguments(options))
    assert_close("out", out, definition(q.double(), k.double(), v.double(), options)[0], 1e-2)
    agree(5, 20, sinks=torch.tensor([-torch.inf, 80.0, 0.0]), key_mask=torch.zeros(B, 20, dtype=torch.bool))


def test_gradients_of_one_output():
    q, k, v = torch.randn(B, H, 5, D), torch.randn(B, SHARED, 9, D), torch.randn(B, SHARED, 9, DV)
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    wanted = definition(*leaves, SETTINGS)
    out, lse = attention.forward(q, k, v, *arguments(SETTINGS))
    for grads in ([torch.randn_like(out), None], [None, torch.randn_like(lse)]):
        total = sum((y * g.double()).sum() for y, g in zip(wanted, grads, strict=True) if g is not None)
        right = torch.autograd.grad(total, leaves, retain_graph=True, materialize_grads=True)
        got = attention.backward(grads, [out, lse], q, k, v, *arguments(SETTINGS))
        for ours, theirs in zip(got, right, strict=True):
            assert_close("gradient", ours, theirs, 2e-5)


def test_types_that_differ_and_numbers_that_are_none():
    q, k, v = torch.randn(B, H, 20, D), torch.randn(B, SHARED, 20, D).half(), torch.randn(B, SHARED, 20, DV).half()
    options = SETTINGS | {"causal": True}
    out, _ = attention.forward(q, k, v, *arguments(options))
    assert out.dtype == torch.float16
    assert_close("out", out, definition(q.double(), k.double(), v.double(), options)[0], 1e-3)
    q[0, 1, 7, 3] = torch.nan
    k[1, 0, 18, 2] = torch.inf
    out, lse = attention.forward(q, k, v, *arguments(options))
    rows = out.isnan().any(-1)
    assert rows[0, 1, 7]
    assert rows[1, :, 18:].any()
    assert rows[0].sum() == 1
    assert not rows[1, :, :18].any()
    assert torch.equal(lse.isnan() | lse.isinf(), rows | lse.isinf())


@pytest.mark.parametrize("sizes", [(0, 3, 7), (2, 0, 7), (2, 3, 0)])
def test_nothing(sizes):
    batch, T, S = sizes
    q, k, v = torch.randn(batch, H, T, D), torch.randn(batch, SHARED, S, D), torch.randn(batch, SHARED, S, DV)
    with poisoned():
        out, lse = attention.forward(q, k, v, *arguments(SETTINGS))
        found = attention.backward([out, None], [out, lse], q, k, v, *arguments(SETTINGS))
        few = attention.decode(q, k, v, None, None, 0, 0.3, 0.0)
    assert not out.any()
    assert not few.any()
    assert out.shape == few.shape == (batch, H, T, DV)
    assert (lse == -torch.inf).all()
    assert all(not x.any() and x.shape == like.shape for x, like in zip(found, (q, k, v), strict=True))


@pytest.mark.parametrize(
    ("T", "S", "heads", "shared", "options"),
    [
        (1, 70, 6, 2, {}),
        (3, 70, 3, 1, {"window": 30}),
        (1, 37, 2, 2, {"key_mask": PADDING}),
        (2, 37, 6, 1, {"key_mask": LEFT, "sinks": torch.randn(6), "softcap": 2.0}),
        (20, 25, 2, 1, {"window": 9}),
        (1, 1, 3, 1, {}),
    ],
)
def test_decoding(T, S, heads, shared, options):
    for dtype in BOTH:
        q, k, v = (
            torch.randn(B, S, h, w).to(dtype).transpose(1, 2) for h, w in ((heads, D), (shared, D), (shared, DV))
        )
        q = q[:, :, S - T :]
        s = SETTINGS | {"causal": True} | options
        with poisoned():
            got = attention.decode(q, k, v, *(s[n] for n in ("key_mask", "sinks", "window", "scale", "softcap")))
        assert got.dtype == dtype
        assert_close("out", got, definition(q.double(), k.double(), v.double(), s)[0], TOLERANCE[dtype])


@pytest.mark.parametrize(("T", "S"), [(1, 70), (3, 33)])
def test_decoding_of_latents(T, S):
    q_latent, q_rope, latent, k_rope = (torch.randn(B, *n) for n in ((5, T, 24), (5, T, 8), (1, S, 24), (1, S, 8)))
    with poisoned():
        got = attention.latent_decode(q_latent, q_rope, latent, k_rope, 0.3)
    q, k = torch.cat((q_latent, q_rope), -1).double(), torch.cat((latent, k_rope), -1).double()
    assert_close("out", got, definition(q, k, latent.double(), SETTINGS | {"causal": True})[0], 2e-5)
