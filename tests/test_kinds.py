"""The folder is the registry: outside of `layers` and `modules` nobody lists kinds or asks a component by a name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from archspec.layers.base import Component
from archspec.layers.registry import ROLES, everything, kinds

FILES = [p for p in sorted(Path("archspec").rglob("*.py")) if p.parts[1] not in ("layers", "modules")]
KINDS = {kind for role in ROLES for kind in kinds(role)}
# Words that are also those of a kind, where they are something else, or the default that the language documents.
WORDS = {
    "none": "nothing is there",
    "linear": "the helper that makes every projection",
    "archspec/cli/costs.py": "options that say how attention is computed",
    "archspec/language/expect.py": "the same as settings of a promise",
    "archspec/passes/bill.py": "the same as arguments",
    "archspec/passes/explain.py": "the same as arguments",
    "archspec/report/cost.py": "the same in JSON",
    "archspec/errors.py": "a word for people",
    "archspec/language/problems.py": "words of other configurations",
    "archspec/language/block.py": "what stands where a spec says nothing",
    "archspec/language/resolve.py": "what stands where a spec says nothing",
    "archspec/language/filling.py": "what stands where a spec says nothing",
    "archspec/language/wirings.py": "the name of a wiring",
    "archspec/codegen/shorten/effects.py": "a function of PyTorch",
    "archspec/diagram/words.py": "how functions are spelled for people",
    "archspec/diagram/style.py": "the name of a colour",
    "archspec/diagram/memory.py": "a word for people",
}
ASKED = {
    name
    for kinds_of in everything().values()
    for cls in kinds_of.values()
    for name in (*cls.model_fields, *(n for c in cls.__mro__ if issubclass(c, Component) for n in vars(c)))
    if not name.startswith("_")
}


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Texts of a file that are no docstrings."""
    said = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.lineno, node.value


@pytest.mark.parametrize("file", FILES, ids=str)
def test_no_list_of_kinds(file: Path) -> None:
    found = [(line, text) for line, text in strings(ast.parse(file.read_text())) if text in KINDS and text not in WORDS]
    assert found == [] or str(file) in WORDS


def test_no_exception_outlives_its_reason() -> None:
    used = {str(f) for f in FILES if any(t in KINDS and t not in WORDS for _, t in strings(ast.parse(f.read_text())))}
    assert {name for name in WORDS if name.endswith(".py")} <= used


@pytest.mark.parametrize("file", FILES, ids=str)
def test_nobody_asks_a_component_by_a_string(file: Path) -> None:
    """A property of the role, with a default, is checked by mypy; a string that is misspelled is not."""
    calls = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call) and len(n.args) > 1]
    named = [n for n in calls if isinstance(n.func, ast.Name) and n.func.id in ("getattr", "hasattr")]
    asked = [n.args[1].value for n in named if isinstance(n.args[1], ast.Constant)]
    assert [name for name in asked if name in ASKED] == []
