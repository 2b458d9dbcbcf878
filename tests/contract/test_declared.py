"""What `ops()` says is what runs: shapes, dataflow, FLOPs, state, shards; and any wrong fact is found."""

from typing import Any

import pytest
import torch
from contract_specs import D_MODEL, cases, name, redraw
from contract_traces import (
    B,
    M,
    arguments,
    component,
    length,
    module,
    ops,
    sizes,
    wrong_dataflow,
    wrong_params,
    wrong_states,
)
from torch import Tensor

from archspec.kernels.state import substate
from archspec.layers.base import Component, HeadComponent
from archspec.layers.ops import Op, Run
from archspec.verify.declared import dataflow_problems, parameter_problems, state_problems

CASES = cases("embedding", "norm", "scale", "mixer", "ffn", "head")
each = pytest.mark.parametrize(("role", "kind", "number"), CASES, ids=map(name, CASES))
DECODES = [case for case in cases("mixer", "ffn") if "state" in component(*case).arguments]
each_decoding = pytest.mark.parametrize(("role", "kind", "number"), DECODES, ids=map(name, DECODES))
BRANCHES = [case for case in cases("mixer", "ffn") if component(*case).kind]
each_branch = pytest.mark.parametrize(("role", "kind", "number"), BRANCHES, ids=map(name, BRANCHES))


def dataflow(c: Component, every: tuple[Op, ...] | list[Op]) -> list[str]:
    return dataflow_problems(c, module(c, "meta"), arguments(c, sizes(c), "meta"), sizes(c), every)


@each
def test_shapes_edges_and_flops_are_those_of_the_module(role: str, kind: str, number: int) -> None:
    c = component(role, kind, number)
    found = dataflow(c, ops(c))
    assert not found, "\n".join(found)


@each
def test_a_wrong_shape_edge_or_flop_is_found(role: str, kind: str, number: int) -> None:
    c = component(role, kind, number)
    missed = [what for what, wrong in wrong_dataflow(ops(c)) if not dataflow(c, wrong)]
    assert not missed, "\n".join(missed)


@each
def test_a_wrong_parameter_is_found(role: str, kind: str, number: int) -> None:
    c = component(role, kind, number)
    built = module(c, "meta")
    tied = {c.tied_weight} if isinstance(c, HeadComponent) and c.tied_shape is not None else set()
    assert parameter_problems(c, ops(c), built, tied) == []
    assert [w for w, wrong in wrong_params(ops(c)) if not parameter_problems(c, wrong, built, tied)] == []


def state_after(c: Component, tokens: int, dtype: torch.dtype, grad: bool) -> dict[str, Any]:
    """The state after all but one token at once, and then that one."""
    run = Run(B=B, T=tokens, S=tokens, M=M)
    m, given, states = module(c).to(dtype), arguments(c, run, dtype=dtype), dict[str, Any]()
    x, bias = given.pop("x"), given.pop("bias", None)
    with torch.set_grad_enabled(grad):
        for start, end in ((0, tokens - 1), (tokens - 1, tokens)):
            also = {} if bias is None else {"bias": bias[:, :, start:end, :end]}
            m(x[:, start:end], **given, **also, state=substate(states, "layer"))  # which refuses a key used twice
    return dict(states["layer"])


@each_decoding
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_state_holds_what_is_declared(role: str, kind: str, number: int, dtype: torch.dtype) -> None:
    c = component(role, kind, number)
    for tokens in (2, length(c)):
        for grad in (False, True):
            run = Run(B=B, T=1, S=tokens, M=M)
            assert state_problems(c, c.ops(), state_after(c, tokens, dtype, grad), run, dtype) == []


@each_decoding
def test_a_wrong_state_is_found(role: str, kind: str, number: int) -> None:
    c = component(role, kind, number)
    run = Run(B=B, T=1, S=length(c), M=M)
    state = state_after(c, length(c), torch.bfloat16, grad=False)
    assert [
        w for w, wrong in wrong_states(c.ops(), run) if not state_problems(c, wrong, state, run, torch.bfloat16)
    ] == []


def output(c: Component, m: torch.nn.Module) -> Tensor:
    given = arguments(c, sizes(c), dtype=torch.double)
    found = m(given.pop("x"), **given)
    assert isinstance(found, Tensor)
    return found


@torch.no_grad()
@each_branch
def test_a_branch_without_what_writes_to_the_residual_stream_is_silent(role: str, kind: str, number: int) -> None:
    """And each such op matters: with any one of them left, something is heard."""
    c = component(role, kind, number)
    m = redraw(module(c)).double()
    tensors = dict(m.named_parameters())
    ends = {op.name: [p.name for p in op.params if p.residual] for op in c.ops() if op.residual}
    kept = {n: tensors[n].clone() for names in ends.values() for n in names}
    for n in kept:
        tensors[n].zero_()
    said = ", ".join(kept) or "nothing"
    assert not output(c, m).any(), f"something is heard although {said} is silent; residual=True?"

    for op, names in ends.items():
        for n in names:
            tensors[n].copy_(kept[n])
        assert output(c, m).any(), op
        for n in names:
            tensors[n].zero_()


SHARED = [(case, unit) for case in cases("mixer", "ffn") for unit in component(*case).shards]


def halves(c: Component, unit: str) -> Component:
    """The component with half as many of a unit."""
    fields = {f: getattr(c, f) // 2 for f in c.shards[unit]}
    return type(c).model_validate({**{f: getattr(c, f) for f in type(c).model_fields}, **fields})


@torch.no_grad()
@pytest.mark.parametrize(("case", "unit"), SHARED, ids=[f"{name(c)}-{u}" for c, u in SHARED])
def test_shards_of_a_component_add_up_to_it(case: tuple[str, str, int], unit: str) -> None:
    c = component(*case)
    if any(getattr(c, f) % 2 for f in c.shards[unit]):
        c = type(c).model_validate(
            {**{f: getattr(c, f) for f in type(c).model_fields}, **{f: 2 * getattr(c, f) for f in c.shards[unit]}}
        )
    m, half = redraw(module(c)).double(), halves(c, unit)
    total = torch.zeros(())
    for part in range(2):
        shard = module(half).double()
        for op in c.ops():
            for p in op.params:
                whole, own = dict(m.state_dict())[p.name], dict(shard.state_dict())[p.name]
                if p.split is not None:
                    own.copy_(whole.chunk(2, p.split[1])[part])
                elif p.residual and p.name.endswith("bias"):  # added once, not on every device
                    own.copy_(whole if part == 0 else torch.zeros_like(whole))
                else:
                    own.copy_(whole)
        total = total + output(half, shard)
    torch.testing.assert_close(total, output(c, m))
    assert total.shape[-1] == D_MODEL
