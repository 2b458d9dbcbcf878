"""Padded and packed batches: each sequence gives what it gives by itself."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from archspec.layers.arguments import INPUTS
from archspec.verify.answers import OfTokens, Output, answers, furthest, tensors
from archspec.verify.apart import apart
from archspec.verify.claims import changing, chooser, crossing, no_state
from archspec.verify.report import Finding, by_design, judged, not_made
from archspec.verify.sample import Sample

TOLERANCE = 1e-8  # in float64, in units of the largest output
Inputs = dict[str, Tensor]


@torch.no_grad()
def padding(sample: Sample) -> Finding:
    """Sequences of different lengths, padded at either end, against each alone; decoded too, where that can be."""
    rows = _Rows(sample)
    if not rows.masks:
        return not_made("an image is whole: there is no padding")
    if sample.tokens < 2:
        return not_made("sequences have one token: there is no room for padding")
    model, inputs = sample.model(), rows.inputs()
    alone = [model(**rows.cut(inputs, i, slice(0, n))) for i, n in enumerate(rows.lengths)]
    worst = max(_padded(rows, model, inputs, alone, side) for side in ("left", "right"))
    decodes = not no_state(sample) and not chooser(sample) and changing(sample)[0] == sample.tokens
    if decodes:
        by_token = OfTokens(sample.spec, model)
        worst = max(worst, max(_prompted(rows, by_token, inputs, side) for side in ("left", "right")))
    how = "padded at either end" + (", at once and as prompts that are decoded" if decodes else "")
    said = f"largest difference {worst:.1e} of sequences of {', '.join(map(str, rows.lengths))} tokens, {how}"
    if worst >= TOLERANCE and crossing(sample):
        return by_design(f"{crossing(sample)} chooses among all sequences of a batch; {said}, from each alone")
    return judged(worst < TOLERANCE, f"{said}, from each alone")


class _Rows:
    """A batch whose sequences have different lengths."""

    def __init__(self, sample: Sample):
        self.sample, self.spec, n = sample, sample.spec.taking(*INPUTS), sample.tokens
        self.lengths = (n, max(n - 2, 1), max(n // 3, 1))
        of_tokens = [s for s in self.spec.stacks if s.embedding.n_tokens == "T"]
        named = {s.name: sample.name(s.name, "mask") for s in of_tokens}
        self.masks = {stack: name for stack, name in named.items() if name is not None}
        reads = {sample.name(s.name, s.embedding.reads) or "" for s in of_tokens if s.name in self.masks}
        self.padded = reads - {""}
        self.main = sample.name(self.spec.main.name, self.spec.main.embedding.reads) or ""

    def inputs(self) -> Inputs:
        """What forward must be given, by name, each sequence beginning in the first column."""
        names = [a.name for a in self.spec.arguments if not a.optional]
        return dict(zip(names, self.sample.inputs(batch=len(self.lengths)), strict=True))

    def cut(self, inputs: Inputs, i: int, span: slice) -> Inputs:
        """One sequence by itself."""
        return {k: x[i : i + 1, span] if k in self.padded else x[i : i + 1] for k, x in inputs.items()}

    def spans(self, side: str, lengths: Sequence[int], n: int) -> list[slice]:
        """Where the tokens of each sequence stand among n columns."""
        return [slice(n - size, n) if side == "left" else slice(0, size) for size in lengths]

    def moved(self, inputs: Inputs, side: str, lengths: Sequence[int], n: int) -> tuple[dict[str, Any], list[slice]]:
        """The first tokens of each sequence, as many as `lengths` says, in n columns, with other tokens around them."""
        spans = self.spans(side, lengths, n)
        mask = torch.zeros(len(lengths), n, dtype=torch.bool)
        found: dict[str, Any] = {k: x[:, :n].flip(1) if k in self.padded else x for k, x in inputs.items()}
        for i, (span, size) in enumerate(zip(spans, lengths, strict=True)):
            mask[i, span] = True
            for k in self.padded & inputs.keys():
                found[k][i, span] = inputs[k][i, :size]
        return found | dict.fromkeys(self.masks.values(), mask), spans

    def part(self, output: Output, i: int, span: slice) -> list[Tensor]:
        """What a batch gives for one sequence, by head."""
        found = answers(self.spec, output)
        wholes = [head.component.pools or self.spec.main.name not in self.masks for head, _ in found]
        return [x[i : i + 1] if whole else x[i : i + 1, span] for whole, (_, x) in zip(wholes, found, strict=True)]


def _padded(rows: _Rows, model: nn.Module, inputs: Inputs, alone: Sequence[Output], side: str) -> float:
    """All sequences at once."""
    given, spans = rows.moved(inputs, side, rows.lengths, rows.sample.tokens)
    together = model(**given)
    return max(furthest(rows.part(together, i, span), tensors(rows.spec, alone[i])) for i, span in enumerate(spans))


def _prompted(rows: _Rows, model: OfTokens, inputs: Inputs, side: str) -> float:
    """Prompts of the main stack, padded, and then a few tokens of each sequence, one by one."""
    alone = [model(**rows.cut(inputs, i, slice(0, n))) for i, n in enumerate(rows.lengths)]
    steps = min(3, min(rows.lengths) - 1)
    prompts = [n - steps for n in rows.lengths]
    given, spans = rows.moved(inputs, side, prompts, max(prompts))
    others = {k: x for k, x in rows.moved(inputs, side, rows.lengths, rows.sample.tokens)[0].items() if _other(rows, k)}
    state: dict[str, Any] = {}
    first = model(**{**given, **others}, state=state)
    begun = enumerate(zip(spans, prompts, strict=True))
    worst = max(apart(first[i : i + 1, span], alone[i][:, :n]) for i, (span, n) in begun)
    for step in range(steps):
        tokens = torch.stack([inputs[rows.main][i, n + step] for i, n in enumerate(prompts)]).unsqueeze(1)
        output = model(**{rows.main: tokens}, **others, state=state)
        worst = max(worst, *(apart(output[i], alone[i][0, n + step]) for i, n in enumerate(prompts)))
    return worst


def _other(rows: _Rows, name: str) -> bool:
    """Whether an argument is of another stack than the main one."""
    return name not in (rows.main, rows.masks.get(rows.spec.main.name))


@torch.no_grad()
def packing(sample: Sample) -> Finding:
    """Three documents in one row against each alone."""
    spec = sample.spec.taking(*INPUTS)
    names = [name for s in spec.stacks if (name := sample.name(s.name, "documents")) is not None]
    if not names:
        return not_made(_unpacked(sample))
    if sample.tokens < 2:
        return not_made("sequences have one token: there is no room for a second document")
    n, reads = sample.tokens, [a.name for a in spec.arguments if not a.optional]
    ends = sorted({max(n // 5, 1), max(n // 3, 1), n})
    spans = [slice(a, b) for a, b in pairwise([0, *ends])]
    model, inputs = sample.of_tokens(), dict(zip(reads, sample.inputs(), strict=True))
    documents = torch.bucketize(torch.arange(n), torch.tensor(ends), right=True).expand(len(inputs[reads[0]]), -1)
    together = model(**inputs, **dict.fromkeys(names, documents))
    alone = [model(**{name: x[:, span] for name, x in inputs.items()}) for span in spans]
    worst = max(apart(together[:, span], y) for span, y in zip(spans, alone, strict=True))
    said = f"largest difference {worst:.1e} of {len(spans)} documents packed in a row from each alone"
    if worst >= TOLERANCE and crossing(sample):
        return by_design(f"{crossing(sample)} chooses among all documents of a batch; {said}")
    return judged(worst < TOLERANCE, said)


def _unpacked(sample: Sample) -> str:
    """Why no rows of several documents are taken."""
    spec = sample.spec
    if any(s.embedding.n_tokens != "T" for s in spec.stacks):
        return "an image is whole: a row holds no documents"
    if pooled := next((head for head in spec.heads if head.component.pools), None):
        who = f"{pooled.component.kind} ({pooled.member})"
        return f"{who} gives one answer for a row, whatever documents are in it"
    if any("prefix_len" in s.arguments for s in spec.stacks):
        return "a prefix is that of a row: rows of several documents are not taken"
    if any(s.of_whole_rows for s in spec.stacks):
        return "global tokens are those of a row: rows of several documents are not taken"
    return "rows of several documents are not taken"
