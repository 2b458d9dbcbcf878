"""What is known of an argument without running anything: a constant of the file, nothing (None), or a value."""

import ast
from collections.abc import Mapping
from typing import Any

from archspec.codegen.decide import UNKNOWN
from archspec.codegen.shorten.program import Call, Function, Program, defaults, is_name, parameters

LIBRARIES = ("torch", "F", "nn", "math")
MAYBE_NONE = ("get", "pop", "setdefault", "grad")  # methods and attributes that may give None
OPERATORS = ast.Add | ast.Sub | ast.Mult | ast.Div | ast.FloorDiv | ast.Mod | ast.Pow


class Opaque:
    """A constant whose value is not known here, such as torch.float32."""


def value(node: ast.expr, constants: Mapping[str, Any]) -> Any:
    """What an expression of literals and constants comes to, or UNKNOWN for any other."""
    if not is_constant(node, constants):
        return UNKNOWN
    try:
        return eval(ast.unparse(node), {"__builtins__": {}}, dict(constants))
    except NameError:
        return Opaque()


def is_constant(node: ast.expr, constants: Mapping[str, Any]) -> bool:
    """Whether an expression is made of literals, constants of the file and names of a library."""
    match node:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            return name in constants
        case ast.Attribute():
            return library(node)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return is_constant(inner, constants)
        case ast.BinOp(left=left, op=operator, right=right):
            return isinstance(operator, OPERATORS) and is_constant(left, constants) and is_constant(right, constants)
        case ast.Tuple(elts=items):
            return all(is_constant(item, constants) for item in items)
    return False


def library(node: ast.expr) -> bool:
    """Whether an expression is `torch.something`, `F.something`."""
    while isinstance(node, ast.Attribute):
        node = node.value
        if isinstance(node, ast.Name) and node.id in LIBRARIES:
            return True
    return False


class Present:
    """Decides whether an expression can be None."""

    def __init__(self, program: Program, call: Call):
        self.program, self.part, self.function = program, call.part, call.function
        self.asked: set[str] = set()

    def __call__(self, node: ast.expr) -> bool:
        """Whether an expression of the calling function is never None."""
        match node:
            case ast.Constant(value=found):
                return found is not None
            case ast.Name(id=name):
                return self.name(name)
            case ast.Attribute(value=ast.Attribute(value=ast.Name(id="self"), attr=layer), attr="bias"):
                return has_bias(self.program, self.part, layer) is True
            case ast.Attribute(value=inner, attr=name):
                return name not in MAYBE_NONE and (name != "bias" or is_name(inner, "self"))
            case ast.Call():
                return self.call(node)
            case ast.IfExp(body=body, orelse=other):
                return self(body) and self(other)
            case ast.BoolOp(values=values):
                return all(map(self, values))
            case (
                ast.Subscript() | ast.BinOp() | ast.UnaryOp() | ast.Compare() | ast.Tuple() | ast.List() | ast.Lambda()
            ):
                return True
        return False

    def name(self, name: str) -> bool:
        """Whether a name of the calling function is never None: a parameter that must be given, or a variable."""
        if name in self.program.constants or name in _asserted(self.function):
            return True
        taken = next((a for a in parameters(self.function) if a.arg == name), None)
        if taken is not None and not _says_present(taken.annotation):
            return False
        if name in self.asked:
            return True
        self.asked.add(name)
        given = defaults(self.function).get(name)
        found = [self.assigned(n, name) for n in ast.walk(self.function) if _stores(n, name)]
        return (taken is not None or bool(found)) and all(found) and (given is None or self(given))

    def assigned(self, node: ast.AST, name: str) -> bool:
        """Whether a statement gives a name a value."""
        match node:
            case ast.Assign(targets=[ast.Name()], value=given) | ast.AnnAssign(value=ast.expr() as given):
                return self(given)
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                return all(self(v) for n, v in zip(names, values, strict=True) if is_name(n, name))
            case ast.Assign(targets=[ast.Tuple()], value=given):
                return self(given)
        return isinstance(node, ast.AugAssign | ast.For | ast.comprehension)

    def call(self, node: ast.Call) -> bool:
        """Whether a call gives something: one of the file says so itself, an operation of a library always does."""
        match node.func:
            case ast.Name(id=name) if (helper := self.program.helper(name)) is not None:
                return _says_present(helper.returns)
            case ast.Name(id=name):
                return name in ("int", "float", "len", "min", "max", "range", "tuple", "list", "sum")
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                method = next((f for f in self.program.functions(self.part) if f.name == name), None)
                return method is None or _says_present(method.returns)
            case ast.Attribute(attr=name):
                return name not in MAYBE_NONE
        return False


def has_bias(program: Program, part: str, layer: str) -> bool | None:
    """Whether a layer of PyTorch that a class makes has a bias; None where it is not said."""
    made = [
        n.value
        for f in program.functions(part)
        if f.name == "__init__"
        for n in ast.walk(f)
        if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == f"self.{layer}"
    ]
    if len(made) != 1 or not isinstance(made[0], ast.Call) or not ast.unparse(made[0].func).startswith("nn."):
        return None
    said = next((k.value for k in made[0].keywords if k.arg == "bias"), ast.Constant(True))
    return bool(said.value) if isinstance(said, ast.Constant) else None


def _asserted(function: Function) -> set[str]:
    """The names that a function asserts not to be None."""
    said = (ast.unparse(s.test) for s in function.body if isinstance(s, ast.Assert))
    return {name for name, _, rest in (text.partition(" ") for text in said) if rest == "is not None"}


def _stores(node: ast.AST, name: str) -> bool:
    """Whether a statement binds a name."""
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign | ast.For | ast.comprehension | ast.NamedExpr):
        targets = [node.target]
    else:
        return False
    return any(is_name(n, name) for target in targets for n in ast.walk(target))


def _says_present(annotation: ast.expr | None) -> bool:
    """Whether an annotation leaves no room for None."""
    if annotation is None:
        return False
    said = {n.value if isinstance(n, ast.Constant) else getattr(n, "id", "") for n in ast.walk(annotation)}
    return not said & {None, "Any", "Optional"}
