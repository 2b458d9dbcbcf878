"""The import lines of a generated file, in the order that ruff's isort rules want."""

import sys
from collections.abc import Collection

from archspec.codegen.folding import folded

Import = tuple[str, str, str]  # module, name in it ("" for the module itself), name here


def import_lines(imports: Collection[Import], read: Collection[str]) -> list[str]:
    """The lines that import the names that a file reads: the standard library, then others, then archspec."""
    kept = sorted(i for i in imports if i[2].split(".")[0] in read)
    lines: list[str] = []
    for number in range(3):
        own = [i for i in kept if _group(i[0]) == number]
        plain = [f"import {m}" if m == alias else f"import {m} as {alias}" for m, name, alias in own if not name]
        found = plain + [_from(m, own) for m in dict.fromkeys(m for m, name, _ in own if name)]
        lines += ["", *found] if lines and found else found
    return lines


def _group(module: str) -> int:
    top = module.split(".")[0]
    return 0 if top in sys.stdlib_module_names else 2 if top == "archspec" else 1


def _from(module: str, kept: list[Import]) -> str:
    names = sorted({(i[1], i[2]) for i in kept if i[0] == module and i[1]}, key=lambda n: _isort(n[0]))
    inside = ", ".join(name if name == alias else f"{name} as {alias}" for name, alias in names)
    return folded(f"from {module} import {inside}")


def _isort(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, each in alphabetical order: what ruff's isort rule wants."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, name
