"""LSTM, GRU and RNN against torch.nn and their equations; sLSTM against its equations without a stabiliser."""

import pytest
import torch
from kernel_checks import assert_close, check, compiles, normal, pieces
from torch import nn

from archspec.kernels.rnn import recurrent as kernel
from archspec.kernels.rnn import slstm as slstm_kernel
from archspec.kernels.rnn.slstm import slstm

RUN = {"lstm": kernel.lstm, "gru": kernel.gru, "rnn_tanh": kernel.rnn, "rnn_relu": kernel.rnn}
CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN, "rnn_relu": nn.RNN}
B, T, D_IN, D = 2, 9, 5, 4
every_kind = pytest.mark.parametrize("kind", RUN)


def module(kind, **options):
    options |= {"nonlinearity": kind[4:]} if kind.startswith("rnn") else {}
    return CELLS[kind](D_IN, D, batch_first=True, **options).double()


def run(kind, x, weights, state=None, **options):
    options |= {"relu": True} if kind == "rnn_relu" else {}
    return RUN[kind](x, weights, state, **options)


@every_kind
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("depth", [1, 2])
def test_is_torch_nn_with_its_gradients(kind, bias, bidirectional, depth):
    theirs = module(kind, bias=bias, bidirectional=bidirectional, num_layers=depth)
    weights = list(theirs.parameters())
    x = normal(B, T, D_IN).requires_grad_()
    y, wanted = run(kind, x, weights, depth=depth, bidirectional=bidirectional), theirs(x)[0]
    assert_close("y", y, wanted, 1e-15)
    probe = torch.randn_like(y)
    pairs = zip(*(torch.autograd.grad(out, [x, *weights], probe) for out in (y, wanted)), strict=True)
    for ours, other in pairs:
        assert_close("gradient", ours, other, 1e-15)


@every_kind
@pytest.mark.parametrize("bias", [False, True])
def test_is_its_equations(kind, bias):
    weights = [w.detach() for w in module(kind, bias=bias).parameters()]
    starts = [normal(B, D), normal(B, D)] if kind == "lstm" else [normal(B, D)]

    def fast(x, *rest):
        state = {name: h.unsqueeze(0) for name, h in zip("hc", rest[: len(starts)], strict=False)}
        y = run(kind, x, rest[len(starts) :], state)
        return [y, *(state[name][0] for name in "hc"[: len(starts)])]

    def naive(x, *rest):
        return kernel.reference(kind, x, rest[len(starts) :], *rest[: len(starts)])

    loose = {torch.float16: 1e-2, torch.bfloat16: 8e-2}  # each step rounds its state
    check(fast, naive, [normal(B, T, D_IN), *starts, *weights], tolerance=loose)


@every_kind
def test_pieces_with_a_state_are_the_whole(kind):
    weights, x = list(module(kind, num_layers=2).parameters()), normal(B, T, D_IN)
    whole, end = run(kind, x, weights, depth=2), {}
    run(kind, x, weights, end, depth=2)
    for cuts in pieces(T):
        state = {}
        parts = torch.cat([run(kind, x[:, cut], weights, state, depth=2) for cut in cuts], 1)
        assert_close("pieces", parts, whole, 1e-14)
        for name in end:
            assert_close(name, state[name], end[name], 1e-14)


@every_kind
def test_dropout_acts_between_layers_where_it_is_not_0(kind):
    weights, x = list(module(kind, num_layers=2).parameters()), normal(B, T, D_IN)
    with torch.no_grad():
        assert torch.equal(run(kind, x, weights, depth=2), run(kind, x, weights, depth=2))
        assert not torch.equal(run(kind, x, weights, depth=2, dropout=0.5), run(kind, x, weights, depth=2, dropout=0.5))


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
def test_compile(kind, bidirectional):
    weights = [w.detach() for w in module(kind, num_layers=2, bidirectional=bidirectional).float().parameters()]
    x = torch.randn(B, 3, D_IN)
    compiles(lambda x, *weights: run(kind, x, weights, depth=2, bidirectional=bidirectional), x, *weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": 3}, "gru: weights holds 3 tensors, expected 2 or, with biases, 4"),
        ({"x": torch.zeros(B, T, 6)}, "gru: W has shape (12, 5), expected (12 D_in) with D_in = 6"),
        ({"state": {}, "bidirectional": True, "weights": 8}, "gru: a state cannot go on in both directions"),
    ],
)
def test_contract(change, message):
    weights = list(module("gru", num_layers=2).float().parameters())[: change.pop("weights", 4)]
    with pytest.raises(ValueError) as raised:
        kernel.gru(**({"x": torch.zeros(B, T, D_IN), "weights": weights} | change))
    assert str(raised.value) == message


@pytest.mark.parametrize("sizes", slstm_kernel.EXAMPLES[:3], ids=str)
def test_slstm_is_its_equations(sizes):
    given = slstm_kernel.example(**sizes)
    check(slstm, slstm_kernel.reference, list(given.values()))


def test_slstm_pieces_with_a_state_are_the_whole_and_so_are_gradients():
    x, weight, bias = slstm_kernel.example(T=T).values()
    x.requires_grad_()
    whole = slstm(x, weight, bias)
    probe = torch.randn_like(whole)
    (wanted,) = torch.autograd.grad(whole, x, probe)
    for cuts in pieces(T):
        state = {}
        parts = torch.cat([slstm(x[:, cut], weight, bias, state) for cut in cuts], 1)
        assert_close("pieces", parts, whole, 1e-14)
        assert_close("gradient", torch.autograd.grad(parts, x, probe)[0], wanted, 1e-13)


def test_slstm_gates_of_any_size_stay_finite():
    x = torch.zeros(1, 400, 4, 1, 1)
    x[:, :, 0] = torch.linspace(-300, 300, 400).view(1, -1, 1, 1)  # exp of which no float holds
    x[:, :, 1], x[:, :, 2], x[:, :, 3] = 200.0, 30.0, 30.0
    x.requires_grad_()
    y = slstm(x, torch.zeros(4, 1, 1, 1))
    assert_close("a mean of ones", y, torch.ones_like(y), 1e-6)
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


def test_slstm_first_step_is_the_first_input_whatever_its_gate():
    x = normal(2, 1, 4, 3, 5)
    y = slstm(x, normal(4, 3, 5, 5))
    assert_close("y", y, x[:, :, 3].sigmoid() * x[:, :, 2].tanh(), 1e-14)


def test_slstm_compiles_and_names_a_wrong_shape():
    x, weight, bias = (t.float() for t in slstm_kernel.example(T=3).values())
    compiles(slstm, x, weight, bias)
    with pytest.raises(ValueError) as raised:
        slstm(x, weight[..., :2], bias)
    assert str(raised.value).startswith("slstm: weight has shape (4, 2, 3, 2), expected (4 H D D) with H = 2, D = 3")
    assert slstm(x[:0], weight, bias).shape == (0, 3, 2, 3)


@every_kind
def test_mixed_types_are_refused_but_under_autocast(kind):
    weights, x, state = list(module(kind).float().parameters()), torch.randn(B, T, D_IN), {}
    with pytest.raises(TypeError, match=r"holds a tensor of torch\.float32, expected torch\.bfloat16 like x"):
        run(kind, x.bfloat16(), weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = [run(kind, x[:, cut].bfloat16(), weights, state) for cut in (slice(0, 5), slice(5, T))]
    y = torch.cat(parts, 1)
    assert_close("y", y, run(kind, x, weights), 4e-2)
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.float().sum(), weights))


@every_kind
def test_a_state_of_another_batch_is_refused(kind):
    state = {name: torch.zeros(1, B + 1, D) for name in ("hc" if kind == "lstm" else "h")}
    with pytest.raises(ValueError, match=r"h has shape \(1, 3, 4\), expected \(1 B 4\) with B = 2"):
        run(kind, torch.zeros(B, T, D_IN), list(module(kind).float().parameters()), state)
