"""Keeping specialised code as its author would have laid it out: line lengths, returns, and methods nobody calls."""

import re
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.sources import free_names

WIDTH = 120


def code(node: cst.CSTNode) -> str:
    """The text of a node."""
    return cst.Module([]).code_for_node(node)


def fitted(statement: cst.SimpleStatementLine, indent: int) -> cst.SimpleStatementLine:
    """A statement on one line if it fits there, else with its outermost call that helps one argument a line."""
    flat = statement.visit(_Flat())
    assert isinstance(flat, cst.SimpleStatementLine)
    text = code(flat.with_changes(leading_lines=[])).rstrip("\n")
    if "\n" not in text and len(text) + indent <= WIDTH:
        return flat
    calls = [c for c in m.findall(flat, m.Call()) if isinstance(c, cst.Call) and c.args]
    if "\n" in text or not calls:
        return statement
    outermost_first = sorted(calls, key=lambda c: -len(code(c)))
    ways: list[Any] = [flat.deep_replace(call, _tall(call)) for call in outermost_first]
    return next((way for way in ways if _widest(way) + indent <= WIDTH), ways[0])


def _widest(statement: cst.SimpleStatementLine) -> int:
    return max(map(len, code(statement.with_changes(leading_lines=[])).splitlines()))


def folded_docstring(line: str) -> str:
    """A docstring of one line, on as many as it needs once its sizes have their names."""
    match = re.fullmatch(r'( *)"""(.+)"""', line)
    if match is None or len(line) <= WIDTH:
        return line
    margin, said = match.groups()
    folded = wrap(f'"""{said}', WIDTH - len(margin), break_on_hyphens=False, break_long_words=False)
    return "\n".join(margin + part for part in [*folded, '"""'])


class Refitted(cst.CSTTransformer):
    """Breaks the lines that longer names have made too long."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0

    def visit_IndentedBlock(self, node: cst.IndentedBlock) -> None:
        """One level deeper."""
        self.depth += 1

    def leave_IndentedBlock(self, original: cst.IndentedBlock, updated: cst.IndentedBlock) -> cst.IndentedBlock:
        """And back."""
        self.depth -= 1
        return updated

    def leave_SimpleStatementLine(
        self, original: cst.SimpleStatementLine, updated: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine:
        """The statement, broken at a call if it is too long."""
        indent = 4 * self.depth
        return updated if _widest(updated) + indent <= WIDTH else fitted(updated, indent)

    def leave_FunctionDef(self, original: cst.FunctionDef, updated: cst.FunctionDef) -> cst.FunctionDef:
        """The function, with one parameter a line if its header is too long."""
        header = updated.with_changes(
            body=cst.SimpleStatementSuite([cst.Pass()]), leading_lines=[], lines_after_decorators=[], decorators=[]
        )
        if max(map(len, code(header).splitlines())) + 4 * self.depth <= WIDTH or not updated.params.params:
            return updated
        inside, end = _breaks()
        params = [p.with_changes(comma=cst.Comma(whitespace_after=inside)) for p in updated.params.params]
        params[-1] = params[-1].with_changes(comma=cst.Comma(whitespace_after=end))
        return updated.with_changes(params=updated.params.with_changes(params=params), whitespace_before_params=inside)


def _breaks() -> tuple[cst.ParenthesizedWhitespace, cst.ParenthesizedWhitespace]:
    """The line breaks between arguments that stand one a line, and after the last."""
    inside = cst.ParenthesizedWhitespace(indent=True, last_line=cst.SimpleWhitespace("    "))
    return inside, cst.ParenthesizedWhitespace(indent=True, last_line=cst.SimpleWhitespace(""))


class _Flat(cst.CSTTransformer):
    """Puts calls on one line; a call with a comment inside stays as it is."""

    def leave_Call(self, original: cst.Call, updated: cst.Call) -> cst.Call:
        if m.findall(original, m.Comment()):
            return updated
        comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
        flat = cst.SimpleWhitespace("")
        args = [a.with_changes(comma=comma, whitespace_after_arg=flat) for a in updated.args]
        args[-1:] = [a.with_changes(comma=cst.MaybeSentinel.DEFAULT) for a in args[-1:]]
        return updated.with_changes(args=args, whitespace_before_args=flat)


def _tall(call: cst.Call) -> cst.Call:
    """A call with one argument a line."""
    inside, end = _breaks()
    args = [a.with_changes(comma=cst.Comma(whitespace_after=inside)) for a in call.args]
    args[-1] = args[-1].with_changes(comma=cst.Comma(whitespace_after=end))
    return call.with_changes(args=args, whitespace_before_args=inside)


def returned(before: Any, after: Any) -> list[Any]:
    """`y = f(x)` and `return y` as `return f(x)`, where specialising has brought them together."""
    pair = (
        m.SimpleStatementLine([m.Assign(targets=[m.AssignTarget(m.Name())])]),
        m.SimpleStatementLine([m.Return(m.Name())]),
    )
    if not (m.matches(before, pair[0]) and m.matches(after, pair[1])) or after.leading_lines:
        return [before, after]
    assign = before.body[0]
    if assign.targets[0].target.value != after.body[0].value.value:
        return [before, after]
    comment = before.trailing_whitespace if after.trailing_whitespace.comment is None else after.trailing_whitespace
    body = [after.body[0].with_changes(value=assign.value)]
    return [after.with_changes(body=body, leading_lines=before.leading_lines, trailing_whitespace=comment)]


def with_params(function: cst.FunctionDef, kept: Sequence[cst.Param]) -> cst.FunctionDef:
    """A function with fewer parameters, its header on one line if it fits there."""
    params = function.params
    if len(kept) == len(params.params):
        return function
    tall = list(kept)
    tall[-1:] = [p.with_changes(comma=params.params[-1].comma) for p in tall[-1:]]
    flat = function.with_changes(
        params=params.with_changes(params=[_flat_param(p, p is kept[-1]) for p in kept]),
        whitespace_before_params=cst.SimpleWhitespace(""),
    )
    header = code(flat.with_changes(body=cst.SimpleStatementSuite([cst.Pass()]), leading_lines=[], decorators=[]))
    if len(header.splitlines()[0]) <= WIDTH:
        return flat
    return function.with_changes(params=params.with_changes(params=tall))


def _flat_param(p: cst.Param, is_last: bool) -> cst.Param:
    comma = cst.MaybeSentinel.DEFAULT if is_last else cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    return p.with_changes(comma=comma, whitespace_after_param=cst.SimpleWhitespace(""))


def prune(original: cst.ClassDef, done: cst.ClassDef) -> cst.ClassDef:
    """Without methods that lost their last caller or their body, and without optional parameters that nothing reads."""
    while True:
        smaller = _without_methods(original, done)
        smaller = _without_params(smaller)
        if code(smaller) == code(done):
            return done
        done = smaller


def _methods(cls: cst.ClassDef) -> list[cst.FunctionDef]:
    return [s for s in cls.body.body if isinstance(s, cst.FunctionDef)]


def _called(cls: cst.ClassDef) -> set[str]:
    return set(re.findall(r"\bself\.(\w+)", code(cls)))


def _without_methods(original: cst.ClassDef, done: cst.ClassDef) -> cst.ClassDef:
    orphans = _called(original) - _called(done)
    gone = {f.name.value for f in _methods(done) if f.name.value in orphans or _empty(f)}
    body = [s for s in done.body.body if not (isinstance(s, cst.FunctionDef) and s.name.value in gone)]
    smaller = done.with_changes(body=done.body.with_changes(body=body))
    call = m.Call(m.Attribute(m.Name("self"), m.Name(m.MatchIfTrue(gone.__contains__))), args=[])
    statement = m.SimpleStatementLine([m.Expr(call)])
    without: Any = m.replace(smaller, statement, cst.RemoveFromParent()) if gone else smaller
    return smaller if not isinstance(without, cst.ClassDef) else without


def _empty(function: cst.FunctionDef) -> bool:
    """Whether only a docstring is left, or a `pass`."""
    small = m.SimpleStatementLine([m.Expr(m.SimpleString()) | m.Pass()])
    return all(m.matches(s, small) for s in function.body.body)


def _without_params(cls: cst.ClassDef) -> cst.ClassDef:
    for method in _methods(cls):
        params = method.params.params
        if all(p.default is None for p in params):
            continue
        used = set(free_names(method))
        kept = [p for p in params if p.default is None or p.name.value in used]
        if len(kept) == len(params):
            continue
        gone = {p.name.value: i - 1 for i, p in enumerate(params) if p not in kept}  # self is not an argument
        shorter: Any = with_params(method, kept)
        replaced: Any = cls.deep_replace(method, shorter)
        done: Any = replaced.visit(_WithoutArguments(method.name.value, gone))
        return cls if not isinstance(done, cst.ClassDef) else done
    return cls


class WithoutCounting(cst.CSTTransformer):
    """Takes `advance(state, ...)` out of the arguments of calls, for a layer that is never given a state."""

    def leave_Call(self, original: cst.Call, updated: cst.Call) -> cst.Call:
        """The call without the number of earlier tokens, which is 0."""
        count = m.Arg(m.Call(m.Name("advance")), keyword=None)
        kept = [a for a in updated.args if not m.matches(a, count)]
        kept[-1:] = [a.with_changes(comma=cst.MaybeSentinel.DEFAULT) for a in kept[-1:]]
        return updated if len(kept) == len(updated.args) else updated.with_changes(args=kept)


class _WithoutArguments(cst.CSTTransformer):
    """Takes arguments out of the calls `self.method(...)` whose parameters are gone."""

    def __init__(self, method: str, gone: dict[str, int]):
        super().__init__()
        self.method, self.gone = method, gone

    def leave_Call(self, original: cst.Call, updated: cst.Call) -> cst.Call:
        if not m.matches(original.func, m.Attribute(m.Name("self"), m.Name(self.method))):
            return updated
        kept = [
            a
            for i, a in enumerate(updated.args)
            if (a.keyword.value if a.keyword else None) not in self.gone and (a.keyword or i not in self.gone.values())
        ]
        kept[-1:] = [a.with_changes(comma=cst.MaybeSentinel.DEFAULT) for a in kept[-1:]]
        return updated.with_changes(args=kept)
