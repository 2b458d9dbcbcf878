"""Each part of a layer by itself: so a fault shows even where the whole model gives up a property for another part."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from archspec.layers.base import Component
from archspec.layers.ops import Attend, Experts, FFTConv, Run
from archspec.verify.apart import apart
from archspec.verify.given import first, given
from archspec.verify.places import parts
from archspec.verify.report import Finding, judged, not_made
from archspec.verify.sample import BATCH, Sample

TOLERANCE = 1e-8  # in float64, in units of the largest output
PLACES = 12  # from which on a part is given other vectors


@dataclass(frozen=True)
class Part:
    """A component at work: its path, its module, and what it is given."""

    path: str
    component: Component
    module: nn.Module
    arguments: dict[str, Any]

    def __call__(self, x: Tensor, start: int = 0, **more: Any) -> Tensor:
        """What it gives for x, tokens from `start` on."""
        end, others = start + x.shape[1], {k: v for k, v in self.arguments.items() if k != "x"}
        if "bias" in others:
            others["bias"] = others["bias"][..., start:end, :end]
        for name in self.component.accepts.keys() & others:  # all tokens so far
            others[name] = others[name][:, :, :end]
        return first(self.module(x, **others, **more))


@torch.no_grad()
def each_part(sample: Sample) -> Finding:
    """Parts that say so look at no later token, and give in pieces, with their state, what they give at once."""
    found, ahead, pieces = list[str](), 0, 0
    for part in at_work(sample):
        c = part.component
        if not (c.causal or "prefix_len" in c.arguments):
            continue
        ahead += 1
        found += _looks_ahead(part, sample)
        if "state" in c.arguments:
            pieces += 1
            found += _forgets(part, sample)
    if not ahead:
        return not_made("every part looks at later tokens, as it should")
    said = f"{ahead} different parts look at no later token, {pieces} give the same in pieces"
    return judged(not found, "; ".join(found[:3]) or said)


@torch.no_grad()
def windows(sample: Sample) -> Finding:
    """A token changes the outputs of all that a window lets see it, the last of them too, and of no other."""
    found, said, far = list[str](), dict[int, None](), dict[int, None]()
    for part in at_work(sample):
        window = next((op.window for op in part.component.ops() if isinstance(op, Attend)), None)
        if window is not None and window < sample.tokens:
            said[window] = None
            found += _sees(part, window, sample)
        elif window is not None:
            far[window] = None
    if not said and not far:
        return not_made("no layer has a window")
    listed = ", ".join(map(str, said or far))
    if not said:
        return not_made(f"windows of {listed} tokens hold all {sample.tokens} tokens of the sequences")
    return judged(not found, "; ".join(found[:3]) or f"windows of {listed} tokens end where they should")


def at_work(sample: Sample) -> Iterator[Part]:
    """Every different part of the layers that mixes tokens or keeps a state."""
    model, seen = sample.twin(sample.model()), set[tuple[Component, int]]()
    for path, c, stack in parts(sample.spec):
        if (c, stack.d_model) in seen or not (c.mixes or "state" in c.arguments):
            continue
        seen.add((c, stack.d_model))
        n = sample.tokens if stack.embedding.n_tokens == "T" else stack.embedding.n_tokens
        run = Run(B=BATCH, T=n, S=n, M=n)
        module = model.get_submodule(path)
        yield Part(path, c, module, given(c, stack.d_model, run, dtype=torch.float64))


def _looks_ahead(part: Part, sample: Sample) -> Iterator[str]:
    shared = any(isinstance(op, Experts | FFTConv) for op in part.component.ops())
    x = part.arguments["x"]
    before = part(x)
    for t in sample.cuts(PLACES):
        other = torch.cat((x[:, :t], 1 - x[:, t:]), dim=1)
        error = apart(part(other)[:, :t], before[:, :t], before)
        if error > (1e-12 if shared else 0.0):
            who = f"{part.component.kind} ({part.path})"
            yield f"{who}: tokens from {t} on change an output before them, by {error:.1e}"
            return


def _forgets(part: Part, sample: Sample) -> Iterator[str]:
    x, c = part.arguments["x"], part.component
    n = min(sample.tokens, c.exact_within or sample.tokens)
    whole, cuts = part(x[:, :n]), [0, *sample.cuts(PLACES), n]
    state: dict[str, Any] = {}
    ends = sorted({t for t in cuts if t <= n})
    found = [part(x[:, a:b], a, state=state) for a, b in pairwise(ends)]
    if (error := apart(torch.cat(found, dim=1), whole)) >= TOLERANCE:
        yield f"{c.kind} ({part.path}): {n} tokens in pieces differ from all at once by {error:.1e}"


def _sees(part: Part, window: int, sample: Sample) -> Iterator[str]:
    x, c = part.arguments["x"], part.component
    n, before = x.shape[1], part(x)
    for t in sorted({0, n - 1, *(s for s in (n // 2, n - window - 1, window, window - 1) if 0 <= s < n)}):
        other = x.clone()
        other[:, t] = 1 - x[:, t]
        changed = (before != part(other)).any(-1).all(0)
        first, last = t if c.causal else max(0, t - window + 1), min(n - 1, t + window - 1)
        wrong = [s for s in range(n) if bool(changed[s]) != (first <= s <= last)]
        if wrong:
            does = "sees" if changed[wrong[0]] else "does not see"
            yield f"{c.kind} ({part.path}): with a window of {window}, token {wrong[0]} {does} token {t}"
            return
