import pytest
import torch
from definitions.lsh_attention import lsh_attention as definition
from kernel_checks import assert_close, check, compiles, is_an_operator, normal
from torch.utils.flop_counter import FlopCounterMode

from archspec.kernels.attention import lsh as family
from archspec.kernels.attention.lsh import attend, hash_buckets, keys_of, lsh_attention, random_rotations, reference

# the keys' square root rounds narrow vectors before they meet; weights near 0 or 1 keep little of 16 bits
TOLERANCE = {torch.float16: 2e-2, torch.bfloat16: 1e-1}


@pytest.mark.parametrize("sizes", family.EXAMPLES)
@pytest.mark.parametrize(("causal", "wrap"), [(True, False), (True, True), (False, False), (False, True)])
def test_every_size(sizes, causal, wrap):
    qk, v, buckets = family.example(**sizes).values()
    settings = {"causal": causal, "wrap": wrap}
    check(
        lambda qk, v: lsh_attention(qk, v, 8, 1, buckets=buckets, **settings),
        lambda qk, v: reference(qk, v, buckets, 8, 1, **settings),
        [qk, v],
        tolerance=TOLERANCE,
    )


@pytest.mark.parametrize(("chunk", "look_back"), [(1, 0), (1, 2), (4, 0), (7, 2), (16, 1), (100, 1)])
@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("unit_keys", [False, True])
def test_every_chunk(chunk, look_back, wrap, unit_keys, monkeypatch):
    """In blocks of any number of chunks, the last of them shorter."""
    qk, v, buckets = family.example(1, 23).values()
    monkeypatch.setattr(family, "CACHED", 5000)
    settings = {"causal": True, "wrap": wrap, "unit_keys": unit_keys}
    check(
        lambda qk, v: lsh_attention(qk, v, chunk, look_back, buckets=buckets, **settings),
        lambda qk, v: reference(qk, v, buckets, chunk, look_back, **settings),
        [qk, v],
        tolerance=TOLERANCE,
    )


def test_against_the_definition_with_large_negative_masks():
    qk, v, buckets = family.example(2, 32, R=3).values()
    wanted = definition(qk.transpose(1, 2), v.transpose(1, 2), buckets, 8).transpose(1, 2)
    assert_close("y", lsh_attention(qk, v, 8, 1, buckets=buckets, causal=True, wrap=True), wanted)
    within = lsh_attention(qk, v, 8, 1, buckets=buckets, causal=True)
    assert (within - wanted).abs().max() > 1e-2


@pytest.mark.parametrize("decoder", [True, False])
def test_against_transformers(decoder):
    modeling = pytest.importorskip("transformers.models.reformer.modeling_reformer")
    config = modeling.ReformerConfig(
        attention_head_size=8, hidden_size=16, num_attention_heads=2, num_hashes=3, num_buckets=4,
        lsh_attn_chunk_length=8, lsh_num_chunks_before=1, lsh_num_chunks_after=0, is_decoder=decoder,
        lsh_attention_probs_dropout_prob=0.0, axial_pos_embds=False, attn_layers=["lsh"],
    )  # fmt: skip
    layer = modeling.LSHSelfAttention(config).double()
    x = normal(2, 48, 16).requires_grad_()
    theirs = layer(x, num_hashes=3)
    qk, v = (f(x).unflatten(-1, (2, 8)).transpose(1, 2) for f in (layer.query_key, layer.value))
    ours = lsh_attention(qk, v, 8, 1, buckets=theirs.buckets % 4, causal=decoder, wrap=True)
    assert_close("y", ours.transpose(1, 2).flatten(2), theirs.hidden_states, 1e-10)


def test_hashes_as_transformers_does():
    x, rotations = normal(2, 3, 20, 8), random_rotations(3, 8, 2, 6, torch.Generator().manual_seed(1))
    rotated = torch.einsum("bmtd,mdhr->bmhtr", x, rotations.double())
    assert torch.equal(hash_buckets(x, rotations), torch.cat((rotated, -rotated), -1).argmax(-1))
    assert torch.equal(hash_buckets(x * 3, rotations), hash_buckets(x, rotations))
    assert torch.equal(rotations, random_rotations(3, 8, 2, 6, torch.Generator().manual_seed(1)))
    with pytest.raises(ValueError, match="random_rotations: n_buckets = 5, expected an even number"):
        random_rotations(3, 8, 2, 5)


def test_the_two_norms_of_keys():
    x = normal(3, 16)
    assert_close("rms", keys_of(x, False), x / x.norm(dim=-1, keepdim=True), 1e-5)
    assert_close("unit", keys_of(x, True), x / x.norm(dim=-1, keepdim=True) / 4, 1e-5)


def test_one_bucket_and_one_chunk_is_attention():
    qk, v, _ = family.example(1, 40).values()
    buckets = torch.zeros(1, 2, 1, 40, dtype=torch.long)
    mask = torch.ones(40, 40, dtype=torch.bool).tril(-1)
    mask[0, 0] = True
    wanted = (qk @ keys_of(qk, False).mT).masked_fill(~mask, -torch.inf).softmax(-1) @ v
    assert_close("y", lsh_attention(qk, v, 40, 0, buckets=buckets, causal=True), wanted)
    assert_close("first", wanted[:, :, 0], v[:, :, 0])


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_step_is_the_last_token_of_the_whole_so_far(wrap, gradients):
    qk, v, _ = family.example(2, 30).values()
    rotations = random_rotations(2, 8, 2, 4)
    settings = {"rotations": rotations, "causal": True, "wrap": wrap}
    state = {}
    with torch.set_grad_enabled(gradients):
        lsh_attention(qk[:, :, :3], v[:, :, :3], 4, 1, state=state, **settings)
        parts = [(3, 4), (4, 9), *((t, t + 1) for t in range(9, 30))]
        got = [lsh_attention(qk[:, :, a:b], v[:, :, a:b], 4, 1, state=state, **settings) for a, b in parts]
    got = torch.cat(got, dim=2)
    for t in range(3, 30):
        now = slice(t + 1)
        wanted = reference(
            qk[:, :, now], v[:, :, now], hash_buckets(qk[:, :, now], rotations), 4, 1, causal=True, wrap=wrap
        )
        assert_close(f"token {t}", got[:, :, t - 3], wanted[:, :, -1])


def test_a_first_call_with_a_state_is_the_whole():
    qk, v, buckets = family.example().values()
    settings = {"buckets": buckets, "causal": True}
    assert torch.equal(lsh_attention(qk, v, 8, 1, state={}, **settings), lsh_attention(qk, v, 8, 1, **settings))


def test_gradients_flow_through_the_state():
    qk, v, buckets = family.example(1, 9).values()
    qk, v = qk.requires_grad_(), v.requires_grad_()
    state, settings = {}, {"causal": True}
    lsh_attention(qk[:, :, :8], v[:, :, :8], 4, 1, buckets=buckets[..., :8], state=state, **settings)
    last = lsh_attention(qk[:, :, 8:], v[:, :, 8:], 4, 1, buckets=buckets[..., 8:], state=state, **settings)
    wanted = reference(qk, v, buckets, 4, 1, causal=True)[:, :, 8:]
    cotangent = torch.randn_like(wanted)
    for got, right in zip(*(torch.autograd.grad(y, (qk, v), cotangent) for y in (last, wanted)), strict=True):
        assert_close("gradient", got, right)


def test_memory_and_time_are_linear():
    """T = 65,536: what is kept for the backward pass is of the size of the inputs, and no T x T is made."""
    qk, v = (torch.randn(1, 1, 65_536, 4, requires_grad=True) for _ in range(2))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        y = lsh_attention(qk, v, 32, 1, rotations=random_rotations(1, 4, 1, 128), causal=True)
    assert max(kept) <= qk.numel()
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), (qk, v)))


def test_extreme_scores():
    """Float32 scores of +-1e4: exact neighbours, no overflow."""
    qk, v, buckets = family.example(1, 40).values()
    y = lsh_attention(1e4 * qk.float(), v.float(), 8, 1, buckets=buckets, causal=True)
    assert_close("y", y, reference(1e4 * qk.float(), v.float(), buckets, 8, 1, causal=True), 1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v": torch.zeros(1, 2, 5, 4)}, "v has shape (1, 2, 5, 4), expected (B H T V) with B = 1, H = 2, T = 6"),
        ({"buckets": None}, "expected either buckets or rotations"),
        (
            {"buckets": torch.zeros(1, 2, 1, 5, dtype=torch.long)},
            "buckets has shape (1, 2, 1, 5), expected (1, 2, 1, 6) (B H R T)",
        ),
        ({"chunk": 0}, "chunk = 0 and look_back = 1, expected at least 1 and 0"),
    ],
)  # fmt: skip
def test_contract(change, message):
    given = {"qk": torch.zeros(1, 2, 6, 4), "v": torch.zeros(1, 2, 6, 4), "chunk": 2, "look_back": 1}
    given["buckets"] = torch.zeros(1, 2, 1, 6, dtype=torch.long)
    with pytest.raises(ValueError) as error:
        lsh_attention(**{**given, **change})
    assert str(error.value) == f"lsh_attention: {message}"
    with pytest.raises(TypeError, match=r"buckets is torch.float32, expected whole numbers"):
        lsh_attention(**{**given, "buckets": torch.zeros(1, 2, 1, 6)})


def test_is_an_operator_and_compiles():
    qk, v, buckets = family.example(1, 20).values()
    order = family._chunks(buckets, 8).flatten(0, 1)
    q, values = (x.flatten(0, 1).requires_grad_() for x in (qk, v))
    is_an_operator(attend, q, keys_of(q, False).detach().requires_grad_(), values, order, 1, True, False)
    rotations = random_rotations(2, 8, 2, 4)
    compiles(lambda q, v: lsh_attention(q, v, 8, 1, rotations=rotations, causal=True), qk.float(), v.float())
    meta = lsh_attention(qk.to("meta"), v.to("meta"), 8, 1, rotations=rotations.to("meta"), causal=True)
    assert meta.shape == v.shape


def test_flops():
    qk, v, buckets = family.example(1, 20).values()
    order = family._chunks(buckets, 8).flatten(0, 1)
    q, values = (x.flatten(0, 1).requires_grad_() for x in (qk, v))
    k = keys_of(q, False).detach().requires_grad_()
    with FlopCounterMode(display=False) as ours:
        y, total = attend(q, k, values, order, 1, True, False)
        y.sum().backward()
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        family._forward(q, k, values, order, 1, True, False)
        family._backward([torch.ones_like(y), None], [y, total], q, k, values, order, 1, True, False)
    assert ours.get_total_flops() == counted.get_total_flops() > 0
