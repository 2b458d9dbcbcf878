"""Whether evaluating an expression does anything but give its value: then it may go, or move."""

import ast

from archspec.codegen.shorten.facts import library
from archspec.codegen.shorten.program import Function, Program, is_name

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
    """Whether a helper only computes what it returns."""
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            return False
        if isinstance(node, ast.Raise | ast.Assert | ast.Global | ast.Nonlocal | ast.Delete | ast.With):
            return False
        itself = isinstance(node, ast.Call) and is_name(node.func, function.name)
        if not itself and acts(node, program):
            return False
    return True
