"""Sequences of different lengths as padded and as packed batches, and each by itself, for any model."""

from typing import Any

import torch
from torch import Tensor, nn

from archspec.language.model import Spec, Stack
from archspec.layers.ops import Run
from archspec.verify.sample import unit_gain

Given = dict[str, Any]
LENGTHS = (5, 2, 7)  # of the sequences; those of an encoder are turned by one


def lengths_of(spec: Spec, stack: Stack) -> tuple[int, ...]:
    """How long the sequences of a stack are; a patch embedding has as many tokens as it makes."""
    n = stack.embedding.n_tokens
    if n != "T":
        return (n,) * len(LENGTHS)
    turned = LENGTHS if stack is spec.main else LENGTHS[1:] + LENGTHS[:1]
    longest = min(
        c for c in (stack.embedding.longest, *(p.longest for p in stack.parts), max(LENGTHS)) if c is not None
    )
    return tuple(min(length, longest) for length in turned)


def sequences(spec: Spec, more: int = 0) -> dict[str, list[Tensor]]:
    """The input of each sequence (1, T, ...) by stack, with so many more tokens in the main one."""
    generator = torch.Generator().manual_seed(1)
    found = {}
    for stack in spec.stacks:
        found[stack.name] = []
        for length in lengths_of(spec, stack):
            T = length + more if stack is spec.main else length
            shape = Run(B=1, T=T).shape(stack.embedding.input_shape)
            n_ids = stack.embedding.n_ids
            numbers = torch.randn(shape, generator=generator, dtype=torch.float64)
            found[stack.name].append(numbers if n_ids is None else torch.randint(n_ids, shape, generator=generator))
    return found


def places(lengths: tuple[int, ...], side: str) -> list[list[int]]:
    """The columns at which the tokens of each sequence stand in a padded batch."""
    T = max(lengths)
    generator = torch.Generator().manual_seed(2)
    found = []
    for n in lengths:
        if side == "holes":
            found.append(sorted(torch.randperm(T, generator=generator)[:n].tolist()))
        else:
            start = {"right": 0, "left": T - n, "both": (T - n) // 2}[side]
            found.append(list(range(start, start + n)))
    return found


def padded(rows: list[Tensor], columns: list[list[int]], T: int) -> tuple[Tensor, Tensor]:
    """The rows in one batch with other tokens at padding, and its mask."""
    batch = torch.cat([rows[0][:, :1].expand(1, T, *rows[0].shape[2:])] * len(rows)).clone()
    mask = torch.zeros(len(rows), T, dtype=torch.bool)
    for i, (row, at) in enumerate(zip(rows, columns, strict=True)):
        batch[i, at] = row[0, : len(at)]
        mask[i, at] = True
    return batch, mask


def name_of(spec: Spec, stack: Stack, of: str) -> str | None:
    """What the model calls an input of a stack; None where it does not take it."""
    return next((a.name for a in spec.arguments if a.stack == stack.name and a.of == of), None)


def inputs(spec: Spec, side: str, given: dict[str, list[Tensor]]) -> tuple[Given, list[list[int]]]:
    """A padded batch of all stacks, and where the main one's tokens stand."""
    found: Given = {}
    at: list[list[int]] = []
    for stack in spec.stacks:
        reads = name_of(spec, stack, stack.embedding.reads)
        assert reads is not None
        if stack.embedding.n_tokens != "T":
            found[reads] = torch.cat(given[stack.name])
            at = [list(range(n)) for n in lengths_of(spec, stack)]
            continue
        lengths = lengths_of(spec, stack)
        at = places(lengths, side)
        found[reads], mask = padded(given[stack.name], at, max(lengths))
        found[name_of(spec, stack, "mask") or "mask"] = mask
    return found, at


def alone(spec: Spec, given: dict[str, list[Tensor]], i: int) -> Given:
    """The arguments of one sequence by itself."""
    return {name_of(spec, s, s.embedding.reads) or "": given[s.name][i] for s in spec.stacks}


def small(model: nn.Module) -> nn.Module:
    """The model in float64 and evaluation mode, at unit gain."""
    return unit_gain(model, torch.Generator().manual_seed(0)).double().eval()


def far(a: Tensor, b: Tensor) -> float:
    """The largest difference, in units of the largest number."""
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) if a.numel() else 0.0


def far_gradients(model: nn.Module, ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference of the gradients of two lists of outputs, in units of the largest gradient."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    both = []
    for outputs in (ours, theirs):
        loss = torch.stack([y.sin().sum() for y in outputs]).sum()
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        both.append([torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)])
    largest = max(float(g.abs().max()) for g in both[1])
    return max(float((a - b).abs().max()) for a, b in zip(*both, strict=True)) / largest


def in_calls(spec: Spec, model: nn.Module, given: Given, reads: str, lengths: list[int]) -> list[Tensor]:
    """What a sequence gives by itself in calls of so many tokens each, one state through all of them."""
    state: dict[str, Any] = {}
    found, start = [], 0
    for n in lengths:
        tokens = given[reads][:, start : start + n]
        found.append(model(**{**given, reads: tokens}, state=state) if n else tokens[:, :0])
        start += n
    return found
