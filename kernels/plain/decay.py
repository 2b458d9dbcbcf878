"""Products within a chunk of tokens, each times the decay between its two tokens."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

SMALLEST = -100.0  # a log decay to nothing, with which sums remain numbers


def log_decay_sums(decay: Tensor) -> Tensor:
    """Sums of log decays (B, L, H, K) from the start of the chunk to each token, (B, H, L, K)."""
    return decay.clamp(min=SMALLEST).cumsum(1).transpose(1, 2)


def decayed_scores(reads: Tensor, keys: Tensor, at_reads: Tensor, at_keys: Tensor, diagonal: int) -> Tensor:
    """sum_c reads[t, c] exp(at_reads[t, c] - at_keys[s, c]) keys[s, c] for s <= t + diagonal, else 0: (B, H, L, L).

    reads and keys are (B, H, L, K), the sums (B, H, L, K), or (B, H, L, 1) where all channels decay alike.
    """
    if at_keys.shape[-1] == 1:
        return reads @ keys.mT * decays_between(at_reads, at_keys, diagonal).squeeze(-1)
    # The backward pass makes the decays of all pairs and channels again.
    return checkpoint(products, reads, keys, at_reads, at_keys, diagonal, use_reentrant=False, preserve_rng_state=False)


def products(reads: Tensor, keys: Tensor, at_reads: Tensor, at_keys: Tensor, diagonal: int) -> Tensor:
    """The same where every channel has a decay of its own."""
    return torch.einsum("bhtk,bhsk,bhtsk->bhts", reads, keys, decays_between(at_reads, at_keys, diagonal))


def decays_between(at_reads: Tensor, at_keys: Tensor, diagonal: int) -> Tensor:
    """exp(at_reads[t] - at_keys[s]) for s <= t + diagonal, else 0: (B, H, L, L, K or 1)."""
    L = at_reads.shape[2]
    hidden = torch.ones(L, L, dtype=torch.bool, device=at_reads.device).triu(diagonal + 1)
    return (at_reads.unsqueeze(3) - at_keys.unsqueeze(2)).masked_fill(hidden.unsqueeze(-1), -torch.inf).exp()
