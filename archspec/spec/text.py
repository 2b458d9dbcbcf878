"""Plain data written as YAML that a person would write: short things on one line, long ones as blocks."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

WIDTH = 110
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*(?: [A-Za-z0-9_./=()+*~-]+)*")
_WORDS = frozenset("true True TRUE false False FALSE null Null NULL yes Yes YES no No NO on On ON off Off OFF".split())


def dump(data: Mapping[str, Any]) -> str:
    """A mapping as a YAML document; what fits on one line stands on one line."""
    return "".join(f"{line}\n" for key, value in data.items() for line in _entry(key, value, 0))


def _entry(key: str, value: Any, indent: int) -> Iterator[str]:
    """`key: value`, at its place."""
    pad = " " * indent
    line = f"{pad}{scalar(key)}: {flow(value)}"
    if not isinstance(value, Mapping | list | tuple) or not value or (indent and len(line) <= WIDTH and _flat(value)):
        yield line
    elif isinstance(value, Mapping):
        yield f"{pad}{scalar(key)}:"
        for name, child in value.items():
            yield from _entry(name, child, indent + 2)
    elif all(isinstance(item, int | float) for item in value):
        yield line
    else:
        yield f"{pad}{scalar(key)}:"
        for item in value:
            yield from _item(item, indent + 2)


def _item(value: Any, indent: int) -> Iterator[str]:
    """`- value`, at its place."""
    pad = " " * indent
    line = f"{pad}- {flow(value)}"
    if not isinstance(value, Mapping) or len(line) <= WIDTH:
        yield line
        return
    lines = [line for name, child in value.items() for line in _entry(name, child, indent + 2)]
    yield f"{pad}- {lines[0].lstrip()}"
    yield from lines[1:]


def _flat(value: Any) -> bool:
    """Whether a value reads well on one line: no list of texts, and mappings no more than two deep."""
    if isinstance(value, Mapping):
        return all(not isinstance(v, Mapping) or _flat(v) for v in value.values()) and not any(
            map(_texts, value.values())
        )
    return not _texts(value)


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(item, str) for item in value)


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{scalar(k)}: {flow(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(flow, value))}]"
    return scalar(value)


def scalar(value: Any) -> str:
    """A word, text, number, true, false or null."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        text = repr(value)
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    if isinstance(value, int):
        return str(value)
    plain = _PLAIN.fullmatch(value) and value not in _WORDS
    return value if plain else json.dumps(value, ensure_ascii=False)
