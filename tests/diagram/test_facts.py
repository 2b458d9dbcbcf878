"""Pictures and tables know components and ops through typed facts alone, read from the syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from archspec.layers.registry import everything

ROOM = sorted(Path("archspec/diagram").glob("*.py"))
FILES = [*ROOM, Path("archspec/report/count.py")]
SPELLING = "words.py"  # its tables spell functions, biases and wirings for people
KINDS = {kind for kinds in everything().values() for kind in kinds} - {"none"}  # which is a word of Graphviz too
PARSING = {"partition", "rpartition", "split", "rsplit", "startswith", "endswith", "removeprefix", "removesuffix"}
PARSING |= {"match", "fullmatch", "search", "findall", "find", "index", "replace", "sub", "get"}


def parents(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def asks_by_name(tree: ast.AST) -> Iterator[str]:
    """Questions to an object under a name that no type checker sees."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in ("getattr", "hasattr"):
            yield f"line {node.lineno}: {node.id}"


def asks_for_kind(tree: ast.AST) -> Iterator[str]:
    """A `kind` that is read, and names of kinds in comparisons, cases, tables and searches."""
    above = parents(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "kind":
            yield f"line {node.lineno}: .kind"
        if isinstance(node, ast.Constant) and node.value in KINDS:
            up = above[node]
            while isinstance(up, ast.Tuple | ast.List | ast.Set):
                up = above[up]
            if isinstance(up, ast.Compare | ast.MatchValue | ast.Subscript) or is_key(node, up) or is_searched(up):
                yield f"line {node.lineno}: {node.value!r}"


def is_key(node: ast.AST, up: ast.AST) -> bool:
    return isinstance(up, ast.Dict) and node in up.keys


def is_searched(up: ast.AST) -> bool:
    return isinstance(up, ast.Call) and isinstance(up.func, ast.Attribute) and up.func.attr in PARSING


def reads_notes(tree: ast.AST) -> Iterator[str]:
    """A remark that is looked into: a method of it, a comparison with it, a search in it."""
    above = parents(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "note":
            up = above[node]
            if isinstance(up, ast.Attribute | ast.Compare | ast.Subscript) or is_searched(up):
                yield f"line {node.lineno}: {ast.unparse(up)}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_nothing_is_asked_by_name(path: Path) -> None:
    assert list(asks_by_name(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize("path", [p for p in ROOM if p.name != SPELLING], ids=lambda p: p.stem)
def test_no_picture_asks_for_a_kind(path: Path) -> None:
    assert list(asks_for_kind(ast.parse(path.read_text()))) == []


def test_the_spelling_knows_no_components() -> None:
    tree = ast.parse(Path("archspec/diagram", SPELLING).read_text())
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [m for m in modules if m and m.startswith("archspec.")]


@pytest.mark.parametrize("path", ROOM, ids=lambda p: p.stem)
def test_no_picture_has_a_remark(path: Path) -> None:
    assert [n.lineno for n in ast.walk(ast.parse(path.read_text())) if getattr(n, "attr", "") == "note"] == []


def test_the_report_only_prints_remarks() -> None:
    assert list(reads_notes(ast.parse(Path("archspec/report/count.py").read_text()))) == []


@pytest.mark.parametrize(
    "text",
    ["getattr(op, 'mask', '')", "hasattr(op, 'latent')", "c.kind", "x == 'mamba'", "x in ('lm', 'masked_lm')",
     "{'patch': 1}", "t['patch']", "t.get('patch')", "row.note.split(';')", "'buffer' in row.note",
     "re.match('a', op.note)", "row.note == 'a'"],
)  # fmt: skip
def test_each_way_around_the_facts_is_found(text: str) -> None:
    tree = ast.parse(text)
    assert [*asks_by_name(tree), *asks_for_kind(tree), *reads_notes(tree)]
