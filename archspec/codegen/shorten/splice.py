"""Short helpers and methods with one call: their statements stand where they were called.

The call must be the whole value of a statement in the body of its function, and what is spliced in a few assignments
and a return. A shape that both functions take apart is taken apart once. Where a name would mean two things, the call
stays.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import libcst as cst

from archspec.codegen.shorten.effects import pure
from archspec.codegen.shorten.program import Function, Program, bindings, bound, parameters, tree
from archspec.codegen.shorten.rewrite import Reads, Unwrap, embedded
from archspec.codegen.syntax import flattened, lead

LONGEST_METHOD, LONGEST_HELPER = 4, 2  # statements that may be spliced in


def splice(program: Program) -> None:
    """Splice in each short method and helper that is called once, as a statement."""
    for part in list(program.parts):
        for method in program.functions(part) if program.helper(part) is None else []:
            once = program.parts[part].count(f"self.{method.name}") == 1
            if once and not program.called_from_outside(part, method.name):
                _splice(program, part, method, part, LONGEST_METHOD)
    for name in [name for name in program.parts if program.helper(name) is not None]:
        calls = program.calls(name)
        if calls is not None and len(calls) == 1 and calls[0].part != name:
            function = program.helper(name)
            assert function is not None
            _splice(program, name, function, calls[0].part, LONGEST_HELPER)


@dataclass(frozen=True)
class _Place:
    """Where a function is called: the function around it, the number of the statement, and the call."""

    caller: Function
    index: int
    statement: ast.Assign
    call: ast.Call


def _splice(program: Program, home: str, function: Function, part: str, longest: int) -> None:
    place = _place(program, part, function, is_method=home == part)
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if place is None or not 1 < len(body) <= longest or function.decorator_list or not _is_straight(body):
        return
    values = _values(program, function, place, home == part)
    if values is None:
        return
    shared = _shared_shape(body[0], values, place)
    names = values | {name: ast.Name(other) for name, other in (shared or {}).items()}
    kept = body[1:] if shared is not None else body
    if not _is_free(kept, place, names):
        return
    _write(program, home, function, part, place, names, len(kept))


def _place(program: Program, part: str, function: Function, is_method: bool) -> _Place | None:
    """The statement `y = f(x)` or `y, z = f(x)` that is the one call of a function."""
    func = f"self.{function.name}" if is_method else function.name
    for caller in program.functions(part):
        for i, s in enumerate(caller.body):
            match s:
                case ast.Assign(targets=[target], value=ast.Call() as call) if ast.unparse(call.func) == func:
                    return _Place(caller, i, s, call) if all(map(_is_plain_name, _names(target))) else None
    return None


def _names(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def _is_plain_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Name)


def _is_straight(body: Sequence[ast.stmt]) -> bool:
    """Whether statements are assignments to names, and a return."""
    *first, end = body
    named = (isinstance(s, ast.Assign) and all(map(_is_plain_name, _names(s.targets[0]))) for s in first)
    later = any(isinstance(n, ast.Lambda | ast.comprehension) for s in body for n in ast.walk(s))
    return all(named) and isinstance(end, ast.Return) and end.value is not None and not later


def _values(program: Program, function: Function, place: _Place, is_method: bool) -> dict[str, ast.expr] | None:
    """What each parameter is: a name, or an expression that is read once and does nothing else."""
    taken = [a.arg for a in parameters(function)][1 if is_method else 0 :]
    call = place.call
    if function.args.kwarg or function.args.vararg or len(call.args) + len(call.keywords) != len(taken):
        return None
    found = dict(zip(taken, call.args, strict=False)) | {str(k.arg): k.value for k in call.keywords}
    reads = [n.id for n in ast.walk(function) if isinstance(n, ast.Name)]
    if set(found) != set(taken) or any(bindings(function).count(p) > 1 for p in taken):
        return None
    moved = {p: v for p, v in found.items() if not _is_plain_name(v)}
    still = not moved or all(pure(s, program) for s in function.body)
    return found if still and all(reads.count(p) == 1 and pure(v, program) for p, v in moved.items()) else None


def _shared_shape(first: ast.stmt, values: Mapping[str, ast.expr], place: _Place) -> dict[str, str] | None:
    """The names that the caller has for the sizes that `B, S, _ = x.shape` names; None where it has not all."""
    match first:
        case ast.Assign(targets=[ast.Tuple(elts=own)], value=ast.Attribute(value=ast.Name(id=p), attr="shape")) if (
            p in values
        ):
            given = ast.unparse(values[p])
        case _:
            return None
    for i, statement in enumerate(place.caller.body[: place.index]):
        match statement:
            case ast.Assign(targets=[ast.Tuple(elts=theirs)], value=ast.Attribute(value=ast.Name(id=x), attr="shape")):
                pairs = [(ast.unparse(a), ast.unparse(b)) for a, b in zip(own, theirs, strict=False)]
                between = {n for s in place.caller.body[i + 1 : place.index] for n in _stored(s)}
                found = {a: b for a, b in pairs if a != "_"}
                sure = len(own) == len(theirs) and not between & {x, *found.values()}
                if x == given and sure and "_" not in found.values():
                    return found
    return None


def _stored(node: ast.AST) -> list[str]:
    return [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


def _is_free(kept: Sequence[ast.stmt], place: _Place, names: Mapping[str, ast.expr]) -> bool:
    """Whether the variables that are spliced in mean nothing else around them."""
    targets = {ast.unparse(n) for n in _names(place.statement.targets[0])}
    own = [name for s in kept for name in _stored(s)]
    read = {n.id for value in names.values() for n in ast.walk(value) if isinstance(n, ast.Name)}
    outer = bound(place.caller) - targets
    returned = _returned(kept)
    given = {n.id for s in kept for n in ast.walk(s) if isinstance(n, ast.Name)} - set(own) - names.keys()
    early = targets & set(own) - set(returned)  # a target that would be set to something else first
    return not (set(own) & (outer | read) or early or given & outer - {"self"} or len(own) > len(set(own)))


def _returned(kept: Sequence[ast.stmt]) -> list[str]:
    end = kept[-1]
    assert isinstance(end, ast.Return)
    assert end.value is not None
    return [ast.unparse(n) for n in _names(end.value)]


def _write(
    program: Program, home: str, function: Function, part: str, place: _Place, names: Mapping[str, ast.expr], n: int
) -> None:
    """Put the last n statements of a function in the place of its call, and take the function away."""
    node: Any = tree(program.parts[home])
    method = home == part
    source = next(f for f in node.body.body if _is_function(f, function.name)) if method else node
    reads = Reads({name: embedded(cst.parse_expression(ast.unparse(v))) for name, v in names.items()})
    statements = [_named(s.visit(reads).visit(Unwrap()), names) for s in source.body.body[-n:]]
    caller = tree(program.parts[part])
    if method:
        caller = caller.with_changes(body=caller.body.with_changes(body=[s for s in node.body.body if s is not source]))
    program.put(part, caller.visit(_Replace(place, [flattened(s) for s in statements])))
    if not method:
        del program.parts[home]


def _is_function(node: Any, name: str) -> bool:
    return isinstance(node, cst.FunctionDef) and node.name.value == name


def _named(statement: Any, names: Mapping[str, ast.expr]) -> Any:
    """A statement whose comment has the names of the caller."""
    comment = statement.trailing_whitespace.comment
    if comment is None:
        return statement
    plain = {name: v.id for name, v in names.items() if isinstance(v, ast.Name)}
    said = re.sub(r"\b\w+\b", lambda word: plain.get(word[0], word[0]), comment.value)
    return statement.with_deep_changes(comment, value=said)


class _Replace(cst.CSTTransformer):
    """Puts statements in the place of one, in the body of a function."""

    def __init__(self, place: _Place, statements: list[Any]):
        super().__init__()
        self.place, self.statements = place, statements

    def leave_FunctionDef(self, original: cst.FunctionDef, updated: cst.FunctionDef) -> Any:
        """The function around the call, with the statements."""
        if updated.name.value != self.place.caller.name:
            return updated
        body = list(updated.body.body)
        old: Any = body[self.place.index]
        *first, end = self.statements
        wanted = [ast.unparse(n) for n in _names(self.place.statement.targets[0])]
        target, value = old.body[0].targets[0], end.body[0].value
        elements = [e.value for e in value.elements] if isinstance(value, cst.Tuple) else [value]
        if [getattr(e, "value", None) for e in elements] == wanted:
            new = first
        else:
            new = [*first, end.with_changes(body=[cst.Assign([target], value)])]
        if new[-1].trailing_whitespace.comment is None:
            new[-1] = new[-1].with_changes(trailing_whitespace=old.trailing_whitespace)
        new[0] = lead(new[0], [*old.leading_lines, *new[0].leading_lines])
        body[self.place.index : self.place.index + 1] = new
        return updated.with_changes(body=updated.body.with_changes(body=body))
