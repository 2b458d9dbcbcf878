"""Delta rules and the memory with a low-rank transition as their papers define them, token by token in float64."""

import torch


def outer(k, v):
    return k.unsqueeze(-1) * v.unsqueeze(-2)


def read(S, q):
    return torch.einsum("bhkv,bhk->bhv", S, q)


def start(q, v, state):
    return torch.zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[-1], dtype=torch.float64) if state is None else state


def gated_delta(q, k, v, beta, g=None, state=None):
    """DeltaNet without g, Gated DeltaNet with g (B, T, H), Kimi delta attention with g (B, T, H, K)."""
    return comba(q, k, v, k, beta, g, state)


def comba(q, k, v, p, beta, g=None, state=None):
    """The feedback is read with p."""
    S, outputs = start(q, v, state), []
    for t in range(q.shape[1]):
        if g is not None:
            S = (g.unsqueeze(-1) if g.dim() == 3 else g)[:, t].exp().unsqueeze(-1) * S
        S = S + outer(k[:, t], beta[:, t, :, None] * (v[:, t] - read(S, p[:, t])))
        outputs.append(read(S, q[:, t]))
    return torch.stack(outputs, dim=1), S


def delta_product(q, k, v, beta, g=None, state=None):
    """n delta steps a token: k, v (B, T, n, H, .), beta (B, T, n, H)."""
    S, outputs = start(q, v[:, :, 0], state), []
    for t in range(q.shape[1]):
        if g is not None:
            S = (g.unsqueeze(-1) if g.dim() == 3 else g)[:, t].exp().unsqueeze(-1) * S
        for j in range(k.shape[2]):
            S = S + outer(k[:, t, j], beta[:, t, j, :, None] * (v[:, t, j] - read(S, k[:, t, j])))
        outputs.append(read(S, q[:, t]))
    return torch.stack(outputs, dim=1), S


def gdn2(q, k, v, g, erase, write, state=None):
    """Gated DeltaNet-2: a gate for each channel on the key that reads, and one on the value that is written."""
    S, outputs = start(q, v, state), []
    for t in range(q.shape[1]):
        S = g[:, t].exp().unsqueeze(-1) * S
        S = S + outer(k[:, t], write[:, t] * v[:, t] - read(S, erase[:, t] * k[:, t]))
        outputs.append(read(S, q[:, t]))
    return torch.stack(outputs, dim=1), S


def rwkv7(q, k, v, a, b, g, state=None):
    """S diag(e^g) + S a b^T + v k^T of the paper, transposed."""
    S, outputs = start(q, v, state), []
    for t in range(q.shape[1]):
        S = g[:, t].exp().unsqueeze(-1) * S + outer(b[:, t], read(S, a[:, t])) + outer(k[:, t], v[:, t])
        outputs.append(read(S, q[:, t]))
    return torch.stack(outputs, dim=1), S
