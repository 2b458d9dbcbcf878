"""What the answers of a model's heads cost: cross-entropy with classes, squared error with numbers.

    class_loss  = mean over targets t that are no -100 of logsumexp(z) - z[t];  0 where there is none
    number_loss = mean of (y - t)^2

Sums are in float32, or float64 for float64 answers. A head that names a token further on (`ahead`) is given the tokens
themselves as targets: the answer at place i is held against the target at i + ahead, and the last ones against none.

Sources: Devlin et al. 2019, "BERT" (a sum over heads); Gloeckle et al. 2024 (heads for tokens further ahead).
"""

from torch import Tensor

from archspec.kernels.contract import require, require_integers
from archspec.kernels.plain.answers import class_loss as plain_class_loss
from archspec.kernels.plain.answers import number_loss as plain_number_loss


def class_loss(scores: Tensor, targets: Tensor, ahead: int = 0) -> Tensor:
    """Cross-entropy of scores (B, ..., N) with classes (B, ...), -100 left out; with `ahead` those so far further on.

    Raises TypeError for targets that number nothing, ValueError for those of another shape.
    """
    require("class_loss", scores=(scores, "... N"))
    require_integers("class_loss", scores, targets=targets)
    _same_shape("class_loss", targets, tuple(scores.shape[:-1]))
    return plain_class_loss(scores, targets, ahead)


def number_loss(numbers: Tensor, targets: Tensor) -> Tensor:
    """Squared error of numbers with targets of the same shape.

    Raises TypeError for targets that are no numbers of a floating type, ValueError for those of another shape.
    """
    require("number_loss", numbers=(numbers, "..."), targets=(targets, "..."))
    _same_shape("number_loss", targets, tuple(numbers.shape))
    return plain_number_loss(numbers, targets)


def _same_shape(op: str, targets: Tensor, right: tuple[int, ...]) -> None:
    if tuple(targets.shape) != right:
        raise ValueError(f"{op}: targets have shape {tuple(targets.shape)}, expected {right} for these answers")
