import importlib

import pytest
import torch
import torch.nn.functional as F
from definitions import scans
from kernel_checks import assert_close, check, compiles, faces, is_an_operator, normal, pieces

from archspec.kernels.scans.linear_scan import EXAMPLES, example, linear_scan, reference, scan, unit_input

both = faces("torch", "compiled")
all_faces = faces("torch", "compiled", "triton")


def with_state(decay, x, h):
    """All states and the last one, continued from h."""
    state = {"h": h}
    return linear_scan(decay, x, state=state), state["h"]


def turned(x):
    """x times random complex numbers of size 1."""
    return torch.polar(x, torch.rand_like(x))


@both
@pytest.mark.parametrize("number", ["real", "complex"])
@pytest.mark.parametrize("moves", [True, False], ids=["moves", "constant"])
@pytest.mark.parametrize("sizes", EXAMPLES, ids=str)
def test_outputs_state_and_gradients(face, sizes, moves, number):
    decay, x = example(**sizes).values()
    if x.numel() == 0:
        return
    given = [decay if moves else decay[0, 0].clone(), x, normal(x.shape[0], x.shape[2])]
    check(with_state, reference, given if number == "real" else [turned(t) for t in given], face)


@faces("triton")
@pytest.mark.parametrize("number", ["real", "complex"])
@pytest.mark.parametrize("moves", [True, False], ids=["moves", "constant"])
def test_triton(face, moves, number, monkeypatch):
    import archspec.kernels.gpu.linear_scan as kernels

    monkeypatch.setattr(kernels, "TIME", 8)  # a tile takes the interpreter long
    monkeypatch.setattr(kernels, "BLOCK", 2)
    decay, x = example(T=11, D=3).values()
    given = [decay if moves else decay[0, 0].clone(), x, normal(2, 3)]
    check(with_state, reference, given if number == "real" else [turned(t) for t in given], face)


@both
def test_a_complex_decay_of_real_inputs(face):
    decay, x = example(T=40).values()
    check(lambda a, x: linear_scan(a, x), lambda a, x: reference(a, x)[0], [turned(decay), x], face)
    check(lambda a, x: linear_scan(a, x), lambda a, x: reference(a, x)[0], [decay, turned(x)], face)


@both
def test_logarithms_of_decays(face):
    decay, x = example(T=40).values()
    check(
        lambda g, x: linear_scan(None, x, log_decay=g),
        lambda g, x: reference(torch.exp(g), x)[0],
        [decay.log(), x],
        face,
        {torch.float16: 1e-2},
    )
    forget = decay.log().index_fill(1, torch.tensor([9]), -torch.inf).requires_grad_()
    h = linear_scan(None, x, log_decay=forget)
    assert_close("reset", h[:, 9:], linear_scan(decay[:, 9:], x[:, 9:]))
    assert torch.autograd.grad(h.sum(), forget)[0].isfinite().all()


@both
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("number", ["real", "complex"])
def test_whole_is_in_pieces_is_token_by_token(face, gradients, number):
    decay, x = (t if number == "real" else turned(t) for t in example(T=70).values())
    with torch.set_grad_enabled(gradients):
        for narrow in (False, True):
            if narrow:
                decay, x = ((t.cfloat() if t.is_complex() else t.float()) for t in (decay, x))
            for a in (decay.requires_grad_(gradients), decay[0, 0]):
                whole = linear_scan(a, x)
                for cuts in pieces(70):
                    state = {}
                    parts = [linear_scan(a if a.dim() == 1 else a[:, c], x[:, c], state=state) for c in cuts]
                    assert_close("pieces", torch.cat(parts, 1), whole, 1e-5 if narrow else 1e-11)
                assert_close("state", state["h"], whole[:, -1], 1e-5 if narrow else 1e-11)


@both
def test_earlier_tokens_do_not_depend_on_later_ones_to_the_bit(face):
    decay, x = (t.float() for t in example(T=100, D=33).values())
    whole = linear_scan(decay, x)
    for length in (2, 31, 32, 33, 71):
        assert torch.equal(linear_scan(decay[:, :length], x[:, :length]), whole[:, :length])


@both
@pytest.mark.parametrize("factor", [0.0, 1e-30, 1.0, -1.0])
def test_extreme_decays(face, factor):
    decay, x = example(T=100).values()
    tiny = dict.fromkeys((torch.float16, torch.bfloat16), 3e-2)
    check(with_state, reference, [torch.full_like(decay, factor), x, normal(2, 7)], face, tiny)


@both
def test_long_sequences(face):
    x = torch.randn(1, 65536, 4, dtype=torch.float64)
    decay = torch.tensor([0.0, 1e-30, 1 - 1e-6, 1.0], dtype=torch.float64)
    leaves = [t.float().requires_grad_() for t in (decay, x)]
    y = linear_scan(*leaves)
    with torch.no_grad():
        wanted, _ = reference(leaves[0], x.float())
    for d in range(4):
        assert_close(f"channel {d}", y[..., d], wanted[..., d], 1e-4)
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), leaves))


@both
def test_nan_reaches_its_channel_and_later_tokens_alone(face):
    decay, x = (t.float() for t in example(T=80).values())
    for broken in (decay, x):
        kept = broken[0, 40, 2].clone()
        broken[0, 40, 2] = torch.nan
        missing = linear_scan(decay, x).isnan()
        assert missing[0, 40:, 2].all()
        assert missing.sum() == 40
        broken[0, 40, 2] = kept


def test_threads_change_no_bit():
    decay, x = (t.float().requires_grad_() for t in example(B=3, T=40, D=600).values())

    def run(threads):
        torch.set_num_threads(threads)
        y = linear_scan(decay[0, 0], x) + linear_scan(decay, x)
        return [y, *torch.autograd.grad(y.square().sum(), (decay, x))]

    for one, many in zip(run(1), run(3), strict=True):
        assert torch.equal(one, many)


@both
def test_models_that_are_this_recurrence(face):
    f, x = (t.float() for t in example(T=50, D=6).values())
    o, z = torch.rand_like(x), torch.tanh(x)
    assert_close("qrnn", o * linear_scan(f, (1 - f) * z), scans.qrnn(z.double(), f.double(), o.double()), 1e-5)
    assert_close("min_gru", linear_scan(1 - f, f * x), scans.min_gru(f.double(), x.double()), 1e-5)
    assert_close("hgrn", linear_scan(f, (1 - f) * F.silu(x)), scans.hgrn(F.silu(x.double()), f.double()), 1e-5)

    alpha, delta, beta, eta = torch.rand(4, 6, 3)
    factor, fed = (1 - alpha * delta).flatten(), (alpha * x.unsqueeze(-1) * beta).flatten(2)
    got = (linear_scan(factor, fed).unflatten(2, (6, 3)) * eta).sum(-1)
    assert_close("ema", got, scans.ema(*(t.double() for t in (x, alpha, delta, beta, eta))), 1e-5)

    lam = torch.polar(torch.rand(4) * 0.5 + 0.5, torch.rand(4) * 6)
    B, C = torch.randn(4, 6, dtype=torch.cfloat), torch.randn(6, 4, dtype=torch.cfloat)
    D, gamma = torch.randn(6), torch.rand(4)
    got = (linear_scan(lam, (x.cfloat() @ B.T) * gamma) @ C.T).real + D * x
    wide = [t.to(torch.complex128 if t.is_complex() else torch.float64) for t in (x, lam, B, C, D, gamma)]
    assert_close("lru", got, scans.lru(*wide), 1e-5)


@both
def test_rg_lru_against_its_definition_and_transformers(face):
    from transformers.models.recurrent_gemma import RecurrentGemmaConfig
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru

    r, x = (t.float() for t in example(T=50, D=8).values())
    i, lam = torch.rand_like(x), torch.randn(8)
    reset = torch.zeros(2, 50, dtype=torch.bool)
    reset[:, 0] = reset[1, 20] = True
    log_decay = (-8.0 * F.softplus(lam) * r).masked_fill(reset[..., None], -torch.inf).requires_grad_()
    fed = unit_input(log_decay) * i * x
    h = linear_scan(None, fed, log_decay=log_decay)
    assert_close("definition", h, scans.rg_lru(*(t.double() for t in (x, r, i, lam)), reset=reset), 1e-5)
    theirs = RecurrentGemmaRglru(RecurrentGemmaConfig(hidden_size=8, lru_width=8, num_attention_heads=2))
    scanned, last = theirs._rnn_scan(fed, torch.exp(-8.0 * F.softplus(lam) * r), reset[..., None], None)
    assert_close("transformers", h, scanned, 1e-6)
    assert_close("transformers, last", h[:, -1], last, 1e-6)
    assert torch.autograd.grad(h.sum(), log_decay)[0].isfinite().all()


def test_unit_input_and_its_slope():
    g = torch.tensor([0.0, -1e-9, -1e-4, -0.5, -3.0, -torch.inf], dtype=torch.float64, requires_grad=True)
    m = unit_input(g)
    assert_close("value", m, (1 - torch.exp(2 * g)).sqrt(), 1e-8)
    slope = torch.autograd.grad(m.sum(), g)[0]
    assert slope[:2].tolist() == pytest.approx([-2000.0, -2000.0], rel=1e-6)
    assert_close("slope", slope[2:5], (-torch.exp(2 * g) / (1 - torch.exp(2 * g)).sqrt())[2:5], 1e-9)
    assert slope[5] == 0


def test_states_are_float32_or_wider_and_own_their_memory():
    state = {}
    decay, x = (t.bfloat16() for t in example(T=5).values())
    for c in (slice(0, 5), slice(0, 1)):
        h = linear_scan(decay[:, c], x[:, c], state=state)
        assert (h.dtype, state["h"].dtype) == (torch.bfloat16, torch.float32)
        assert state["h"].untyped_storage().nbytes() == 4 * 2 * 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "linear_scan: expected either decay or log_decay"),
        ({"decay": torch.zeros(7), "log_decay": torch.zeros(7)}, "linear_scan: expected either decay or log_decay"),
        ({"decay": torch.zeros(6)}, "linear_scan: x has shape (2, 9, 7), expected (B T D) with B = 2, T = 9, D = 6"),
        (
            {"log_decay": torch.zeros(2, 8, 7)},
            "linear_scan: x has shape (2, 9, 7), expected (B T D) with B = 2, T = 8, D = 7",
        ),
        ({"decay": torch.zeros(7).long()}, "linear_scan: decay is torch.int64, expected a floating type"),
        (
            {"decay": torch.zeros(7), "state": {"h": torch.zeros(7)}},
            "linear_scan: state has shape (7,), expected 2 axes (B D)",
        ),
    ],
)
def test_a_broken_contract_is_one_clear_error(arguments, message):
    with pytest.raises((ValueError, TypeError)) as error:
        linear_scan(**{"decay": None, "x": torch.zeros(2, 9, 7), **arguments})
    assert str(error.value) == message


def test_operator_compile_and_meta():
    decay, x = (t.float().requires_grad_() for t in example(T=40).values())
    for a in (decay, decay[0, 0].detach().requires_grad_()):
        is_an_operator(scan, a, x, torch.zeros(2, 7))
    compiles(lambda a, x: linear_scan(a, x), decay.detach(), x.detach())
    assert linear_scan(decay.to("meta"), x.to("meta")).shape == x.shape


@pytest.mark.parametrize("family", ["linear_scan", "wkv", "selective_scan"])
def test_grids_take_any_number_of_sequences(family):
    """A GPU has 2^31 programs along the first axis of a grid, and 65535 along the others."""
    pytest.importorskip("triton")
    kernels = importlib.import_module(f"archspec.kernels.gpu.{family}")
    assert kernels._grid(torch.empty(70_000, 2, 33, device="meta")) == (140_000,)
