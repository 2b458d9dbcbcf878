"""What the answers of a model's heads cost: cross-entropy with classes, squared error with numbers."""

import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.plain.precision import wide


def class_loss(scores: Tensor, targets: Tensor, ahead: int = 0) -> Tensor:
    """Cross-entropy of scores (B, ..., N) with classes (B, ...), of which -100 counts for none."""
    if ahead:
        # What stands at a place is held against the target so much further on, the last ones against none.
        targets = F.pad(targets, (0, ahead), value=-100)[:, ahead:]
    losses = F.cross_entropy(wide(scores).flatten(0, -2), targets.flatten().long(), reduction="sum")
    return losses / (targets != -100).sum().clamp(min=1)


def number_loss(numbers: Tensor, targets: Tensor) -> Tensor:
    """Squared error of numbers with targets of the same shape."""
    return F.mse_loss(wide(numbers), wide(targets))
