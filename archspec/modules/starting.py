"""What the ways to start weights share: draws, and numbers that differ from stack to stack."""

from collections.abc import Sequence

from torch import Tensor, nn


def truncated_normal(weight: Tensor, std: float) -> None:
    """N(0, std^2), drawn again beyond two standard deviations."""
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def uniform(weight: Tensor, std: float) -> None:
    """Uniform around 0 with a standard deviation of std."""
    nn.init.uniform_(weight, -(3**0.5) * std, 3**0.5 * std)


def number_of(name: str, numbers: Sequence[tuple[str, int]]) -> int:
    """The number of what is called `name`, of pairs (start of a name, number)."""
    return next(number for start, number in numbers if name.startswith(start))
