"""Small changes to concrete syntax: parentheses that an operation needs, the lines above a statement, arguments."""

from typing import Any

import libcst as cst

from archspec.codegen.layout import one_line
from archspec.codegen.sources import code


def enclosed(node: Any, outer: cst.BaseExpression) -> Any:
    """An operation that takes the place of `outer`, in the parentheses that held that."""
    operation = cst.BinaryOperation | cst.BooleanOperation | cst.Comparison | cst.IfExp | cst.UnaryOperation
    if outer.lpar and isinstance(node, operation) and not node.lpar:
        return node.with_changes(lpar=outer.lpar, rpar=outer.rpar)
    return node


def merged(first: Any, second: Any) -> Any:
    """Two statements `if self.training:` that specialising has brought together, as one."""
    head, *tail = second.body.body
    head = lead(head, [*second.leading_lines, *head.leading_lines])
    return first.with_changes(body=first.body.with_changes(body=[*first.body.body, head, *tail]))


def lead(statement: Any, lines: Any) -> Any:
    """A statement with other lines above it."""
    return statement.with_changes(leading_lines=lines) if hasattr(statement, "leading_lines") else statement


def without_blanks(statement: Any) -> Any:
    """The lines above a statement from the first comment on."""
    lines = getattr(statement, "leading_lines", ())
    first = next((i for i, line in enumerate(lines) if line.comment), len(lines))
    return lines[first:]


def last(argument: cst.Arg) -> cst.Arg:
    """The last argument of a call: no comma after it."""
    return argument.with_changes(comma=cst.MaybeSentinel.DEFAULT)


def tidy(argument: cst.Arg) -> cst.Arg:
    """An argument on one line."""
    return argument.with_changes(comma=cst.MaybeSentinel.DEFAULT, whitespace_after_arg=cst.SimpleWhitespace(""))


def flattened(statement: cst.SimpleStatementLine) -> cst.SimpleStatementLine:
    """A statement on one line, unless a comment stands between its brackets."""
    text = code(statement.with_changes(leading_lines=[]))
    if '"""' in text:
        return statement
    flat = cst.ensure_type(cst.parse_statement(one_line(text)), cst.SimpleStatementLine)
    return flat.with_changes(leading_lines=statement.leading_lines)


def parenthesised(node: cst.BaseExpression) -> cst.BaseExpression:
    """An expression in parentheses."""
    return node if node.lpar else node.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
