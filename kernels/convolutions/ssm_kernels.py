"""Taps of linear time-invariant state spaces, for `long_conv`, and their discretisations, for a recurrence.

A state space h' = A h + B u, y = C h, sampled every dt, is the recurrence h[t] = a h[t-1] + b u[t], y[t] = C h[t], and
that is the convolution of u with k[l] = C a^l b. All functions take one state space for each of D channels, with
complex diagonal entries lam (D, N), b and c (D, N) and steps dt (D,), and return taps (L, D), real.

Where the real part is taken differs between models, and so does the result. With `conj_pairs` the N entries stand for
themselves and their conjugates, so that k = 2 Re(sum): S4 and S4D (Gu et al. 2022). Without, k = Re(sum), once: DSS
(Gupta et al. 2022), StripedHyena, and a full set of entries whose conjugates are among them.

Everything runs in complex128 but the long sums, which have the precision of the arguments: a phase of 10^4 radians,
which is not unusual at the end of a kernel, has three digits in float32. Gradients are autograd's.
"""

from math import prod

import torch
from torch import Tensor

from archspec.kernels.contract import require, require_choice
from archspec.kernels.library import Shape, operator

SERIES = 16  # terms of (e^z - 1) / z for |z| < 1/2: the next is below 2^-17 / 17!, nothing in float64
CHUNK = 1 << 20  # elements (D, N, frequencies) of the Cauchy sum that exist at once


def zoh(lam: Tensor, b: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Zero-order hold, exact for inputs that are constant over a step: e^(lam dt) and (e^(lam dt) - 1) / lam b.

    lam and b (D, N), dt (D,) -> (D, N) each. S4D, DSS, S5. For small lam dt the factor of b is a series.
    """
    lam, b, dt = _exact(lam), _exact(b), dt.double().unsqueeze(-1)
    return torch.exp(lam * dt), b * dt * phi(lam * dt)


def bilinear(lam: Tensor, b: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """Tustin's rule: (1 + lam dt/2) / (1 - lam dt/2) and dt / (1 - lam dt/2) b; (D, N) each. S4, LSSL."""
    lam, b, dt = _exact(lam), _exact(b), dt.double().unsqueeze(-1)
    below = 1 - lam * dt / 2
    return (1 + lam * dt / 2) / below, b * dt / below


def phi(z: Tensor) -> Tensor:
    """(e^z - 1) / z, 1 at 0, with its gradient: by its series where the difference would cancel."""
    small = z.abs() < 0.5
    near, far = torch.where(small, z, 0), torch.where(small, 1, z)  # neither branch may make the other's gradient NaN
    series = torch.ones_like(z)
    for n in range(SERIES, 1, -1):
        series = 1 + near / n * series
    return torch.where(small, series, (torch.exp(far) - 1) / far)


def s4d_kernel(
    lam: Tensor,
    b: Tensor,
    c: Tensor,
    dt: Tensor,
    length: int,
    discretisation: str = "zoh",
    conj_pairs: bool = False,
) -> Tensor:
    """Taps (length, D) of diagonal state spaces, k[l] = sum_n c_n a_n^l b_n (S4D, Gu et al. 2022, equation 4).

    lam, b, c (D, N) complex, dt (D,); discretisation "zoh" or "bilinear"; conj_pairs: 2 Re in place of Re.
    """
    require("s4d_kernel", lam=(lam, "D N"), b=(b, "D N"), c=(c, "D N"), dt=(dt, "D"))
    require_choice("s4d_kernel", "discretisation", discretisation, ("zoh", "bilinear"))
    a, b = zoh(lam, b, dt) if discretisation == "zoh" else bilinear(lam, b, dt)
    taps = power_sums(_exact(c) * b, a, length, _real(lam))
    return 2 * taps if conj_pairs else taps


def modal_kernel(residues: Tensor, log_poles: Tensor, length: int) -> Tensor:
    """Taps (length, D) of a filter in modal form, k[l] = Re sum_n residues_n e^(log_poles_n l) (StripedHyena).

    residues, log_poles (D, N), complex or real.
    """
    require("modal_kernel", residues=(residues, "D N"), log_poles=(log_poles, "D N"))
    return power_sums(_exact(residues), torch.exp(_exact(log_poles)), length, _real(residues))


def dss_softmax_kernel(lam: Tensor, w: Tensor, dt: Tensor, length: int, eps: float = 0.0) -> Tensor:
    """Taps of DSS-softmax, k[l] = Re sum_n w_n / lam_n e^(lam_n dt l) / sum_(r < length) e^(lam_n dt r).

    lam, w (D, N) complex, dt (D,) -> (length, D) (Gupta et al. 2022, proposition 1b). The sum is a geometric one, and
    where lam has a positive real part all exponents are lowered by the largest. eps is added to |lam (e^(lam dt length)
    - 1)|^2, by which it divides; the published code has 1e-7 there.
    """
    require("dss_softmax_kernel", lam=(lam, "D N"), w=(w, "D N"), dt=(dt, "D"))
    lam, w = _exact(lam), _exact(w)
    z = lam * dt.double().unsqueeze(-1)
    grows = z.real > 0  # then with l' = length - 1 - l the same formulas hold for -z
    falling = torch.where(grows, -z, z)
    below = lam * expm1(falling * length)
    weight = w * expm1(falling) * below.conj() / (below.abs().square() + eps)
    a = torch.exp(falling)
    forward = power_sums(torch.where(grows, 0, weight), a, length, _real(w))
    return forward + power_sums(torch.where(grows, weight, 0), a, length, _real(w)).flip(0)


def expm1(z: Tensor) -> Tensor:
    """e^z - 1 of complex z, exact for small z."""
    return z * phi(z)


def power_sums(weights: Tensor, base: Tensor, length: int, real: torch.dtype) -> Tensor:
    """Re sum_n weights_n base_n^l for l < length: a Vandermonde product, (D, N) -> (length, D) in the type `real`.

    With l = C i + j, C about sqrt(length), it is the product of weights base^(C i) (D, I, N) and base^j (D, N, C): no
    array of D N length numbers, and 4 D N length multiplications as one product of real matrices.
    """
    step = max(int(length**0.5), 1)
    coarse = weights.unsqueeze(-1) * powers(powers(base, step + 1)[..., -1], -(-length // step))
    fine = powers(base, step)
    left = torch.cat((coarse.real, -coarse.imag), dim=1).to(real)  # (D, 2 N, I)
    right = torch.cat((fine.real, fine.imag), dim=1).to(real)  # (D, 2 N, C)
    return (left.mT @ right).flatten(1)[:, :length].mT


def powers(base: Tensor, n: int) -> Tensor:
    """base^0 ... base^(n-1) in a last dimension, by doubling: right for a base of 0, unlike a logarithm."""
    table = torch.ones_like(base).unsqueeze(-1)
    square = base.unsqueeze(-1)
    while table.shape[-1] < n:
        table = torch.cat((table, table * square), dim=-1)
        square = square * square
    return table[..., :n]


def hippo_legs(n: int) -> tuple[Tensor, Tensor]:
    """HiPPO-LegS, A (n, n) and B (n,) of the time-invariant form, in float64 (Gu et al. 2020, equation 3; S4).

    A[i, j] is -sqrt((2i+1)(2j+1)) below the diagonal, -(i+1) on it and 0 above; B[i] = sqrt(2i+1).
    """
    index = torch.arange(n, dtype=torch.float64)
    root = (2 * index + 1).sqrt()
    return -torch.tril(root.unsqueeze(1) * root, -1) - torch.diag(index + 1), root


def hippo_legs_dplr(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """HiPPO-LegS as diag(lam) - p p* in a basis in which A + p p^T is diagonal: lam, p, b (n,) complex.

    With p = sqrt(i + 1/2) that sum is -1/2 plus a skew-symmetric matrix (S4, Gu et al. 2022, theorem 1). The entries
    come in conjugate pairs; those with a positive imaginary part are the first n // 2.
    """
    A, b = hippo_legs(n)
    p = (torch.arange(n, dtype=torch.float64) + 0.5).sqrt()
    skew = A + torch.outer(p, p) + 0.5 * torch.eye(n, dtype=torch.float64)
    imaginary, basis = torch.linalg.eigh(-1j * skew)
    order = imaginary.argsort(descending=True)
    basis = basis[:, order].mH
    return torch.complex(torch.full_like(b, -0.5), imaginary[order]), basis @ _exact(p), basis @ _exact(b)


def dplr_kernel(
    lam: Tensor,
    p: Tensor,
    q: Tensor,
    b: Tensor,
    c: Tensor,
    dt: Tensor,
    length: int,
    conj_pairs: bool = False,
    truncated: bool = False,
) -> Tensor:
    """Taps of S4: A = diag(lam) - p q*, discretised by the bilinear rule, k[l] = c a^l b, (length, D).

    lam, p, q, b, c (D, N) complex, dt (D,). conj_pairs: the entries stand for their conjugates too, in all five, and A
    is twice as large; otherwise k is the real part of what the N entries give. truncated: c is already
    c (1 - a^length), as S4 trains it; otherwise that power of a dense matrix is computed.

    The taps are the inverse transform of sum_l k[l] z^l at the roots of unity (S4, Gu et al. 2022, appendix C.3), which
    is dt c ((1 - z) - (1 + z) dt/2 A)^-1 b: Cauchy sums for the diagonal, and Woodbury's identity for p q*. Multiplied
    out by 1 + z, unlike there, it has no pole at z = -1.
    """
    given = {"lam": lam, "p": p, "q": q, "b": b, "c": c}
    require("dplr_kernel", **{name: (x, "D N") for name, x in given.items()}, dt=(dt, "D"))
    lam, p, q, b, c = (_both_halves(_exact(x)) if conj_pairs else _exact(x) for x in given.values())
    half = dt.double().unsqueeze(-1) / 2
    c = c if truncated else c - _times_power(c, lam, p, q, half, length)
    rows = torch.stack((c * b, c * p, q.conj() * b, q.conj() * p), dim=1)
    count = length // 2 + 1 if conj_pairs else length
    cb, cp, qb, qp = cauchy(rows, lam * half, length, count).unbind(1)  # (D, count)
    s = half * (1 + _roots(length, count, lam))
    spectrum = 2 * half * (cb - s * cp * qb / (1 + s * qp))
    taps = torch.fft.irfft(spectrum, length) if conj_pairs else torch.fft.ifft(spectrum, length).real
    return taps.mT.to(_real(given["lam"]))


def _both_halves(x: Tensor) -> Tensor:
    return torch.cat((x, x.conj().resolve_conj()), dim=-1)


def _times_power(c: Tensor, lam: Tensor, p: Tensor, q: Tensor, half: Tensor, length: int) -> Tensor:
    """c a^length, with the dense a = (1 - dt/2 A)^-1 (1 + dt/2 A) of each channel."""
    A = half.unsqueeze(-1) * (torch.diag_embed(lam) - p.unsqueeze(-1) * q.conj().unsqueeze(-2))
    one = torch.eye(lam.shape[1], dtype=lam.dtype, device=lam.device)
    a = torch.linalg.solve(one - A, one + A)
    return (c.unsqueeze(-2) @ torch.linalg.matrix_power(a, length)).squeeze(-2)


def _roots(length: int, count: int, like: Tensor) -> Tensor:
    """The first `count` of e^(-2 pi i f / length), where a discrete Fourier transform of that length evaluates."""
    angle = torch.arange(count, dtype=torch.float64, device=like.device) * (-2 * torch.pi / length)
    return torch.polar(torch.ones_like(angle), angle)


def _cauchy_forward(rows: Tensor, mu: Tensor, length: int, count: int) -> Tensor:
    """sum_n rows[d, m, n] / ((1 - z_f) - (1 + z_f) mu[d, n]) at roots of unity z_f, (D, M, count)."""
    z = _roots(length, count, mu)
    sums = rows.new_empty(*rows.shape[:2], count)
    for now in _some(count, mu):
        sums[..., now] = rows @ _cauchy_matrix(z[now], mu)
    return sums


def _cauchy_backward(
    grads: list[Tensor | None], outputs: list[Tensor], rows: Tensor, mu: Tensor, length: int, count: int
) -> list[Tensor]:
    """Gradients of rows and mu; the matrix of D N count numbers is made again, a part at a time."""
    (g,) = grads
    z = _roots(length, count, mu)
    drows, dmu = torch.zeros_like(rows), torch.zeros_like(mu)
    for now in _some(count, mu):
        matrix = _cauchy_matrix(z[now], mu).conj()  # (D, N, some)
        drows += g[..., now] @ matrix.mT
        both = rows.conj().mT @ g[..., now]  # sum over m of conj(rows) g, (D, N, some)
        dmu += (both * matrix.square() * (1 + z[now]).conj()).sum(-1)
    return [drows, dmu]


def _cauchy_matrix(z: Tensor, mu: Tensor) -> Tensor:
    return 1 / ((1 - z) - (1 + z) * mu.unsqueeze(-1))


def _some(count: int, mu: Tensor) -> list[slice]:
    step = max(CHUNK // max(mu.numel(), 1), 1)
    return [slice(start, start + step) for start in range(0, count, step)]


def _cauchy_fake(rows: Tensor, mu: Tensor, length: int, count: int) -> Tensor:
    return rows.new_empty(*rows.shape[:2], count)


def _cauchy_flops(rows: Shape, mu: Shape, length: int, count: int) -> int:
    """As PyTorch counts complex products: two a product."""
    return 2 * prod(rows) * count


def _cauchy_backward_flops(rows: Shape, mu: Shape, length: int, count: int) -> int:
    return 4 * prod(rows) * count


cauchy = operator(
    "ssm_cauchy",
    _cauchy_forward,
    _cauchy_backward,
    _cauchy_fake,
    flops=_cauchy_flops,
    backward_flops=_cauchy_backward_flops,
)


def _exact(x: Tensor) -> Tensor:
    return x.to(torch.complex128)


def _real(x: Tensor) -> torch.dtype:
    """The real type of a result: float64 for float64 and complex128, else float32."""
    return torch.float64 if x.dtype in (torch.float64, torch.complex128) else torch.float32
