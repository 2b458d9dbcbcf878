"""Taps of state spaces against their recurrences."""

import pytest
import torch
from definitions import convolutions as definitions
from kernel_checks import assert_close, compiles, is_an_operator, normal
from torch.utils.flop_counter import FlopCounterMode

from archspec.kernels.convolutions import ssm_kernels as family
from archspec.kernels.convolutions.long_conv import long_conv
from archspec.kernels.convolutions.ssm_kernels import (
    bilinear,
    cauchy,
    dplr_kernel,
    dss_softmax_kernel,
    hippo_legs,
    hippo_legs_dplr,
    modal_kernel,
    phi,
    power_sums,
    s4d_kernel,
    zoh,
)

D, N = 3, 4


def complex_normal(*shape):
    return torch.complex(normal(*shape), normal(*shape))


@pytest.fixture
def diagonal():
    """lam, b, c, dt of stable diagonal state spaces."""
    lam = torch.complex(-torch.rand(D, N, dtype=torch.float64) - 0.1, 3 * normal(D, N))
    return lam, complex_normal(D, N), complex_normal(D, N), torch.tensor([0.001, 0.1, 1.0], dtype=torch.float64)


def recurrence(a, b, c, length):
    """Re of the impulse response of h = a h + b u, y = sum c h, as taps (L, D)."""
    h, taps = b, []
    for _ in range(length):
        taps.append((c * h).sum(-1).real)
        h = a * h
    return torch.stack(taps)


@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_discretisations_are_those_of_dense_matrices(diagonal, method):
    lam, b, _, dt = diagonal
    a, bb = (zoh if method == "zoh" else bilinear)(lam, b, dt)
    for d in range(D):
        da, db = definitions.discretize(torch.diag(lam[d]), b[d], dt[d], method)
        assert_close("a", torch.diag(a[d]), da)
        assert_close("b", bb[d], db)


@pytest.mark.parametrize("size", [0.0, 1e-300, 1e-12, 1e-6, 1e-3, 0.499, 0.5, 3.0])
def test_phi_loses_no_digit_near_zero(size):
    z = (size * torch.exp(1j * torch.arange(8, dtype=torch.float64))).requires_grad_()
    exact = sum(z.detach() ** n / torch.arange(1, n + 2, dtype=torch.float64).prod() for n in range(60))
    assert_close("phi", phi(z), exact, 1e-14)
    slope = sum(n * z.detach() ** (n - 1) / torch.arange(1, n + 2, dtype=torch.float64).prod() for n in range(1, 60))
    (gradient,) = torch.autograd.grad(phi(z).real.sum(), z)
    assert_close("gradient", gradient.conj(), slope, 1e-13)


@pytest.mark.parametrize("length", [1, 2, 63, 100, 257])
@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_s4d(diagonal, length, method):
    lam, b, c, dt = diagonal
    a, bb = (zoh if method == "zoh" else bilinear)(lam, b, dt)
    once = recurrence(a, bb, c, length)
    assert_close("once", s4d_kernel(lam, b, c, dt, length, method), once)
    assert_close("twice", s4d_kernel(lam, b, c, dt, length, method, conj_pairs=True), 2 * once)


def test_s4d_with_conjugates_is_a_real_dense_recurrence(diagonal):
    """Twice the real part of one half is the whole, convolved as `long_conv` does."""
    lam, b, c, dt = diagonal
    u = normal(1, 50, D)
    y = long_conv(u, s4d_kernel(lam, b, c, dt, 50, conj_pairs=True))
    for d in range(D):
        both = [torch.cat((x[d], x[d].conj())) for x in (lam, b, c)]
        da, db = definitions.discretize(torch.diag(both[0]), both[1], dt[d], "zoh")
        wanted = definitions.dense_ssm(u[0, :, d], da, db, both[2])
        assert wanted.imag.abs().max() < 1e-10
        assert_close("y", y[0, :, d], wanted.real, 1e-10)


def test_long_kernels_in_float32_keep_their_phase():
    """A phase of 6e4 radians: sums in float32 of powers in float64."""
    lam = torch.complex(torch.full((1, 1), -1e-5), torch.ones(1, 1))
    taps = power_sums(
        torch.ones(1, 1, dtype=torch.complex128), torch.exp(lam.to(torch.complex128)), 65_536, torch.float32
    )
    position = torch.arange(65_536, dtype=torch.float64)
    wanted = torch.exp(lam[0, 0].real.double() * position) * torch.cos(lam[0, 0].imag.double() * position)
    assert taps.dtype == torch.float32
    assert_close("taps", taps[:, 0], wanted, 1e-6)


def test_a_base_of_zero_and_extreme_decays():
    base = torch.tensor([[0.0, 1.0, 1e-30]], dtype=torch.complex128, requires_grad=True)
    taps = power_sums(torch.ones(1, 3, dtype=torch.complex128), base, 65_536, torch.float64)
    assert_close("taps", taps[:3, 0], torch.tensor([3.0, 1.0 + 1e-30, 1.0]))
    assert_close("last", taps[-1:], torch.ones(1, 1, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(taps[:100].sum(), base)
    assert_close("gradient", gradient.real, torch.tensor([[1.0, 4950.0, 1.0]]))


def test_no_array_of_all_states_and_positions(diagonal):
    lam, b, c, dt = (x.requires_grad_() for x in diagonal)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        s4d_kernel(lam, b, c, dt, 10_000)
    assert max(kept) <= 4 * D * N * 100


@pytest.mark.parametrize("length", [1, 40, 257])
def test_dss(diagonal, length):
    lam, w, _, dt = diagonal
    lam = torch.where(torch.arange(N) == 1, -lam.conj(), lam)  # one grows
    assert_close("k", dss_softmax_kernel(lam, w, dt, length), definitions.dss_softmax(lam, w, dt, length).T, 1e-10)


def test_dss_takes_the_real_part_once_and_survives_growth(diagonal):
    lam, w, _, dt = diagonal
    both = [torch.cat((x, x.conj()), 1) for x in (lam, w)]
    assert_close("pairs", dss_softmax_kernel(*both, dt, 20), 2 * dss_softmax_kernel(lam, w, dt, 20))
    growing = dss_softmax_kernel(-lam.conj() * 50, w, dt, 10_000)
    assert growing.isfinite().all()


def test_dss_eps_bounds_a_vanishing_sum():
    """e^(lam dt length) = 1: the sum over positions is 0."""
    lam = torch.tensor([[2j * torch.pi / 8]], dtype=torch.complex128)
    one = torch.ones(1, 1, dtype=torch.complex128)
    k = dss_softmax_kernel(lam, one, torch.ones(1, dtype=torch.float64), 8, eps=1e-7)
    assert k.abs().max() < 1


def test_modal():
    residues = complex_normal(D, N)
    log_poles = torch.complex(-torch.rand(D, N, dtype=torch.float64), 3 * normal(D, N))
    u = normal(2, 41, D)
    taps = modal_kernel(residues, log_poles, 41)
    assert_close("taps", taps, recurrence(torch.exp(log_poles), torch.ones(1, dtype=torch.complex128), residues, 41))
    assert_close("y", long_conv(u, taps), definitions.modal_steps(u, residues, log_poles))
    real = modal_kernel(residues.real.float(), log_poles.real.float(), 41)
    wanted = recurrence(torch.exp(log_poles.real), torch.ones(1, dtype=torch.float64), residues.real + 0j, 41)
    assert_close("real poles", real, wanted, 1e-5)


def dplr(halves):
    """HiPPO-LegS of order 8 in `D` channels with random c."""
    lam, p, b = (x[: 4 if halves else 8].repeat(D, 1) for x in hippo_legs_dplr(8))
    return lam, p, p.clone(), b, complex_normal(*lam.shape)


def dense_taps(lam, p, q, b, c, dt, length):
    impulse = torch.zeros(length, dtype=torch.float64)
    impulse[0] = 1
    columns = []
    for d in range(D):
        A = torch.diag(lam[d]) - torch.outer(p[d], q[d].conj())
        columns.append(definitions.dense_ssm(impulse, *definitions.discretize(A, b[d], dt[d], "bilinear"), c[d]))
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("length", [1, 2, 33, 64])
@pytest.mark.parametrize("halves", [False, True])
def test_dplr_is_its_dense_recurrence(length, halves):
    lam, p, q, b, c = dplr(halves)
    q = q + 0.1 * complex_normal(*q.shape)
    dt = torch.tensor([0.001, 0.05, 0.3], dtype=torch.float64)
    both = [torch.cat((x, x.conj()), 1) for x in (lam, p, q, b, c)] if halves else (lam, p, q, b, c)
    wanted = dense_taps(*both, dt, length)
    assert not halves or wanted.imag.abs().max() < 1e-9
    assert_close("k", dplr_kernel(lam, p, q, b, c, dt, length, conj_pairs=halves), wanted.real, 1e-9)


def test_dplr_halves_interact_through_the_low_rank_term():
    """Twice the real part of a half's own kernel is something else: p q* couples the halves."""
    lam, p, q, b, c = dplr(True)
    dt = torch.full((D,), 0.05, dtype=torch.float64)
    whole = dplr_kernel(lam, p, q, b, c, dt, 32, conj_pairs=True)
    assert (whole - 2 * dplr_kernel(lam, p, q, b, c, dt, 32)).abs().max() > 1e-2
    none = torch.zeros_like(p)
    diagonal = dplr_kernel(lam, none, none, b, c, dt, 32, conj_pairs=True)
    assert_close("diagonal", diagonal, s4d_kernel(lam, b, c, dt, 32, "bilinear", conj_pairs=True), 1e-10)


def test_dplr_with_truncated_c():
    lam, p, q, b, c = dplr(False)
    dt = torch.full((D,), 0.05, dtype=torch.float64)
    half = dt.unsqueeze(-1) / 2
    short = c - family._times_power(c, lam, p, q, half, 32)
    assert_close("k", dplr_kernel(lam, p, q, b, short, dt, 32, truncated=True), dplr_kernel(lam, p, q, b, c, dt, 32))


def test_hippo():
    A, B = hippo_legs(16)
    assert (A[0, 0], A[3, 3], A[0, 1], B[4]) == (-1, -4, 0, 3)
    assert_close("entry", A[3, 1], -torch.tensor(21.0, dtype=torch.float64).sqrt())
    lam, p, b = hippo_legs_dplr(16)
    assert_close("pairs", lam[:8], lam[8:].flip(0).conj())
    rebuilt = torch.diag(lam) - torch.outer(p, p.conj())
    assert_close(
        "trace of A^3", torch.linalg.matrix_power(rebuilt, 3).trace().real, torch.linalg.matrix_power(A, 3).trace()
    )
    basis = torch.stack([torch.linalg.matrix_power(rebuilt, i) @ b for i in range(3)])
    assert_close(
        "norms of A^i B",
        (basis.abs() ** 2).sum(1),
        torch.stack([(torch.linalg.matrix_power(A, i) @ B).square().sum() for i in range(3)]),
        1e-10,
    )


def test_gradients(diagonal):
    def halves(*tensors):
        return [x.detach().requires_grad_() for x in tensors]

    lam, b, c, dt = diagonal
    check = torch.autograd.gradcheck
    for method in ("zoh", "bilinear"):
        assert check(lambda *x, m=method: s4d_kernel(*x, 7, m, True), halves(lam, b, c, dt))
    assert check(lambda *x: dss_softmax_kernel(*x, 7), halves(lam, b, dt))
    assert check(lambda *x: modal_kernel(*x, 7), halves(b, lam))
    five = dplr(True)
    for truncated in (False, True):
        assert check(lambda *x, t=truncated: dplr_kernel(*x, 6, True, t), halves(*five, dt))


def test_cauchy_in_parts(monkeypatch):
    rows, mu = complex_normal(D, 2, N), torch.complex(-torch.rand(D, N, dtype=torch.float64), normal(D, N))
    whole = cauchy(rows, mu, 9, 9)
    monkeypatch.setattr(family, "CHUNK", 2 * D * N)
    assert_close("parts", cauchy(rows, mu, 9, 9), whole)
    leaves = (rows.requires_grad_(), mu.requires_grad_())
    assert torch.autograd.gradcheck(lambda r, m: cauchy(r, m, 9, 9), leaves)
    is_an_operator(cauchy, *leaves, 9, 5)
    with FlopCounterMode(display=False) as ours:
        cauchy(*leaves, 9, 9).real.sum().backward()
    with FlopCounterMode(display=False) as counted:
        family._cauchy_forward(rows.detach(), mu.detach(), 9, 9)
    with FlopCounterMode(display=False) as backward:
        family._cauchy_backward([whole], [], rows.detach(), mu.detach(), 9, 9)
    assert ours.get_total_flops() == counted.get_total_flops() + backward.get_total_flops()


def test_contract(diagonal):
    lam, b, c, dt = diagonal
    with pytest.raises(ValueError) as error:
        s4d_kernel(lam, b, c[:, :2], dt, 5)
    assert str(error.value) == "s4d_kernel: c has shape (3, 2), expected (D N) with D = 3, N = 4"
    with pytest.raises(ValueError) as error:
        s4d_kernel(lam, b, c, dt, 5, "euler")
    assert str(error.value) == "s4d_kernel: discretisation is 'euler', expected one of 'zoh', 'bilinear'"


def test_float32_and_compile(diagonal):
    lam, b, c, dt = diagonal
    taps = s4d_kernel(lam.to(torch.complex64), b.to(torch.complex64), c.to(torch.complex64), dt.float(), 50)
    assert taps.dtype == torch.float32
    assert_close("taps", taps, s4d_kernel(lam, b, c, dt, 50), 1e-5)
    compiles(lambda dt: s4d_kernel(lam, b, c, dt, 50), dt)
