"""Small specs, and models with one fault that shows only in long sequences."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from archspec import loads
from archspec.codegen import generate
from archspec.codegen.load import load_text
from archspec.language.model import Spec
from archspec.layers.arguments import INPUTS
from archspec.verify.sample import Sample

N = 40  # tokens within which a planted fault does nothing

Given = dict[str, Any]
Fault = Callable[[nn.Module, Tensor, Given], Tensor]


def spec_of(
    mixer: str = "{kind: attention, n_heads: 4, position: rope}",
    ffn: str = "{kind: gated_mlp, d_ff: 24}",
    head: str = "{kind: lm, tied: true}",
    max_seq_len: int = 256,
) -> Spec:
    """Two layers with that mixer and FFN."""
    return loads(f"""
name: small
d_model: 16
vocab_size: 11
max_seq_len: {max_seq_len}
blocks:
  - {{repeat: 2, mixer: {mixer}, ffn: {ffn}}}
head: {head}
""")


class Wrong(nn.Module):
    """A model with one fault."""

    def __init__(self, model: nn.Module, fault: Fault):
        super().__init__()
        self.inner, self.fault = model, fault

    def forward(self, tokens: Tensor, **given: Any) -> Tensor:
        return self.fault(self.inner, tokens, given)


def spoiled(sample: Sample, fault: Fault) -> Sample:
    """The sample with a model that has that fault."""
    model = sample.model
    vars(sample)["model"] = lambda: Wrong(model(), fault)
    return sample


def rewritten(spec: Spec, old: str, new: str) -> Sample:
    """A sample whose generated file says something else in one place."""
    text = generate(spec.taking(*INPUTS))
    assert text.count(old) == 1, text
    sample = Sample(spec)
    vars(sample)["built"] = load_text(text.replace(old, new), "rewritten").Model()
    return sample


# Faults


def peek(model: nn.Module, x: Tensor, given: Given) -> Tensor:
    """Outputs behind N tokens see the next one."""
    y = model(x, **given).clone()
    y[:, N:-1] += 0.1 * y[:, N + 1 :]
    return y


def peek_once(model: nn.Module, x: Tensor, given: Given) -> Tensor:
    """A single output sees the next token."""
    y = model(x, **given).clone()
    y[:, N] += 0.1 * y[:, N + 1] if x.shape[1] > N + 1 else 0
    return y


def stretch(model: nn.Module, x: Tensor, given: Given) -> Tensor:
    """All outputs depend on the length of a text of more than N tokens."""
    y: Tensor = model(x, **given)
    return y * (1 + 0.01 * max(0, x.shape[1] - N))


def forget(model: nn.Module, x: Tensor, given: Given) -> Tensor:
    """Single tokens behind N others, as decoding gives them, are wrong."""
    state = given.get("state")
    y: Tensor = model(x, **given)
    if state is None or x.shape[1] > 1:
        return y
    sizes = [t.shape[-2] for t in tensors(state) if t.dim() == 4]
    return y * 1.1 if max(sizes, default=0) > N else y


def tensors(state: Any) -> list[Tensor]:
    """All tensors of a state."""
    if isinstance(state, Tensor):
        return [state]
    return [t for value in state.values() for t in tensors(value)] if isinstance(state, dict) else []


def pad_wrong(model: nn.Module, x: Tensor, given: Given) -> Tensor:
    """Rows with more than N tokens of padding see it."""
    mask = given.get("mask")
    if mask is not None:
        given["mask"] = mask | ((~mask).sum(1, keepdim=True) > N)
    y: Tensor = model(x, **given)
    return y


def pad_prompts_wrong(model: nn.Module, x: Tensor, given: Given) -> Tensor:
    """The same in prompts alone."""
    return pad_wrong(model, x, given) if "state" in given else model(x, **given)


def pack_wrong(model: nn.Module, x: Tensor, given: Given) -> Tensor:
    """A third document is taken for a part of the second."""
    documents = given.get("documents")
    if documents is not None:
        given["documents"] = documents.clamp(max=1)
    y: Tensor = model(x, **given)
    return y


class _Cut(torch.autograd.Function):
    """Nothing forward; backward, tokens behind N have no gradient."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return torch.cat((g[:, :N], 0 * g[:, N:]), dim=1)


def cut_gradients(model: nn.Module, x: Tensor, given: Given) -> Tensor:
    """The loss of tokens behind N moves no parameter."""
    y: Tensor = _Cut.apply(model(x, **given))
    return y
