import pytest
import torch
import torch.nn.functional as F
from kernel_checks import LENGTHS, assert_close, check, compiles, normal, pieces

from archspec.kernels import selective_scan as s6
from archspec.kernels import ssd as mamba2


def s6_inputs(T, B=2, D=7, N=4):
    x, dt, z = normal(B, T, D), F.softplus(normal(B, T, D)), normal(B, T, D)
    return [x, dt, -normal(D, N).exp(), normal(B, T, N), normal(B, T, N), normal(D), z]


def s6_reference(x, dt, A, B, C, D, z):
    y, _ = s6.reference(x, dt, A, B, C)
    return (y + D * x) * F.silu(z)


def ssd_inputs(T, B=2, H=6, P=5, G=2, N=4):
    x, dt = normal(B, T, H, P), F.softplus(normal(B, T, H))
    return [x, dt, -normal(H).exp(), normal(B, T, G, N), normal(B, T, G, N), normal(H)]


def ssd_reference(*inputs):
    return mamba2.reference(*inputs)[0]


@pytest.mark.parametrize("T", LENGTHS)
def test_selective_scan(T):
    check(s6.selective_scan, s6_reference, s6_inputs(T))


@pytest.mark.parametrize("T", [1, 33])
def test_gradients_of_the_selective_scan_pass_through_its_state(T):
    x, dt, A, B, C, _, _ = s6_inputs(T)
    leaves = [t.requires_grad_() for t in (x, dt, A, B, C, normal(2, 7, 4))]
    state = {"ssm": leaves[-1]}
    y = s6.selective_scan(*leaves[:-1], state=state)
    wanted, last = s6.reference(*leaves)
    dy, dh = normal(*y.shape), normal(*last.shape)
    ours = torch.autograd.grad((y * dy).sum() + (state["ssm"] * dh).sum(), leaves)
    theirs = torch.autograd.grad((wanted * dy).sum() + (last * dh).sum(), leaves)
    for name, a, b in zip(("x", "dt", "A", "B", "C", "state"), ours, theirs, strict=True):
        assert_close(name, a, b)


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("chunk", [16, 64])
def test_ssd(T, chunk):
    check(lambda *inputs: mamba2.ssd(*inputs, chunk=chunk), ssd_reference, ssd_inputs(T))


def test_ssd_survives_decays_that_overflow_when_factored():
    inputs = ssd_inputs(200)
    inputs[2] = inputs[2] - 50.0
    x = inputs[0].float().requires_grad_()
    y = mamba2.ssd(x, *(t.float() for t in inputs[1:]))
    y.sum().backward()
    assert_close("y", y, ssd_reference(*inputs), 1e-5)
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("gradients", [False, True])
def test_whole_is_in_pieces_is_token_by_token(gradients):
    x, dt, A, B, C, D, z = s6_inputs(37)
    X, Dt, A2, B2, C2, D2 = ssd_inputs(37)
    with torch.set_grad_enabled(gradients):
        whole, whole2 = s6.selective_scan(x, dt, A, B, C, D, z), mamba2.ssd(X, Dt, A2, B2, C2, D2)
        for cuts in pieces(37):
            state, state2 = {}, {}
            parts = [s6.selective_scan(x[:, c], dt[:, c], A, B[:, c], C[:, c], D, z[:, c], state) for c in cuts]
            parts2 = [mamba2.ssd(X[:, c], Dt[:, c], A2, B2[:, c], C2[:, c], D2, state2, chunk=8) for c in cuts]
            assert_close("selective_scan", torch.cat(parts, 1), whole)
            assert_close("ssd", torch.cat(parts2, 1), whole2)
    assert state["ssm"].shape == (2, 7, 4)
    assert state2["ssm"].shape == (2, 6, 5, 4)


def test_states_of_16_bit_inputs_are_float32():
    state, state2 = {}, {}
    s6.selective_scan(*(t.bfloat16() for t in s6_inputs(5)), state=state)
    mamba2.ssd(*(t.bfloat16() for t in ssd_inputs(5)), state=state2)
    assert state["ssm"].dtype == state2["ssm"].dtype == torch.float32


def test_meta():
    meta = [t.to("meta", torch.float32) for t in s6_inputs(100)]
    assert s6.selective_scan(*meta).shape == meta[0].shape
    meta = [t.to("meta", torch.float32) for t in ssd_inputs(100)]
    assert mamba2.ssd(*meta).shape == meta[0].shape


@pytest.mark.slow
def test_inductor_leaves_the_inputs_alone():
    # a cumulative sum over dt once made the compiled backward pass write into dt
    compiles(s6.selective_scan, *(t.float() for t in s6_inputs(64, B=1, D=8)), backend="inductor")


def test_compile():
    compiles(s6.selective_scan, *(t.float() for t in s6_inputs(30)))
    compiles(mamba2.ssd, *(t.float() for t in ssd_inputs(100)))
