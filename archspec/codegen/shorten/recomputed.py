"""Helpers that the backward pass runs again: `checkpoint(f, x, use_reentrant=False)` is a call of f, too."""

from collections.abc import Callable
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.shorten.program import Program, tree
from archspec.codegen.shorten.rewrite import Calls
from archspec.codegen.syntax import last

CHECKPOINT = "checkpoint"
SETTINGS = ("use_reentrant", "preserve_rng_state")  # what checkpoint takes itself


def as_calls(program: Program) -> None:
    """`checkpoint(f, x, use_reentrant=False)` as `checkpoint(f(x), use_reentrant=False)`, which every step can read."""
    _change(program, lambda call: _as_call(call, program))


def as_checkpoints(program: Program) -> None:
    """The other way round."""
    _change(program, _as_checkpoint)


def is_recomputed(program: Program, name: str) -> bool:
    """Whether a helper stands in a checkpoint, which needs it whole."""
    return any(f"{CHECKPOINT}({name}(" in text for text in program.parts.values())


def _change(program: Program, change: Callable[[cst.Call], Any]) -> None:
    for part, text in program.parts.items():
        if f"{CHECKPOINT}(" in text:
            program.put(part, tree(text).visit(Calls(m.Name(CHECKPOINT), change)))


def _as_call(call: cst.Call, program: Program) -> cst.Call:
    function, *given = call.args
    name = getattr(function.value, "value", None)
    if not isinstance(name, str) or program.helper(name) is None or any(a.star for a in given):
        return call
    settings = [a for a in given if a.keyword is not None and a.keyword.value in SETTINGS]
    if not settings:
        return call
    own = [a for a in given if a not in settings]
    inner = cst.Call(function.value, [*own[:-1], *map(last, own[-1:])])
    return call.with_changes(args=[function.with_changes(value=inner), *settings])


def _as_checkpoint(call: cst.Call) -> cst.Call:
    first, *settings = call.args
    if not isinstance(first.value, cst.Call):
        return call
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    own = [a.with_changes(comma=comma) for a in first.value.args]
    return call.with_changes(args=[first.with_changes(value=first.value.func, comma=comma), *own, *settings])
