"""Whether evaluating an expression does anything but give its value: then it may go, or move."""

import ast

from archspec.codegen.shorten.facts import library
from archspec.codegen.shorten.program import Function, Program, bindings, is_name

BUILTINS = (
    "abs", "all", "any", "bool", "dict", "enumerate", "float", "getattr", "int", "isinstance", "len", "list", "max",
    "min", "range", "reversed", "round", "slice", "sorted", "str", "sum", "tuple", "zip",
)  # fmt: skip
RANDOM = ("rand", "dropout", "bernoulli", "multinomial", "normal", "uniform", "poisson", "seed")
CHANGING = (
    "add_module", "append", "apply", "backward", "clear", "extend", "insert", "pop", "popitem", "register_buffer",
    "register_parameter", "remove", "reverse", "setdefault", "sort", "to_empty", "train", "update",
)  # fmt: skip


def pure(node: ast.AST, program: Program) -> bool:
    """Whether an expression changes nothing, draws no random number and calls nothing unknown."""
    return not any(acts(n, program) for n in ast.walk(node))


def acts(node: ast.AST, program: Program) -> bool:
    """Whether a node itself, apart from what it holds, may do more than give a value."""
    if isinstance(node, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom):
        return True
    if not isinstance(node, ast.Call):
        return False
    match node.func:
        case ast.Name(id=name):
            helper = program.helper(name)
            return name not in BUILTINS if helper is None else not _computes(helper, program)
        case ast.Attribute(value=ast.Name(id="self" | "state")):
            return True  # a sub-module or a method
        case ast.Attribute(attr=name):
            chance = library(node.func) and any(word in name for word in RANDOM)
            return name.endswith("_") or name in CHANGING or chance
    return True


def _computes(function: Function, program: Program) -> bool:
    """Whether a helper only computes what it returns; it may change what it has made itself."""
    made = _made(function)
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            return False
        if isinstance(node, ast.Raise | ast.Assert | ast.Global | ast.Nonlocal | ast.Delete | ast.With):
            return False
        itself = isinstance(node, ast.Call) and is_name(node.func, function.name)
        if not itself and not _changes(node, made) and acts(node, program):
            return False
    return True


def _changes(node: ast.AST, names: set[str]) -> bool:
    """Whether a node is a method that changes one of these variables, and draws nothing: `y.add_(x)`, `y.append(x)`."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)):
            return name in names and not any(word in method for word in RANDOM)
    return False


def _made(function: Function) -> set[str]:
    """The variables that only ever hold a list or a tensor that the function has made for them."""
    found: list[str] = []
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                found += [n.id for n, v in zip(names, values, strict=False) if isinstance(n, ast.Name) and _is_new(v)]
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if _is_new(value):
                found.append(name)
    return {name for name in found if bindings(function).count(name) == found.count(name)}


def _is_new(node: ast.expr) -> bool:
    """Whether an expression makes a list, or a tensor of zeros."""
    zeros = isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.zeros", "torch.zeros_like")
    return zeros or isinstance(node, ast.List)
