"""A model with weights of unit gain, and inputs for it.

At the usual initialisation the logits are nearly equal and real faults show as 1e-6; weights that keep the size of what
passes through them make any fault plain.
"""

from typing import Any

import torch
from torch import Tensor, nn

from archspec.codegen.load import build
from archspec.language.model import Argument, Spec
from archspec.layers.arguments import INPUTS
from archspec.layers.ops import Run
from archspec.modules.model import eager

BATCH = 2


class Sample:
    """Inputs and models of one spec; `tokens` is the length of the main stack's input."""

    def __init__(self, spec: Spec, seed: int = 0):
        self.spec = spec
        self.tokens = min(13, *_limits(spec))
        self.generator = torch.Generator().manual_seed(seed)

    def model(self) -> nn.Module:
        """The generated model, at unit gain, in float64 and evaluation mode."""
        return unit_gain(build(self.spec), self.generator).double().eval()

    def twin(self, model: nn.Module) -> nn.Module:
        """The interpreted model with the same weights."""
        other = eager(self.spec.taking(*INPUTS)).to(next(model.parameters()).dtype)
        other.load_state_dict(model.state_dict())
        return other.train(model.training)

    def inputs(self, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        """What forward must be given, in order."""
        return [self.input(a, dtype) for a in self.spec.arguments if not a.optional]

    def input(self, argument: Argument, dtype: torch.dtype) -> Tensor:
        """One input."""
        embedding = next(s for s in self.spec.stacks if s.name == argument.stack).embedding
        shape = Run(B=BATCH, T=self.tokens).shape(embedding.input_shape)
        if embedding.n_ids is not None:
            return torch.randint(embedding.n_ids, shape, generator=self.generator)
        return torch.randn(shape, generator=self.generator, dtype=dtype)

    def target(self, output: Tensor) -> Tensor:
        """Something to learn: classes for scores, numbers for anything else."""
        if self.spec.head.learns == "classes":
            return torch.randint(output.shape[-1], output.shape[:-1], generator=self.generator)
        return torch.randn(output.shape, generator=self.generator, dtype=output.dtype)

    def loss(self, model: nn.Module, inputs: list[Tensor], target: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The loss of the model, auxiliary ones included, and its target."""
        collects = model.training and self.spec.aux_losses
        aux: dict[str, Tensor] = {}
        output = model(*inputs, aux=aux) if collects else model(*inputs)
        target = self.target(output) if target is None else target
        if target.is_floating_point():
            loss = nn.functional.mse_loss(output, target)
        else:
            loss = nn.functional.cross_entropy(output.flatten(0, -2).float(), target.flatten())
        if collects:
            extra: Any = model.aux_loss
            loss = loss + extra(aux)
        return loss, target


def _limits(spec: Spec) -> list[int]:
    """Lengths that the sample must not pass: of tables and filters, and where frequencies follow the length."""
    every = [c for stack in spec.stacks for c in (*stack.parts, stack.embedding)]
    found = [n for c in every for n in (c.longest, c.exact_within) if n is not None]
    return [*found, spec.max_seq_len or 13]


@torch.no_grad()
def unit_gain(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Redraw matrices so that they keep the size of what they multiply; vectors move a little from where they start."""
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if p.dim() < 2 or name.endswith("A_log"):
            p.add_(0.1 * noise)
        elif isinstance(_owner(model, name), nn.Embedding):
            p.copy_(noise)
        else:
            p.copy_(noise / p.shape[-1] ** 0.5)
    return model


def _owner(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])
