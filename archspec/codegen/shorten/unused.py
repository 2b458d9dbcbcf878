"""What nothing needs any more: helpers without a caller, and what a class is made with and never reads."""

import ast
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.shorten.program import Program, tree
from archspec.codegen.shorten.rewrite import Calls


def drop_unused(program: Program) -> None:
    """Take away the helpers that no class needs, and arguments of classes that these do not read."""
    needed = {name for name in program.parts if name not in program.helpers}
    todo = list(needed)
    while todo:
        new = (program.reads(todo.pop()) & program.parts.keys()) - needed
        needed |= new
        todo += new
    program.parts = {name: text for name, text in program.parts.items() if name in needed}
    for part in program.parts:
        _drop_arguments(program, part)


def _drop_arguments(program: Program, name: str) -> None:
    """Make a class without arguments where its `__init__` reads none; without an `__init__` that does nothing else."""
    init = next((f for f in program.functions(name) if f.name == "__init__"), None)
    if init is None or len(init.args.args) < 2:
        return
    read = {n.id for n in ast.walk(init) if isinstance(n, ast.Name)}
    if any(a.arg in read for a in init.args.args[1:]):
        return
    for part, text in program.parts.items():
        if name in text:
            bare = Calls(m.Name(name), lambda call: call.with_changes(args=[]))
            program.put(part, tree(text).visit(bare))
    program.put(name, tree(program.parts[name]).visit(_BareInit()))


class _BareInit(cst.CSTTransformer):
    """Lets `__init__` take nothing, and takes it away where it only calls that of its base."""

    def leave_FunctionDef(self, original: cst.FunctionDef, updated: cst.FunctionDef) -> Any:
        """Of all methods, `__init__`."""
        if updated.name.value != "__init__":
            return updated
        if len(updated.body.body) == 1:
            return cst.RemoveFromParent()
        return updated.with_changes(params=cst.Parameters([cst.Param(cst.Name("self"))]))
