"""FLOPs against PyTorch's own counter, on the meta device: training steps and decoded tokens of every kind and spec.

The counter sees attention there as products that keep their scores, and nothing of FFTs.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from contract_specs import Document, cases, cut, example, host, inputs, name, run
from flop_oracle import counted
from hypothesis import given
from test_random_specs import at_most, specs
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from archspec.codegen.load import build
from archspec.errors import SpecError
from archspec.language.load import load
from archspec.language.model import Spec
from archspec.layers.ops import FFTConv
from archspec.passes.cost import Cost, cost
from archspec.verify.shrink import shrink

T, B = 24, 2
PRICED = cases("mixer", "ffn", "embedding", "head", "norm", "scale", "absolute_position")
PUBLISHED = sorted(Path("specs").glob("*.yaml"))


def loaded(document: Document) -> Spec:
    """The spec, for texts of at least T tokens where it can be."""
    spec = load(document)
    if spec.main.embedding.n_tokens != "T" or (spec.max_seq_len or T) >= T:
        return spec
    try:
        return load({**document, "max_seq_len": T})
    except SpecError:
        return spec


def lengths(spec: Spec, tokens: int = T) -> dict[str, int]:
    """Tokens of the main stack and of what it reads, as `cost` takes them."""
    found = {"seq": min(tokens, spec.max_seq_len or tokens)} if spec.main.embedding.n_tokens == "T" else {}
    if len(spec.stacks) > 1 and spec.stacks[-2].embedding.n_tokens == "T":
        found["memory"] = found.get("seq", tokens)
    return found


def on_meta(spec: Spec, tokens: int = T) -> tuple[nn.Module, dict[str, Any]]:
    model = build(spec, device="meta").train()
    given = inputs(spec, T=min(tokens, spec.max_seq_len or tokens), B=B)
    return model, {k: v.to("meta") if isinstance(v, Tensor) else v for k, v in given.items()}


def seen(price: Cost, figure: str) -> int:
    """What the counter sees of a figure: all but FFTs."""
    return sum(x.times * getattr(x, figure) for x in price.lines if not isinstance(x.node.op, FFTConv))


def check_step(spec: Spec, tokens: int = T) -> None:
    """A training step on the meta device takes the FLOPs that are priced, forward and backward."""
    model, given = on_meta(spec, tokens)

    def forward() -> Tensor:
        y, losses, _ = run(model, spec, given)
        return y.square().mean() + losses

    price = cost(spec, batch=B, attention="eager", **lengths(spec, tokens))
    flops, loss = counted(forward)
    assert flops == seen(price, "forward")
    assert counted(loss.backward)[0] == seen(price, "backward")


@pytest.mark.parametrize("case", PRICED, ids=map(name, PRICED))
def test_a_training_step_of_every_kind(case: tuple[str, str, int]) -> None:
    check_step(loaded(host(case[0], example(*case))[0]))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: p.stem)
def test_a_training_step_of_every_spec(path: Path) -> None:
    check_step(shrink(load(path)), tokens=9)


@at_most(4)
@given(spec=specs())
def test_a_training_step_of_random_specs(spec: Spec) -> None:
    check_step(spec)


def decoding() -> Iterator[tuple[str, str, int]]:
    for case in cases("mixer", "ffn", "embedding", "absolute_position", "rope_scaling"):
        spec = load(host(case[0], example(*case))[0])
        if spec.causal and spec.main.has_state:
            yield case


DECODING = list(decoding())


def check_token(spec: Spec, tokens: int = 12) -> None:
    """One more token takes the FLOPs that are priced."""
    model, given = on_meta(spec, tokens + 1)
    model.eval()
    state: dict[str, Any] = {}
    memory = {k: v for k, v in lengths(spec, tokens + 1).items() if k == "memory"}
    price = cost(spec, batch=B, phase="decode", context=tokens, **memory)
    with torch.no_grad():
        model(**cut(spec, given, 0, tokens - 1), state=state)
        flops, _ = counted(partial(model, **cut(spec, given, tokens - 1, tokens), state=state))
    assert flops == seen(price, "forward")


@pytest.mark.parametrize("case", DECODING, ids=map(name, DECODING))
def test_a_decoded_token_of_every_kind(case: tuple[str, str, int]) -> None:
    check_token(loaded(host(case[0], example(*case))[0]))


@pytest.mark.parametrize("path", [p for p in PUBLISHED if load(p).causal], ids=lambda p: p.stem)
def test_a_decoded_token_of_every_spec(path: Path) -> None:
    check_token(shrink(load(path)), tokens=9)


def test_a_window_reads_no_more_keys_than_it_has() -> None:
    mixer = {"kind": "attention", "n_heads": 4, "window": 5}
    document = {"name": "w", "d_model": 16, "vocab_size": 11, "max_seq_len": 64, "blocks": [{"mixer": mixer}]}
    check_token(load({**document, "head": {"kind": "lm"}}), tokens=30)


class Checkpointed(nn.Module):
    """A block that runs again in the backward pass."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return checkpoint(self.block, *args, use_reentrant=False, **kwargs)


@pytest.mark.parametrize(
    "stem", ["gpt2", "llama3_8b", "mamba_130m", "mixtral_8x7b", "gemma2_2b", "bert_base", "jamba_v0_1"]
)
def test_a_checkpointed_step(stem: str) -> None:
    """The second run of a block stops at the last tensor that it keeps: a projection before a sum is not run again."""
    spec = shrink(load(Path("specs") / f"{stem}.yaml"))
    model, given = on_meta(spec, 9)
    for i, block in enumerate(model.blocks):
        model.blocks[i] = Checkpointed(block)
    loss = run(model, spec, given)[0].square().mean()
    price = cost(spec, batch=B, attention="eager", checkpoint="block", **lengths(spec, 9))
    assert counted(loss.backward)[0] == price.flops_backward + price.flops_again
    assert price.flops_again > 0
