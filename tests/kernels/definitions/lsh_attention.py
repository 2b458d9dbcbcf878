"""Reformer's attention as transformers computes it: masks of -1e9 and -1e5, rounds laid end to end, in float64."""

import math

import torch
from torch import Tensor

F64 = torch.float64


def lsh_attention(qk: Tensor, v: Tensor, buckets: Tensor, chunk: int, look_back: int = 1) -> Tensor:
    """qk (B, T, H, K), v (B, T, H, V), buckets (B, H, R, T), T a multiple of chunk; causal."""
    b, t_len, h, kd = qk.shape
    rounds = buckets.shape[2]
    key = qk / (qk.square().mean(-1, keepdim=True) + 1e-6).sqrt() / math.sqrt(kd)
    outs = torch.zeros(rounds, b, t_len, h, v.shape[-1], dtype=F64)
    lses = torch.zeros(rounds, b, t_len, h, dtype=F64)
    for bi in range(b):
        for hi in range(h):
            order = [torch.argsort(buckets[bi, hi, r] * t_len + torch.arange(t_len)) for r in range(rounds)]
            chunks = torch.cat(order).split(chunk)
            for c, qi in enumerate(chunks):
                ki = torch.cat([chunks[(c - j) % len(chunks)] for j in range(look_back, -1, -1)])
                logit = qk[bi, qi, hi] @ key[bi, ki, hi].T
                logit = logit.masked_fill(ki[None] > qi[:, None], -1e9).masked_fill(ki[None] == qi[:, None], -1e5)
                z = logit.logsumexp(-1)
                r = c * chunk // t_len
                outs[r, bi, qi, hi] = (logit - z[:, None]).exp() @ v[bi, ki, hi]
                lses[r, bi, qi, hi] = z
    return (outs * lses.softmax(0)[..., None]).sum(0)
