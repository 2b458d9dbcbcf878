"""What every component promises, over every example of every kind: a new file is held to it as soon as it exists."""

import inspect
import re
from typing import Any

import pytest
import torch
from contract_specs import (
    D_MODEL,
    LENGTH,
    PLAIN,
    SIZES,
    cases,
    cut,
    double,
    every_component,
    example,
    found_at,
    host,
    hosted,
    inputs,
    kinds,
    name,
    one_block,
    redraw,
    remembers,
    run,
)
from contract_texts import Texts, interpreted
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from archspec.graph import graph, lower, problems
from archspec.language.load import load
from archspec.language.model import Spec
from archspec.language.resolve import make
from archspec.layers.arguments import ARGUMENTS
from archspec.layers.base import Component, HeadComponent, NormComponent
from archspec.layers.ops import Experts, FFTConv, Op, Run
from archspec.layers.registry import ROLES, find
from archspec.modules import by_itself
from archspec.passes.count import count
from archspec.passes.tensors import registered

T = 16
SCOPE = {**SIZES, "d_embedding": D_MODEL, "n_heads": 4, "head_dim": 16}
MIXERS = cases("mixer")
CALLED = ("embedding", "norm", "scale", "mixer", "ffn", "head")  # roles whose modules are called with x


def component(role: str, kind: str, number: int) -> Component:
    if role == "rope_scaling":
        return found_at(hosted(role, kind, number), role, kind)
    scope = {**SCOPE, "d_memory": 12} if kind == "attention" else SCOPE
    return make(role, example(role, kind, number), **scope)


def module(c: Component) -> nn.Module:
    return by_itself(c, D_MODEL)


def ops(c: Component) -> tuple[Op, ...]:
    return (c.op("", D_MODEL),) if isinstance(c, NormComponent) else c.ops()


each = pytest.mark.parametrize(("role", "kind", "number"), cases(), ids=map(name, cases()))
each_mixer = pytest.mark.parametrize(("role", "kind", "number"), MIXERS, ids=map(name, MIXERS))
with_module = [c for c in cases() if c[0] not in ("init", "rope_scaling")]
each_module = pytest.mark.parametrize(("role", "kind", "number"), with_module, ids=map(name, with_module))
called = cases(*CALLED)
each_called = pytest.mark.parametrize(("role", "kind", "number"), called, ids=map(name, called))


# What a component says of itself


@pytest.mark.parametrize(("role", "kind"), kinds(), ids=map(name, kinds()))
def test_kind_describes_itself(role: str, kind: str) -> None:
    cls = find(role, kind)
    assert cls.role == role
    assert cls.model_fields["kind"].default == kind
    text = inspect.getmodule(cls).__doc__ or ""
    assert "Source" in text, "the docstring of the file names its source"
    for field, info in cls.model_fields.items():
        assert field == "kind" or info.description, field
        assert "\n" not in (info.description or ""), field
    assert cls.examples
    assert cls.__doc__
    assert find(role, kind).__name__ == getattr(inspect.getmodule(cls), cls.__name__).__name__


def test_every_role_has_kinds() -> None:
    assert {role for role, _ in kinds()} == set(ROLES)


# Tensors, FLOPs, dataflow


@each_module
def test_ops_name_the_tensors_of_the_module(role: str, kind: str, number: int) -> None:
    c = component(role, kind, number)
    with torch.device("meta"):
        m = module(c)
    declared = registered([p for op in ops(c) for p in op.params])
    tied = {c.tied_weight} if isinstance(c, HeadComponent) and c.tied_shape is not None else set()
    have = [(n, tuple(p.shape)) for n, p in m.named_parameters() if n not in tied]
    assert [(p.name.removeprefix("."), p.shape) for p in declared if not p.buffer] == have
    kept = [(n, tuple(b.shape)) for n, b in m.named_buffers() if n in m.state_dict()]
    assert [(p.name, p.shape) for p in declared if p.buffer] == kept
    assert all(p.is_meta for p in m.parameters())


@each
def test_ops_are_a_dataflow(role: str, kind: str, number: int) -> None:
    spec = hosted(role, kind, number)
    assert problems(lower(spec)) == []
    c = component(role, kind, number)
    known = {"x", *ARGUMENTS}
    for op in ops(c):
        assert set(op.inputs) <= known, (op.name, op.inputs)
        assert op.name not in known
        known.add(op.name)
    read = {i for op in ops(c) for i in op.inputs}
    assert {op.name for op in ops(c)} - read == {op.name for op in ops(c)[-1:]}
    assert {i for i in c.arguments if i in ("memory", "bias")} <= read | {"state"}


def counted_flops(spec: Spec, length: int) -> int:
    with torch.device("meta"):
        model = interpreted(spec).eval()
        given = {k: v.to("meta") for k, v in inputs(spec, T=length).items()}
    with FlopCounterMode(display=False) as counter:
        model(**given)
    return int(counter.get_total_flops())


@each
def test_flops_are_those_that_torch_counts(role: str, kind: str, number: int) -> None:
    """All but FFTs, which the counter does not see; scans in chunks are priced for whole ones."""
    spec = hosted(role, kind, number)
    length = max(T, *(getattr(c, "chunk", T) for c in every_component(spec)))
    tokens = length if spec.main.embedding.n_tokens == "T" else spec.main.embedding.n_tokens
    run = Run(B=2, T=tokens, S=tokens, M=tokens)
    every = [s for s in graph(spec).nodes if not isinstance(s.op, FFTConv)]
    assert sum(s.op.flops(run) * s.repeat for s in every) == counted_flops(spec, length)


# Inputs


PATHS = {"embedding": "embedding", "norm": "blocks.0.norm1", "scale": "blocks.0.gain", "ffn": "blocks.0.ffn",
         "head": "head", "mixer": "blocks.0.mixer"}  # fmt: skip


@each_called
def test_inputs_are_what_forward_takes_once_specialised(role: str, kind: str, number: int, texts: Texts) -> None:
    spec = hosted(role, kind, number)
    crosses = role == "mixer" and len(spec.stacks) > 1
    path = "decoder.blocks.0.cross" if crosses else PATHS[role]
    part = texts.model(spec).get_submodule(path)
    takes = list(inspect.signature(part.forward).parameters)[1:]
    there = {"state", "channels", *spec.layers_take(spec.main), *spec.given(spec.main)}
    assert takes == [name for name in component(role, kind, number).arguments if name in there]
    said = set(re.findall(r"\w+", part.forward.__doc__ or ""))
    assert said & {*ARGUMENTS} <= set(takes), "the docstring speaks of what is not there"


MASKED = [case for case in cases("head") if "mask" in component(*case).arguments]


@pytest.mark.parametrize(("role", "kind", "number"), MASKED, ids=map(name, MASKED))
def test_padding_does_not_change_what_a_head_pools(role: str, kind: str, number: int) -> None:
    head = example(role, kind, number)
    spec = load(one_block({"mixer": {**PLAIN, "mask": "bidirectional"}}, head=head))
    model = redraw(interpreted(spec)).double().eval()
    given = inputs(spec, T=6)
    mask = torch.tensor([[True] * 4 + [False] * 2] * 2)
    short = model(**cut(spec, given, 0, 4))
    torch.testing.assert_close(model(**given, mask=mask), short, rtol=0, atol=1e-12)


# Causality, pieces, prefixes


def layer(role: str, kind: str, number: int) -> tuple[Component, nn.Module, dict[str, Any]]:
    """A component in float64 at unit gain, and what its forward needs beside x."""
    c = component(role, kind, number)
    torch.manual_seed(0)
    m = redraw(module(c)).double().eval()
    memory = torch.randn(2, 7, getattr(c, "d_memory", 1), dtype=torch.double)
    return c, m, {"memory": memory} if "memory" in c.arguments else {}


def bias_of(c: Component, T: int, S: int) -> dict[str, Tensor]:
    """A bias such as the stack's shared table gives, by distance alone."""
    if "bias" not in c.arguments:
        return {}
    table = torch.randn(4, 64, dtype=torch.double, generator=torch.Generator().manual_seed(5))
    distance = torch.arange(S - T, S).unsqueeze(1) - torch.arange(S)
    return {"bias": table[: c.n_heads, distance.clamp(min=0)].unsqueeze(0)}  # type: ignore[attr-defined]


def sequence(T: int, seed: int = 1) -> Tensor:
    return torch.randn(2, T, D_MODEL, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def is_causal(c: Component) -> bool:
    return c.causal


CAUSAL = [case for case in cases("mixer", "ffn") if is_causal(component(*case))]
each_causal = pytest.mark.parametrize(("role", "kind", "number"), CAUSAL, ids=map(name, CAUSAL))


@each_causal
def test_later_tokens_change_nothing(role: str, kind: str, number: int) -> None:
    c, m, memory = layer(role, kind, number)
    x = sequence(T)
    y = m(x, **memory, **bias_of(c, T, T))
    for k in (1, 5, 11, T - 1):
        other = torch.cat((x[:, :k], 3 * sequence(T, seed=k)[:, k:]), dim=1)
        y2 = m(other, **memory, **bias_of(c, T, T))
        # An FFT mixes all tokens and cancels to rounding error; how many rows an expert multiplies at once depends on
        # all tokens, and the product of one row may round differently among others.
        if any(isinstance(op, FFTConv | Experts) for op in c.ops()):
            torch.testing.assert_close(y2[:, :k], y[:, :k], rtol=0, atol=1e-12)
        else:
            assert torch.equal(y2[:, :k], y[:, :k])
        assert k > 1 or not torch.equal(y2[:, k:], y[:, k:])


NOT_CAUSAL = [case for case in cases("mixer", "ffn") if case not in CAUSAL]


@pytest.mark.parametrize(("role", "kind", "number"), NOT_CAUSAL, ids=map(name, NOT_CAUSAL))
def test_later_tokens_do_change_what_is_not_causal(role: str, kind: str, number: int) -> None:
    """So that the declaration says neither too much nor too little."""
    c, m, memory = layer(role, kind, number)
    x = sequence(T)
    extra = {"prefix_len": T} if "prefix_len" in c.arguments else {}
    other = torch.cat((x[:, :-1], -3 * x[:, -1:]), dim=1)
    assert not torch.equal(m(other, **memory, **extra)[:, :-1], m(x, **memory, **extra)[:, :-1])


@each_causal
def test_output_does_not_depend_on_how_long_the_sequence_is(role: str, kind: str, number: int) -> None:
    c, m, memory = layer(role, kind, number)
    x = sequence(LENGTH)
    y = m(x, **memory, **bias_of(c, LENGTH, LENGTH))
    for k in (1, 2, 3, 4, 7, 8, 13, 16, 17, 31):
        short = m(x[:, :k], **memory, **bias_of(c, k, k))
        torch.testing.assert_close(short, y[:, :k], rtol=0, atol=1e-9)


DECODES = [case for case in cases("mixer", "ffn") if "state" in component(*case).arguments]
each_decoding = pytest.mark.parametrize(("role", "kind", "number"), DECODES, ids=map(name, DECODES))


@each_decoding
def test_whole_equals_pieces_equals_token_by_token(role: str, kind: str, number: int) -> None:
    c, m, memory = layer(role, kind, number)
    length = min(LENGTH, remembers(c))
    x = sequence(length)
    prefix = {"prefix_len": 4} if "prefix_len" in c.arguments else {}
    whole = m(x, **memory, **prefix, **bias_of(c, length, length))
    for sizes in ([length], [4, 1, 3, length - 8], [9] * (length // 9) + [length % 9], [4] + [1] * (length - 4)):
        compare(c, m, x, whole, sizes, memory | prefix)
    if not prefix:  # a prefix that sees itself must come in one piece
        compare(c, m, x, whole, [1] * length, memory)


def compare(c: Component, m: nn.Module, x: Tensor, whole: Tensor, sizes: list[int], given: dict[str, Any]) -> None:
    for grad in (False, True):
        state: dict[str, Any] = {}
        done: list[Tensor] = []
        with torch.set_grad_enabled(grad):
            for piece in x.split(sizes, dim=1):
                seen = sum(d.shape[1] for d in done)
                bias = bias_of(c, piece.shape[1], seen + piece.shape[1])
                done.append(m(piece, **given, **bias, state=state))
        torch.testing.assert_close(torch.cat(done, dim=1), whole, rtol=0, atol=1e-9)


ROTATED = [case for case in cases("position", "rope_scaling", "absolute_position", "embedding") if case[1] != "patch"]


@pytest.mark.parametrize(("role", "kind", "number"), ROTATED, ids=map(name, ROTATED))
def test_model_with_positions_decodes_as_the_whole(role: str, kind: str, number: int) -> None:
    spec = hosted(role, kind, number)
    if not spec.causal:
        pytest.skip("sees later tokens")
    model = redraw(interpreted(spec)).double().eval()
    length = min(remembers(part) for la in spec.main.layers for _, part in la.block.parts)
    given = double(inputs(spec, optional=True, T=length))
    whole = model(**given)
    state: dict[str, Any] = {}
    ends = [*range(3, length), length]
    pieces = [cut(spec, given, a, b) for a, b in zip([0, *ends], ends, strict=False)]
    decoded = torch.cat([model(**p, state=state) for p in pieces], dim=1)
    torch.testing.assert_close(decoded, whole, rtol=0, atol=1e-9)


# Gradients and compilation


@each
def test_every_parameter_gets_a_gradient(role: str, kind: str, number: int) -> None:
    spec = hosted(role, kind, number)
    model = redraw(interpreted(spec)).train()
    given = inputs(spec, optional=True)
    y, aux, _ = run(model, spec, given)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    ((y * weight).sum() + aux).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


COMPILED = [(role, kind, 0) for role, kind in kinds("mixer", "ffn", "norm", "scale")] + [("mixer", "attention", 3)]


@pytest.mark.parametrize(("role", "kind", "number"), COMPILED, ids=map(name, COMPILED))
def test_compiles_as_one_graph(role: str, kind: str, number: int, texts: Texts) -> None:
    spec = hosted(role, kind, number)
    part = redraw(texts.model(spec).get_submodule(PATHS[role])).eval()
    x = sequence(8).float()
    torch.compiler.reset()
    compiled = torch.compile(part, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), part(x))


def test_count_is_the_sum_of_the_tensors() -> None:
    for case in cases():
        spec = hosted(*case)
        counted = count(spec)
        assert counted.total == sum(p.numel() for p in interpreted(spec).parameters()), case
        assert counted.total == sum(t.count for t in counted.tensors if not t.buffer), case


def test_hosts_hold_the_component_that_is_asked_for() -> None:
    for role, kind, number in cases():
        c = found_at(hosted(role, kind, number), role, kind)
        said = {k: v for k, v in example(role, kind, number).items() if not isinstance(v, dict | list)}
        assert {k: getattr(c, k) for k in said} == said, (role, kind, number)
        assert host(role, example(role, kind, number))[0]["name"]
