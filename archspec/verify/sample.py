"""A model with weights of unit gain, and inputs for it.

At the usual initialisation the logits are nearly equal and real faults show as 1e-6; weights that keep the size of what
passes through them make any fault plain. Sequences reach past every window, chunk and limit of the spec, so that what
begins to act only there is looked at.
"""

from collections.abc import Iterator
from copy import deepcopy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from archspec.codegen.load import build
from archspec.graph import graph
from archspec.language.model import Argument, Head, Spec
from archspec.layers.arguments import INPUTS
from archspec.layers.ops import Conv, Run
from archspec.modules.model import eager
from archspec.passes.count import count
from archspec.verify.answers import OfTokens, answers
from archspec.verify.places import placed
from archspec.verify.shrink import LONGEST

Targets = dict[str, Tensor]  # by the names of heads

BATCH = 2
TOKENS = 80  # of a sequence where nothing asks for more: past 64, by which states grow and kernels sum
WORK = 6e9  # multiply-adds of one check, about: with the bounds of `shrink` it bounds the time
NUMBERS = 2e7  # of one output
CALLS = 2000  # of layers in decoding


class Sample:
    """Inputs and models of one spec; `tokens` is the length of the main stack's input."""

    def __init__(self, spec: Spec, seed: int = 0):
        self.spec, self.seed = spec, seed
        self.tokens = _tokens(spec)
        self.generator = torch.Generator().manual_seed(seed)

    def restart(self) -> None:
        """Draw the same again: weights and inputs of a check do not depend on those before it."""
        self.generator.manual_seed(self.seed)

    @cached_property
    def built(self) -> nn.Module:
        """The generated model as it starts."""
        return build(self.spec)

    def model(self) -> nn.Module:
        """The generated model, at unit gain, in float64 and evaluation mode."""
        return unit_gain(self.fresh(), self.generator).double().eval()

    def of_tokens(self) -> OfTokens:
        """The same, giving its answers to single tokens alone."""
        return OfTokens(self.spec, self.model())

    def fresh(self) -> nn.Module:
        """The generated model as it starts."""
        return deepcopy(self.built, {id(s): s for s in vars(self.built).values() if isinstance(s, Spec)})

    def twin(self, model: nn.Module) -> nn.Module:
        """The interpreted model with the same weights."""
        other = eager(self.spec.taking(*INPUTS)).to(next(model.parameters()).dtype)
        other.load_state_dict(model.state_dict())
        return other.train(model.training)

    def inputs(self, dtype: torch.dtype = torch.float64, batch: int = BATCH) -> list[Tensor]:
        """What forward must be given, in order."""
        return [self.input(a, dtype, batch) for a in self.spec.arguments if not a.optional]

    def input(self, argument: Argument, dtype: torch.dtype, batch: int = BATCH) -> Tensor:
        """One input."""
        embedding = next(s for s in self.spec.stacks if s.name == argument.stack).embedding
        shape = Run(B=batch, T=self.tokens).shape(embedding.input_shape)
        if embedding.n_ids is not None:
            return self.ids(embedding.n_ids, shape)
        return torch.randn(shape, generator=self.generator, dtype=dtype)

    def ids(self, n_ids: int, shape: tuple[int, ...]) -> Tensor:
        """Ids at random, (B, T): in each row all ids in some order, then all in another; no two alike side by side.

        Without positions, a text that begins with the same token twice gives the same numbers twice, and an expert that
        must choose one of two equals may choose either.
        """
        found = torch.empty(shape, dtype=torch.long)
        for row in found:
            for start in range(0, len(row), n_ids):
                ids = torch.randperm(n_ids, generator=self.generator)
                if start and ids[0] == row[start - 1]:
                    ids = ids.roll(1)
                row[start : start + n_ids] = ids[: len(row) - start]
        return found

    def name(self, stack: str, of: str) -> str | None:
        """What a model that takes all it can calls an input of a stack; None where it does not take it."""
        return next((a.name for a in self.spec.taking(*INPUTS).arguments if (a.stack, a.of) == (stack, of)), None)

    def prefixes(self) -> Iterator[dict[str, Any]]:
        """What else forward is given: nothing, and where some tokens may see one another, that a third of them do."""
        yield {}
        names = [a.name for a in self.spec.arguments if a.of == "prefix_len"]
        if names:
            yield dict.fromkeys(names, self.tokens // 3)

    def target(self, head: Head, answer: Tensor) -> Tensor:
        """Something for a head to learn: classes for scores, numbers for anything else."""
        if head.component.learns == "classes" and (head.name or answer.shape[-1] > 1):
            return torch.randint(answer.shape[-1], answer.shape[:-1], generator=self.generator)
        return torch.randn(answer.shape, generator=self.generator, dtype=answer.dtype)

    def loss(self, model: nn.Module, inputs: list[Tensor], targets: Targets | None = None) -> tuple[Tensor, Targets]:
        """The loss of the model, auxiliary ones included, and its targets by head."""
        collects = model.training and self.spec.aux_losses
        aux: dict[str, Tensor] = {}
        output = model(*inputs, aux=aux) if collects else model(*inputs)
        found = answers(self.spec, output)
        targets = {head.name: self.target(head, answer) for head, answer in found} if targets is None else targets
        loss = self._of_all(model, output, targets) if self.spec.by_name else _of_one(output, targets[""])
        if collects:
            extra: Any = model.aux_loss
            loss = loss + extra(aux)
        return loss, targets

    @staticmethod
    def _of_all(model: Any, output: dict[str, Tensor], targets: Targets) -> Tensor:
        """The weighted sum that a model with heads by name computes itself."""
        total: Tensor = model.loss(output, targets)["total"]
        return total

    # Where to look

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """Places around which something begins or ends to act."""
        found: dict[int, None] = {}
        for n in _lengths(self.spec):
            found |= dict.fromkeys((n, n - 1, n + 1, 2 * n, 2 * n + 1, self.tokens - n))
        return tuple(t for t in found if 0 < t < self.tokens)

    def cuts(self, most: int) -> list[int]:
        """Places between two tokens, in order: the ends, edges, and others, spread evenly, so many if there are.

        There are more where edges would not find room, up to what so many layers can be called for.
        """
        n = self.tokens
        found = dict.fromkeys((1, n - 1, *self.edges))
        found |= dict.fromkeys(1 + int(i * 0.618034 % 1 * (n - 1)) for i in range(n))
        found |= dict.fromkeys(range(1, n))
        return sorted([t for t in found if 0 < t < n][: max(most, min(2 + len(self.edges), self.steps))])

    @cached_property
    def rows(self) -> int:
        """Sequences that one batch may have."""
        widest = max([self.spec.vocab_size or 1, self.spec.main.d_model])
        return max(BATCH, int(min(WORK / (self.tokens * count(self.spec).total), NUMBERS / (self.tokens * widest))))

    @property
    def steps(self) -> int:
        """Calls that a decoded sequence may take."""
        return max(8, CALLS // max(self.spec.main.n_layers, 1))


def _of_one(output: Tensor, target: Tensor) -> Tensor:
    """The loss of the only head."""
    if target.is_floating_point():
        return nn.functional.mse_loss(output, target)
    return nn.functional.cross_entropy(output.flatten(0, -2), target.flatten())


def _tokens(spec: Spec) -> int:
    """Twice past every window, chunk and limit, as far as tables, filters and max_seq_len allow."""
    every = [c for stack in spec.stacks for c in (*stack.parts, stack.embedding)]
    limits = [c.longest for c in every if c.longest is not None]
    wanted = max(TOKENS, 2 * max(_lengths(spec), default=0) + 3)
    return min(wanted, LONGEST, spec.max_seq_len or LONGEST, *limits)


def _lengths(spec: Spec) -> list[int]:
    """Lengths at which something in the spec begins or ends to act, and which a text of it reaches."""
    found = {c.reach for _, c in placed(spec)}
    found |= {n.op.taps for n in graph(spec).nodes if isinstance(n.op, Conv) and n.op.d_in is None}
    reached = (n for n in found if 1 < n < min(LONGEST, spec.max_seq_len or LONGEST))
    return sorted(reached, reverse=True)


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
