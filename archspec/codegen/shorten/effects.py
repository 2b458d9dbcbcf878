"""Whether evaluating an expression does anything but give its value: then it may go, or move."""

import ast

from archspec.codegen.shorten.facts import library
from archspec.codegen.shorten.program import Function, Program

BUILTINS = ("len", "int", "float", "bool", "str", "max", "min", "range", "sum", "tuple", "list", "dict", "zip", "getattr",
            "isinstance", "enumerate", "slice", "abs", "round", "all", "any", "sorted", "reversed")  # fmt: skip
RANDOM = ("rand", "dropout", "bernoulli", "multinomial", "normal", "uniform", "manual_seed", "poisson", "seed")
CHANGING = ("append", "extend", "insert", "remove", "pop", "popitem", "clear", "update", "setdefault", "sort", "reverse",
            "backward", "register_buffer", "register_parameter", "add_module", "apply", "to_empty", "train")  # fmt: skip


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
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id == function.name):
            if acts(node, program):
                return False
    return True
