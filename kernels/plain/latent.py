"""Multi-head latent attention over a cache of latents, without the keys and values that they stand for."""

import torch
from torch import Tensor

from archspec.kernels.plain.softmax import attention


def latent_attention(
    q_nope: Tensor,
    q_rope: Tensor,
    latent: Tensor,
    k_rope: Tensor,
    w_k: Tensor,
    w_v: Tensor,
    *,
    scale: float | None = None,
    key_mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention (B, H, T, V) with one key and value for all heads, as q_nope . (w_k latent) = (q_nope w_k) . latent."""
    q = torch.cat((q_nope @ w_k, q_rope), dim=-1)  # (B, H, T, L + R), w_k being (H, N, L)
    k = torch.cat((latent, k_rope), dim=-1)  # (B, 1, S, L + R)
    usual = (q_nope.shape[3] + q_rope.shape[3]) ** -0.5
    # PyTorch's operator is fused where values are as wide as keys; what is not of the latent is left out of them.
    y = attention(q, k, k, causal=True, scale=usual if scale is None else scale, key_mask=key_mask, dropout=dropout)
    return y[..., : latent.shape[3]] @ w_v.mT  # w_v is (H, V, L)
