"""Helpers that are one expression: it stands where they were called.

Such a helper goes if no call needs more than a line for it; or if it has one call, which may then be folded. A helper
with a comment stays, whose explanation needs a place, and so does one that decides something, which a name says better.
"""

import ast
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.layout import WIDTH
from archspec.codegen.shorten.effects import acts, pure
from archspec.codegen.shorten.facts import library
from archspec.codegen.shorten.program import Call, Function, Program, binding, bound, defaults, parameters, tree
from archspec.codegen.shorten.recomputed import is_recomputed
from archspec.codegen.shorten.rewrite import Calls, Reads, embedded
from archspec.codegen.sources import code

LATER = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def inline(program: Program) -> None:
    """Put the expression of every helper that is one where it was called."""
    for part in program.parts:
        _replace_wrappers(program, part)
        _inline_methods(program, part)
    for name in [name for name in program.parts if program.helper(name) is not None]:
        function = program.helper(name)
        if function is None or is_recomputed(program, name):
            continue
        expression, calls = returned(function, program.parts[name]), program.calls(name)
        if expression is None or not calls or not all(_fits(program, function, expression, call) for call in calls):
            continue
        changed = {part: _inlined(program, name, function, part) for part in {call.part for call in calls}}
        if len(calls) == 1 or all(_is_short(program.parts[part], text) for part, text in changed.items()):
            program.parts |= changed
            del program.parts[name]


def _replace_wrappers(program: Program, part: str) -> None:
    """Name the function itself where a method only calls it: `def activate(self, h): return F.silu(h)`."""
    for method in program.functions(part):
        match method:
            case ast.FunctionDef(
                args=ast.arguments(args=[ast.arg(arg="self"), ast.arg(arg=p)], defaults=[]),
                body=[*_, ast.Return(value=ast.Call(func=func, args=[ast.Name(id=given)], keywords=[]))],
                decorator_list=[],
            ) if given == p and len(method.body) == 1 + (ast.get_docstring(method) is not None):
                own = isinstance(func, ast.Name) and program.helper(func.id) is not None
            case _:
                continue
        if program.called_from_outside(part, method.name) or not (own or library(func)):
            continue
        node: Any = tree(program.parts[part])
        kept = [s for s in node.body.body if not (isinstance(s, cst.FunctionDef) and s.name.value == method.name)]
        rest = node.with_changes(body=node.body.with_changes(body=kept))
        done: Any = m.replace(rest, _self(method.name), cst.parse_expression(ast.unparse(func)))
        program.put(part, done)


def _self(name: str) -> Any:
    return m.Attribute(m.Name("self"), m.Name(name))


def _inline_methods(program: Program, part: str) -> None:
    """One method after another: with each that goes, the others stand elsewhere."""
    while _inline_method(program, part):
        pass


def _inline_method(program: Program, part: str) -> bool:
    """Put the expression of a method that is one, and that its class calls once, where it is called."""
    for method in program.functions(part):
        text = program.parts[part]
        once = text.count(f"self.{method.name}") == 1
        if not once or method.decorator_list or program.called_from_outside(part, method.name):
            continue
        function = ast.FunctionDef(**{**vars(method), "args": _without_self(method.args)})
        expression = returned(function, ast.get_source_segment(text, method) or "")
        call = next((c for f in program.functions(part) for c in _own_calls(part, f, function)), None)
        if expression is None or call is None or not _fits(program, function, expression, call):
            continue
        node: Any = tree(text)
        places = {f.name.value: f for f in node.body.body if isinstance(f, cst.FunctionDef)}
        own: Any = places[method.name]
        kept = [s for s in node.body.body if s is not own]
        rest = node.with_changes(body=node.body.with_changes(body=kept))
        done = rest.visit(Calls(_self(method.name), partial(_substituted, own.body.body[-1].body[0].value, function)))
        program.put(part, done)
        return True
    return False


def _without_self(arguments: ast.arguments) -> ast.arguments:
    return ast.arguments(**{**vars(arguments), "args": arguments.args[1:]})


def _own_calls(part: str, caller: Function, function: Function) -> Iterator[Call]:
    """The calls `self.name(...)` in a method."""
    for node in ast.walk(caller):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"self.{function.name}":
            yield Call(part, caller, node, binding(function, node))


def returned(function: Function, text: str) -> ast.expr | None:
    """The expression of a function that is nothing else."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if len(body) != 1 or "#" in text or function.args.kwarg or function.args.vararg:
        return None
    found = body[0].value if isinstance(body[0], ast.Return) else None
    decides = found is not None and any(isinstance(n, ast.IfExp | ast.BoolOp) for n in ast.walk(found))
    own = found is not None and any(isinstance(n, ast.Name) and n.id == function.name for n in ast.walk(found))
    return None if decides or own else found


def _fits(program: Program, function: Function, expression: ast.expr, call: Call) -> bool:
    """Whether the expression means at the place of a call what it means in the helper."""
    own = {a.arg for a in parameters(function)}
    inner = {n.id for n in ast.walk(expression) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    inner |= {n.arg for n in ast.walk(expression) if isinstance(n, ast.arg)}
    outer = {n.id for n in ast.walk(expression) if isinstance(n, ast.Name)} - own - inner - {"self"}
    given = {n.id for value in call.given.values() for n in ast.walk(value) if isinstance(n, ast.Name)}
    if outer & bound(call.function) or inner & given or call.part == function.name:
        return False
    uses = list(_uses(expression, own))
    for p in own:
        value = call.given.get(p, defaults(function).get(p))
        simple = isinstance(value, ast.Constant) or (isinstance(value, ast.expr) and _is_plain(value))
        if not simple and (uses.count(p) != 1 or _is_late(expression, p)):
            return False
    return _in_order(program, function, expression, call)


def _uses(expression: ast.expr, own: set[str]) -> Iterator[str]:
    yield from (n.id for n in ast.walk(expression) if isinstance(n, ast.Name) and n.id in own)


def _is_plain(node: ast.expr) -> bool:
    """Whether an expression is a name, or an attribute of one."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)


def _is_late(expression: ast.expr, name: str) -> bool:
    """Whether a name is read where it may be evaluated later, or more than once."""
    later = (n for n in ast.walk(expression) if isinstance(n, LATER))
    return any(isinstance(n, ast.Name) and n.id == name for part in later for n in ast.walk(part))


def _in_order(program: Program, function: Function, expression: ast.expr, call: Call) -> bool:
    """Whether arguments are still evaluated in their order, and before anything that could change them happens."""
    moved = [p for p, value in call.given.items() if not isinstance(value, ast.Constant) and not _is_plain(value)]
    events = [e for e in _events(expression, program) if e in moved or e == ""]
    if "" not in events and all(pure(call.given[p], program) for p in moved):
        return True
    return events[: len(moved)] == moved


def _events(node: ast.AST, program: Program) -> Iterator[str]:
    """The names that are read and the calls that do something (as ""), in the order of their evaluation."""
    for child in ast.iter_child_nodes(node):
        yield from _events(child, program)
    if isinstance(node, ast.Name):
        yield node.id
    elif acts(node, program):
        yield ""


def _inlined(program: Program, name: str, function: Function, part: str) -> str:
    """A part with the expression in place of the calls."""
    body: Any = tree(program.parts[name]).body.body[-1].body[0].value
    return code(tree(program.parts[part]).visit(Calls(m.Name(name), partial(_substituted, body, function)))).strip()


def _substituted(body: Any, function: Function, call: cst.Call) -> Any:
    """The expression of a helper with what a call gives."""
    places = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    assumed = {p: cst.parse_expression(ast.unparse(value)) for p, value in defaults(function).items()}
    given = {a.keyword.value if a.keyword else places[i]: a.value for i, a in enumerate(call.args)}
    values: Mapping[str, Any] = {p: embedded(v) for p, v in (assumed | given).items()}
    return embedded(body.visit(Reads(values)))


def _is_short(before: str, after: str) -> bool:
    """Whether every line that is new fits."""
    return all(len(line) <= WIDTH for line in set(after.splitlines()) - set(before.splitlines()))
