"""Lines of the text of classes: signatures, and statements folded where they are too long."""

import re

from archspec.codegen.layout import WIDTH, laid_out
from archspec.layers.arguments import argument
from archspec.lowering import Function


def signature(function: Function, aux: str = "Scope") -> str:
    """`self, x: Tensor, state: State | None = None`; `aux` is the type of what is collected."""
    types = {p.of: argument(p.of).type for p in function.parameters} | {"aux": f"{aux} | None"}
    takes = [f"{p.name}: {'Tensor' if p.required else types[p.of] + ' = None'}" for p in function.parameters]
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
    return [
        f"    def {name}(",
        *(f"        {a}," for a in re.split(r", (?![^[]*\])", arguments)),
        f"    ) -> {returns}:",
    ]


def fitted(statement: str) -> list[str]:
    """A statement in the body of a method, on several lines where it is long; a comment that has no room goes."""
    bare = statement.partition("  # ")[0]
    for said in (statement, bare):
        if len(said) + 8 <= WIDTH:
            return ["        " + said]
    return ["        " + line for line in laid_out(bare, 8)]
