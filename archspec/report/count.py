"""A `Count` as a table for a board or a terminal, as Markdown, as JSON and as CSV.

The table folds what repeats: a layer stands once, with what it adds up to and how often it stands there.

    step  module                   shape  count  note
       3  blocks.0-1.mixer.q_proj  8 x 8     64
       ...
          mixer                             256  4 x 64
          one layer                         568  mixer 256 + norms 32 + ffn 280
          2 layers                        1,136  2 x 568
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from archspec.errors import in_tokens, many
from archspec.passes.count import Count, Row, kept
from archspec.passes.dtypes import bytes_of
from archspec.passes.records import kinds, records, remark
from archspec.report.layers import layers_of, of_layers, section_of
from archspec.report.text import Line, human, human_bytes, in_columns, in_markdown

NUMBERS = (
    "total", "trainable", "active", "embedding", "tied", "buffers", "layers",
    "kv_bytes_per_token", "memory_bytes_per_token", "cache_bytes", "state_bytes", "held_bytes", "batch", "seq",
    "memory", "dtype",
)  # fmt: skip

_MOST_TERMS = 8
WIDE = "float32"  # the type of states that are exact whatever the model's


@dataclass(frozen=True)
class Section:
    """The rows of one part of the model: the embedding, one folded layer, the head."""

    name: str
    rows: tuple[Row, ...]
    layers: tuple[int, ...] = ()

    @property
    def own(self) -> int:
        """Parameters of one copy."""
        return sum(row.count for row in self.rows if not row.buffer)

    @property
    def total(self) -> int:
        """Parameters of all copies."""
        return sum(row.total for row in self.rows if not row.buffer)

    @property
    def shared(self) -> bool:
        """Whether its layers share one set of weights."""
        return len(self.layers) > self.rows[0].copies

    @property
    def content(self) -> tuple[Any, ...]:
        """What two layers have in common when one line can stand for both."""
        return tuple((row.module.removeprefix(self.name), row.kind, row.shape, row.note) for row in self.rows)


def sections(rows: Iterable[Row]) -> list[Section]:
    """The rows by part of the model, in order; layers of the same content stand once, for all of their places."""
    found: dict[Any, list[Section]] = {}
    for name, members in groupby(rows, key=lambda row: section_of(row.module)):
        section = Section(name, tuple(members), layers_of(name))
        stack = name.partition("blocks.")[0]
        alike = (stack, section.content) if section.layers and not section.shared else name
        found.setdefault(alike, []).append(section)
    return [_merged(alike) for alike in found.values()]


def _merged(alike: list[Section]) -> Section:
    first = alike[0]
    if len(alike) == 1:
        return first
    layers = tuple(sorted(i for section in alike for i in section.layers))
    name = of_layers(first.name, layers)
    rows = (replace(r, module=name + r.module.removeprefix(first.name), copies=len(layers)) for r in first.rows)
    return Section(name, tuple(rows), layers)


# What stands in the table


def by_module(count: Count) -> list[Line]:
    """Step, module, shapes, count and note of each module, with a line for what each part of the model adds up to."""
    lines: list[Line] = [("step", "module", "shape", "count", "note")]
    step = 0
    parts = sections(count.rows)
    for section in parts:
        for row in section.rows:
            step += 1
            lines.append((str(step), row.module, row.shape, f"{row.count:,}", remark(row)))
        lines += _subtotals(section)
    return [*lines, ("", "total", "", f"{count.total:,}", _terms([part.total for part in parts]))]


def by_kind(count: Count) -> list[Line]:
    """Parameters of each kind of component and their share of all, largest first."""
    totals = kinds(count)
    lines = [(k, f"{n:,}", f"{100 * n / max(count.total, 1):.1f}%") for k, n in totals.items()]
    return [("kind", "count", "share"), *lines, ("total", f"{count.total:,}", "")]


def by_tensor(count: Count) -> list[Line]:
    """Every tensor of the built model."""
    lines = [(t.name, _shape(t.shape), f"{t.count:,}", "buffer" if t.buffer else "") for t in count.tensors]
    return [("tensor", "shape", "count", "note"), *lines, ("total", "", f"{count.total:,}", "")]


def totals(count: Count) -> list[tuple[str, str]]:
    """The footer, each number by its name in JSON, without what is nought or says nothing new."""
    found = [("total", _sized(count.total) + " parameters"), ("trainable", _sized(count.trainable))]
    if count.active != count.total:
        found.append(("active", _sized(count.active) + " for each token"))
    found.append(("embedding", _sized(count.embedding)))
    found += [("tied", _sized(count.tied) + ", not counted again")] if count.tied else []
    found += [("buffers", _sized(count.buffers))] if count.buffers else []
    held = {
        "kv bytes per token": count.kv_bytes_per_token,
        "memory bytes per token": count.memory_bytes_per_token,
        "cache bytes": count.cache_bytes,
        "state bytes": count.state_bytes,
    }
    if count.held_bytes != (count.cache_bytes or 0) + count.state_bytes:
        held["held bytes"] = count.held_bytes
    state = [(name, human_bytes(n)) for name, n in held.items() if n]
    return [*found, *state, *([("decoding", decoding(count))] if state else [])]


def decoding(count: Count) -> str:
    """What the bytes are of: `1 sequence of 512 tokens, a memory of 512; bfloat16, recurrent states exact`."""
    said = many(count.batch, "sequence") + ("" if count.seq is None else f" of {in_tokens(count.seq)}")
    said += "" if count.memory is None else f", a memory of {in_tokens(count.memory)}"
    exact = count.state_bytes and any(k.dtype == WIDE for _, k in kept(count.nodes))
    states = f", recurrent states {WIDE}" if exact and bytes_of(count.dtype) < bytes_of(WIDE) else ""
    return f"{said}; {count.dtype}{states}"


def _subtotals(section: Section) -> list[Line]:
    """What a section adds up to: nothing for a single row, one line for a part, more for a layer."""
    if not section.layers:
        return _sum(section.name, [row.count for row in section.rows if not row.buffer])
    parts = _parts(section)
    lines = [line for name, counts in parts.items() if len(parts) > 1 for line in _sum(name, counts)]
    named = [f"{name} {sum(counts):,}" for name, counts in parts.items()]
    lines.append(("", "one layer", "", f"{section.own:,}", _joined(named)))
    if (n := len(section.layers)) > 1:
        note = "one set of weights" if section.shared else f"{n} x {section.own:,}"
        lines.append(("", many(n, "layer"), "", f"{section.total:,}", note))
    return lines


def _parts(section: Section) -> dict[str, list[int]]:
    """The counts of each sub-layer, the norms together."""
    found: dict[str, list[int]] = {}
    for row in section.rows:
        part = row.module.removeprefix(f"{section.name}.").partition(".")[0]
        if not row.buffer:
            found.setdefault("norms" if re.fullmatch(r"norm\d+", part) else part, []).append(row.count)
    return found


def _sum(name: str, counts: list[int]) -> list[Line]:
    """A line for what some rows add up to; none for a single row."""
    return [("", name, "", f"{sum(counts):,}", _terms(counts))] if len(counts) > 1 else []


def _terms(counts: list[int]) -> str:
    """`72 + 1,136 + 45`, or `4 x 64` of equal ones."""
    if len(set(counts)) == 1 and len(counts) > 1:
        return f"{len(counts)} x {counts[0]:,}"
    return _joined([f"{n:,}" for n in counts if n])


def _joined(terms: list[str]) -> str:
    """The terms of a sum; nothing where there is one alone or there are too many to read."""
    return " + ".join(terms) if 1 < len(terms) <= _MOST_TERMS else ""


def _sized(n: int) -> str:
    return f"{n:,} ({human(n)})" if human(n) else f"{n:,}"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


# The formats

_LINES: dict[str, Callable[[Count], list[Line]]] = {"tensor": by_tensor, "module": by_module, "kind": by_kind}
_RIGHT = ("step", "count", "share")


def table(count: Count, by: str = "") -> str:
    """The counts as text in columns; `by` is tensor, module (the default) or kind."""
    lines = _LINES[by or "module"](count)
    body = in_columns(lines, _RIGHT, unruled="note")
    footer = totals(count)
    width = max(len(name) for name, _ in footer)
    return "\n".join([count.name, "", *body, "", *(f"{name:<{width}}  {value}" for name, value in footer)])


def markdown(count: Count, by: str = "") -> str:
    """The counts as a Markdown table and a list."""
    footer = [f"- {name}: {value}" for name, value in totals(count)]
    return "\n".join([f"## {count.name}", "", *in_markdown(_LINES[by or "module"](count), _RIGHT), "", *footer])


def as_json(count: Count, by: str = "") -> str:
    """The counts as JSON, a record a line: every total, and the tensors (the default), modules or kinds."""
    facts = vars(count)
    found: dict[str, Any] = {"name": count.name} | {name: facts[name] for name in NUMBERS}
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}," for name, value in found.items()]
    each = ",\n".join(f"    {json.dumps(record)}" for record in records(count, by or "tensor"))
    return "\n".join(["{", *lines, f'  "{by or "tensor"}s": [', each, "  ]", "}"])


def as_csv(count: Count, by: str = "") -> str:
    """The tensors, modules (the default) or kinds as CSV with a header."""
    found = records(count, by or "module")
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(found[0]) if found else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(r | {"shape": _shape(tuple(r["shape"]))} if by == "tensor" else r for r in found)
    return out.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Count, str], str]] = {
    "table": table,
    "json": as_json,
    "markdown": markdown,
    "csv": as_csv,
}
