"""Recurrences over channels as their papers define them, token by token in float64."""

import torch
import torch.nn.functional as F


def stack(states):
    return torch.stack(states, dim=1)


def recurrence(a, x):
    """h = a h + x."""
    h, states = torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        h = a[:, t] * h + x[:, t]
        states.append(h)
    return stack(states)


def mamba_s6(x, dt, A, B, C, D=None, z=None):
    """Gu and Dao 2023: dt after softplus, A (D, N), gate through silu."""
    x, dt, A, B, C = (t.double() for t in (x, dt, A, B, C))
    s, out = torch.zeros(x.shape[0], *A.shape, dtype=torch.float64), []
    for t in range(x.shape[1]):
        step = dt[:, t, :, None]
        s = torch.exp(step * A) * s + step * B[:, t, None, :] * x[:, t, :, None]
        out.append((s * C[:, t, None, :]).sum(-1))
    y = stack(out)
    y = y if D is None else y + D.double() * x
    return y if z is None else y * F.silu(z.double())


def qrnn(z, f, o):
    """Bradbury et al. 2017, fo-pooling."""
    return o * recurrence(f, (1 - f) * z)


def min_gru(z, candidate):
    """Feng et al. 2024."""
    return recurrence(1 - z, z * candidate)


def hgrn(i, f):
    """Qin et al. 2023."""
    return recurrence(f, (1 - f) * i)


def rg_lru(x, r, i, lam, c=8.0, reset=None):
    """De et al. 2024: reset (B, T) marks the first tokens of documents."""
    log_a = -c * F.softplus(lam) * r
    a, multiplier = log_a.exp(), (1 - (2 * log_a).exp()).sqrt()
    if reset is not None:
        a, multiplier = a.masked_fill(reset[..., None], 0.0), multiplier.masked_fill(reset[..., None], 1.0)
    return recurrence(a, multiplier * i * x)


def lru(u, lam, B, C, D, gamma):
    """Orvieto et al. 2023: lam (N,), B (N, D), C (D, N) complex."""
    x = (u.to(torch.complex128) @ B.T) * gamma
    return (recurrence(lam.expand(x.shape), x) @ C.T).real + D * u


def ema(x, alpha, delta, beta, eta):
    """Ma et al. 2022 (MEGA): alpha, delta, beta, eta (D, h)."""
    u = x.unsqueeze(-1) * beta
    return (recurrence((1 - alpha * delta).expand_as(u), alpha * u) * eta).sum(-1)


def rwkv4_wkv(w, u, k, v):
    """Peng et al. 2023: w = log decay, u = bonus of the current token."""
    w, u, k, v = (t.double() for t in (w, u, k, v))
    num, den = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0])
    largest, out = torch.full_like(num, -1e38), []
    for t in range(k.shape[1]):
        m = torch.maximum(largest, u + k[:, t])
        before, now = torch.exp(largest - m), torch.exp(u + k[:, t] - m)
        out.append((before * num + now * v[:, t]) / (before * den + now))
        m = torch.maximum(largest + w, k[:, t])
        before, now = torch.exp(largest + w - m), torch.exp(k[:, t] - m)
        num, den, largest = before * num + now * v[:, t], before * den + now, m
    return stack(out)
