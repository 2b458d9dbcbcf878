"""Recurrences of matrix memories as their papers define them, token by token and in float64; decays are logs."""

import math

import torch
import torch.nn.functional as F

F64 = torch.float64


def _d(*xs):
    out = tuple(None if x is None else (x if x.is_complex() else x.to(F64)) for x in xs)
    return out if len(out) > 1 else out[0]


def _state(q, v, state=None):
    b, _, h, kk = q.shape
    return torch.zeros(b, h, kk, v.shape[-1], dtype=F64) if state is None else state.to(F64).clone()


def _outer(k, v):
    return k.unsqueeze(-1) * v.unsqueeze(-2)


def _read(s, q):
    return torch.einsum("bhkv,bhk->bhv", s, q)


def _stack(o):
    return torch.stack(o, dim=1)


def mamba2_ssd(x, dt, a, b, c, d=None, state=None):
    """Mamba-2.  x: [B, T, H, P]; dt: [B, T, H] after softplus/clamp; a: [H] (< 0); b, c: [B, T, G, N].
    State [B, H, N, P]: S = exp(dt a) S + dt b x^T (this is scalar-decay linear attention)."""
    x, dt, a, b, c = _d(x, dt, a, b, c)
    rep = x.shape[2] // b.shape[2]
    b, c = b.repeat_interleave(rep, 2), c.repeat_interleave(rep, 2)
    s = _state(b, x, state)
    out = []
    for t in range(x.shape[1]):
        s = torch.exp(dt[:, t] * a)[..., None, None] * s + _outer(b[:, t], dt[:, t, :, None] * x[:, t])
        out.append(_read(s, c[:, t]))
    y = _stack(out)
    return (y if d is None else y + d.to(F64)[:, None] * x), s


def phi_elu(x):
    return F.elu(x) + 1


def phi_taylor(x, scale):
    """Based: second-order Taylor features of exp(q.k): [1, x, x (x) x / sqrt 2] (dimension 1 + d + d^2)."""
    x = x.to(F64) * math.sqrt(scale)
    x2 = (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2) / math.sqrt(2)
    return torch.cat([torch.ones_like(x[..., :1]), x, x2], -1)


def phi_quadratic(x, gamma=None, beta=None, eps=1e-5):
    """ReBased: (gamma * LayerNorm(x) + beta)^{(x)2}, i.e. the kernel (q.k)^2."""
    x = x.to(F64)
    if gamma is not None:
        x = F.layer_norm(x, x.shape[-1:], gamma.to(F64), beta.to(F64), eps)
    return (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2)


def phi_positive_random(x, proj):
    """Performer FAVOR+: exp(w.x - |x|^2/2)/sqrt(m): unbiased for exp(q.k) with w ~ N(0, I)."""
    x, proj = _d(x, proj)
    return torch.exp(x @ proj.T - x.square().sum(-1, keepdim=True) / 2) / math.sqrt(proj.shape[0])


def phi_dpfp(x, nu=1):
    """DPFP-nu (Schlag et al.): products of rolled relu([x, -x])."""
    r = torch.cat([x.to(F64), -x.to(F64)], -1).relu()
    return torch.cat([r * r.roll(j, -1) for j in range(1, nu + 1)], -1)


def linear_attention(q, k, v, normalize=True, eps=0.0, state=None):
    """Katharopoulos et al.: q and k already feature-mapped; normalise by q . sum_s k_s."""
    q, k, v = _d(q, k, v)
    s = _state(q, v) if state is None else state[0]
    n = torch.zeros_like(q[:, 0]) if state is None else state[1]
    out = []
    for t in range(q.shape[1]):
        s, n = s + _outer(k[:, t], v[:, t]), n + k[:, t]
        o = _read(s, q[:, t])
        out.append(o / ((q[:, t] * n).sum(-1, keepdim=True) + eps) if normalize else o)
    return _stack(out), (s, n)


def retnet_decay(heads):
    """RetNet's per-head constants: gamma_h = 1 - 2^(-5-h); as log decay."""
    return torch.log1p(-torch.pow(torch.tensor(2.0, dtype=F64), -5 - torch.arange(heads, dtype=F64)))


def alibi_slopes(heads):
    """2^(-8 (h+1)/heads) for a power-of-two head count (lightning attention and ALiBi share it)."""
    return torch.pow(torch.tensor(2.0, dtype=F64), -8.0 * (torch.arange(heads, dtype=F64) + 1) / heads)


def lightning_decay(heads, layer, n_layers):
    """TransNormerLLM / lightning attention: log decay -slope_h * (1 - layer/(n_layers-1) + 1e-5)."""
    return -alibi_slopes(heads) * (1 - layer / (n_layers - 1 + 1e-5) + 1e-5)


def retention(q, k, v, log_gamma, state=None):
    """RetNet and TransNormerLLM/lightning: constant decay per head; q and k carry xPos/LRPE rotation."""
    q, k, v, log_gamma = _d(q, k, v, log_gamma)
    g = log_gamma.exp()[None, :, None, None]
    s = _state(q, v, state)
    out = []
    for t in range(q.shape[1]):
        s = g * s + _outer(k[:, t], v[:, t])
        out.append(_read(s, q[:, t]))
    return _stack(out), s


def gla(q, k, v, g, state=None):
    """Gated linear attention: g is a log decay per key channel [B, T, H, K] (HGRN2, RWKV-6 without
    bonus, GSA's two passes use it); g of shape [B, T, H] is scalar-decay (simple GLA, Mamba-2, mLSTM, YOCO)."""
    q, k, v, g = _d(q, k, v, g)
    g = g.unsqueeze(-1) if g.dim() == 3 else g
    s = _state(q, v, state)
    out = []
    for t in range(q.shape[1]):
        s = g[:, t].exp().unsqueeze(-1) * s + _outer(k[:, t], v[:, t])
        out.append(_read(s, q[:, t]))
    return _stack(out), s


def hgrn2(q, f, i, state=None):
    """HGRN2: forget gate f in (lb, 1); key is tied to it, k = 1 - f; values are the inputs i."""
    q, f, i = _d(q, f, i)
    return gla(q, 1 - f, i, f.log(), state)


def rwkv56(r, k, v, w, u, state=None):
    """RWKV-5 (w constant per channel, [H, K]) and RWKV-6 (w data-dependent, [B, T, H, K]); w is a log
    decay; u [H, K] is the current-token bonus: o = r (S + diag(u) k v^T), then S = diag(e^w) S + k v^T."""
    r, k, v, w, u = _d(r, k, v, w, u)
    w = w.expand_as(k)
    s = _state(r, v, state)
    out = []
    for t in range(r.shape[1]):
        kv = _outer(k[:, t], v[:, t])
        out.append(_read(s + u.unsqueeze(-1) * kv, r[:, t]))
        s = w[:, t].exp().unsqueeze(-1) * s + kv
    return _stack(out), s


def mlstm(q, k, v, i, f, eps=0.0, state=None):
    """xLSTM matrix memory.  i, f: gate pre-activations [B, T, H]; exponential input gate, sigmoid forget
    gate, normaliser max(|q.n|, e^-m).  q or k must already carry the K**-0.5 scale."""
    q, k, v, i, f = _d(q, k, v, i, f)
    c = _state(q, v)
    n = torch.zeros_like(q[:, 0])
    m = torch.zeros_like(i[:, 0])
    if state is not None:
        c, n, m = state
    out = []
    for t in range(q.shape[1]):
        lf = F.logsigmoid(f[:, t])
        m_new = torch.maximum(lf + m, i[:, t])
        fg, ig = torch.exp(lf + m - m_new), torch.exp(i[:, t] - m_new)
        c = fg[..., None, None] * c + ig[..., None, None] * _outer(k[:, t], v[:, t])
        n = fg[..., None] * n + ig[..., None] * k[:, t]
        m = m_new
        den = torch.maximum((q[:, t] * n).sum(-1).abs(), torch.exp(-m)) + eps
        out.append(_read(c, q[:, t]) / den[..., None])
    return _stack(out), (c, n, m)
