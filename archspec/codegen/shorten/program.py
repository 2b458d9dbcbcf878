"""The parts of a finished file, each parsed, and who calls which helper."""

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import libcst as cst

from archspec.codegen.sources import code
from archspec.errors import GenerateError

Function = ast.FunctionDef


CALLED_BY_OTHERS = ("__init__", "forward", "reset_parameters", "aux_loss", "update_bias")


MOST_KEPT = 1 << 15  # parts that are remembered parsed: several for each layer of a large model


@lru_cache(maxsize=MOST_KEPT)
def syntax(text: str) -> ast.stmt:
    """A part as abstract syntax."""
    return ast.parse(text).body[0]


@lru_cache(maxsize=MOST_KEPT)
def tree(text: str) -> Any:
    """A part as concrete syntax."""
    return cst.parse_statement(text)


def syntax_of(function: cst.FunctionDef) -> Function:
    """A function as abstract syntax."""
    found = syntax(code(function.with_changes(leading_lines=[])).strip())
    assert isinstance(found, Function)
    return found


@dataclass(frozen=True)
class Call:
    """A call of a helper: where it stands, and what it gives each parameter."""

    part: str
    function: Function
    node: ast.Call
    given: Mapping[str, ast.expr]  # by parameter; what is left out is missing


class Program:
    """The parts of a file by name, as text.

    Attributes:
        parts: what the file defines, in its order.
        helpers: names of those that no user of the file calls: they may change what they take, or go.
        constants: sizes and other named values of the file.
    """

    def __init__(self, parts: Mapping[str, str], helpers: Collection[str], constants: Mapping[str, Any]):
        self.parts = dict(parts)
        self.helpers = set(helpers)
        self.constants = dict(constants)

    def functions(self, part: str) -> list[Function]:
        """The function of a part, or the methods of a class."""
        return _functions(syntax(self.parts[part]))

    def helper(self, name: str) -> Function | None:
        """The helper of that name, if it is a function."""
        node = syntax(self.parts[name]) if name in self.helpers and name in self.parts else None
        return node if isinstance(node, Function) and not node.decorator_list else None

    def put(self, part: str, node: cst.CSTNode) -> None:
        """Change a part."""
        self.parts[part] = code(node).strip()

    def called_from_outside(self, part: str, method: str) -> bool:
        """Whether anything but `self` has a method of a class called, or might: torch, or another part."""
        text = "".join(self.parts.values()).replace(f"self.{method}", "")
        return method in CALLED_BY_OTHERS or f".{method}" in text

    def reads(self, part: str) -> frozenset[str]:
        """The names of the file, and of what it imports, that a part reads."""
        return _reads(self.parts[part])

    def calls(self, name: str) -> list[Call] | None:
        """Every call of a helper; None where it is also read in another way, as when it is handed on.

        Raises:
            GenerateError: a call does not fit what the helper takes.
        """
        function = self.helper(name)
        assert function is not None
        found: list[Call] = []
        for part, text in self.parts.items():
            if name not in text:
                continue
            if not self.functions(part) and name in self.reads(part):
                return None
            for caller in self.functions(part):
                if name in bound(caller):
                    continue
                calls = [n for n in ast.walk(caller) if isinstance(n, ast.Call) and is_name(n.func, name)]
                if len(calls) != sum(is_name(n, name) for n in ast.walk(caller)):
                    return None
                found += [Call(part, caller, n, binding(function, n)) for n in calls]
        return found


def is_name(node: ast.AST, name: str) -> bool:
    """Whether a node is that name."""
    return isinstance(node, ast.Name) and node.id == name


def _functions(node: ast.stmt) -> list[Function]:
    if isinstance(node, Function):
        return [node]
    return [n for n in node.body if isinstance(n, Function)] if isinstance(node, ast.ClassDef) else []


@lru_cache(maxsize=MOST_KEPT)
def _reads(text: str) -> frozenset[str]:
    node = syntax(text)
    functions = _functions(node)
    inside = {id(n) for f in functions for n in ast.walk(f)}
    outside = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and id(n) not in inside}
    return frozenset(outside.union(*(_loaded(f) - bound(f) for f in functions)))


def _loaded(function: Function) -> set[str]:
    return {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def parameters(function: Function) -> list[ast.arg]:
    """What a function takes, but for *args and **kwargs."""
    return [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]


def defaults(function: Function) -> dict[str, ast.expr]:
    """The defaults of a function by parameter."""
    places = [*function.args.posonlyargs, *function.args.args]
    last = zip(reversed(places), reversed(function.args.defaults), strict=False)
    named = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return {a.arg: value for a, value in (*last, *named) if value is not None}


def binding(function: Function, call: ast.Call) -> dict[str, ast.expr]:
    """What a call gives each parameter.

    Raises:
        GenerateError: the call does not fit.
    """
    places = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    names = {a.arg for a in parameters(function)}
    fits = (len(call.args) <= len(places) or function.args.vararg is not None) and not any(
        isinstance(a, ast.Starred) for a in call.args
    )
    given = dict(zip(places, call.args, strict=False))
    for keyword in call.keywords:
        fits = fits and keyword.arg is not None and keyword.arg not in given
        fits = fits and (keyword.arg in names or function.args.kwarg is not None)
        given[str(keyword.arg)] = keyword.value
    if not fits or not names - given.keys() <= defaults(function).keys():
        raise GenerateError(f"{ast.unparse(call)} does not fit {function.name}({ast.unparse(function.args)})")
    return given


def bodies(function: Function) -> Iterator[list[ast.stmt]]:
    """The blocks of a function."""
    for node in ast.walk(function):
        for name in ("body", "orelse"):
            body = getattr(node, name, None)
            if isinstance(body, list):
                yield body


def bound(function: Function) -> set[str]:
    """Names that a function and what it holds bind: parameters, variables, inner functions."""
    return set(bindings(function))


@lru_cache(maxsize=4096)
def bindings(function: Function) -> list[str]:
    """The same, each as often as it is bound."""
    return [name for node in ast.walk(function) if node is not function for name in bound_by(node)]


def bound_by(node: ast.AST) -> Iterator[str]:
    """Names that a node itself binds."""
    match node:
        case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.ExceptHandler(name=str() as name):
            yield name
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            yield from names
