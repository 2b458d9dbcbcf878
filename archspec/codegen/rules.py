"""What the code generator asks of the source of a layer, and who breaks it where.

CONTRIBUTING.md says why. A rule that is broken is a `GenerateError` with the file, the line and what would be right:
nothing that the generator cannot decide may pass as if it had been.
"""

import ast
from collections.abc import Iterator

from archspec.errors import GenerateError
from archspec.layers.base import Component

PURE = ("len", "min", "max")
SUBMODULE, LINEAR = "submodule", "linear"
Broken = tuple[ast.expr | ast.stmt | ast.arg, str]  # where a rule is broken, and what would be right


def check(text: str, where: str, line: int = 1, c: Component | None = None) -> None:
    """Refuse a class or function that breaks a rule.

    Args:
        text: its source.
        where: the file and the name, for the message.
        line: the number of its first line in that file.
        c: the config, where it is known: forward must take what it says.

    Raises:
        GenerateError: with every place, its line, and what would be right.
    """
    tree = ast.parse(text.strip()).body[0]
    found = sorted({(node.lineno, said) for node, said in _broken(tree, c)})
    if found:
        lines = text.strip().splitlines()
        said = (f"{where}:{line + at - 1}: `{lines[at - 1].strip()}` {what}" for at, what in found)
        raise GenerateError("\n".join(said))


def _broken(tree: ast.stmt, c: Component | None) -> Iterator[Broken]:
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    for function in functions:
        yield from _bindings(function, whole=function is tree or function.name == "__init__")
        data = _locals(function)
        for node in ast.walk(function):
            yield from _conditions(node, data)
        if function.name == "__init__":
            yield from _construction(function)
    yield from _uses(tree)
    if c is not None:
        yield from _forward(functions, c)


# The config and who else may hold it


def _uses(tree: ast.AST) -> Iterator[Broken]:
    """The config is read where it is used."""
    fine: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_config(node.value):
            fine.add(id(node.value))
        elif isinstance(node, ast.Assign) and _is_scaffold(node):
            fine |= {id(node.value), *map(id, node.targets)}
        elif isinstance(node, ast.Call) and _calls(node, LINEAR) and node.args:
            fine.add(id(node.args[0]))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and _is_scaffold(node):
            continue
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            for value in node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]:
                if _is_config(value):
                    yield node, "copies the config; c = self.c and self.c = c alone may"
                    fine.add(id(value))
                elif _folds(value):
                    yield node, f"copies the config; write `{ast.unparse(value)}` where it is used"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name | ast.Attribute) or not isinstance(node.ctx, ast.Load):
            continue
        if _is_config(node) and id(node) not in fine:
            yield node, "passes the config whole; pass the values that are needed, or submodule(c.child, ...)"


def _bindings(function: ast.FunctionDef, whole: bool) -> Iterator[Broken]:
    """Nothing but the config is called c."""
    said = "calls something else c, which is the config; choose another name"
    for node in ast.walk(function):
        if isinstance(node, ast.arg) and node.arg == "c" and not (whole and node in function.args.args):
            yield node, "takes the config; a method reads self.c, a function takes the values that it needs"
        elif isinstance(node, ast.comprehension | ast.For | ast.NamedExpr | ast.AugAssign | ast.AnnAssign):
            target: ast.expr = node.target
            yield from [(target, said)] if _binds_c(target) else []
        elif isinstance(node, ast.Assign) and any(map(_binds_c, node.targets)) and not _is_scaffold(node):
            yield node, said


def _binds_c(target: ast.AST) -> bool:
    return any(isinstance(n, ast.Name) and n.id == "c" and isinstance(n.ctx, ast.Store) for n in ast.walk(target))


def _is_scaffold(node: ast.AST) -> bool:
    """`self.c = c` or `c = self.c`."""
    return ast.unparse(node) in ("self.c = c", "c = self.c")


def _is_config(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == "c" and isinstance(node.value, ast.Name) and node.value.id == "self"
    return isinstance(node, ast.Name) and node.id == "c"


def _reads_config(node: ast.AST) -> bool:
    return any(map(_is_config, ast.walk(node)))


def _folds(node: ast.AST) -> bool:
    """Whether an expression is decided by the config alone."""
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} - {"c", "self", *PURE}
    return _reads_config(node) and not names and not _reads_self(node) and not _impure(node)


def _reads_self(node: ast.AST) -> bool:
    """Whether `self` is read other than as self.c."""
    held = {id(n.value) for n in ast.walk(node) if isinstance(n, ast.Attribute) and _is_config(n)}
    return any(isinstance(n, ast.Name) and n.id == "self" and id(n) not in held for n in ast.walk(node))


def _impure(node: ast.AST) -> bool:
    """Whether an expression calls more than the generator can evaluate."""
    calls = [n for n in ast.walk(node) if isinstance(n, ast.Call)]
    return any(not any(_calls(call, name) for name in PURE) for call in calls) or any(
        isinstance(n, ast.GeneratorExp | ast.ListComp | ast.Lambda) for n in ast.walk(node)
    )


def _calls(node: ast.Call, name: str) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == name


# Conditions


def _conditions(node: ast.AST, data: set[str]) -> Iterator[Broken]:
    """A condition is on the config, or on data, or joins the two with and/or, config first."""
    if isinstance(node, ast.BoolOp):
        kinds = [_kind(value, data) for value in node.values]
        if kinds != sorted(kinds):
            yield node, "asks data before the config; put what the config decides first"
    if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
        for part in _operands(node.test):
            if _reads_config(part) and not _reads_data(part, data) and not _folds(part):
                yield part, f"cannot be decided: make `{ast.unparse(part)}` a property of the config"


def _operands(test: ast.expr) -> Iterator[ast.expr]:
    """The conditions that and, or and not join."""
    if isinstance(test, ast.BoolOp):
        for value in test.values:
            yield from _operands(value)
    elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yield from _operands(test.operand)
    else:
        yield test


def _kind(node: ast.expr, data: set[str]) -> int:
    """Whether a condition asks the config alone (0), the config first (1) or data first (2)."""
    if _reads_config(node) and not _reads_data(node, data):
        return 0
    first = next(_operands(node))
    return 1 if first is not node and _reads_config(first) and not _reads_data(first, data) else 2


def _reads_data(node: ast.AST, data: set[str]) -> bool:
    return _reads_self(node) or any(isinstance(n, ast.Name) and n.id in data for n in ast.walk(node))


def _locals(function: ast.FunctionDef) -> set[str]:
    """Parameters and variables of a function; those of a comprehension are no data of their own."""
    own = {n.id for part in ast.walk(function) if isinstance(part, ast.comprehension) for n in _names(part.target)}
    bound = {n.id for n in _names(function) if isinstance(n.ctx, ast.Store)}
    return ((bound - own) | {a.arg for a in ast.walk(function) if isinstance(a, ast.arg)}) - {"self", "c"}


def _names(node: ast.AST) -> list[ast.Name]:
    return [n for n in ast.walk(node) if isinstance(n, ast.Name)]


# Making sub-modules, and what forward takes


def _construction(init: ast.FunctionDef) -> Iterator[Broken]:
    """Optional sub-modules are made under `if`; weights start in reset_parameters; projections have their own names."""
    for node in ast.walk(init):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("nn.init."):
            yield node, "starts a weight; do it in reset_parameters, which inits call again"
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if not isinstance(target, ast.Attribute):
            continue
        branches = [node.value.body, node.value.orelse] if isinstance(node.value, ast.IfExp) else [node.value]
        if any(isinstance(b, ast.Constant) and b.value is None for b in branches):
            yield (
                node,
                f"sets self.{target.attr} to None; make it under an if on the config, and read it under the same",
            )
        for call in ast.walk(node.value):
            if isinstance(call, ast.Call) and _calls(call, LINEAR):
                named = call.args[1] if len(call.args) > 1 else None
                if not (isinstance(named, ast.Constant) and named.value == target.attr):
                    yield call, f'names the projection otherwise; write linear(c, "{target.attr}", ...)'


def _forward(functions: list[ast.FunctionDef], c: Component) -> Iterator[Broken]:
    """Forward takes what the config says that it takes, each None by default."""
    forward = next((f for f in functions if f.name == "forward"), None)
    if forward is None:
        return
    args = forward.args.args
    optional = zip(args[len(args) - len(forward.args.defaults) :], forward.args.defaults, strict=True)
    given = {a.arg for a, default in optional if isinstance(default, ast.Constant) and default.value is None}
    for name in c.arguments:
        if name not in given:
            yield forward, f"does not take {name}, which {type(c).__name__}.arguments lists; add `{name}=None`"
