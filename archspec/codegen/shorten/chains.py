"""Steps on one value as a chain: `y = f(x)`, `y = y.view(3, 4)` as `y = f(x).view(3, 4)`, where that fits on a line."""

import ast
from itertools import pairwise
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.layout import WIDTH, one_line
from archspec.codegen.shorten.program import Function, Program, bodies, is_name, tree
from archspec.codegen.shorten.rewrite import ATOMS, Reads
from archspec.codegen.sources import code

INDENT = 8  # of what stands in a method


def chain(program: Program) -> None:
    """Join the steps in the functions of every part."""
    for part in program.parts:
        if any(_has_steps(f) for f in program.functions(part)):
            program.put(part, tree(program.parts[part]).visit(_Chains()))


def _has_steps(function: Function) -> bool:
    return any(_is_step(*pair) for body in bodies(function) for pair in pairwise(body))


def _is_step(first: ast.stmt, second: ast.stmt) -> bool:
    """Whether the second of two statements calls a method of what the first has set, and gives that the same name."""
    match first, second:
        case ast.Assign(targets=[ast.Name(id=name)]), ast.Assign(
            targets=[ast.Name(id=again)], value=ast.Call() as value
        ):
            reads = sum(is_name(n, name) for n in ast.walk(value))
            return name == again and reads == 1 and is_name(_root(value), name)
    return False


def _root(node: ast.expr) -> ast.expr:
    """What the first of a chain of methods is called on."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        node = node.func.value
    return node


class _Chains(cst.CSTTransformer):
    """Joins steps whose chain fits on a line."""

    def leave_IndentedBlock(self, original: cst.IndentedBlock, updated: cst.IndentedBlock) -> Any:
        """The statements of a block, the joined ones as one."""
        body: list[Any] = []
        for statement in updated.body:
            joined = _joined(body[-1], statement) if body else None
            body[-1 if joined else len(body) :] = [joined or statement]
        return updated.with_changes(body=body)


def _joined(first: Any, second: Any) -> Any:
    """Two steps as one, with the comment of the second; None where they are none, or something would be lost."""
    simple = m.SimpleStatementLine([m.Assign([m.AssignTarget(m.Name())])])
    if not (m.matches(first, simple) and m.matches(second, simple)) or second.leading_lines:
        return None
    pair = [ast.parse(code(s.with_changes(leading_lines=[])).strip()).body[0] for s in (first, second)]
    comment = first.trailing_whitespace.comment
    if not _is_step(*pair) or not isinstance(first.body[0].value, ATOMS):
        return None
    if comment is not None and not comment.value.startswith("# ("):  # more than a shape
        return None
    name = first.body[0].targets[0].target.value
    value = second.body[0].value.visit(Reads({name: first.body[0].value}))
    done = second.with_changes(body=[second.body[0].with_changes(value=value)], leading_lines=first.leading_lines)
    line = one_line(code(done.with_changes(leading_lines=[])).strip())
    return done if "\n" not in line and len(line) + INDENT <= WIDTH else None
