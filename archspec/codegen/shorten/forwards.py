"""What `forward` of a layer may be given and never is: where a layer is made and called is seen in the file.

Only layers that classes hold by name are looked at (`self.position = Learned()`), and of those only what every call
leaves out. Blocks in a list are called alike, whatever they take.
"""

import ast
from collections.abc import Iterator
from typing import Any

import libcst as cst

from archspec.codegen.decide import UNKNOWN
from archspec.codegen.shorten.deciding import Constant, decided
from archspec.codegen.shorten.facts import value
from archspec.codegen.shorten.program import Function, Program, binding, bindings, defaults, is_name, tree
from archspec.codegen.shorten.signatures import without


def fold_forwards(program: Program) -> None:
    """Take away the parameters of `forward` that every call leaves out."""
    for name in list(program.parts):
        forward = next((f for f in program.functions(name) if f.name == "forward"), None)
        if program.helper(name) is None and forward is not None and forward.args.defaults:
            same = _left_out(program, name, forward)
            if same:
                program.put(name, tree(program.parts[name]).visit(_Forward(same, program)))


def _left_out(program: Program, name: str, forward: Function) -> dict[str, Constant]:
    """The optional parameters that no call gives, and what they are then."""
    places = list(_places(program, name))
    if not places or None in places:
        return {}
    bare = ast.FunctionDef(
        **{**vars(forward), "args": ast.arguments(**{**vars(forward.args), "args": forward.args.args[1:]})}
    )
    given = {p for calls in places for call in calls or () for p in binding(bare, call)}
    found = {}
    for p, default in defaults(bare).items():
        known = value(default, program.constants)
        if p not in given and known is not UNKNOWN and bindings(forward).count(p) == 1:
            found[p] = Constant(ast.unparse(default), known)
    return found


def _places(program: Program, name: str) -> Iterator[list[ast.Call] | None]:
    """The calls of a layer wherever a class holds it; None where it is made or used in another way."""
    for part in program.parts:
        if part == name or name not in program.reads(part):
            continue
        nodes = [n for f in program.functions(part) for n in ast.walk(f)]
        held = [
            n.targets[0].attr
            for n in nodes
            if isinstance(n, ast.Assign)
            and isinstance(n.value, ast.Call)
            and is_name(n.value.func, name)
            and isinstance(n.targets[0], ast.Attribute)
            and is_name(n.targets[0].value, "self")
        ]
        if len(held) != sum(is_name(n, name) for n in nodes):
            yield None
        for attribute in held:
            yield _calls(program, nodes, attribute)


def _calls(program: Program, nodes: list[ast.AST], attribute: str) -> list[ast.Call] | None:
    """The calls `self.attribute(...)` among some nodes; None where it is read in another way, or from elsewhere."""
    calls = [n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == f"self.{attribute}"]
    loads = [n for n in nodes if isinstance(n, ast.Attribute) and ast.unparse(n) == f"self.{attribute}"]
    read = [n for n in loads if isinstance(n.ctx, ast.Load)]
    others = "\n".join(program.parts.values()).replace(f"self.{attribute}", "")
    return calls if calls and len(read) == len(calls) and f".{attribute}(" not in others else None


class _Forward(cst.CSTTransformer):
    """A class whose `forward` takes less."""

    def __init__(self, same: dict[str, Constant], program: Program):
        super().__init__()
        self.same, self.program = same, program

    def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:
        """Methods are taken as wholes."""
        return False

    def leave_FunctionDef(self, original: cst.FunctionDef, updated: cst.FunctionDef) -> Any:
        """Of all methods, `forward`."""
        if updated.name.value != "forward":
            return updated
        done = decided(updated.with_changes(leading_lines=[]), self.same, set(), self.program)
        return without(done, self.same, (), ()).with_changes(leading_lines=original.leading_lines)
