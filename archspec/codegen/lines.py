"""Lines of the text of classes: signatures, and statements folded where they are too long."""

import libcst as cst

from archspec.codegen.layout import WIDTH, code
from archspec.codegen.layout import fitted as fold
from archspec.layers.arguments import ARGUMENTS
from archspec.lowering import Function


def signature(function: Function) -> str:
    """`self, x: Tensor, state: State | None = None`."""
    takes = [f"{p.name}: {'Tensor' if p.required else ARGUMENTS[p.of].type + ' = None'}" for p in function.parameters]
    return ", ".join(["self", *takes])


def indented(lines: list[str]) -> list[str]:
    """Lines one level further to the right."""
    return [f"    {line}" for line in lines]


def listed(opening: str, items: list[str], closing: str) -> list[str]:
    """Items on one line, or one a line when that would be too long."""
    line = f"{opening}{', '.join(items)}{closing}"
    return [line] if len(line) + 24 <= WIDTH else [opening, *(f"    {i}," for i in items), closing]


def header(name: str, arguments: str, returns: str = "Tensor") -> list[str]:
    """The `def` line, folded when it is too long."""
    line = f"    def {name}({arguments}) -> {returns}:"
    if len(line) <= WIDTH:
        return [line]
    if len(arguments) + 8 <= WIDTH:
        return [f"    def {name}(", f"        {arguments}", f"    ) -> {returns}:"]
    return [f"    def {name}(", *(f"        {a}," for a in arguments.split(", ")), f"    ) -> {returns}:"]


def fitted(statement: str) -> list[str]:
    """A statement in the body of a method; parentheses fold a long one."""
    bare = statement.partition("  # ")[0]
    for said in (statement, bare):
        if len(said) + 8 <= WIDTH:
            return ["        " + said]
    parsed = cst.parse_statement(bare)
    assert isinstance(parsed, cst.SimpleStatementLine)
    folded = code(fold(parsed, 8)).rstrip("\n").splitlines()
    if len(folded) > 1 and all(len(line) + 8 <= WIDTH for line in folded):
        return ["        " + line for line in folded]
    head, _, value = (
        statement.partition(" = ") if not statement.startswith("return ") else ("return", "", statement[7:])
    )
    opening = f"{head} = (" if head != "return" else "return ("
    pieces = value.split(" + ")
    return [
        f"        {opening}",
        f"            {pieces[0]}",
        *(f"            + {p}" for p in pieces[1:]),
        "        )",
    ]
