"""Decoding: a text in pieces gives what it gives at once, and the state holds what is declared."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from archspec.layers.ops import Run
from archspec.modules import by_itself
from archspec.verify.answers import OfTokens
from archspec.verify.apart import apart
from archspec.verify.claims import changing, chooser, no_state
from archspec.verify.declared import state_problems
from archspec.verify.given import components, given
from archspec.verify.report import Finding, by_design, judged, not_made
from archspec.verify.sample import BATCH, Sample

TOLERANCE = 1e-8  # in float64, in units of the largest output


@torch.no_grad()
def decoding(sample: Sample) -> Finding:
    """The whole sequence at once, in pieces, and token by token with the state."""
    if reason := no_state(sample):
        return not_made(reason)
    within, who = changing(sample)
    model, inputs = sample.of_tokens(), sample.inputs()
    near = _in_pieces(sample, model, inputs, within)
    far = near if within == sample.tokens else _in_pieces(sample, model, inputs, sample.tokens)
    said = f"of {sample.tokens} tokens {', '.join(pieces(sample, sample.tokens))}"
    if far < TOLERANCE:
        return judged(True, f"largest difference {far:.1e} {said}")
    if chooser(sample):
        return by_design(f"{chooser(sample)} chooses among the tokens of a call: {far:.1e} {said}")
    if near < TOLERANCE and within < sample.tokens:
        return by_design(f"up to {within} tokens {near:.1e}; beyond, {who} follows the length of the text: {far:.1e}")
    return judged(False, f"largest difference {max(near, far):.1e} {said}")


def pieces(sample: Sample, n: int, least: int = 0) -> dict[str, list[int]]:
    """Ways to cut n tokens, as sizes; the first piece has at least `least`."""
    singles = min(n, sample.steps)
    ways = {
        "token by token" if singles == n else f"a piece and {singles} single tokens": [n - singles, *[1] * singles],
        "in two": [n // 2, n - n // 2],
        "a prompt, then tokens": [n - 2, 1, 1],
        "cut at the edges": _sizes([t for t in sample.cuts(8) if t < n], n),
    }
    return {name: _begun([s for s in sizes if s > 0], least) for name, sizes in ways.items()}


def _sizes(cuts: list[int], n: int) -> list[int]:
    ends = sorted({0, *cuts, n})
    return [b - a for a, b in pairwise(ends)]


def _begun(sizes: list[int], least: int) -> list[int]:
    """The sizes with as many at the start made one as hold `least` tokens."""
    first = 0
    while sizes and (first < least or not first):
        first, sizes = first + sizes[0], sizes[1:]
    return [first, *sizes]


def _in_pieces(sample: Sample, model: OfTokens, inputs: list[Tensor], n: int) -> float:
    *context, x = inputs
    x, worst = x[:, :n], 0.0
    for prefix in sample.prefixes():
        prefix = {name: min(size, n) for name, size in prefix.items()}
        whole = model(*context, x, **prefix)
        for sizes in pieces(sample, n, max(prefix.values(), default=0)).values():
            state: dict[str, Any] = {}
            parts = [model(*context, part, **prefix, state=state) for part in x.split(sizes, dim=1)]
            worst = max(worst, apart(torch.cat(parts, dim=1), whole))
    return worst


@torch.no_grad()
def state(sample: Sample) -> Finding:
    """After a prompt and after one more token, the state holds the tensors that are declared, and no more."""
    parts = sample.spec.main.parts
    kept = [c for c in components(sample.spec) if "state" in c[0].arguments and any(c[0] is p for p in parts)]
    if not kept:
        return not_made("nothing is kept from one token to the next")
    found: list[str] = []
    ends = sorted({t for t in sample.cuts(6) if t > 1} | {sample.tokens})
    for dtype in (torch.float32, torch.bfloat16):
        for c, width in kept:
            module, held, start = by_itself(c).to(dtype).eval(), dict[str, Any](), 0
            for end in ends:
                run = Run(B=BATCH, T=end - start, S=end, M=sample.tokens)
                x = given(c, width, run, dtype=dtype)
                module(x.pop("x"), **x, state=held)
                found += state_problems(c, c.ops(), held, run, dtype)
                start = end
    said = f"what is declared after {', '.join(map(str, ends))} tokens, in float32 and bfloat16"
    return judged(not found, "; ".join(found[:3]) or f"holds {said}")
