"""Padded and packed batches: each sequence gives what it gives by itself."""

import torch
from torch import Tensor

from archspec.language.model import Stack
from archspec.layers.arguments import INPUTS
from archspec.verify.sample import BATCH, Sample

Result = tuple[bool, str] | None
TOLERANCE = 1e-8  # in float64, in units of the largest output


@torch.no_grad()
def padding(sample: Sample) -> Result:
    """Sequences of different lengths, padded at either end, against each alone."""
    spec = sample.spec.taking(*INPUTS)
    names = {(a.stack, a.of): a.name for a in spec.arguments}
    padded = {s.name: names[s.name, "mask"] for s in spec.stacks if _of_tokens(s) and (s.name, "mask") in names}
    if not padded or sample.tokens < 2:
        return None
    model = sample.model()
    inputs = dict(zip((a.name for a in spec.arguments if not a.optional), sample.inputs(), strict=True))
    longest = {names[s.name, s.embedding.reads]: s.name for s in spec.stacks if s.name in padded}
    lengths = [max(sample.tokens - 2 * i, 1) for i in range(BATCH)]
    worst = 0.0
    for side in ("left", "right"):
        spans = [slice(sample.tokens - n, None) if side == "left" else slice(0, n) for n in lengths]
        mask = torch.zeros(BATCH, sample.tokens, dtype=torch.bool)
        for i, span in enumerate(spans):
            mask[i, span] = True
        together = model(**inputs, **dict.fromkeys(padded.values(), mask))
        for i, span in enumerate(spans):
            alone = model(**{k: x[i : i + 1, span] if k in longest else x[i : i + 1] for k, x in inputs.items()})
            ours = together[i : i + 1] if spec.head.pools or spec.main.name not in padded else together[i : i + 1, span]
            worst = max(worst, _error(ours, alone))
    return (
        worst < TOLERANCE,
        f"largest difference {worst:.1e} of {BATCH} sequences, padded at either end, from each alone",
    )


@torch.no_grad()
def packing(sample: Sample) -> Result:
    """Two documents in one row against each alone."""
    spec = sample.spec.taking(*INPUTS)
    if len(spec.stacks) > 1 or not any(a.of == "documents" for a in spec.arguments) or sample.tokens < 2:
        return None
    model, (x,) = sample.model(), sample.inputs()
    first = max(sample.tokens // 3, 1)
    documents = (torch.arange(sample.tokens) >= first).long().expand(BATCH, -1)
    together = model(x, documents=documents)
    alone = torch.cat((model(x[:, :first]), model(x[:, first:])), dim=1)
    worst = _error(together, alone)
    return worst < TOLERANCE, f"largest difference {worst:.1e} of two documents packed in a row from each alone"


def _of_tokens(stack: Stack) -> bool:
    return stack.embedding.n_tokens == "T"


def _error(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-30))
