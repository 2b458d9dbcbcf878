"""One helper for each way in which it is called, where that makes the file shorter.

A helper that every caller shares keeps the branches that tell them apart. Encoder, decoder and cross-attention share
few of them, so that three short functions are shorter than one with all their branches; a window that one of two kinds
has is one branch, and stays one. What a helper calls may be split with it.
"""

import ast
import re
from collections.abc import Callable
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.names import snake
from archspec.codegen.shorten.facts import Present, is_constant
from archspec.codegen.shorten.program import Call, Function, Program, defaults, parameters, tree
from archspec.codegen.shorten.rewrite import Calls
from archspec.codegen.sources import code

Key = tuple[str, ...]


def split(program: Program, settle: Callable[[Program], None]) -> bool:
    """Split the first helper for which it pays; `settle` shortens a program. Whether one was split."""
    for name in list(program.parts):
        trial = _tried(program, name, settle)
        if trial is not None and _length(trial) < _length(program):
            program.parts, program.helpers = trial.parts, trial.helpers
            return True
    return False


def _tried(program: Program, name: str, settle: Callable[[Program], None]) -> Program | None:
    """A program in which a helper is split, and of what it calls that for which it then pays; None if nothing is."""
    function = program.helper(name)
    groups = _groups(program, name, function) if function is not None else {}
    if len(groups) < 2:
        return None
    inner = [callee for callee in program.parts if callee in program.reads(name) - {name}]
    trial = Program(program.parts, program.helpers, program.constants)
    own = _separate(trial, name, groups)
    settle(trial)
    for callee in inner:
        further = _tried(trial, callee, settle)
        if further is not None and _length(further) < _length(trial):
            trial = further
    left = [one for one in own if one in trial.parts]
    if len(left) == 1:
        _rename(trial, left[0], name)
    return trial


def _length(program: Program) -> int:
    return sum(len(text.splitlines()) for text in program.parts.values())


def _groups(program: Program, name: str, function: Function) -> dict[Key, list[str]]:
    """The parts that call a helper in the same way; none where a part does so in several, or nothing would differ."""
    calls = program.calls(name) or []
    decides = {n.id for test in _tests(function) for n in ast.walk(test) if isinstance(n, ast.Name)}
    found: dict[str, set[Key]] = {}
    for call in calls:
        found.setdefault(call.part, set()).add(_key(program, function, call, decides))
    groups: dict[Key, list[str]] = {}
    for part, keys in found.items():
        groups.setdefault(min(keys), []).append(part)
    return groups if all(len(keys) == 1 for keys in found.values()) and name not in found else {}


def _tests(function: Function) -> list[ast.expr]:
    """The conditions of a function."""
    return [n.test for n in ast.walk(function) if isinstance(n, ast.If | ast.IfExp)]


def _key(program: Program, function: Function, call: Call, decides: set[str]) -> Key:
    """What a call says about the parameters that decide something."""
    said = []
    for name in (a.arg for a in parameters(function) if a.arg in decides):
        node = call.given.get(name, defaults(function).get(name))
        if node is None or is_constant(node, program.constants):
            said.append(f"{name}={ast.dump(node) if node is not None else None}")
        else:
            said.append(f"{name}{' is there' if Present(program, call)(node) else ''}")
    return tuple(said)


def _separate(program: Program, name: str, groups: dict[Key, list[str]]) -> list[str]:
    """Give each group a helper of its own, before the first part that calls it; one with several keeps the name."""
    before: dict[str, tuple[str, str]] = {}
    shared = next((callers for callers in groups.values() if len(callers) > 1), None)
    for callers in groups.values():
        own = name if callers is shared else _name(name, callers[0], program)
        node: Any = tree(program.parts[name])
        text = code(node.with_changes(name=cst.Name(own))).strip()
        for part in callers:
            program.put(part, tree(program.parts[part]).visit(Calls(m.Name(name), _renaming(own))))
        before[min(callers, key=list(program.parts).index)] = (own, text)
        program.helpers.add(own)
    parts: dict[str, str] = {}
    for part, text in program.parts.items():
        if part == name:
            continue
        if part in before:
            parts[before[part][0]] = before[part][1]
        parts[part] = text
    program.parts = parts
    return [own for own, _ in before.values()]


def _rename(program: Program, old: str, new: str) -> None:
    """Give a helper another name, which nothing else has."""
    named = re.compile(rf"\b{old}\b")
    program.parts = {new if part == old else part: named.sub(new, text) for part, text in program.parts.items()}
    program.helpers.add(new)


def _renaming(own: str) -> Callable[[cst.Call], cst.Call]:
    return lambda call: call.with_changes(func=cst.Name(own))


def _name(name: str, caller: str, program: Program) -> str:
    """`attention` for CrossAttention is cross_attention, for Decoder decoder_attention, for Attention itself."""
    said, words = snake(caller).split("_"), name.split("_")
    shared = next(n for n in range(len(words), -1, -1) if said[len(said) - n :] == words[:n])
    wished = "_".join([*said, *words[shared:]])
    text = "\n".join(program.parts.values())
    while wished != name and re.search(rf"\b{wished}\b", text):
        wished += "_"
    return wished
