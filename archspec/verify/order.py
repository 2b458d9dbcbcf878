"""Causality: no token changes an earlier output, and a longer text leaves the outputs of a shorter one as they were."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

from archspec.graph import graph
from archspec.layers.ops import Experts, FFTConv
from archspec.verify.answers import OfTokens
from archspec.verify.apart import apart
from archspec.verify.claims import changing, chooser, no_order
from archspec.verify.report import Finding, by_design, judged, not_made
from archspec.verify.sample import Sample

TOLERANCE = 1e-8  # in float64, in units of the largest output
LENGTHS = 16  # of texts that are compared


@torch.no_grad()
def causal(sample: Sample) -> Finding:
    """Other tokens from some place on change no output before it: to the bit, or but for rounding.

    Row i of a batch has other tokens from place i on. An expert multiplies the rows that chose it as one matrix, whose
    rounding depends on how many rows there are; an FFT spreads every input, and its rounding, over all outputs.
    """
    if reason := no_order(sample):
        return not_made(reason)
    model, places = sample.of_tokens(), sample.cuts(sample.rows)
    shared = any(isinstance(node.op, Experts | FFTConv) for node in graph(sample.spec).nodes)
    modes = [False, True] if _settled(sample, model) else [False]
    limit, worst, at = 1e-12 if shared else 0.0, 0.0, 0
    for training, given in product(modes, sample.prefixes()):
        for error, t, changes in _leaks(sample, model.train(training), places, given):
            worst, at = max((worst, at), (error, t))
            if not changes and not chooser(sample):
                return judged(False, f"token {t} does not change its own output")
    if worst > limit and (who := chooser(sample)):
        return by_design(f"{who} compares a token with later ones: they change earlier outputs by up to {worst:.1e}")
    if worst > limit:
        return judged(False, f"tokens from {at} on change an output before them, by {worst:.1e}")
    exact = "but for rounding below 1e-12 (experts, FFTs)" if shared else "to the bit"
    where = "any" if len(places) == sample.tokens - 1 else f"{len(places)}"
    how = f"{exact}{', in training too' if True in modes else ''}"
    return judged(True, f"other tokens from {where} of {sample.tokens} places on leave earlier outputs alone, {how}")


def _leaks(
    sample: Sample, model: OfTokens, places: list[int], given: dict[str, Any]
) -> Iterator[tuple[float, int, bool]]:
    """For each place how far other tokens from there on change earlier outputs, and whether they do that of their own.

    As many rows are run at once as fit, each with other tokens from a place of its own on.
    """
    for start in range(0, len(places), sample.rows):
        some = places[start : start + sample.rows]
        *context, x = sample.inputs(batch=len(some))
        changed = torch.stack([_changed(row, t, sample) for row, t in zip(x, some, strict=True)])
        before, after = model(*context, x, **given), model(*context, changed, **given)
        for i, t in enumerate(some):
            if t >= max(given.values(), default=0):
                yield apart(before[i, :t], after[i, :t], before), t, not torch.equal(before[i, t], after[i, t])


def _settled(sample: Sample, model: OfTokens) -> bool:
    """Whether the model gives the same twice in training: nothing in it draws at random."""
    model, inputs = model.train(), sample.inputs()
    return torch.equal(model(*inputs), model(*inputs))


def _changed(x: Tensor, t: int, sample: Sample) -> Tensor:
    """A sequence with another token at t and everywhere behind it."""
    x, n_ids = x.clone(), sample.spec.main.embedding.n_ids
    x[t:] = x[t:] + 1 if n_ids is None else (x[t:] + 1) % n_ids
    return x


@torch.no_grad()
def lengths(sample: Sample) -> Finding:
    """f(x[:k]) = f(x)[:k] for texts of many lengths k."""
    if reason := no_order(sample):
        return not_made(reason)
    within, who = changing(sample)
    cuts = sorted({*sample.cuts(LENGTHS), within})
    model, (*context, x) = sample.of_tokens(), sample.inputs()

    def worst(n: int, shorter: list[int]) -> float:
        found = 0.0
        for given in sample.prefixes():
            whole, least = model(*context, x[:, :n], **given), max(given.values(), default=0)
            ks = [k for k in shorter if k >= least]
            found = max([found, *(apart(model(*context, x[:, :k], **given), whole[:, :k], whole) for k in ks)])
        return found

    near = worst(within, [k for k in cuts if k < within])
    far = worst(sample.tokens, [k for k in cuts if k < sample.tokens]) if within < sample.tokens else near
    said = f"{len(cuts)} lengths up to {sample.tokens}"
    if far < TOLERANCE:
        return judged(True, f"largest difference {far:.1e} over {said}")
    if chooser(sample):
        return by_design(f"{chooser(sample)} chooses among all tokens there are: {far:.1e} over {said}")
    if near < TOLERANCE and within < sample.tokens:
        return by_design(f"up to {within} tokens {near:.1e}; beyond, {who} follows the length of the text: {far:.1e}")
    return judged(False, f"largest difference {max(near, far):.1e} over {said}")
