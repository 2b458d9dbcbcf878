"""The words that are not free in a spec are those that PyTorch and the compiler use themselves."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from archspec.errors import Fault, SpecError
from archspec.language.load import load, loads
from archspec.language.names import OURS, PYTORCH, TAKEN, bad_name
from archspec.language.wiring import parse_wiring
from archspec.lowering import Function, lower_model
from archspec.lowering.program import Layers
from archspec.modules.model import Model

SPECS = sorted(Path("specs").glob("*.yaml"))
MODULE = {n for n in {*dir(nn.Module), *vars(nn.Module()), *nn.Module.__annotations__} if not n.startswith("_")}


def functions(function: Function) -> Iterator[Function]:
    yield function
    for member in function.members:
        inner = member.made
        if isinstance(inner, Function):
            yield from functions(inner)
        elif isinstance(inner, Layers):
            yield from (f for period in inner.periods for layer in period.layers for f in functions(layer))


def test_the_attributes_of_a_module_are_all_taken_and_no_others() -> None:
    assert MODULE == PYTORCH


def test_nothing_is_listed_twice() -> None:
    assert not OURS & PYTORCH


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_members_that_stand_beside_names_of_the_spec_are_taken(path: Path) -> None:
    """The stacks are members of the model, the parts members of their block; what else is there has its own name."""
    spec = load(path)
    stacks = {stack.name for stack in spec.stacks} if len(spec.stacks) > 1 else {"embedding", "blocks", "norm"}
    stacks |= {head.member for head in spec.heads if head.name}
    blocks = [layer.block for stack in spec.stacks for segment in stack.segments for layer in segment.layers]
    parts = {name for block in blocks for name, _ in block.parts}
    model, *rest = functions(lower_model(spec))
    assert {m.name for m in model.members} - stacks - {"position_bias"} <= TAKEN
    layers = [f for f in rest if {p.name for p in f.parameters} >= {"x"}]
    assert layers
    assert {m.name for f in layers for m in f.members} - parts <= TAKEN
    for parameter in {p.name for f in layers for p in f.parameters} - {"x"}:
        with pytest.raises(Fault, match="cannot be assigned"):
            parse_wiring([f"{parameter} = x"])


def test_methods_of_the_model_are_taken() -> None:
    ours = {n for cls in Model.__mro__ if cls.__module__.startswith("archspec.") for n in vars(cls)}
    assert {n for n in ours if not n.startswith("_")} <= TAKEN  # what others add to every module is theirs


def test_what_is_asked_of_any_module_is_taken() -> None:
    """Attributes that the compiler looks for by name, in whatever modules there are."""
    asked = set()
    for path in [
        *Path("archspec/modules").rglob("*.py"),
        *Path("archspec/codegen").glob("*.py"),
        *Path("kernels/moe").glob("*.py"),
    ]:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("hasattr", "getattr")
            ):
                of, name, *_ = node.args
                if isinstance(of, ast.Name) and of.id in ("m", "module", "router") and isinstance(name, ast.Constant):
                    asked.add(name.value)
    assert asked
    assert asked <= TAKEN


@pytest.mark.parametrize("name", sorted(TAKEN))
def test_a_taken_name_is_refused(name: str) -> None:
    assert bad_name(name)
    text = "d_model: 4\nvocab_size: 8\nblocks: [{modules: {%s: {kind: mlp, d_ff: 4}}, wiring: ['x = %s(x)']}]"
    with pytest.raises(SpecError, match=rf"blocks\[0\].modules.{name}"):
        loads(text % (name, name))


def test_names_need_no_torch() -> None:
    assert "torch" not in vars(sys.modules["archspec.language.names"])
