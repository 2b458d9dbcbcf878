"""A `Complexity`, or the table of kinds, as text, Markdown and JSON.

mixer: Multi-head attention, in layers 0-11
  d_model 768, n_heads 12, head_dim 64
  training  O(T^2 d + T d^2)  14 B T^2 n_heads head_dim + 24 B T d_model n_heads head_dim
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from archspec.errors import in_tokens, many
from archspec.passes.complexity import MEANING, Complexity
from archspec.passes.crossings import Crossing
from archspec.passes.figures import Figure
from archspec.passes.kinds import Kinds
from archspec.passes.orders import legend
from archspec.passes.places import ranges
from archspec.passes.spec_formulas import Part
from archspec.report.text import Line, aligned, in_columns, in_markdown, indented


def table(found: Complexity) -> str:
    """The formulas of a spec as text, a block for each part."""
    several = any(p.stack != found.parts[-1].stack for p in found.parts)
    lengths = "B sequences of T tokens" if found.tokens is None else f"B inputs of T = {in_tokens(found.tokens)}"
    lengths += ", over a memory of M" if several else ""
    lengths += "" if found.silent else "; while decoding a token sees S"
    blocks = [f"{found.name}, {many(found.layers, 'layer')}: {lengths}"]
    for part in found.parts:
        blocks.append("\n".join([_heading(part, several), *indented([_sizes(part.sizes)]), *_figures(part.figures)]))
    blocks.append("\n".join(["the whole", *_figures(found.whole, apart=True)]))
    blocks += [found.silent] if found.silent else []
    blocks += [text for text in map("\n".join, (_crossings(found, "T"), _crossings(found, "S"))) if text]
    return "\n\n".join([*blocks, "\n".join(_legend(found))])


def _heading(part: Part, several: bool) -> str:
    """`encoder, mixer: Multi-head attention, in layers 0-5`."""
    stack = f"{part.stack}, " if several and part.layers else ""
    where = f", in {named_layers(part.layers)}" if part.layers else ""
    return f"{stack}{part.part}: {part.title}{where}"


def named_layers(layers: Sequence[int]) -> str:
    """`layers 0-11`, `layer 3`, `12 layers (0, 2 .. 22)`."""
    texts = ranges(layers)
    if len(layers) == 1:
        return f"layer {texts}"
    return f"{many(len(layers), 'layer')} ({texts})" if "," in texts else f"layers {texts}"


def _sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in sizes.items() if name not in ("B", "T", "S", "M"))


def _figures(figures: Mapping[str, Figure], apart: bool = False) -> list[str]:
    """A line for each form of each figure: name, class, formula; with `apart` classes stand in lines of their own."""
    lines: list[Line] = []
    for f in figures.values():
        forms = [f"{when}: {text}" if when else text for when, text in f.pieces]
        lines += [(f.name, f.order), *(("", text) for text in forms)] if apart else []
        if not apart:
            lines += [(f.name if i == 0 else "", f.order if i == 0 else "", text) for i, text in enumerate(forms)]
    return indented(aligned(lines))


def _crossings(found: Complexity, length: str) -> list[str]:
    """Where the order of two kinds of work changes."""
    every = found.crossings if length == "T" else found.decoding_crossings
    what = "a text of T tokens" if length == "T" else "one decoded token that sees S"
    if not every:
        return []
    lines = [(f"from {length} = {c.at:,} on", f"{c.more} > {_less(c)}", _beyond(found, c)) for c in every]
    as_long = (
        ", with a memory as long (M = T)"
        if length == "T" and any("M" in f.formula.names() for f in found.whole.values())
        else ""
    )
    return [f"crossing points, forward FLOPs of {what} without hidden pairs{as_long}", *indented(aligned(lines))]


def _beyond(found: Complexity, c: Crossing) -> str:
    longest = found.max_seq_len
    return f"(beyond max_seq_len = {longest:,})" if longest is not None and c.at > longest else ""


def _less(c: Crossing) -> str:
    return c.less.replace(f"{c.more}: ", "its ")


def _legend(found: Complexity) -> list[str]:
    """What the words of the table mean."""
    words = [(name, meaning) for name, meaning in MEANING.items() if name in found.whole]
    letters = legend(f.order for p in found.parts for f in p.figures.values())
    return [*aligned(words), *([f"classes: {', '.join(letters)}"] if letters else [])]


def markdown(found: Complexity) -> str:
    """The formulas of a spec as a Markdown table, and its crossing points as a list."""
    lines = [f"## {found.name}", "", *in_markdown([_escaped(line) for line in found.rows], ())]
    points = [f"- from {n} = {c.at:,} on {c.more} costs more than {_less(c)}" for n, c in _points(found)]
    notes = [f"- {name}: {meaning}" for name, meaning in MEANING.items() if name in found.whole]
    silent = [f"- {found.silent}"] if found.silent else []
    return "\n".join([*lines, "", *points, *(["", *silent] if silent else []), "", *notes])


def _points(found: Complexity) -> list[tuple[str, Crossing]]:
    return [*(("T", c) for c in found.crossings), *(("S", c) for c in found.decoding_crossings)]


def _escaped(line: Line) -> Line:
    return tuple(cell.replace("|", "\\|") for cell in line)


def as_json(*found: Complexity) -> str:
    """The formulas of a spec as JSON; of several specs a list."""
    records = [record(each) for each in found]
    return json.dumps(records[0] if len(records) == 1 else records, indent=2)


def record(found: Complexity) -> dict[str, Any]:
    """What JSON says of a spec."""
    points = [{"length": n, "at": c.at, "more": c.more, "less": c.less} for n, c in _points(found)]
    return {
        "name": found.name,
        "layers": found.layers,
        "tokens": found.tokens,
        "max_seq_len": found.max_seq_len,
        "decodes": not found.silent,
        "parts": [_part(part) for part in found.parts],
        "whole": {name: _figure(f) for name, f in found.whole.items()},
        "crossings": points,
    }


def _part(part: Part) -> dict[str, Any]:
    names = ("stack", "layers", "part", "times", "kind", "title", "sizes")
    figures = {name: _figure(f) for name, f in part.figures.items()}
    return {name: getattr(part, name) for name in names} | {"figures": figures}


def _figure(f: Figure) -> dict[str, Any]:
    found: dict[str, Any] = {"class": f.order, "formula": f.text()}
    pieces = [{"where": when, "formula": text} for when, text in f.pieces if when]
    return found | ({"pieces": pieces} if pieces else {})


FORMATS: dict[str, Callable[[Complexity], str]] = {"table": table, "markdown": markdown, "json": as_json}


# Kinds

KINDS_NOTE = (
    "training: what mixes tokens in a text of T, without hidden pairs; of an FFN all of it",
    "memory: bytes that training keeps for the backward pass; unfused: numbers written, scores or all states too",
    "a token: one more, which sees S; state: the numbers kept for it",
    "training is parallel where steps do not grow as T; decoding is cheap where a token does not grow with S",
)


def kinds_table(found: Kinds) -> str:
    """The table of kinds as text."""
    *head, last = in_columns([*found.rows, tuple("" for _ in found.rows[0])], ())
    assert not last
    letters = legend(cell for line in found.rows[1:] for cell in line)
    return "\n".join([*head, *KINDS_NOTE, f"classes: {', '.join(letters)}"])


def kinds_markdown(found: Kinds) -> str:
    """The table of kinds in Markdown."""
    return "\n".join([*in_markdown(found.rows, ()), "", *(f"- {note}" for note in KINDS_NOTE)])


def kinds_json(found: Kinds) -> str:
    """The table of kinds as JSON, a record a kind."""
    names = (
        "role",
        "kind",
        "setting",
        "work",
        "projections",
        "memory",
        "written",
        "unfused",
        "steps",
        "decoding",
        "state",
        "order",
    )
    return json.dumps([{name: getattr(row, name) for name in names} for row in found.lines], indent=2)


KINDS_FORMATS: dict[str, Callable[[Kinds], str]] = {
    "table": kinds_table,
    "markdown": kinds_markdown,
    "json": kinds_json,
}
