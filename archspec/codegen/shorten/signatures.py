"""What a helper takes, and what its calls give it."""

from collections.abc import Collection
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.shorten.program import Function, Program, tree
from archspec.codegen.shorten.rewrite import Calls
from archspec.codegen.syntax import last


def without(node: cst.FunctionDef, gone: Collection[str], present: Collection[str], given: Collection[str]) -> Any:
    """A function that takes less, and says of the rest what is now true."""
    params = node.params
    kept = [p for p in params.params if p.name.value not in gone]
    named = [p for p in params.kwonly_params if p.name.value not in gone]
    optional = False
    said = []
    for p in kept:
        p = _said(p, p.name.value in present, p.name.value in given and not optional)
        optional = optional or p.default is not None
        said.append(p)
    named = [_said(p, p.name.value in present, p.name.value in given) for p in named]
    if [*said, *named] == [*params.params, *params.kwonly_params]:
        return node
    star = params.star_arg
    if isinstance(star, cst.ParamStar):
        star = (
            cst.ParamStar(cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))) if named else cst.MaybeSentinel.DEFAULT
        )
    ends_with = bool(named) or params.star_kwarg is not None or isinstance(star, cst.Param)
    return node.with_changes(
        params=params.with_changes(
            params=[_flat(p, ends_with or p is not said[-1]) for p in said],
            kwonly_params=[_flat(p, params.star_kwarg is not None or p is not named[-1]) for p in named],
            star_arg=star,
            star_kwarg=None if params.star_kwarg is None else _flat(params.star_kwarg, False),
        ),
        whitespace_before_params=cst.SimpleWhitespace(""),
    )


def _flat(p: cst.Param, comma: bool) -> cst.Param:
    after = cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")) if comma else cst.MaybeSentinel.DEFAULT
    return p.with_changes(comma=after, whitespace_after_param=cst.SimpleWhitespace(""))


def _said(p: cst.Param, present: bool, given: bool) -> cst.Param:
    """A parameter without `| None` where it is never None, without a default where every call gives it."""
    optional = m.BinaryOperation(operator=m.BitOr(), right=m.Name("None"))
    if present and p.annotation is not None and m.matches(p.annotation.annotation, optional):
        inner = p.annotation.annotation.left  # type: ignore[attr-defined]
        p = p.with_changes(annotation=p.annotation.with_changes(annotation=inner))
    if (present or given) and p.default is not None and given:
        return p.with_changes(default=None, equal=cst.MaybeSentinel.DEFAULT)
    return p


def drop_arguments(
    program: Program, name: str, function: Function, gone: Collection[str], parts: Collection[str]
) -> None:
    """Leave parameters of a helper out of its calls in some parts; `function` says what it took before."""
    places = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]

    def change(call: cst.Call) -> cst.Call:
        named = [a.keyword.value if a.keyword else places[i] for i, a in enumerate(call.args)]
        kept = [a for a, p in zip(call.args, named, strict=True) if p not in gone]
        return call.with_changes(args=[*kept[:-1], *map(last, kept[-1:])]) if len(kept) < len(named) else call

    for part in parts if gone else ():
        program.put(part, tree(program.parts[part]).visit(Calls(m.Name(name), change)))


def leave_out(program: Program, function: str, argument: str) -> None:
    """Leave a named argument out of every call of a function of a library, such as `F.linear`."""
    library, _, name = function.rpartition(".")
    func = m.Attribute(m.Name(library), m.Name(name))

    def change(call: cst.Call) -> cst.Call:
        kept = [a for a in call.args if a.keyword is None or a.keyword.value != argument]
        return call.with_changes(args=[*kept[:-1], *map(last, kept[-1:])])

    for part, text in program.parts.items():
        if argument in text:
            program.put(part, tree(text).visit(Calls(func, change)))
