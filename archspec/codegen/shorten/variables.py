"""Variables that a function can do without: other names of something, values nobody reads, values stored at once."""

import ast
from collections.abc import Collection
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.shorten.effects import pure
from archspec.codegen.shorten.facts import library
from archspec.codegen.shorten.program import Function, Program, bindings, bodies, parameters, syntax_of, tree
from archspec.codegen.shorten.rewrite import Reads
from archspec.codegen.sources import code
from archspec.codegen.syntax import flattened


def drop_variables(program: Program) -> None:
    """Shorten the functions of every part."""
    for part in program.parts:
        functions = program.functions(part)
        if any(unread(f) or aliases(f, program) or handed_on(f) for f in functions):
            program.put(part, tree(program.parts[part]).visit(_Functions(program)))


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


def handed_on(function: Function) -> set[str]:
    """The variables that are only set for the next statement: `loss = f(x)`, `self.loss = loss`; `return a, b`."""
    names = bindings(function)
    reads = [n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    groups = (group for body in bodies(function) for group in map(_handed_on, body, body[1:]))
    return {name for group in groups if all(names.count(n) == reads.count(n) == 1 for n in group) for name in group}


def _handed_on(first: ast.stmt, second: ast.stmt) -> list[str]:
    """The names that the first of two statements sets and the second hands on as they are."""
    match first, second:
        case (
            ast.Assign(targets=[ast.Name(id=name)]),
            ast.Assign(targets=[ast.Name() | ast.Attribute(value=ast.Name())], value=ast.Name(id=again)),
        ) if name == again:
            return [name]
        case (
            ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Call()),
            ast.Return(value=ast.Tuple(elts=values)),
        ) if all(isinstance(n, ast.Name) for n in targets):
            said = [ast.unparse(n) for n in targets]
            return said if said == [ast.unparse(n) for n in values] else []
    return []


class _Functions(cst.CSTTransformer):
    """Shortens each function or method of a part."""

    def __init__(self, program: Program):
        super().__init__()
        self.program = program
        self.depth = 0

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        """Functions within others are shortened with them."""
        self.depth += 1

    def leave_FunctionDef(self, original: cst.FunctionDef, updated: cst.FunctionDef) -> Any:
        """One step after the other, since each leaves less for the next."""
        self.depth -= 1
        if self.depth:
            return updated
        body: Any = updated.body
        if names := aliases(syntax_of(updated), self.program):
            body = body.visit(Reads({name: cst.parse_expression(text) for name, text in names.items()}))
        if handed := handed_on(syntax_of(updated.with_changes(body=body))):
            body = body.visit(_Stores(handed))
        if idle := unread(syntax_of(updated.with_changes(body=body))):
            body = body.visit(_Statements(idle, self.program))
        return updated.with_changes(body=body)


class _Stores(cst.CSTTransformer):
    """Stores or returns a value at once."""

    def __init__(self, names: Collection[str]):
        super().__init__()
        self.names = names

    def leave_IndentedBlock(self, original: cst.IndentedBlock, updated: cst.IndentedBlock) -> Any:
        """`self.loss = f(x)` for the two statements."""
        body: list[Any] = []
        for statement in updated.body:
            if body and self.hands_on(body[-1], statement):
                body[-1] = _joined(body[-1], statement)
            else:
                body.append(statement)
        return updated.with_changes(body=body)

    def hands_on(self, first: Any, second: Any) -> bool:
        """Whether two statements are such a pair."""
        simple = m.SimpleStatementLine([m.Assign() | m.Return()])
        if not (m.matches(first, simple) and m.matches(second, simple)):
            return False
        pair = [
            ast.parse(f"def f():\n    {code(s.with_changes(leading_lines=[])).strip()}").body[0]
            for s in (first, second)
        ]
        found = _handed_on(*(function.body[0] for function in pair))  # type: ignore[attr-defined]
        return bool(found) and set(found) <= set(self.names)


def _joined(first: Any, second: Any) -> Any:
    """The second of two statements with the value of the first; comments of both."""
    done = second.with_changes(
        body=[second.body[0].with_changes(value=first.body[0].value)],
        leading_lines=[*first.leading_lines, *second.leading_lines],
    )
    if second.trailing_whitespace.comment is None:
        done = done.with_changes(trailing_whitespace=first.trailing_whitespace)
    return flattened(done)


class _Statements(cst.CSTTransformer):
    """Takes away statements that give names nobody reads."""

    def __init__(self, idle: Collection[str], program: Program):
        super().__init__()
        self.idle, self.program = idle, program

    def leave_SimpleStatementLine(self, original: cst.SimpleStatementLine, updated: cst.SimpleStatementLine) -> Any:
        """What does more than give a value stays, without the name."""
        if not m.matches(updated, m.SimpleStatementLine([m.Assign([m.DoNotCare()])])):
            return updated
        statement: Any = updated.body[0]
        target = statement.targets[0].target
        effect = not pure(ast.parse(f"({code(statement.value)})"), self.program)
        if isinstance(target, cst.Name) and target.value in self.idle:
            return updated.with_changes(body=[cst.Expr(statement.value)]) if effect else cst.RemoveFromParent()
        if not m.matches(target, m.Tuple([m.ZeroOrMore(m.Element(m.Name()))])):
            return updated
        names = [e.value.value for e in target.elements]
        live = [name for name in names if name != "_" and name not in self.idle]
        if not live and not effect:
            return cst.RemoveFromParent()
        if set(names) <= {*live, "_"}:
            return updated
        return flattened(updated.with_changes(body=[_unpacking(statement, names, live)]))

    def leave_IndentedBlock(self, original: cst.IndentedBlock, updated: cst.IndentedBlock) -> Any:
        """No block without a statement."""
        return updated if updated.body else updated.with_changes(body=[cst.SimpleStatementLine([cst.Pass()])])


def _unpacking(statement: cst.Assign, names: list[str], live: list[str]) -> cst.Assign:
    """`B, T, D = x.shape` of which only T is read: `T = x.shape[1]`; and `_` for what else is not."""
    if len(live) == 1 and m.matches(statement.value, m.Attribute(attr=m.Name("shape"))):
        place = names.index(live[0])
        value = cst.parse_expression(f"{code(statement.value)}[{place if place + 1 < len(names) else -1}]")
        return statement.with_changes(targets=[cst.AssignTarget(cst.Name(live[0]))], value=value)
    target: Any = cst.parse_expression(", ".join(name if name in live else "_" for name in names))
    return statement.with_changes(targets=[cst.AssignTarget(target)])
