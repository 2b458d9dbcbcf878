import pytest
import torch
import torch.nn.functional as F
from definitions.delta_rule import comba, delta_product, gated_delta, gdn2, rwkv7
from kernel_checks import assert_close, check, compiles, faces, is_an_operator, normal, pieces
from torch.utils.flop_counter import FlopCounterMode

from archspec.kernels.memory import delta_rule as delta
from archspec.kernels.memory import dplr as general

KINDS = ("none", "head", "channel")


def example(kind, read_key=False, **sizes):
    """Arguments q, k, v, beta, decay, read_key, state."""
    given = delta.example(channels=kind == "channel", **sizes)
    q, k, v, beta = (given[name] for name in ("q", "k", "v", "beta"))
    p = 0.5 * k + 0.1 * normal(*k.shape) if read_key else None
    state = normal(v.shape[0], v.shape[2], k.shape[3], v.shape[3])
    return [q, k, v, beta, None if kind == "none" else given["decay"], p, state]


def through(chunk=32, scale=0.7):
    """`delta_rule` as a function of tensors that gives the last state too."""

    def run(q, k, v, beta, decay, read_key, state):
        memory = {"memory": state}
        y = delta.delta_rule(q, k, v, beta, decay, read_key=read_key, scale=scale, chunk=chunk, state=memory)
        return y, memory["memory"]

    return run


def through_dplr(q, k, v, a, b, decay, state):
    memory = {"memory": state}
    y = general.dplr(q, k, v, a, b, decay, scale=0.7, chunk=16, state=memory)
    return y, memory["memory"]


def right(q, k, v, beta, decay, read_key, state):
    return delta.reference(q, k, v, beta, decay, read_key, 0.7, state)


def right_dplr(*inputs):
    return general.reference(*inputs[:6], 0.7, inputs[6])


# a beta of 2 turns the state over at every token, and errors of 16 bits with it
LOOSE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1.5e-1}


@faces("torch")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("T", "chunk", "read_key"), [(1, 64, False), (16, 16, True), (63, 16, False), (100, 64, True)])
def test_delta_rule(T, chunk, read_key, kind, face):
    check(through(chunk), right, example(kind, read_key, T=T), face, LOOSE)


@faces("torch")
@pytest.mark.parametrize("T", [1, 31, 100])
def test_dplr(T, face):
    check(through_dplr, right_dplr, [*general.example(T=T).values(), normal(2, 3, 8, 12)], face, LOOSE)


@faces("torch")
def test_several_passes_within_the_sequence(face, monkeypatch):
    monkeypatch.setattr(general, "ROWS", 128)
    for kind in KINDS:
        check(through(16), right, example(kind, T=130), face, LOOSE)


@faces("triton")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "sizes", [{"T": 20, "G": 1, "H": 2, "K": 16, "V": 16}, {"T": 37, "G": 1, "H": 1, "K": 7, "V": 5}]
)
def test_delta_rule_on_a_gpu(sizes, kind, face):
    check(through(16 if kind == "channel" else 32), right, example(kind, True, B=1, **sizes), face, LOOSE)


@faces("triton")
@pytest.mark.parametrize(("chunk", "T"), [(16, 20), (64, 40)])
def test_kernels_with_several_tiles_in_a_chunk(chunk, T, face):
    """Both of a chunk of 64, which is inverted in halves, and of tiles of 16 tokens with a decay a channel."""
    given = [*general.example(B=1, T=T, H=1, K=16, V=16).values(), normal(1, 1, 16, 16)]

    def run(q, k, v, a, b, decay, state):
        memory = {"memory": state}
        return general.dplr(q, k, v, a, b, decay, scale=0.7, chunk=chunk, state=memory), memory["memory"]

    check(run, right_dplr, given, face, LOOSE)


@faces("torch", "triton")
@pytest.mark.parametrize("kind", KINDS)
def test_repeated_keys_and_decays_of_nothing_and_everything(kind, face):
    """Powers of the triangular matrix would cancel; zero, -inf and tiny factors must not meet as inf or NaN."""
    given = example(kind, B=1, T=40, G=1, H=1, K=16, V=16)
    given[1] = F.normalize(torch.ones(1, 40, 1, 16, dtype=torch.float64) + 0.01 * normal(1, 40, 1, 16), dim=-1)
    given[3] = 2 * torch.ones_like(given[3])
    given[3][:, 5:30] = 1.0
    given[3][:, 11] = 0.0
    if given[4] is not None:
        given[4] = -0.01 * given[4].abs()
        given[4][:, 7] = -torch.inf
        given[4][:, 20] = -69.0  # 1e-30
        given[4][:, 33:35] = -300.0
        given[4][:, 3] = 0.0
    q, k, v, beta, decay, _, state = (None if x is None else x.float().requires_grad_() for x in given)
    y, last = through()(q, k, v, beta, decay, None, state)
    wanted, wanted_last = right(*given)
    assert_close("y", y, wanted, 1e-4)
    assert_close("state", last, wanted_last, 1e-4)
    exact = [None if x is None else x.double().requires_grad_() for x in given]
    leaves = [x for x in (q, k, v, beta, decay, state) if x is not None]
    theirs = [x for x in exact if x is not None]
    y, last = through()(q, k, v, beta, decay, None, state)
    ours = torch.autograd.grad(y.sum() + last.sum(), leaves)
    wanted, wanted_last = right(*exact)
    for got, want in zip(ours, torch.autograd.grad(wanted.sum() + wanted_last.sum(), theirs), strict=True):
        assert_close("gradient", got, want, 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_unit_keys_stay_finite_and_right_over_65536_tokens(kind):
    T = 65536
    given = example(kind, B=1, T=T, G=1, H=1, K=4, V=3)
    given[3] = given[3].clamp(max=1.9)
    y, last = through(64)(*(None if x is None else x.float() for x in given))
    wanted, wanted_last = through(16)(*given)  # in float64, in other chunks
    assert_close("y", y, wanted, 1e-3 if kind == "none" else 1e-4)
    assert_close("state", last, wanted_last, 1e-3 if kind == "none" else 1e-4)


@pytest.mark.parametrize("kind", ["head", "channel"])
@pytest.mark.parametrize("factor", [0.0, 1e-30, 1.0])
def test_extreme_decays_are_right_over_65536_tokens(kind, factor):
    q, k, v, beta, decay, _, _ = example(kind, B=1, T=65536, G=1, H=1, K=4, V=3)
    decay = torch.full_like(decay, factor).log()
    leaves = [x.float().requires_grad_() for x in (q, k, v, beta.clamp(max=1.9), decay)]
    exact = [x.detach().double().requires_grad_() for x in leaves[:4]]
    dy = normal(*v.shape)
    if factor == 1.0:  # as if there were no decay, in float64 and other chunks
        wanted = delta.delta_rule(*exact, chunk=16)
    else:  # each token sees itself alone, and the one before through 1e-30
        q, k, v, beta = exact
        wanted = (q * k).sum(-1, keepdim=True) * beta.unsqueeze(-1) * v
    y = delta.delta_rule(*leaves)
    assert_close("y", y, wanted, 1e-3 if factor else 1e-5)
    *ours, of_decay = torch.autograd.grad((y * dy).sum(), leaves)
    for a, b in zip(ours, torch.autograd.grad((wanted * dy).sum(), exact), strict=True):
        assert_close("gradient", a, b, 1e-3)
    assert of_decay.isfinite().all()
    if factor < 1.0:
        assert of_decay.abs().max() < 1e-4  # what rounding leaves of sums that cancel


def equal_heads(kind, T=50, **sizes):
    return example(kind, T=T, G=3, H=3, **sizes)


@pytest.mark.parametrize("kind", KINDS)
def test_the_definitions_of_the_papers(kind):
    q, k, v, beta, decay, p, state = equal_heads(kind, read_key=True)
    for name, got, wanted in (
        ("gated delta", through(16, 1.0)(q, k, v, beta, decay, None, state), gated_delta(q, k, v, beta, decay, state)),
        ("comba", through(16, 1.0)(q, k, v, beta, decay, p, state), comba(q, k, v, p, beta, decay, state)),
        ("reference", delta.reference(q, k, v, beta, decay, p, 1.0, state), comba(q, k, v, p, beta, decay, state)),
    ):
        assert_close(name, got[0], wanted[0])
        assert_close(f"state of {name}", got[1], wanted[1])


def test_gated_deltanet_2_and_rwkv_7():
    q, k, v, _, decay, _, state = equal_heads("channel")
    erase, write = torch.rand_like(k), torch.rand_like(v)
    got = through(16, 1.0)(q, k, write * v, torch.ones_like(v[..., 0]), decay, erase * k, state)
    for ours, theirs in zip(got, gdn2(q, k, v, decay, erase, write, state), strict=True):
        assert_close("Gated DeltaNet-2", ours, theirs)
    given = general.example(T=50)
    assert_close("RWKV-7", general.dplr(**given, chunk=16), rwkv7(*given.values())[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_delta_product(n, kind):
    B, T, H, K, V = 2, 21, 3, 6, 5
    q, k, v = normal(B, T, H, K), F.normalize(normal(B, T, n, H, K), dim=-1), normal(B, T, n, H, V)
    beta, state = 2 * torch.rand(B, T, n, H).double(), normal(B, H, K, V)
    decay = {"none": None, "head": -torch.rand(B, T, H).double(), "channel": -torch.rand(B, T, H, K).double()}[kind]

    def run(q, k, v, beta, decay, state):
        memory = {"memory": state}
        y = delta.delta_product(q, k, v, beta, decay, chunk=16, state=memory)
        return y, memory["memory"]

    inputs = [q, k, v, beta, decay, state]
    check(run, delta_product, inputs, tolerance=LOOSE)
    state, parts = {"memory": state}, []
    for t in range(T):
        now = slice(t, t + 1)
        gate = None if decay is None else decay[:, now]
        parts.append(delta.delta_product(q[:, now], k[:, now], v[:, now], beta[:, now], gate, state=state))
    assert_close("step by step", torch.cat(parts, 1), run(*inputs)[0])


def test_without_the_low_rank_term_it_is_a_plain_memory():
    q, k, v, a, b, decay = general.example(T=40).values()
    y = general.dplr(q, k, v, a, 0 * b, decay)
    sums = decay.cumsum(1)
    scores = torch.einsum("bthk,bshk,btshk->bhts", q, k, (sums[:, :, None] - sums[:, None]).clamp(max=0).exp()).tril()
    assert_close("y", y, torch.einsum("bhts,bshv->bthv", scores, v))


@pytest.mark.parametrize("gradients", [False, True])
def test_whole_is_in_pieces_is_token_by_token(gradients):
    q, k, v, beta, decay, p, _ = example("channel", True, T=37)
    steps = general.example(T=37)
    with torch.set_grad_enabled(gradients):
        whole, whole2 = delta.delta_rule(q, k, v, beta, decay, read_key=p), general.dplr(**steps)
        for cuts in pieces(37):
            state, state2, parts, parts2 = {}, {}, [], []
            for c in cuts:
                now = (x[:, c] for x in (q, k, v, beta, decay))
                parts.append(delta.delta_rule(*now, read_key=p[:, c], state=state))
                parts2.append(general.dplr(**{name: x[:, c] for name, x in steps.items()}, state=state2))
            assert_close("delta_rule", torch.cat(parts, 1), whole)
            assert_close("dplr", torch.cat(parts2, 1), whole2)
    assert state["memory"].shape == (2, 4, 8, 12)
    assert state2["memory"].shape == (2, 3, 8, 12)


def test_states_of_16_bit_inputs_are_float32():
    state = {}
    given = {name: x.bfloat16() for name, x in delta.example(T=5).items()}
    assert delta.delta_rule(**given, state=state).dtype == torch.bfloat16
    assert state["memory"].dtype == torch.float32


@pytest.mark.parametrize("kind", ["head", "channel"])
def test_transformers(kind):
    """Qwen3-Next's and Kimi Linear's own functions for a CPU."""
    if kind == "head":
        theirs = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
        functions = theirs.torch_chunk_gated_delta_rule, theirs.torch_recurrent_gated_delta_rule
    else:
        theirs = pytest.importorskip("transformers.models.kimi_linear.modeling_kimi_linear")
        functions = theirs.chunk_kimi_delta_attention, theirs.recurrent_kimi_delta_attention
    groups = 2 if kind == "head" else 4
    q, k, v, beta, decay, _, state = (None if x is None else x.float() for x in example(kind, T=70, G=groups))
    y, last = through(scale=8**-0.5)(q, k, v, beta, decay, None, state)
    for function in functions:
        wanted, wanted_last = getattr(function, "__wrapped__", function)(
            q, k, v, g=decay, beta=beta, initial_state=state, output_final_state=True
        )
        assert_close("y", y, wanted, 1e-5)
        assert_close("state", last, wanted_last, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_flops(kind):
    """The formulas against what the counter sees in the computation itself."""
    for given, run in (
        (example(kind, T=70), through(32)),
        ([*general.example(T=70).values(), normal(2, 3, 8, 12)], through_dplr),
    ):
        leaves = [None if x is None else x.requires_grad_() for x in given]
        with FlopCounterMode(display=False) as counter:
            y, last = run(*leaves)
            (y.sum() + last.sum()).backward()
        q, k, v, *rest, initial = leaves
        if run is through_dplr:
            arguments = [q, rest[0], rest[1], v, k, None, rest[2], initial, 0.7, 16, True]
        else:
            arguments = [q, k, k, v, None, rest[0], rest[1], initial, 0.7, 32, True]
        arguments = [x.detach() if isinstance(x, torch.Tensor) else x for x in arguments]
        with FlopCounterMode(display=False) as plain:
            y, last, entering = general._forward(*arguments)
            general._backward([torch.ones_like(y), torch.ones_like(last)], [entering], *arguments)
        assert counter.get_total_flops() == plain.get_total_flops() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_operator(kind):
    q, k, v, beta, decay, _, state = (
        None if x is None else x.requires_grad_() for x in example(kind, B=1, T=18, G=1, H=2, K=3, V=2)
    )
    is_an_operator(general.memory_of_low_rank, q, k, k, v, None, beta, decay, state, 1.0, 16, True)


def test_compile():
    given = {name: x.float() for name, x in delta.example(T=30).items()}
    compiles(delta.delta_rule, *given.values())
    compiles(general.dplr, *(x.float() for x in general.example(T=30).values()))


def test_meta():
    given = {name: x.to("meta", torch.float32) for name, x in delta.example(T=100).items()}
    assert delta.delta_rule(**given).shape == given["v"].shape


@pytest.mark.parametrize("sizes", delta.EXAMPLES)
def test_example_inputs(sizes):
    given = delta.example(**sizes)
    y = delta.delta_rule(**given)
    assert_close("y", y, delta.reference(**given)[0])


@pytest.mark.parametrize("sizes", general.EXAMPLES)
def test_example_inputs_of_dplr(sizes):
    given = general.example(**sizes)
    y = general.dplr(**given)
    assert_close("y", y, general.reference(**given)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": (2, 5, 2, 9)},
         "delta_rule: k has shape (2, 5, 2, 9), expected (B T G K) with B = 2, T = 5, G = 2, K = 8"),
        ({"v": (2, 5, 3, 12)}, "delta_rule: beta has shape (2, 5, 4), expected (B T H) with B = 2, T = 5, H = 3"),
        ({"v": (2, 5, 3, 12), "beta": (2, 5, 3), "decay": (2, 5, 3)},
         "delta_rule: v has 3 heads, expected a multiple of the 2 heads of k"),
        ({"chunk": 20}, "delta_rule: chunk is 20, expected one of None, 16, 32, 64"),
        ({"state": (2, 4, 8, 11)},
         "delta_rule: state has shape (2, 4, 8, 11), expected (B H 8 V) with B = 2, H = 4, V = 12"),
    ],
)  # fmt: skip
def test_a_broken_contract_is_one_clear_error(change, message):
    given = dict(delta.example(T=5))
    for name, value in change.items():
        made = normal(*value) if isinstance(value, tuple) else value
        given[name] = {"memory": made} if name == "state" else made
    with pytest.raises(ValueError) as error:
        delta.delta_rule(**given)
    assert str(error.value) == message
