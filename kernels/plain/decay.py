"""Products within a chunk of tokens, each times the decay between its two tokens."""

import torch
from torch import Tensor

SMALLEST = -100.0  # a log decay to nothing, with which sums remain numbers


def log_decay_sums(decay: Tensor) -> Tensor:
    """Sums of log decays (B, L, H, K) from the start of the chunk to each token, (B, H, L, K)."""
    return decay.clamp(min=SMALLEST).cumsum(1).transpose(1, 2)


def decayed_scores(reads: Tensor, keys: Tensor, at_reads: Tensor, at_keys: Tensor, diagonal: int) -> Tensor:
    """sum_c reads[t, c] exp(at_reads[t, c] - at_keys[s, c]) keys[s, c] for s <= t + diagonal, else 0: (B, H, L, L).

    reads and keys are (B, H, L, K), the sums (B, H, L, K), or (B, H, L, 1) where all channels decay alike.
    """
    L = reads.shape[2]
    hidden = torch.ones(L, L, dtype=torch.bool, device=reads.device).triu(diagonal + 1)
    between = at_reads.unsqueeze(3) - at_keys.unsqueeze(2)  # (B, H, L, L, K or 1)
    between = between.masked_fill(hidden.unsqueeze(-1), -torch.inf).exp()
    if between.shape[-1] == 1:
        return reads @ keys.mT * between.squeeze(-1)
    return torch.einsum("bhtk,bhsk,bhtsk->bhts", reads, keys, between)
