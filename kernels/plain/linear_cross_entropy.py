"""Cross entropy of the logits of a linear layer, without ever holding all logits."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from archspec.kernels.plain.precision import wide


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    scale: float = 1.0,
    z_loss: float = 0.0,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    chunk: int | None = None,
) -> Tensor:
    """Cross entropy of x (..., D) through weight (V, D) and bias (V,) with targets (...), as F.cross_entropy has it."""
    tokens = max(128, 2**23 // len(weight)) if chunk is None else chunk
    numbers = targets.reshape(-1).long()
    # The backward pass makes the logits of a chunk again.
    losses = torch.cat(
        [
            checkpoint(
                token_losses,
                rows,
                weight,
                target,
                bias,
                softcap,
                scale,
                z_loss,
                ignore_index,
                label_smoothing,
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for rows, target in zip(x.reshape(-1, x.shape[-1]).split(tokens), numbers.split(tokens), strict=True)
        ]
    )
    if reduction == "none":
        return losses.view(targets.shape)
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / (numbers != ignore_index).sum()


def token_losses(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    softcap: float | None,
    scale: float,
    z_loss: float,
    ignore_index: int,
    label_smoothing: float,
) -> Tensor:
    """The loss of each row of x (N, D), (N,)."""
    logits = wide(F.linear(x, weight, bias))  # (N, V)
    if scale != 1.0:
        logits = scale * logits
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    losses = F.cross_entropy(
        logits, targets, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction="none"
    )
    if z_loss:
        # Keeps logits from drifting away (PaLM, Chowdhery et al. 2022).
        losses = losses + z_loss * logits.logsumexp(-1).square() * (targets != ignore_index)
    return losses
