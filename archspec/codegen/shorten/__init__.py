"""A finished file without what its model does not use: parameters, branches, variables and helpers.

Helpers are written for every model that might call them. In one file all their calls are known: what each call gives
is folded into the helper (`fold`, and `forwards` for layers), what nothing reads goes (`variables`, `unused`), and a
helper that is one expression, or a few statements with one call, stands where it was called (`inline`, `splice`,
`chains`). Each makes more of the others possible, so they are repeated until nothing changes; where one helper for each
kind of caller is shorter, there is one (`split`). What is not certain stays as it is.
"""

from collections.abc import Collection, Mapping
from typing import Any

from archspec.codegen.shorten.chains import chain
from archspec.codegen.shorten.fold import fold
from archspec.codegen.shorten.forwards import fold_forwards
from archspec.codegen.shorten.inline import inline
from archspec.codegen.shorten.order import order
from archspec.codegen.shorten.program import Program
from archspec.codegen.shorten.recomputed import as_calls, as_checkpoints
from archspec.codegen.shorten.signatures import leave_out
from archspec.codegen.shorten.splice import splice
from archspec.codegen.shorten.split import split
from archspec.codegen.shorten.unused import drop_unused
from archspec.codegen.shorten.variables import drop_variables


def shorten(
    parts: Mapping[str, str],
    helpers: Collection[str],
    constants: Mapping[str, Any],
    idle: Collection[tuple[str, str]] = (),
) -> dict[str, str]:
    """The parts of a file that its classes need, specialised to how they are used.

    Args:
        parts: the text of each class, helper and value, by its name and in the order of the file.
        helpers: the names of those that only the file itself uses.
        constants: the sizes of the file by name.
        idle: functions of a library with an argument of each, by name, that makes no difference to this model.

    Returns:
        The parts that stay, in the same order.

    Raises:
        GenerateError: a call does not fit the helper that it calls.
    """
    program = Program(parts, helpers, constants)
    for function, argument in idle:
        leave_out(program, function, argument)
    as_calls(program)
    _settle(program)
    while split(program, _settle):
        pass
    as_checkpoints(program)
    order(program)
    return program.parts


def _settle(program: Program) -> None:
    """Shorten a program until nothing changes; chains come last, since a step of one could still be spliced."""
    drop_unused(program)
    before: dict[str, str] = {}
    while program.parts != before:
        before = dict(program.parts)
        fold(program)
        fold_forwards(program)
        drop_variables(program)
        drop_unused(program)
        inline(program)
        splice(program)
        if program.parts == before:
            chain(program)
