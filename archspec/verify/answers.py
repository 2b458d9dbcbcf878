"""What a model gives, so that it can be held against something: the answer of its one head, or those of several."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from archspec.language.model import Head, Spec
from archspec.verify.apart import apart

Output = Tensor | dict[str, Tensor]


def answers(spec: Spec, output: Output) -> list[tuple[Head, Tensor]]:
    """The heads with what each gave."""
    if isinstance(output, Tensor):
        return [(spec.heads[0], output)]
    return [(head, output[head.name]) for head in spec.heads]


def tensors(spec: Spec, output: Output) -> list[Tensor]:
    """What the heads gave, in order."""
    return [answer for _, answer in answers(spec, output)]


def equal(spec: Spec, a: Output, b: Output) -> bool:
    """Whether two outputs are the same to the bit."""
    return all(map(torch.equal, tensors(spec, a), tensors(spec, b)))


def furthest(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """How far the answers are apart that are so the most."""
    return max(map(apart, a, b))


class OfTokens:
    """A model that gives one tensor (B, T, N): the answers to single tokens, those of several heads side by side."""

    def __init__(self, spec: Spec, model: nn.Module):
        self.spec, self.model = spec, model

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """What it gives, without the answers to whole sequences."""
        found = answers(self.spec, self.model(*args, **kwargs))
        return torch.cat([answer for head, answer in found if not head.component.pools], dim=-1)

    def train(self, mode: bool = True) -> Self:
        """The same in training, or not."""
        self.model.train(mode)
        return self
