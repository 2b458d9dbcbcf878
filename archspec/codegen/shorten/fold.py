"""Parameters that every call gives the same constant: they go, and so do the branches that they decide.

A parameter stays where calls differ, one that is given a window and one that is not: there is one helper for both, with
the branch that tells them apart. Of a parameter that no call leaves out or gives None, `is None` is decided.
"""

import ast

from archspec.codegen.decide import UNKNOWN
from archspec.codegen.layout import one_line
from archspec.codegen.shorten.deciding import Constant, decided, rebound
from archspec.codegen.shorten.effects import pure
from archspec.codegen.shorten.facts import Present, has_bias, value
from archspec.codegen.shorten.program import Call, Function, Program, defaults, parameters, syntax_of, tree
from archspec.codegen.shorten.signatures import drop_arguments, without
from archspec.codegen.sources import code


def fold(program: Program) -> None:
    """Fold the parameters of every helper that is only called."""
    for name in [name for name in program.parts if program.helper(name) is not None]:
        calls = program.calls(name)
        if calls:
            _fold_helper(program, name, calls)


def _fold_helper(program: Program, name: str, calls: list[Call]) -> None:
    function = program.helper(name)
    assert function is not None
    outside = [call for call in calls if call.part != name]
    taken = [a.arg for a in parameters(function)]
    same = {p: found for p in taken if (found := _same(program, function, p, calls)) is not None}
    present = {p for p in taken if p not in same and _is_present(program, p, function, outside)}
    asked = _asked(function)
    sure = asked & present | _sure_variables(program, name, function, asked)
    node = decided(tree(program.parts[name]), same, sure, program)
    unread = {a.arg for a in parameters(function)} - _read(syntax_of(node), name)
    gone = {p for p in unread if all(pure(call.given[p], program) for call in calls if p in call.given)}
    gone |= {p for p in same if rebound(function, p)[1]}
    changed = without(node, gone, present, {p for p in defaults(function) if all(p in c.given for c in calls)})
    if gone or code(changed).strip() != program.parts[name]:
        program.put(name, changed)
        drop_arguments(program, name, function, gone, {call.part for call in calls})


def _read(function: Function, name: str) -> set[str]:
    """What a helper reads; what it hands on to the same parameter of itself, it does not read."""
    kept: set[int] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            places = [a.arg for a in function.args.args]
            given = [*zip(places, node.args, strict=False), *((k.arg, k.value) for k in node.keywords)]
            kept |= {id(v) for p, v in given if isinstance(v, ast.Name) and v.id == p}
    names = [n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    return {n.id for n in names if id(n) not in kept}


def _same(program: Program, function: Function, p: str, calls: list[Call]) -> Constant | None:
    """The constant that every call gives a parameter, or leaves it at."""
    given = []
    for call in calls:
        node, part = call.given.get(p), call.part
        if node is None:
            node, part = defaults(function)[p], function.name
        if part == function.name and isinstance(node, ast.Name) and node.id == p:
            continue  # it hands on its own
        given.append((_without_bias(program, part, node), part))
    if not given or len({ast.dump(node) for node, _ in given}) > 1:
        return None
    node, part = given[0]
    found = value(node, program.constants)
    if found is UNKNOWN:
        return None
    said = hasattr(node, "lineno") and ast.get_source_segment(program.parts[part], node)
    return Constant(one_line(said or ast.unparse(node)), found)


def _without_bias(program: Program, part: str, node: ast.expr) -> ast.expr:
    """None for the bias of a layer that has none."""
    match node:
        case ast.Attribute(value=ast.Attribute(value=ast.Name(id="self"), attr=layer), attr="bias"):
            return ast.Constant(None) if has_bias(program, part, layer) is False else node
    return node


def _asked(function: Function) -> set[str]:
    """The names of which a function asks whether they are None."""
    return {
        n.left.id
        for n in ast.walk(function)
        if isinstance(n, ast.Compare) and isinstance(n.left, ast.Name) and isinstance(n.ops[0], ast.Is | ast.IsNot)
    }


def _sure_variables(program: Program, name: str, function: Function, asked: set[str]) -> set[str]:
    """The variables among them that never are."""
    here = Present(program, Call(name, function, ast.Call(ast.Name(name, ast.Load()), [], []), {}))
    return {variable for variable in asked - {a.arg for a in parameters(function)} if here.name(variable)}


def _is_present(program: Program, p: str, function: Function, calls: list[Call]) -> bool:
    given = [(call, call.given.get(p, defaults(function).get(p))) for call in calls]
    return all(node is not None and Present(program, call)(node) for call, node in given)
