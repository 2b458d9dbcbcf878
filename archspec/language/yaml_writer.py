"""Plain data written as YAML that a person would write: short things on one line, long ones as blocks."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

WIDTH = 110
_FORMS = (str.lower, str.title, str.upper)
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*(?: [A-Za-z0-9_./=()+*~-]+)*")
_WORDS = frozenset(form(w) for w in ("true", "false", "null", "yes", "no", "on", "off") for form in _FORMS)


def dump(data: Mapping[str, Any]) -> str:
    """A mapping as a YAML document; what fits on one line stands on one line."""
    return "".join(f"{line}\n" for key, value in data.items() for line in _entry(key, value, 0))


def _entry(key: str, value: Any, indent: int) -> Iterator[str]:
    """`key: value`, at its place."""
    pad = " " * indent
    line = f"{pad}{scalar(key)}: {flow(value)}"
    if not isinstance(value, Mapping | list | tuple) or not value:
        yield line
    elif isinstance(value, Mapping):
        if len(line) <= WIDTH and _short(value, 2 if indent else 1):
            yield line
            return
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


def _short(value: Any, depth: int) -> bool:
    """Whether a mapping reads well on one line: no more than so deep, and without lists of anything but numbers."""
    if isinstance(value, Mapping):
        return depth > 0 and all(_short(child, depth - 1) for child in value.values())
    return not isinstance(value, list | tuple) or all(isinstance(item, int | float) for item in value)


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
