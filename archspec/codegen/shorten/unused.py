"""What nothing reads: variables whose value is only computed, aliases, helpers without a caller."""

import ast
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.prune import with_params
from archspec.codegen.shorten.effects import pure
from archspec.codegen.shorten.facts import library
from archspec.codegen.shorten.fold import syntax_of
from archspec.codegen.shorten.program import Function, Program, bindings, parameters, tree
from archspec.codegen.shorten.rewrite import Calls, Reads
from archspec.codegen.sources import code
from archspec.codegen.syntax import flattened


def drop_unused(program: Program) -> None:
    """Take away what nothing reads."""
    needed = {name for name in program.parts if name not in program.helpers}
    todo = list(needed)
    while todo:
        new = (program.reads(todo.pop()) & program.parts.keys()) - needed
        needed |= new
        todo += new
    program.parts = {name: text for name, text in program.parts.items() if name in needed}
    for part in list(program.parts):
        _drop_idle_arguments(program, part)
        if program.functions(part) and any(_idle(f, program) for f in program.functions(part)):
            program.put(part, tree(program.parts[part]).visit(_Functions(program)))


def _drop_idle_arguments(program: Program, name: str) -> None:
    """Make a class without what its `__init__` takes and never reads, and leave out an `__init__` that does nothing."""
    init = next((f for f in program.functions(name) if f.name == "__init__"), None)
    if init is None or len(init.args.args) < 2:
        return
    read = {n.id for n in ast.walk(init) if isinstance(n, ast.Name)}
    places = [i for i, a in enumerate(init.args.args[1:]) if a.arg not in read]
    if len(places) + 1 < len(init.args.args) or init.args.defaults:
        return  # it reads some of what it takes
    for part, text in program.parts.items():
        if name in text:
            changed = tree(text).visit(Calls(m.Name(name), lambda call: call.with_changes(args=[]), lambda _: False))
            program.put(part, changed)
    program.put(name, tree(program.parts[name]).visit(_WithoutInit()))


class _WithoutInit(cst.CSTTransformer):
    """Takes `__init__` out of a class, or what it takes."""

    def leave_FunctionDef(self, original: cst.FunctionDef, updated: cst.FunctionDef) -> Any:
        """An `__init__` that only calls that of its base goes."""
        if updated.name.value != "__init__":
            return updated
        if len(updated.body.body) == 1:
            return cst.RemoveFromParent()
        return with_params(updated, updated.params.params[:1])


def _idle(function: Function, program: Program) -> bool:
    return bool(unread(function) or aliases(function, program))


def unread(function: Function) -> set[str]:
    """The variables of a function that it never reads; `_` is one on purpose."""
    names = [n for n in ast.walk(function) if isinstance(n, ast.Name)]
    read = {n.id for n in names if isinstance(n.ctx, ast.Load)}
    read |= {n.target.id for n in ast.walk(function) if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)}
    return {n.id for n in names if isinstance(n.ctx, ast.Store)} - read - {a.arg for a in parameters(function)} - {"_"}


def aliases(function: Function, program: Program) -> dict[str, str]:
    """The variables that are another name of something that never changes: of the file, a library or the function."""
    found = {}
    names = bindings(function)
    for statement in function.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Attribute() | ast.Name() as given):
                helper = isinstance(given, ast.Name) and program.helper(given.id) is not None
                same = isinstance(given, ast.Name) and names.count(given.id) == 1
                if (library(given) or helper or same) and names.count(name) == 1:
                    found[name] = ast.unparse(given)
    return {name: other for name, other in found.items() if other not in found}


class _Functions(cst.CSTTransformer):
    """Shortens each function of a part."""

    def __init__(self, program: Program):
        super().__init__()
        self.program = program
        self.depth = 0

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self.depth += 1

    def leave_FunctionDef(self, original: cst.FunctionDef, updated: cst.FunctionDef) -> Any:
        self.depth -= 1
        if self.depth:
            return updated
        names = aliases(syntax_of(updated), self.program)
        if names:
            body: Any = updated.body.visit(Reads({name: cst.parse_expression(text) for name, text in names.items()}))
            updated = updated.with_changes(body=body)
        idle = unread(syntax_of(updated))
        return updated.with_changes(body=updated.body.visit(_Statements(idle, self.program))) if idle else updated


class _Statements(cst.CSTTransformer):
    """Takes away statements that give names nobody reads."""

    def __init__(self, idle: set[str], program: Program):
        super().__init__()
        self.idle, self.program = idle, program

    def leave_SimpleStatementLine(self, original: cst.SimpleStatementLine, updated: cst.SimpleStatementLine) -> Any:
        if not m.matches(updated, m.SimpleStatementLine([m.Assign([m.DoNotCare()])])):
            return updated
        statement: Any = updated.body[0]
        target, given = statement.targets[0].target, statement.value
        effect = not pure(ast.parse(f"({code(given)})"), self.program)
        if isinstance(target, cst.Name) and target.value in self.idle:
            done = updated.with_changes(body=[cst.Expr(given)])
            return done if effect else cst.RemoveFromParent()
        if not isinstance(target, cst.Tuple) or not m.matches(target, m.Tuple([m.ZeroOrMore(m.Element(m.Name()))])):
            return updated
        names = [e.value.value for e in target.elements]  # type: ignore[attr-defined]
        live = [name for name in names if name not in self.idle | {"_"}]
        if not live and not effect:
            return cst.RemoveFromParent()
        return (
            updated
            if set(names) <= {*live, "_"}
            else flattened(updated.with_changes(body=[_unpacking(statement, names, live)]))
        )

    def leave_IndentedBlock(self, original: cst.IndentedBlock, updated: cst.IndentedBlock) -> Any:
        return updated if updated.body else updated.with_changes(body=[cst.SimpleStatementLine([cst.Pass()])])


def _unpacking(statement: cst.Assign, names: list[str], live: list[str]) -> cst.Assign:
    """`B, T, D = x.shape` of which only T is read: `T = x.shape[1]`, and `_` for what else is not."""
    target: Any
    if len(live) == 1 and m.matches(statement.value, m.Attribute(attr=m.Name("shape"))):
        place = names.index(live[0])
        place = place - len(names) if place + 1 == len(names) else place
        value = cst.parse_expression(f"{code(statement.value)}[{place}]")
        return statement.with_changes(targets=[cst.AssignTarget(cst.Name(live[0]))], value=value)
    target = cst.parse_expression(", ".join(name if name in live else "_" for name in names))
    return statement.with_changes(targets=[cst.AssignTarget(target)])
