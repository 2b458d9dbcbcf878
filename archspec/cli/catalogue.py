"""What `archspec layers` prints: the components by role, the topics of the language, and the page of either."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from textwrap import wrap
from typing import Any

import click

from archspec.errors import noted, suggest
from archspec.language.rules import Rule, rules, settable
from archspec.language.topics import page, summary, topics
from archspec.layers.base import Component
from archspec.layers.registry import DECLARED, everything
from archspec.report.fitting import Line, fit, width_of
from archspec.report.width import limit, reflowed, wrapped

WIDTHS = (24, 26, 26, 24, 56)  # of the columns field, type, default, acts when, meaning


def overview() -> str:
    """Every component with the first line of its documentation, by role."""
    lines = _listing(everything(DECLARED))
    names = topics()
    width = max(map(len, names))
    language = [click.style("the language", bold=True), *(f"  {name:<{width}}  {summary(name)}" for name in names)]
    last = (
        "archspec layers NAME prints the equation, the sources and the fields of a component, or the page of a topic."
    )
    return "\n".join([*lines, "", *language, "", last])


def _listing(found: Mapping[str, Mapping[str, type[Component]]]) -> list[str]:
    width = max(len(kind) for kinds in found.values() for kind in kinds)
    lines: list[str] = []
    for role, kinds in found.items():
        lines += ["", click.style(role.replace("_", " "), bold=True)]
        lines += [f"  {kind:<{width}}  {_summary(cls)}" for kind, cls in kinds.items()]
    return lines[1:]


def explain(name: str) -> str:
    """The documentation of every component called `name`, a kind or role.kind; the components of a role; or a topic."""
    found = everything(DECLARED)
    if name in topics():
        kinds = ["", *_listing({name: found[name]})] if name in found else []
        return "\n".join([page(name).rstrip(), *kinds])
    if (alike := name.replace(" ", "_").replace("-", "_")) in found:
        return "\n".join(_listing({alike: found[alike]}))
    role, _, kind = name.rpartition(".")
    chosen = [(r, found[r][kind]) for r in DECLARED if kind in found[r] and role in ("", r)]
    if not chosen:
        known = [*topics(), *(k for kinds in found.values() for k in kinds)]
        known += [f"{r}.{k}" for r, kinds in found.items() for k in kinds] if role else []
        raise click.UsageError(noted(f"no layer {name!r}{suggest(name, known)}"))
    return "\n\n\n".join(_page(r, kind, cls) for r, cls in chosen)


def _summary(cls: type[Component]) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]


def _page(role: str, kind: str, cls: type[Component]) -> str:
    text = (sys.modules[cls.__module__].__doc__ or "").strip()
    heading = click.style(f"{role}.{kind}", bold=True)
    return "\n".join([heading, "", reflowed(text, limit()), "", _fields(cls)])


def _fields(cls: type[Component]) -> str:
    """A table of the fields that a spec may set."""
    rows = [("field", "type", "default", "acts when", "meaning")]
    for name in settable(cls):
        rule = rules(cls)[name]
        if name != "kind":
            rows.append((name, _type(rule), _default(rule), _when(rule), rule.info.description or ""))
    if len(rows) == 1:
        return "It has no fields."
    used = [i for i, column in enumerate(zip(*rows[1:], strict=True)) if any(column)]
    rooms = _rooms([tuple(row[i] for i in used) for row in rows], [WIDTHS[i] for i in used])
    if rooms is None:
        return "\n".join(line for row in rows[1:] for line in _below(rows[0], row))
    broken = wrap if limit() is None else wrapped
    cells = [[broken(row[i], room) or [""] for i, room in zip(used, rooms, strict=True)] for row in rows]
    widths = [max(len(line) for cell in column for line in cell) for column in zip(*cells, strict=True)]
    lines = [line for row in cells for line in _lines(row, widths)]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])


def _below(header: Line, row: Line) -> Iterator[str]:
    """A row of a table that no terminal so narrow can show: its cells one below the other."""
    yield row[0]
    for name, cell in zip(header[1:], row[1:], strict=True):
        if cell:
            yield from (f"  {line}" for line in wrapped(f"{name}: {cell}", (limit() or 80) - 2))


def _rooms(rows: Sequence[Line], most: Sequence[int]) -> Sequence[int] | None:
    """The widths of the columns: at most so many, and less where the terminal is narrower; None where none do."""
    columns = limit()
    kept = [tuple("x" * min(len(cell), room) for cell, room in zip(row, most, strict=True)) for row in rows]
    if columns is None or width_of(kept) <= columns:
        return most
    return fit(rows, rows[0][:1], columns)


def _lines(cells: list[list[str]], widths: list[int]) -> list[str]:
    """A row of wrapped cells."""
    rows = zip_longest(*cells, fillvalue="")
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _type(rule: Rule) -> str:
    words = {"int": "whole number", "float": "number", "bool": "true or false", "str": "text", "tuple": "list"}
    kind = rule.core["type"]
    if rule.marks.get("named"):
        found = "sizes by name"
    elif role := rule.marks.get("slot"):
        found = str(role).replace("_", " ")
    else:
        found = " | ".join(map(str, rule.core["expected"])) if kind == "literal" else words[kind]
    return f"{found} or none" if rule.nullable else found


def _default(rule: Rule) -> str:
    if "formula" in rule.marks:
        return f"= {rule.marks['formula']}"
    own = "" if rule.info.is_required() else _word(rule.info.default)
    if "inherit" in rule.marks:
        return f"the spec's {rule.marks['inherit']}{own and f', else {own}'}"
    return own or "(needed)"


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_word, value)) or "none"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _when(rule: Rule) -> str:
    if "when" not in rule.marks:
        return ""
    other, *values = rule.marks["when"]
    return f"{other} = {' | '.join(map(_word, values))}" if values else f"{other} is set"
