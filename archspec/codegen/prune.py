"""What specialising leaves without a use: methods nobody calls, parameters nobody reads, results that only return."""

import re
from collections.abc import Sequence
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.sources import code, free_names


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
    """A function with fewer parameters, its header on one line."""
    params = function.params
    if len(kept) == len(params.params):
        return function
    return function.with_changes(
        params=params.with_changes(params=[_flat_param(p, p is kept[-1]) for p in kept]),
        whitespace_before_params=cst.SimpleWhitespace(""),
    )


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
    if not gone:
        return done
    body = [s for s in done.body.body if not (isinstance(s, cst.FunctionDef) and s.name.value in gone)]
    smaller = done.with_changes(body=done.body.with_changes(body=body))
    call = m.Call(m.Attribute(m.Name("self"), m.Name(m.MatchIfTrue(gone.__contains__))), args=[])
    without: Any = m.replace(smaller, m.SimpleStatementLine([m.Expr(call)]), cst.RemoveFromParent())
    # An empty method whose result is read, or that is handed on, stays.
    return without if isinstance(without, cst.ClassDef) and not gone & _called(without) else done


def _empty(function: cst.FunctionDef) -> bool:
    """Whether only a docstring is left, or a `pass`, or what happens anyway."""
    anyway = m.Call(m.Attribute(m.Call(m.Name("super")), m.Name("__init__")), args=[])
    inherited = m.Call(m.Attribute(m.Call(m.Name("super")), m.Name(function.name.value)))
    small = m.SimpleStatementLine([m.Expr(m.SimpleString() | anyway) | m.Pass() | m.Return(inherited)])
    takes = function.name.value == "__init__" and len(function.params.params) > 1
    return not takes and all(m.matches(s, small) for s in function.body.body)


def _without_params(cls: cst.ClassDef) -> cst.ClassDef:
    for method in _methods(cls):
        params = method.params.params
        if all(p.default is None for p in params):
            continue
        used = set(free_names(method))
        unread = {p.name.value: i for i, p in enumerate(params) if p.default is not None and p.name.value not in used}
        if not unread:
            continue
        calls = m.findall(cls, m.Call(m.Attribute(m.Name("self"), m.Name(method.name.value))))
        given = [_given(call, unread) for call in calls if isinstance(call, cst.Call)]
        # An argument that calls something may do more than give a value: it stays, and so does its parameter.
        needed = {name for args in given for name, arg in args.items() if m.findall(arg, m.Call())}
        gone = unread.keys() - needed
        if not gone:
            continue
        shorter: Any = with_params(method, [p for p in params if p.name.value not in gone])
        replaced: Any = cls.deep_replace(method, shorter)
        done: Any = replaced.visit(_WithoutArguments(method.name.value, {name: unread[name] for name in gone}))
        return cls if not isinstance(done, cst.ClassDef) else done
    return cls


def _given(call: cst.Call, places: dict[str, int]) -> dict[str, cst.Arg]:
    """The arguments of a call `self.method(...)` for parameters that stand at these places of its definition."""
    found = {a.keyword.value if a.keyword else i + 1: a for i, a in enumerate(call.args)}  # self is no argument
    return {name: found[key] for name, place in places.items() for key in (name, place) if key in found}


class WithoutCounting(cst.CSTTransformer):
    """Takes `advance(state, ...)` out of sums and arguments of calls, for a layer that is never given a state."""

    def leave_BinaryOperation(self, original: cst.BinaryOperation, updated: cst.BinaryOperation) -> Any:
        """What is added to the number of earlier tokens."""
        sum_ = m.BinaryOperation(m.Call(m.Name("advance")), m.Add())
        return updated.right if m.matches(updated, sum_) else updated

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
        given = _given(updated, self.gone).values()
        kept = [a for a in updated.args if a not in given]
        kept[-1:] = [a.with_changes(comma=cst.MaybeSentinel.DEFAULT) for a in kept[-1:]]
        return updated.with_changes(args=kept)
