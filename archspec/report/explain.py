"""An `Explanation` as text, Markdown and JSON: every term with its numbers put in, and what they add up to.

layers 0-11
  ffn: MLP, gelu_tanh                                (Vaswani et al. 2017 (ReLU), ...)
    up_proj    forward  2 B T d_model d_ff = 2 x 1 x 512 x 768 x 3,072 = 2,415,919,104
"""

import json
from collections.abc import Callable, Iterator
from textwrap import wrap
from typing import Any

from archspec.passes.explanation import Chapter, Explanation, Section, Term
from archspec.report.complexity import named_layers
from archspec.report.text import aligned, in_markdown, indented
from archspec.report.width import limit

WIDTH, INDENTED = 110, 4  # columns of running text, and before it
OTHERS = "other ops"
STEP = {"train": "a training step", "prefill": "a prefill", "decode": "one decoded token"}


def table(found: Explanation) -> str:
    """The terms as text, a block for each kind of layer, with sums."""
    blocks = [_title(found)]
    for chapter in found.chapters:
        lines = [_heading(found, chapter)] if chapter.layers or len(found.stacks) > 1 else []
        for section in chapter.sections:
            lines += indented(_section(section), 2 if lines else 0)
        blocks.append("\n".join([*lines, *indented(_sums(chapter))]))
    if not found.layer:
        blocks.append(f"total {found.total:,} {found.unit}{_summands(found)}")
    return "\n\n".join([*blocks, *map("\n".join, filter(None, (_rules(found), _sources(found))))])


def _title(found: Explanation) -> str:
    of = "" if found.what == "params" else " of the state" if found.what == "cache" else f" of {STEP[found.phase]}"
    if found.what == "memory":
        of = f" kept for the backward pass{of}"
    if found.what == "steps":
        of += " that must follow one another, on the longest way"
    lengths = "".join(f", {name} = {n:,}" for name, n in found.lengths.items())
    layer = f", layer {found.layer}" if found.layer else ""
    return f"{found.name}{layer}: {found.unit}{of}{lengths}"


def _heading(found: Explanation, chapter: Chapter) -> str:
    if not chapter.layers:
        return f"{chapter.stack}, {chapter.part}" if len(found.stacks) > 1 else chapter.part
    stack = f"{chapter.stack}, " if len(found.stacks) > 1 else ""
    return f"{stack}{named_layers(chapter.layers)}"


def _section(section: Section) -> list[str]:
    """The terms of a component under its title."""
    title = f"{section.part}: {section.title}" if section.title else section.part
    lines = [(t.op, t.what, t.text, *_equal(t)) for t in section.terms]
    used = [i for i, column in enumerate(zip(*lines, strict=True)) if any(column)]
    columns = aligned([tuple(line[i] for i in used) for line in lines], (len(used) - 1,))
    total = [f"= {section.total:,}"] if len(section.terms) > 1 else []
    remarks = [line for text in section.remarks for line in _wrapped(text)]
    return [title, *indented(columns), *indented(total), *indented(remarks)]


def _equal(term: Term) -> tuple[str, str]:
    """The numbers put in, and what they come to."""
    value = f"{term.value:,}"
    put = term.substituted
    return (f"= {put}" if put not in (term.text, value) else "", f"= {value}" if value != term.text else "")


def _sums(chapter: Chapter) -> Iterator[str]:
    """What a layer adds up to, and all like it."""
    if not chapter.layers:
        return
    parts = [f"{section.part} {section.total:,}" for section in chapter.sections]
    yield f"one layer {chapter.one:,}" + (f" = {' + '.join(parts)}" if len(parts) > 1 else "")
    if chapter.times > 1:
        yield f"{chapter.times} layers {chapter.total:,} = {chapter.times} x {chapter.one:,}"
    if len(chapter.layers) > chapter.times:
        yield f"{len(chapter.layers)} layers share {_sets(chapter.times)}"


def _sets(n: int) -> str:
    return "one set of weights" if n == 1 else f"{n} sets of weights"


def _summands(found: Explanation) -> str:
    totals = [f"{chapter.total:,}" for chapter in found.chapters]
    return f" = {' + '.join(totals)}" if len(totals) > 1 else ""


def _rules(found: Explanation) -> list[str]:
    """What the rules say of themselves, each once."""
    if found.what not in ("flops", "steps"):
        return []
    said = {(t.what, t.rule) for chapter in found.chapters for s in chapter.sections for t in s.terms}
    told = [(rule.partition(": ")[0], what, rule.partition(": ")[2]) for what, rule in said]
    if found.what == "steps":  # the other ops are one step, which is no rule
        told = [line for line in told if line[0] != OTHERS]
    ordered = sorted(told, key=lambda line: (line[1] == "backward", line[0] == OTHERS, line))
    return ["rules", *indented(aligned(ordered))] if ordered else []


def _sources(found: Explanation) -> list[str]:
    """Where each component is from, once."""
    named = {s.title: s.source for chapter in found.chapters for s in chapter.sections if s.source}
    lines = [line for title, source in named.items() for line in _wrapped(f"{title}: {source}")]
    return ["sources", *indented(lines)] if lines else []


def _wrapped(text: str) -> list[str]:
    room = min(WIDTH, (limit() or WIDTH + INDENTED) - INDENTED)
    return wrap(text, room, subsequent_indent="  ", break_on_hyphens=False)


def markdown(found: Explanation) -> str:
    """The terms as a Markdown table."""
    return "\n".join([f"## {_title(found)}", "", *in_markdown(found.rows, ())])


def as_json(found: Explanation) -> str:
    """The terms as JSON."""
    return json.dumps(record(found), indent=2)


def record(found: Explanation) -> dict[str, Any]:
    """What JSON says of an explanation."""
    return {
        "name": found.name,
        "what": found.what,
        "phase": found.phase,
        "lengths": dict(found.lengths),
        "layer": found.layer,
        "chapters": [_chapter(chapter) for chapter in found.chapters],
        "total": found.total,
    }


def _chapter(chapter: Chapter) -> dict[str, Any]:
    names = ("stack", "part", "layers", "times", "one", "total")
    sections = [
        {"part": s.part, "title": s.title, "source": s.source, "total": s.total, "remarks": list(s.remarks)}
        | {"terms": [_term(term) for term in s.terms]}
        for s in chapter.sections
    ]
    return {name: getattr(chapter, name) for name in names} | {"sections": sections}


def _term(term: Term) -> dict[str, Any]:
    names = ("op", "what", "value", "rule")
    return {name: getattr(term, name) for name in names} | {"formula": term.text, "substituted": term.substituted}


FORMATS: dict[str, Callable[[Explanation], str]] = {"table": table, "markdown": markdown, "json": as_json}
